"""From DuckDB's dialect to another engine's, by sqlglot; and what a statement gives, without running it.

What belongs here: the translation and the few places where the two engines mean different things by the same words.
What stays out: running anything.
"""

import functools

import sqlglot


@functools.cache
def columns_of(sql: str) -> frozenset[str]:
    """The names of the columns that a query gives."""
    query = sqlglot.parse_one(sql, read="duckdb")
    return frozenset(query.named_selects if isinstance(query, sqlglot.exp.Query) else ())
