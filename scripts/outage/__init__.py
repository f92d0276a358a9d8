"""The parts of outage.py: an object store that is away for minutes, and what that does to a capture.

What belongs here: the measuring harness. What stays out: anything the package needs.
"""
