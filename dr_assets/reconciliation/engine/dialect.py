"""From DuckDB's dialect to Spark's, by sqlglot; and what a statement gives, without running it.

What belongs here: the translation and the few places where the two engines mean different things by the same words.
What stays out: running anything.
"""

import functools

import sqlglot
from sqlglot import exp

_EXACT = exp.DataType.build("DECIMAL(38, 0)")


@functools.cache
def columns_of(sql: str) -> frozenset[str]:
    """The names of the columns that a query gives."""
    query = sqlglot.parse_one(sql, read="duckdb")
    return frozenset(query.named_selects if isinstance(query, exp.Query) else ())


@functools.cache
def tables_of(sql: str) -> frozenset[str]:
    """The names of the tables that a query reads, those of its own WITH among them."""
    return frozenset(table.name for table in sqlglot.parse_one(sql, read="duckdb").find_all(exp.Table))


@functools.cache
def names_in(sql: str) -> frozenset[str]:
    """The names of the columns that a query mentions."""
    return frozenset(column.name for column in sqlglot.parse_one(sql, read="duckdb").find_all(exp.Column))


@functools.cache
def to_spark(sql: str) -> str:
    """A statement for Spark that gives what this one gives in DuckDB."""
    return sqlglot.parse_one(sql, read="duckdb").transform(_exact).sql(dialect="spark", comments=False)


@functools.cache
def once_for_spark(sql: str) -> tuple[dict[str, str], str]:
    """What a statement says `MATERIALIZED` of, by name and in order, and the statement without it, both for Spark.

    Spark computes a WITH anew for each that reads it: one within another, that grows with the power of their number.
    """
    statement = sqlglot.parse_one(sql, read="duckdb")
    first: dict[str, str] = {}
    before: list[exp.CTE] = []
    for cte in list(statement.ctes) if isinstance(statement, exp.Query) else []:
        if cte.args.get("materialized"):
            query = cte.this.copy()
            for each in before:
                query = query.with_(each.alias, each.this.copy())
            first[cte.alias] = query.transform(_exact).sql(dialect="spark", comments=False)
            cte.pop()
        else:
            before.append(cte)
    return first, statement.transform(_exact).sql(dialect="spark", comments=False)


def _exact(node: exp.Expression) -> exp.Expression:
    """Whole numbers as wide as DuckDB's: its HUGEINT, and its sums, which Spark would let overflow at 64 bits."""
    if isinstance(node, exp.DataType) and node.is_type("int128"):
        return _EXACT.copy()
    if isinstance(node, exp.Anonymous) and node.name.lower() == "hash":
        node.set("this", "xxhash64")  # what Spark calls hash has 32 bits
    if isinstance(node, exp.CTE):
        node.set("materialized", None)  # Spark has no word for it
    if isinstance(node, exp.Sum):
        node.set("this", exp.Cast(this=node.this, to=_EXACT.copy()))
    return node
