"""`make bench-postgres`: base backup, restore, PITR, WAL archiving, lag, cost and memory, beside other tools.

What belongs here: driving the tools as their users do, and reading clocks from outside. What stays out: anything that
the product itself needs.
"""
