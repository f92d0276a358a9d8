"""`dr-assets doctor`: many small looks, each bounded in time, none hiding another.

What belongs here: probes of what a capture and a restore rest on, and their table. What stays out: rules of their own;
a probe says what a rule elsewhere says, in one line with a hint.
"""
