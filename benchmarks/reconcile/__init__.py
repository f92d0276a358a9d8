"""`make bench-reconcile`: ten million postings against ten million settlement lines, and ten times that by spilling.

What belongs here: made-up books and files of that size, and reading clocks and memory from outside. What stays out:
anything that the product itself needs.
"""
