"""DuckDB: in this process, bounded in memory, spilling to a folder that is gone afterwards.

What belongs here: the port over DuckDB. What stays out: the statements.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.engine.port import no_query, not_computed
from dr_assets.reconciliation.engine.spool import begun, can_spool, spool
from dr_assets.reconciliation.externals import Source, paths_of
from dr_assets.reconciliation.relations import HASHED

_SMALL_BYTES: Final = 16 << 20


class DuckDb:
    """The default engine. What doesn't fit `memory_limit` is spilled; without a `folder` every relation is a table."""

    name: Final = "duckdb"

    def __init__(self, database: duckdb.DuckDBPyConnection, folder: Path | None = None) -> None:
        self._database = database
        self._folder = folder

    def load(self, relation: str, source: Source) -> int:
        """A table of few rows; many lie in a Parquet file, and files are read in place. Threads have a connection each.

        A table of many would take the memory that joins need, and be written out and read back whole for each. Hashes
        lie in that file as well: whatever is looked for by one is looked for within the scan.
        """
        hashed = HASHED.get(relation)
        if isinstance(source, pa.RecordBatchReader) and self._folder is not None and can_spool(source.schema):
            source = _table_or_file(source, self._folder / f"{relation}.parquet", hashed)
            if isinstance(source, Path):
                hashed = None  # it is in the file
        paths = paths_of(source)
        with self._database.cursor() as own:
            if paths is None:
                own.register("arriving", source)
                columns = "*" if hashed is None else _columns(own.table("arriving").columns, hashed)
                own.execute(f"CREATE TABLE {relation} AS SELECT {columns} FROM arriving")  # noqa: S608 - names
                own.unregister("arriving")
            else:
                files = f"read_parquet([{', '.join(_literal(str(path)) for path in paths)}])"
                columns = "*" if hashed is None else _columns(own.sql(f"FROM {files}").columns, hashed)
                own.execute(f"CREATE VIEW {relation} AS SELECT {columns} FROM {files}")  # noqa: S608 - quoted
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


def _table_or_file(stream: pa.RecordBatchReader, path: Path, hashed: str | None) -> pa.Table | Path:
    """A stream's rows: a table if they are few, else in a file at `path`, with their hashes."""
    table, batches = begun(stream, _SMALL_BYTES)
    if table is not None:
        return table
    if hashed is None or hashed not in stream.schema.names:
        spool(batches, stream.schema, path)
    else:
        # A database of its own, which keeps the order of rows: a hash has to lie beside its text.
        with duckdb.connect(config={"threads": 1, "preserve_insertion_order": True}) as hashing:
            spool(batches, stream.schema, path, with_more=partial(_with_hash, hashing, hashed))
    return path


def _columns(names: list[str], hashed: str) -> str:
    """What is selected of a source with these columns: with the hash of one, which a source cannot bring itself."""
    quoted = [_name(name) for name in _taken(names, hashed)]
    if hashed in names:
        quoted.append(f"CASE WHEN {hashed} IS NOT NULL THEN hash({hashed}) END AS {hashed}_hash")
    return ", ".join(quoted)


def _taken(names: list[str], hashed: str) -> list[str]:
    """Without what would be called as the hash is: engines do not tell names apart by their case."""
    return [name for name in names if name.lower() != f"{hashed}_hash"]


def _with_hash(hashing: duckdb.DuckDBPyConnection, hashed: str, group: pa.Table) -> pa.Table:
    """Rows with the hash that `_columns` tells of, in their order. Nothing else of them is touched."""
    name = f"{hashed}_hash"
    hashes = hashing.from_arrow(group.select([hashed])).project(_columns([hashed], hashed)).to_arrow_table()
    return group.select(_taken(group.column_names, hashed)).append_column(name, hashes.column(name))


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


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
