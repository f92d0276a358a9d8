"""Signed signs of life in the source's own tables: they date the WAL by the source's clock.

What belongs here: the table, what is signed, writing one beat, reading and verifying a row. What stays out: when to
beat (watch.py), matching beats with the stream (pieces.py).

A beat says: every commit made before `at` lies before the beat's own commit in the WAL. A restore that finds a beat
therefore holds everything the source had committed before `at`, and the signature proves that our capture wrote it.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import psycopg

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.session import Connection
from dr_assets.vault.signing import Signer, Trust

SIGNATURE_DOMAIN = b"dr-assets heartbeat v1"

_TABLE = """
CREATE TABLE IF NOT EXISTS dr_assets.heartbeat (
    dataset   text PRIMARY KEY,
    estate    text NOT NULL,
    seq       bigint NOT NULL,
    at        timestamptz NOT NULL,
    system_id text NOT NULL,
    epoch     bigint NOT NULL,
    signer_id text NOT NULL,
    signature bytea NOT NULL
) WITH (fillfactor = 50)
"""
_WRITE = """
INSERT INTO dr_assets.heartbeat AS beat (dataset, estate, seq, at, system_id, epoch, signer_id, signature)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (dataset) DO UPDATE SET (estate, seq, at, system_id, epoch, signer_id, signature)
    = (excluded.estate, excluded.seq, excluded.at, excluded.system_id, excluded.epoch, excluded.signer_id,
       excluded.signature)
"""
# Whoever may write there may have put a view in its place, or other types: nothing of ours is signed with those.
_READ = """
SELECT estate::text, dataset::text, seq::bigint, at::timestamptz, system_id::text, epoch::bigint, signer_id::text,
       signature::bytea
FROM dr_assets.heartbeat WHERE dataset::text = %s
"""
_KIND = "SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass('dr_assets.heartbeat')"
_ORDINARY_TABLE = "r"


@dataclass(frozen=True, slots=True)
class HeartbeatRow:
    """One row of dr_assets.heartbeat. `at` is the source's clock (aware UTC), taken before the row was written."""

    estate: str
    dataset: str
    seq: int
    at: datetime
    system_id: str
    epoch: int
    signer_id: str
    signature: bytes = b""

    def signed_text(self) -> bytes:
        """What the signature covers: every other field, one a line, in a fixed order."""
        at = self.at.astimezone(UTC).isoformat(timespec="microseconds")
        fields = (self.estate, self.dataset, self.seq, at, self.system_id, self.epoch, self.signer_id)
        return "\n".join(str(field) for field in fields).encode()


@dataclass(frozen=True, slots=True)
class Beat:
    """A beat that is committed: whoever holds the WAL up to `lsn` holds every commit made before `at`."""

    row: HeartbeatRow
    lsn: int


class Heartbeat:
    """Writes the beats of one dataset. Not for several threads at once."""

    def __init__(self, signer: Signer, *, estate: str, dataset: str, system_id: str, epoch: int) -> None:
        self._signer = signer
        self._seq = 0
        epoch_at = datetime(1970, 1, 1, tzinfo=UTC)
        self._blank = HeartbeatRow(estate, dataset, 0, epoch_at, system_id, epoch, signer.signer_id)

    def write(self, connection: Connection) -> Beat:
        """Write and commit one beat. Raises psycopg.Error.

        The connection must be autocommit. The flush position is read after the commit returned, so it lies at or
        behind the beat's commit record.
        """
        self._seq += 1
        row = replace(self._blank, seq=self._seq, at=source_clock(connection))
        row = replace(row, signature=self._signer.sign(SIGNATURE_DOMAIN, row.signed_text()))
        connection.execute(
            _WRITE,
            (row.dataset, row.estate, row.seq, row.at, row.system_id, row.epoch, row.signer_id, row.signature),
        )
        return Beat(row, flushed_lsn(connection))


def ensure_heartbeat_table(connection: Connection) -> None:
    """Create schema and table where absent. Raises psycopg.Error, InsufficientPrivilege without CREATE rights.

    Looks first: CREATE SCHEMA IF NOT EXISTS demands the right even when there is nothing to do.
    """
    if connection.execute("SELECT to_regclass('dr_assets.heartbeat')").fetchone() != (None,):
        return
    if connection.execute("SELECT to_regnamespace('dr_assets')").fetchone() == (None,):
        connection.execute("CREATE SCHEMA IF NOT EXISTS dr_assets")
    connection.execute(_TABLE)


def read_heartbeat(connection: Connection, dataset: str) -> HeartbeatRow | None:
    """The newest beat that a database holds, None when it holds none.

    Raises psycopg.Error, VaultError (`heartbeat.not_ours`) for what no capture made.
    """
    kind = connection.execute(_KIND).fetchone()
    if kind is None:
        return None
    if kind != (_ORDINARY_TABLE,):
        raise _not_ours(f"it is no table, its kind is {kind[0]!r}")
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        row = cursor.execute(_READ, (dataset,)).fetchone()
    if row is not None and None in row:
        raise _not_ours("its row leaves fields out")
    return None if row is None else HeartbeatRow(*row)


def _not_ours(found: str) -> VaultError:
    return VaultError(
        "heartbeat.not_ours", f"dr_assets.heartbeat: {found}", "drop it at the source; the capture makes it again"
    )


def verify_heartbeat(row: HeartbeatRow, trust: Trust) -> None:
    """Pass, or raise VaultError when the row was not signed, field for field, by a signer the trust file lists."""
    trust.verify(
        row.signer_id, row.signature, SIGNATURE_DOMAIN, row.signed_text(), name=f"the heartbeat row of {row.dataset}"
    )


def source_clock(connection: Connection) -> datetime:
    """The source's clock now, aware UTC. Raises psycopg.Error."""
    found = connection.execute("SELECT clock_timestamp()").fetchone()
    if found is None or not isinstance(found[0], datetime):
        raise psycopg.DataError("the server did not tell its time")
    return found[0].astimezone(UTC)


def flushed_lsn(connection: Connection) -> int:
    """How far the source's WAL is on its disk. Raises psycopg.Error."""
    found = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    return parse_lsn(str(found[0] if found else ""))
