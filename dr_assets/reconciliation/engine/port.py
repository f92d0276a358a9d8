"""The port: what a set engine has to do for the checks.

What belongs here: the protocol, and the errors that every engine raises. What stays out: how an engine does it. Every
statement is written in DuckDB's dialect.
"""

import re
from typing import Final, Protocol

import pyarrow as pa

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.reconciliation.externals import Source

_QUOTED: Final = re.compile(r"'[^']*'")  # a row's own value


class Engine(Protocol):
    """Relations by name, statements over them. Used by one run and closed with it."""

    @property
    def name(self) -> str:
        """What a result says it was computed by."""
        ...

    def load(self, relation: str, source: Source) -> int:
        """Make a relation of a stream, a table or Parquet files; its rows. May be called by several threads at once."""
        ...

    def define(self, view: str, sql: str) -> None:
        """Give a query a name. Raises PolicyError (`reconciliation.sql`) for no query over what is there."""
        ...

    def keep(self, relation: str, sql: str) -> None:
        """Run a query once and keep its rows under a name, instead of what was kept under it before."""
        ...

    def rows(self, sql: str) -> pa.Table:
        """Run a query for its rows, which have to fit in memory."""
        ...


def no_query(view: str, error: Exception) -> PolicyError:
    """What `define` raises for what its engine said."""
    return PolicyError(
        "reconciliation.sql",
        f"{view}: {str(error).splitlines()[0]}",
        "write DuckDB SQL over the columns that the relations give",
    )


def not_computed(engine: str, error: Exception, said: str, which: str) -> SourceError:
    """What an engine raises while it computes; of what it `said` nothing that a row holds. `which`: where to look."""
    harmless = _QUOTED.sub("'…'", said)
    return SourceError(
        "reconciliation.engine",
        f"{engine} cannot compute this ({type(error).__name__}): {harmless}",
        f"an amount beyond 64 bits, or a contract's expression that fails on a row: {which}",
    )
