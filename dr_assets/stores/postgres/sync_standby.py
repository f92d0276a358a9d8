"""Being a synchronous standby: whether commits wait for the vault, since when, and letting them go on without it.

What belongs here: what the source says, the rule that decides, ALTER SYSTEM, and the log of changes in the source's
own table. What stays out: when to look (sync_guard.py), sealing what was logged (durability_facts.py), the setting's
grammar (sync_names.py).

Nothing here waits for a standby: ALTER SYSTEM writes no WAL, and the sessions of session.py commit with
`synchronous_commit=local`.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

import psycopg
from psycopg import sql

from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.session import Connection
from dr_assets.stores.postgres.sync_names import SyncNames, parse_sync_names

SETTING: Final = "synchronous_standby_names"
SYNCHRONOUS: Final = "synchronous"
DEGRADED: Final = "degraded"
Mode = Literal["synchronous", "degraded"]

_RELOAD_WITHIN_S = 5.0
_SAMPLES_KEPT = 4096
_TABLE = """
CREATE TABLE IF NOT EXISTS dr_assets.durability (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset text NOT NULL,
    mode    text NOT NULL,
    since   timestamptz NOT NULL,
    lsn     text NOT NULL,
    reason  text NOT NULL,
    told_by text NOT NULL
)
"""
_LOOK = """
SELECT (SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'),
       pg_current_wal_flush_lsn()::text,
       (SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = %s),
       (SELECT coalesce(active, false) FROM pg_replication_slots WHERE slot_name = %s),
       clock_timestamp()
"""
_LAST = """
SELECT seq, mode, since, lsn, reason, told_by FROM dr_assets.durability WHERE dataset = %s ORDER BY seq DESC LIMIT 1
"""
_AFTER = """
SELECT seq, mode, since, lsn, reason, told_by FROM dr_assets.durability
WHERE dataset = %s AND (seq > %s OR since > %s) ORDER BY seq LIMIT 100
"""
_LOG = """
INSERT INTO dr_assets.durability (dataset, mode, since, lsn, reason, told_by)
VALUES (%s, %s, %s, %s, %s, %s)
RETURNING seq, mode, since, lsn, reason, told_by
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the log: from `since` (the source's clock, at position `lsn`) on commits were made in `mode`."""

    seq: int
    mode: str
    since: datetime
    lsn: str
    reason: str
    told_by: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """Which changes are facts: those up to number `seq` and time `since`; `mode` is the newest fact's, None before."""

    seq: int = 0
    since: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What the source said at `at` of its clock: the setting, how far its WAL is flushed, our slot has confirmed."""

    names: SyncNames
    flushed_lsn: int
    vaulted_lsn: int
    is_streaming: bool
    at: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    def mode(self, name: str) -> Mode:
        """Whether a commit waits for us now."""
        return SYNCHRONOUS if self.names.has(name) and self.names.requires_all else DEGRADED


@dataclass(slots=True)
class Behind:
    """How long WAL has been waiting for the vault, seen from outside: positions that were flushed at known times."""

    _samples: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_SAMPLES_KEPT))

    def note(self, look: Look, now_s: float) -> None:
        """A new look, `now_s` on a monotonic clock."""
        while self._samples and self._samples[0][0] <= look.vaulted_lsn:
            self._samples.popleft()
        newest = self._samples[-1][0] if self._samples else look.vaulted_lsn
        if look.flushed_lsn > newest and len(self._samples) < _SAMPLES_KEPT:
            self._samples.append((look.flushed_lsn, now_s))

    def age_s(self, now_s: float) -> float:
        """For how long at least the oldest WAL that is not vaulted has been waiting; 0 when all seen is vaulted."""
        return now_s - self._samples[0][1] if self._samples else 0.0


@dataclass(slots=True)
class Rule:
    """When the source goes on without us, and when it waits for us again. Pure; times on a monotonic clock.

    After a degradation commits wait again once the vault has been at most `caught_up_s` behind for `rearm_after_s`
    without a break; each degradation in short order doubles that, so that a vault that comes and goes does not make
    every commit of the casino wait `degrade_after_s` again and again.
    """

    name: str
    degrade_after_s: float | None
    rearm_after_s: float = 5.0
    caught_up_s: float = 1.5
    behind: Behind = field(default_factory=Behind)
    _caught_up_at_s: float | None = None
    _degraded_at_s: float = float("-inf")
    _patience: int = 1

    def decide(self, look: Look, now_s: float) -> Mode | None:
        """What to change to, None to leave things as they are."""
        self.behind.note(look, now_s)
        if self.degrade_after_s is None:
            return None
        age_s = self.behind.age_s(now_s)
        self._note_caught_up(look, age_s, now_s)
        mode = look.mode(self.name)
        if mode == SYNCHRONOUS and age_s > self.degrade_after_s:
            return DEGRADED
        waited_s = 0.0 if self._caught_up_at_s is None else now_s - self._caught_up_at_s
        if mode == DEGRADED and look.names.requires_all and waited_s >= self.rearm_after_s * self._patience:
            return SYNCHRONOUS
        return None

    def degraded(self, now_s: float) -> None:
        """The change to degraded was made."""
        soon = now_s - self._degraded_at_s < 20 * self.rearm_after_s * self._patience
        self._patience = min(self._patience * 2, 64) if soon else 1
        self._degraded_at_s, self._caught_up_at_s = now_s, None

    def _note_caught_up(self, look: Look, age_s: float, now_s: float) -> None:
        if not look.is_streaming or age_s > self.caught_up_s:
            self._caught_up_at_s = None
        elif self._caught_up_at_s is None:
            self._caught_up_at_s = now_s


def look_at(connection: Connection, slot: str) -> Look:
    """Ask the source; every role may see this. Raises psycopg.Error (a standby has no flush position)."""
    row = connection.execute(_LOOK, (slot, slot)).fetchone()
    if row is None:
        raise psycopg.DataError("the server did not answer")
    names, flushed, vaulted, active, at = row
    if not isinstance(at, datetime):
        raise psycopg.DataError("the server did not tell its time")
    return Look(
        parse_sync_names(str(names or "")), parse_lsn(str(flushed)), 0 if vaulted is None else parse_lsn(str(vaulted)),
        bool(active), at.astimezone(UTC),
    )  # fmt: skip


def change_to(connection: Connection, name: str, mode: Mode) -> None:
    """Add or take away `name` with ALTER SYSTEM, and wait until sessions show it.

    Commits may begin to wait later than that: sync_probe.py sees when.
    Raises psycopg.Error, among them InsufficientPrivilege (preflight names the GRANTs) and `DataError` when something
    else, as a command-line option, goes before ALTER SYSTEM.
    """
    names = _names(connection)
    wanted = names.with_name(name) if mode == SYNCHRONOUS else names.without_name(name)
    if str(wanted) != str(names):
        connection.execute(sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(sql.Literal(str(wanted))))
    connection.execute("SELECT pg_reload_conf()")
    deadline_s = time.monotonic() + _RELOAD_WITHIN_S
    while _names(connection).has(name) != (mode == SYNCHRONOUS):
        if time.monotonic() > deadline_s:
            raise psycopg.DataError(
                f"{SETTING} was altered and the server goes on with another value: the command line or an include file "
                "goes before ALTER SYSTEM, or another value in the files is wrong (pg_file_settings shows it)"
            )
        time.sleep(0.02)


def _names(connection: Connection) -> SyncNames:
    row = connection.execute("SELECT setting FROM pg_settings WHERE name = %s", (SETTING,)).fetchone()
    return parse_sync_names(str(row[0] if row else ""))


def ensure_durability_table(connection: Connection) -> None:
    """Create the log where absent. Raises psycopg.Error."""
    if connection.execute("SELECT to_regclass('dr_assets.durability')").fetchone() == (None,):
        connection.execute(_TABLE)


def last_change(connection: Connection, dataset: str) -> Change | None:
    """The newest row of the log. Raises psycopg.Error."""
    row = connection.execute(_LAST, (dataset,)).fetchone()
    return None if row is None else _change(row)


def changes_after(connection: Connection, dataset: str, sealed: Sealed) -> list[Change]:
    """The rows that came after these, 100 at most. Raises psycopg.Error.

    By number or by time: a server that was set back to an older copy gives numbers again.
    """
    return [_change(row) for row in connection.execute(_AFTER, (dataset, sealed.seq, sealed.since))]


def log_change(
    connection: Connection, dataset: str, mode: Mode, look: Look, reason: str, told_by: str, *, after: Change | None
) -> Change:
    """Log a change unless a row newer than `after` says it: of two that look at once, one logs it.

    Raises psycopg.Error. `look` is the last one before a degradation, the first one after the other change: what is
    promised is never more than what held. Commits that waited are released by a degradation, so it counts from what was
    vaulted.
    """
    lsn = format_lsn(look.vaulted_lsn if mode == DEGRADED else look.flushed_lsn)
    with connection.transaction():
        connection.execute("LOCK TABLE dr_assets.durability IN SHARE ROW EXCLUSIVE MODE")
        newest = last_change(connection, dataset)
        if newest is not None and newest.mode == mode and newest != after:
            return newest
        row = connection.execute(_LOG, (dataset, mode, look.at, lsn, reason, told_by)).fetchone()
    if row is None:
        raise psycopg.DataError("the server returned no row")
    return _change(row)


def _change(row: tuple[object, ...]) -> Change:
    seq, mode, since, lsn, reason, told_by = row
    if not isinstance(seq, int) or not isinstance(since, datetime):
        raise psycopg.DataError("dr_assets.durability is not the table that the capture made")
    return Change(seq, str(mode), since.astimezone(UTC), str(lsn), str(reason), str(told_by))
