"""From a restored Postgres into an engine: one consistent snapshot, streamed as Arrow, memory bounded.

What belongs here: the snapshot, the comparison of a contract with what the database really gives, the load. What stays
out: judging rows (checks/). Amounts arrive as 64-bit integers or not at all: a float or a numeric is refused.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
from adbc_driver_manager import Error as AdbcError
from adbc_driver_postgresql import dbapi

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.reconciliation.checks import Check
from dr_assets.reconciliation.contract import Contract
from dr_assets.reconciliation.engine.dialect import names_in
from dr_assets.reconciliation.engine.port import Engine
from dr_assets.reconciliation.externals import Externals
from dr_assets.reconciliation.relations import LEDGER, OPTIONAL, RELATIONS, Column, Kind
from dr_assets.stores.postgres.dsn import describe_dsn, masked

_ACCEPTS: dict[Kind, tuple[str, tuple[str, ...]]] = {
    "id": ("a whole number or a text (cast a uuid to text)", ("int64", "int32", "int16", "string")),
    "minor": ("a bigint (cast a numeric in the contract, in minor units)", ("int64", "int32", "int16")),
    "text": ("a text", ("string",)),
    "flag": ("a boolean", ("bool",)),
    "bytes": ("a bytea", ("binary",)),
}
# undefined table, column, schema, function; no privilege; a syntax error in the contract's own SQL
_CONTRACT_STATES = frozenset({"42P01", "42703", "3F000", "42883", "42501", "42601"})
_LARGEST_FIRST = ["postings", *(name for name in LEDGER | OPTIONAL if name != "postings")]
_SNAPSHOT = """
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, current_setting('server_version'),
           pg_is_in_recovery(),
           (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text,
           pg_export_snapshot()
"""


@dataclass(frozen=True)
class Snapshot:
    """What was read, and when on the server's clock. `lsn` is the server's position when the snapshot was taken."""

    at: datetime
    server_version: str
    in_recovery: bool
    lsn: str | None


@dataclass(frozen=True)
class Reading:
    """An open transaction, and how others come to read the very same rows beside it."""

    dsn: str
    cursor: dbapi.Cursor
    snapshot: Snapshot
    exported: str

    @contextmanager
    def beside(self) -> Iterator[dbapi.Cursor]:
        """A cursor of a further connection that sees the same snapshot."""
        with _transaction(self.dsn) as cursor:
            cursor.execute(f"SET TRANSACTION SNAPSHOT '{self.exported}'")
            yield cursor


@contextmanager
def reading(dsn: str) -> Iterator[Reading]:
    """One repeatable-read, read-only transaction. Raises SourceError (`reconciliation.source`).

    Errors while the caller reads become the same SourceError, so the caller needs no ADBC of its own.
    """
    with _transaction(dsn) as cursor:
        cursor.execute(_SNAPSHOT)
        at_us, version, in_recovery, lsn, exported = cursor.fetchall()[0]
        taken = Snapshot(datetime.fromtimestamp(at_us / 1e6, UTC), version, in_recovery, lsn)
        yield Reading(dsn, cursor, taken, exported)


@contextmanager
def _transaction(dsn: str) -> Iterator[dbapi.Cursor]:
    where = describe_dsn(dsn)
    try:
        with dbapi.connect(dsn, autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield cursor
    except AdbcError as error:
        raise SourceError(
            "reconciliation.source",
            f"{where} cannot be read: {masked(str(error), dsn)}",
            "check that the restored server runs and that this role may read the ledger's tables",
        ) from None


@dataclass(frozen=True)
class Unmet:
    """One thing that a database lacks for a contract."""

    relation: str
    found: str


def compare_with_source(cursor: dbapi.Cursor, contract: Contract) -> None:
    """Refuse a contract that this database does not fulfil. Raises PolicyError (`reconciliation.contract_unmet`)."""
    unmet, _ = unmet_by_source(cursor, contract)
    if unmet:
        first, *others = unmet
        more = f" (and {len(others)} more: `dr-assets contract check` lists them)" if others else ""
        raise PolicyError(
            "reconciliation.contract_unmet",
            f"contract {contract.name}, relation {first.relation}: {first.found}{more}",
            f"make the query of {first.relation} fit this database, or name the dataset's right contract",
        )


def unmet_by_source(
    cursor: dbapi.Cursor, contract: Contract, anew: Callable[[], dbapi.Cursor] | None = None
) -> tuple[list[Unmet], dict[str, pa.Schema]]:
    """Everything that this database lacks for a contract, and what each relation gives where its query can be run.

    A query that Postgres refuses ends the transaction: `anew` gives a cursor in another. Without it nothing more is
    asked then.
    """
    unmet: list[Unmet] = []
    schemas: dict[str, pa.Schema] = {}
    ids: dict[str, tuple[str, bool]] = {}
    for relation, query in contract.queries.items():
        try:
            schemas[relation] = cursor.adbc_execute_schema(query)
        except AdbcError as error:
            if error.sqlstate not in _CONTRACT_STATES:
                raise
            unmet.append(Unmet(relation, _first_line(error)))
            if anew is None:
                return unmet, schemas
            cursor = anew()
            continue
        for column in contract.columns(relation):
            found = _unfit(column, schemas[relation])
            if found is None and column.kind == "id":
                is_text = pa.types.is_string(schemas[relation].field(column.name).type)
                first, first_is_text = ids.setdefault(column.name, (relation, is_text))
                if is_text != first_is_text:
                    found = f"{column.name} is of another type here than in {first}"
            if found is not None:
                unmet.append(Unmet(relation, found))
    return unmet, schemas


def _unfit(column: Column, schema: pa.Schema) -> str | None:
    if schema.get_field_index(column.name) < 0:
        return f"it gives no column {column.name} (it gives {', '.join(schema.names)})"
    found = str(schema.field(column.name).type)
    wanted, accepted = _ACCEPTS[column.kind]
    return None if found in accepted else f"{column.name} is {found}, expected {wanted}"


def _first_line(error: AdbcError) -> str:
    """Postgres's own words without the driver's frame and without the query's text."""
    return str(error).split("ERROR:")[-1].strip().splitlines()[0]


def load(
    source: Reading, contract: Contract, engine: Engine, checks: Sequence[Check], externals: Externals, threads: int
) -> tuple[dict[str, int], dict[str, float]]:
    """Load what the checks read, several relations at once. Returns rows and seconds per relation.

    Of a contract's relation only those columns travel that a check or an expression of the contract names. Postings
    that no check reads are counted all the same: how long the ledger is belongs to what was judged.
    """
    wanted = {relation for check in checks for relation in (*check.reads, *check.uses)} | {"accounts"}
    named = _named(contract, checks)

    def timed(work: Callable[[], int]) -> tuple[int, float]:
        begin_s = time.monotonic()
        return work(), round(time.monotonic() - begin_s, 3)

    def extracted(relation: str) -> int:
        with source.beside() as cursor:
            given = cursor.adbc_execute_schema(contract.queries[relation]).names
            kept = [name for name in given if name in named] or given
            columns = ", ".join('"' + name.replace('"', '""') + '"' for name in kept)
            cursor.execute(f"SELECT {columns} FROM ({contract.queries[relation]}) AS given")  # noqa: S608 - a contract is code
            return engine.load(relation, cursor.fetch_record_batch())

    def counted(relation: str) -> int:
        with source.beside() as cursor:
            cursor.execute(f"SELECT count(*) FROM ({contract.queries[relation]}) AS given")  # noqa: S608 - as above
            return int(cursor.fetchall()[0][0])

    # The largest first: what is left fits into the gaps.
    order = sorted(wanted & set(contract.queries), key=_LARGEST_FIRST.index)
    work: dict[str, Callable[[], int]] = {one: partial(extracted, one) for one in order}
    work |= {one: partial(engine.load, one, given) for one, given in externals.items() if one in wanted}
    unseen = sorted({"postings"} - wanted)
    work |= {one: partial(counted, one) for one in unseen}
    with ThreadPoolExecutor(max_workers=threads) as pool:
        running = {relation: pool.submit(timed, one) for relation, one in work.items()}
        done = {relation: future.result() for relation, future in running.items()}
    seconds = {one: duration_s for one, (_, duration_s) in done.items() if one not in unseen}
    return {one: rows for one, (rows, _) in done.items()}, seconds


def _named(contract: Contract, checks: Sequence[Check]) -> set[str]:
    """Every column that a check, a shared view or a text of the contract names, and every id."""
    texts = [sql for check in checks for sql in (check.sql, check.matched_sql, check.kept_sql) if sql]
    own = {column.name for columns in RELATIONS.values() for column in columns}
    return (
        own
        | {name for text in texts for name in names_in(text)}
        | {name for text in (contract.chain_text, contract.digest_text) if text for name in names_in(f"SELECT {text}")}
    )
