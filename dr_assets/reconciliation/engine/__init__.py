"""Where the checks' SQL runs: one port, DuckDB by default, Spark for a ledger that outgrows one machine.

What belongs here: loading relations, running statements, carrying DuckDB's dialect to another engine's. What stays out:
the rules themselves (checks/) and where rows come from (extract.py, externals.py).
"""
