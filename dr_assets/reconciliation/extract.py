"""From a restored Postgres into an engine: one consistent snapshot, streamed as Arrow, memory bounded.

What belongs here: the snapshot, the comparison of a contract with what the database really gives, the load. What stays
out: judging rows (checks/). Amounts arrive as 64-bit integers or not at all: a float or a numeric is refused.
"""

import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
from adbc_driver_manager import Error as AdbcError
from adbc_driver_postgresql import dbapi

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.reconciliation.contract import Contract
from dr_assets.reconciliation.engine.port import Engine
from dr_assets.reconciliation.relations import Column, Kind
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
_SNAPSHOT = """
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, current_setting('server_version'),
           pg_is_in_recovery(),
           (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text
"""


@dataclass(frozen=True)
class Snapshot:
    """What was read, and when on the server's clock. `lsn` is the server's position when the snapshot was taken."""

    at: datetime
    server_version: str
    in_recovery: bool
    lsn: str | None


@contextmanager
def reading(dsn: str) -> Iterator[tuple[dbapi.Cursor, Snapshot]]:
    """A cursor in one repeatable-read, read-only transaction. Raises SourceError (`reconciliation.source`).

    Errors while the caller reads become the same SourceError, so the caller needs no ADBC of its own.
    """
    where = describe_dsn(dsn)
    try:
        with dbapi.connect(dsn, autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(_SNAPSHOT)
            at_us, version, in_recovery, lsn = cursor.fetchall()[0]
            yield cursor, Snapshot(datetime.fromtimestamp(at_us / 1e6, UTC), version, in_recovery, lsn)
    except AdbcError as error:
        raise SourceError(
            "reconciliation.source",
            f"{where} cannot be read: {masked(str(error), dsn)}",
            "check that the restored server runs and that this role may read the ledger's tables",
        ) from None


def compare_with_source(cursor: dbapi.Cursor, contract: Contract) -> None:
    """Refuse a contract that this database does not fulfil. Raises PolicyError (`reconciliation.contract_unmet`)."""
    ids: dict[str, tuple[str, bool]] = {}
    for relation, query in contract.queries.items():
        try:
            schema = cursor.adbc_execute_schema(query)
        except AdbcError as error:
            if error.sqlstate not in _CONTRACT_STATES:
                raise
            raise _unmet(contract, relation, _first_line(error)) from None
        for column in contract.columns(relation):
            _compare_column(contract, relation, column, schema)
            if column.kind == "id":
                is_text = pa.types.is_string(schema.field(column.name).type)
                first, first_is_text = ids.setdefault(column.name, (relation, is_text))
                if is_text != first_is_text:
                    raise _unmet(contract, relation, f"{column.name} is of another type here than in {first}")


def _compare_column(contract: Contract, relation: str, column: Column, schema: pa.Schema) -> None:
    if schema.get_field_index(column.name) < 0:
        raise _unmet(contract, relation, f"it gives no column {column.name} (it gives {', '.join(schema.names)})")
    found = str(schema.field(column.name).type)
    wanted, accepted = _ACCEPTS[column.kind]
    if found not in accepted:
        raise _unmet(contract, relation, f"{column.name} is {found}, expected {wanted}")


def _first_line(error: AdbcError) -> str:
    """Postgres's own words without the driver's frame and without the query's text."""
    return str(error).split("ERROR:")[-1].strip().splitlines()[0]


def _unmet(contract: Contract, relation: str, found: str) -> PolicyError:
    return PolicyError(
        "reconciliation.contract_unmet",
        f"contract {contract.name}, relation {relation}: {found}",
        f"make the query of {relation} fit this database, or name the dataset's right contract",
    )


def load(
    cursor: dbapi.Cursor, contract: Contract, engine: Engine, wanted: Container[str]
) -> tuple[dict[str, int], dict[str, float]]:
    """Stream every wanted relation of the contract into the engine. Returns rows and seconds per relation.

    All columns come along: the contract's expressions may use more than the checks require.
    """
    rows: dict[str, int] = {}
    duration_s: dict[str, float] = {}
    for relation, query in contract.queries.items():
        if relation in wanted:
            begin_s = time.monotonic()
            cursor.execute(query)
            rows[relation] = engine.load(relation, cursor.fetch_record_batch())
            duration_s[relation] = round(time.monotonic() - begin_s, 3)
    return rows, duration_s
