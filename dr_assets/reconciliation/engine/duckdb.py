"""DuckDB: in this process, bounded in memory, spilling to a folder that is gone afterwards.

What belongs here: the port over DuckDB. What stays out: the statements.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.engine.port import no_query, not_computed
from dr_assets.reconciliation.engine.spool import begun, can_spool, spool
from dr_assets.reconciliation.externals import Source, paths_of

_SMALL_BYTES: Final = 16 << 20


class DuckDb:
    """The default engine. What doesn't fit `memory_limit` is spilled; without a `folder` every relation is a table."""

    name: Final = "duckdb"

    def __init__(self, database: duckdb.DuckDBPyConnection, folder: Path | None = None) -> None:
        self._database = database
        self._folder = folder

    def load(self, relation: str, source: Source) -> int:
        """A table of few rows; many lie in a Parquet file, and files are read in place. Threads have a connection each.

        A table of many would take the memory that joins need, and be written out and read back whole for each.
        """
        if isinstance(source, pa.RecordBatchReader) and self._folder is not None and can_spool(source.schema):
            source = _table_or_file(source, self._folder / f"{relation}.parquet")
        paths = paths_of(source)
        with self._database.cursor() as own:
            if paths is None:
                own.register("arriving", source)
                own.execute(f"CREATE TABLE {relation} AS SELECT * FROM arriving")  # noqa: S608 - a name of ours
                own.unregister("arriving")
            else:
                files = ", ".join(_literal(str(path)) for path in paths)
                own.execute(f"CREATE VIEW {relation} AS SELECT * FROM read_parquet([{files}])")  # noqa: S608 - quoted
            return int(own.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0])  # noqa: S608 - as above

    def define(self, view: str, sql: str) -> None:
        """A view."""
        try:
            self._database.execute(f"CREATE VIEW {view} AS {sql}")
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
            raise no_query(view, error) from None

    def keep(self, relation: str, sql: str) -> None:
        """A table, written anew."""
        self._database.execute(f"CREATE OR REPLACE TABLE {relation} AS {sql}")

    def rows(self, sql: str) -> pa.Table:
        """The rows as one Arrow table."""
        return self._database.sql(sql).to_arrow_table()


def _table_or_file(stream: pa.RecordBatchReader, path: Path) -> pa.Table | Path:
    """A stream's rows: a table if they are few, else in a file at `path`."""
    table, batches = begun(stream, _SMALL_BYTES)
    if table is None:
        spool(batches, stream.schema, path)
        return path
    return table


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def duckdb_engine(workdir: Path | None, memory_limit: str, threads: int) -> Iterator[DuckDb]:
    """In memory, with files and what is spilled under `workdir`: a database file took four times as long to write."""
    with tempfile.TemporaryDirectory(prefix="reconcile-", dir=workdir) as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": threads,
            "temp_directory": folder,
            "preserve_insertion_order": False,
        }
        try:
            with duckdb.connect(config=settings) as database:
                yield DuckDb(database, Path(folder))
        except duckdb.OutOfMemoryException:
            raise PolicyError(
                "reconciliation.memory",
                f"the ledger's checks do not fit {memory_limit} of memory and the disk of the working folder",
                "raise memory_limit, or name a workdir with more room to spill",
            ) from None
        except duckdb.Error as error:
            said = (str(error).splitlines() or [""])[0]
            raise not_computed("DuckDB", error, said, "the message says which") from None
