"""Counting what a crash cost: acknowledged commits against the transfers that a restored casino has.

What belongs here: the set difference, and when the loss began. What stays out: restoring, and judging the money.
A transfer counts as restored only with its id *and* its idempotency key: after a restore the id sequence hands out
the lost numbers again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
from adbc_driver_manager import Error as AdbcError
from adbc_driver_postgresql import dbapi

from dr_assets.casino.acks import Ack, AckRecord, read_acks
from dr_assets.estate.errors import SourceError

_LISTED = 1000
_DIFFERENCE = """
    SELECT count(*),
           arg_min(transfer_id, at_ns), arg_min(idempotency_key, at_ns), min(at_ns),
           arg_max(transfer_id, at_ns), arg_max(idempotency_key, at_ns), max(at_ns)
    FROM acks ANTI JOIN restored USING (transfer_id, idempotency_key)
"""
_WARNED_LOST = f"""
    SELECT transfer_id, idempotency_key, at_ns FROM warned ANTI JOIN restored USING (transfer_id, idempotency_key)
    ORDER BY at_ns LIMIT {_LISTED}
"""  # noqa: S608 - a number of ours
# Only what these runs wrote can be in flight: opening deposits and the like were never anybody's to acknowledge here.
_IN_FLIGHT = """
    SELECT count(*), count(noted.idempotency_key)
    FROM (SELECT idempotency_key FROM restored SEMI JOIN runs ON split_part(idempotency_key, '/', 1) = run
          EXCEPT SELECT idempotency_key FROM acks EXCEPT SELECT idempotency_key FROM warned
          EXCEPT SELECT idempotency_key FROM replayed) AS in_flight
    LEFT JOIN (SELECT DISTINCT idempotency_key FROM unknown) AS noted USING (idempotency_key)
"""


@dataclass(frozen=True)
class Loss:
    """What a restored casino lacks of what its clients had been told.

    `loss_window_ms` runs from the first lost acknowledgement to the crash (or, when no crash time is given, to the last
    acknowledgement); 0.0 when nothing is lost. `unexpected` transfers were restored but never acknowledged: in flight
    when the server died, no harm; `unexpected_unknown` of them are attempts that the workload had noted as unknown.
    `replayed` attempts were answered only when they were repeated, which may be an answer read from a server that had
    not made them durable elsewhere: counted apart, neither lost nor unexpected.
    `warned` commits were answered with a WARNING (their wait for a synchronous standby was cancelled): nobody promised
    them, so their loss is no broken promise, but a client may believe in them: `warned_lost` lists them, 1000 at most.
    """

    acknowledged: int
    lost: int
    first_lost: Ack | None
    last_lost: Ack | None
    last_acknowledged_ns: int | None
    loss_window_ms: float
    unexpected: int
    unexpected_unknown: int
    unknown: int
    torn_lines: int
    warned: int = 0
    warned_lost: tuple[Ack, ...] = ()
    replayed: int = 0


def measure_loss(ack_dir: Path, dsn: str, *, crashed_at: datetime | None = None) -> Loss:
    """Compare an acknowledgement folder with the casino at `dsn` (read-only; a hot standby will do).

    `crashed_at` is on the workload's clock. Raises SourceError (`casino.unreadable`).
    """
    record = read_acks(ack_dir)
    with duckdb.connect(config={"threads": 2}) as database:
        _load(database, record, dsn)
        lost, *edges = database.execute(_DIFFERENCE).fetchall()[0]
        unexpected, unexpected_unknown = database.execute(_IN_FLIGHT).fetchall()[0]
        warned_lost = tuple(Ack(*row) for row in database.execute(_WARNED_LOST).fetchall())
        (last_acknowledged_ns,) = database.execute("SELECT max(at_ns) FROM acks").fetchall()[0]
    first, last = (Ack(*edges[:3]), Ack(*edges[3:])) if lost else (None, None)
    return Loss(
        acknowledged=record.acks.num_rows,
        lost=lost,
        first_lost=first,
        last_lost=last,
        last_acknowledged_ns=last_acknowledged_ns,
        loss_window_ms=_window_ms(first, last_acknowledged_ns, crashed_at),
        unexpected=unexpected,
        unexpected_unknown=unexpected_unknown,
        unknown=record.unknown.num_rows,
        torn_lines=record.torn_lines,
        warned=record.warned.num_rows,
        warned_lost=warned_lost,
        replayed=record.replayed.num_rows,
    )


def _window_ms(first: Ack | None, last_acknowledged_ns: int | None, crashed_at: datetime | None) -> float:
    if first is None or last_acknowledged_ns is None:
        return 0.0
    if crashed_at is not None:
        return max(0.0, (crashed_at - first.acknowledged_at).total_seconds() * 1000)
    return (last_acknowledged_ns - first.at_ns) / 1e6


def _load(database: duckdb.DuckDBPyConnection, record: AckRecord, dsn: str) -> None:
    database.register("acks_arrow", record.acks)
    database.register("unknown_arrow", record.unknown)
    database.register("warned_arrow", record.warned)
    database.register("replayed_arrow", record.replayed)
    database.execute("CREATE TABLE acks AS SELECT * FROM acks_arrow")
    database.execute("CREATE TABLE warned AS SELECT * FROM warned_arrow")
    database.execute("CREATE TABLE replayed AS SELECT * FROM replayed_arrow")
    database.execute("CREATE TABLE unknown AS SELECT * FROM unknown_arrow")
    database.execute("CREATE TABLE runs AS SELECT unnest($runs::VARCHAR[]) AS run", {"runs": list(record.runs)})
    with _reading(dsn) as cursor:
        cursor.execute("SELECT transfer_id, idempotency_key FROM casino.transfers")
        database.register("restored_arrow", cursor.fetch_record_batch())
        database.execute("CREATE TABLE restored AS SELECT * FROM restored_arrow")
        database.unregister("restored_arrow")


@contextmanager
def _reading(dsn: str) -> Iterator[dbapi.Cursor]:
    try:
        with dbapi.connect(dsn) as connection, connection.cursor() as cursor:
            yield cursor
    except AdbcError as error:
        raise SourceError(
            "casino.unreadable",
            f"the restored casino's transfers cannot be read (SQLSTATE {error.sqlstate or 'none'})",
            "check that the restored server accepts connections and holds the casino schema",
        ) from error
