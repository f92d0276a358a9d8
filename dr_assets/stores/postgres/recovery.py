"""Replaying laid WAL as a standby that cannot promote itself, and the proof of where it stopped.

What belongs here: the standby's settings, following the replay, telling an end from a stop, promoting. What stays out:
what is laid (lay.py, lay_wal.py), finding the WAL's end (wal.py), checks of the data (checks.py).

Why a standby: with no target, and nothing to ask for more, PostgreSQL takes a damaged record or a missing segment for
the end of the WAL and promotes, dropping every later commit without a word. A standby waits instead, and we compare.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import psycopg
from psycopg import pq

from dr_assets.engines.errors import EngineError
from dr_assets.engines.postgres import PostgresServer, Setting
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres.guarded import superuser_dsn
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.target import Target

_POLL_S: Final = 0.02
_PROMOTE_TIMEOUT_S: Final = 900
_RAISES_MAX: Final = 8
_REFUSED_MAX_S: Final = 60.0
_EVENT_TRIGGERS_SINCE: Final = 17
_EPOCH_XIDS: Final = 1 << 32

_STATE: Final = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, pg_get_wal_replay_pause_state(),
       pg_last_xact_replay_timestamp()
"""
# The server's log is in English: its messages are set to C. These lines are alike in 15 to 18.
_WAITING: Final = re.compile(r"LOG:  waiting for WAL to become available at ([0-9A-F]+/[0-9A-F]+)")
_STOPPING: Final = re.compile(r"LOG:  (recovery stopping .+)")
_TOO_LOW: Final = re.compile(
    r"DETAIL:  (\w+) = \d+ is a lower setting than on the primary server, where its value was (\d+)"
)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where the replay stands. `stopped` is the server's word for a target it reached, None at the end of the WAL.

    `last_commit_at` is the commit time of the last transaction that was replayed.
    """

    lsn: int
    last_commit_at: datetime | None
    stopped: str | None


class _ParameterTooLowError(Exception):
    """The WAL says that the source had raised a limit that a standby must not have less of."""

    def __init__(self, name: str, value: int) -> None:
        super().__init__(f"{name} must be at least {value}")
        self.name = name
        self.value = value


def standby_settings(target: Target, timeline: int, major: int) -> dict[str, Setting]:
    """Settings of a server that only replays what lies in its pg_wal, runs nothing of its source's, and waits.

    It leaves the disk alone: until a directory that is kept was synchronised as a whole (site.keep), it is marked as
    unfinished, and a crash of the host makes it worth nothing anyway.
    """
    settings: dict[str, Setting] = {
        "hot_standby": True,
        "recovery_target_timeline": str(timeline),
        "restore_command": "",
        "primary_conninfo": "",
        "wal_retrieve_retry_interval": "100ms",
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "archive_mode": "off",
        "synchronous_standby_names": "",
        "max_logical_replication_workers": 0,
        "autovacuum": False,
        "jit": False,
        "shared_buffers": "256MB",
        "max_wal_size": "64GB",
        "checkpoint_timeout": "1d",
        "fsync": False,
        "full_page_writes": False,
        **target.settings(),
    }
    if major >= _EVENT_TRIGGERS_SINCE:
        # A login trigger of the source's would run in our sessions.
        settings["event_triggers"] = False
    return settings


class Replay:
    """One server's recovery, from start to promotion. `end` is behind the last complete record that was laid."""

    def __init__(
        self, server: PostgresServer, target: Target, end: int, *, progress: Callable[[int], None] | None = None
    ) -> None:
        self._server = server
        self._target = target
        self._end = end
        self._progress = progress
        self._log_begin = 0
        self._session: psycopg.Connection[tuple[object, ...]] | None = None
        self._refused_since_s: float | None = None

    def run(self) -> Replayed:
        """Start the server and follow it until it stands where it should.

        Raises VaultError (`restore.replay_stopped`) when it cannot read on before that, PolicyError
        (`restore.target_not_reached`) when the WAL ends before the target. It never promotes by itself.
        """
        (self._server.data_dir / "standby.signal").touch()
        for _ in range(_RAISES_MAX):
            try:
                self._start()
                return self._proven(self._follow())
            except _ParameterTooLowError as error:
                self._close()
                self._server.stop("immediate")
                self._server.settings[error.name] = error.value
            finally:
                self._close()
        raise self._stopped(0, "its source raised its limits again and again")

    def _start(self) -> None:
        log = self._server.log_path
        self._log_begin = log.stat().st_size if log.exists() else 0
        self._refused_since_s = None
        try:
            self._server.start(wait=False)
        except EngineError:
            self._check_limits(self._log())
            raise

    def _follow(self) -> Replayed:
        told_s = 0.0
        while True:
            # The log first: what it says of the end is then older than the position that is read after it.
            log = self._log()
            waiting = _WAITING.search(log)
            state = self._state()
            if state is not None:
                if self._progress is not None and time.monotonic() - told_s > 1:
                    told_s = time.monotonic()
                    self._progress(state.lsn)
                if self._is_there(state):
                    return state
            if waiting is not None:
                raise self._out_of_wal(state, parse_lsn(waiting[1]))
            self._check_alive(log)
            time.sleep(_POLL_S)

    def _is_there(self, state: Replayed) -> bool:
        if self._target.kind == "latest":
            return state.lsn >= self._end
        return state.stopped is not None

    def _state(self) -> Replayed | None:
        """What the server says; None while it doesn't accept sessions yet."""
        try:
            if self._session is None:
                dsn = superuser_dsn(self._server)
                if pq.PGconn.ping(dsn.encode()) != pq.Ping.OK:
                    return None
                self._session = psycopg.connect(dsn, autocommit=True, connect_timeout=5)
            row = self._session.execute(_STATE).fetchone()
        except psycopg.OperationalError as error:
            self._close()
            self._be_patient(str(error))
            return None
        self._refused_since_s = None
        assert row is not None  # noqa: S101 - for the type checker: a SELECT without FROM has one row
        in_recovery, lsn, pause_state, last_commit_at = row
        if not in_recovery:
            raise self._stopped(0, "the server left recovery by itself")
        stopped = None
        if pause_state == "paused":
            stopped = self._paused()
        at = last_commit_at.astimezone(UTC) if isinstance(last_commit_at, datetime) else None
        return Replayed(parse_lsn(str(lsn or "0/0")), at, stopped)

    def _be_patient(self, said: str) -> None:
        """A session may be lost to a replayed DROP DATABASE; one that is refused for a minute will stay refused."""
        now_s = time.monotonic()
        self._refused_since_s = self._refused_since_s or now_s
        if now_s - self._refused_since_s > _REFUSED_MAX_S:
            raise VaultError(
                "restore.no_session",
                f"the recovering server takes no session: {' '.join(said.split())}",
                "if the bootstrap superuser was renamed or may not log in, take a base backup: it notes the name",
            )

    def _paused(self) -> str:
        """Why the server paused: at its target, or because a limit is too low (the only other reason)."""
        log = self._log()
        found = _STOPPING.findall(log)
        if found:
            return str(found[-1])
        self._check_limits(log)
        raise self._stopped(0, "the server paused and did not say why")

    def _check_limits(self, log: str) -> None:
        too_low = raised_limit(log)
        if too_low is not None:
            raise _ParameterTooLowError(*too_low)

    def _check_alive(self, log: str) -> None:
        if self._server.running:
            return
        self._check_limits(log)
        raise self._stopped(0, f"the server ended; its log ends:\n{self._server.log_tail(8)}")

    def _out_of_wal(self, state: Replayed | None, waiting_at: int) -> Exception:
        lsn = state.lsn if state is not None else 0
        if lsn >= self._end:
            return PolicyError(
                "restore.target_not_reached",
                f"target {self._target} was not found in the WAL, which ends at {format_lsn(self._end)}",
                "restore to `latest`, or to a target before that end",
            )
        return self._stopped(lsn, f"it finds no valid record at {format_lsn(waiting_at)}")

    def _proven(self, state: Replayed) -> Replayed:
        """`state`, unless it contradicts the target: a stop is believed for what it says, not for having stopped."""
        at, stopped = self._target.at, state.stopped
        if state.lsn > self._end:
            raise self._stopped(state.lsn, "that is behind everything that was laid")
        if stopped is None:
            return state
        if not _says(stopped, self._target):
            raise self._stopped(state.lsn, f"the server says {stopped!r}, the target was {self._target}")
        if at is not None and state.last_commit_at is not None and state.last_commit_at > at:
            raise self._stopped(state.lsn, f"it replayed a commit of {state.last_commit_at.isoformat()}")
        if self._target.kind in ("time", "lsn") and state.lsn >= self._end:
            raise self._stopped(state.lsn, f"the end of the WAL stopped it, not the target {self._target}")
        return state

    def _stopped(self, lsn: int, found: str) -> VaultError:
        where = f"at {format_lsn(lsn)}" if lsn else "early"
        return VaultError(
            "restore.replay_stopped",
            f"replay stopped {where}, the last complete record ends at {format_lsn(self._end)}: {found}",
            "the laid WAL is damaged: nothing was promoted and nothing is kept; run `dr-assets vault verify`, restore "
            "again, or to a target before that position",
        )

    def _log(self) -> str:
        with self._server.log_path.open("rb") as file:
            file.seek(self._log_begin)
            return file.read().decode(errors="replace")

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def raised_limit(log: str) -> tuple[str, int] | None:
    """The limit that the server's log says a standby must not have less of, and its value; None where it says none."""
    too_low = _TOO_LOW.search(log)
    return None if too_low is None else (too_low[1], int(too_low[2]))


def wants_wal(log: str) -> bool:
    """Whether the server's log says that it has read all its WAL once and looks for more."""
    return _WAITING.search(log) is not None


def _says(stopped: str, target: Target) -> bool:
    """Whether the server's words name this target."""
    if target.at is not None:
        return re.match(r"recovery stopping before (commit|abort) of transaction \d+", stopped) is not None
    if target.lsn is not None:
        found = re.fullmatch(r'recovery stopping before WAL location \(LSN\) "(.+)"', stopped)
        return found is not None and parse_lsn(found[1]) >= target.lsn
    if target.xid is not None:
        short = target.xid % _EPOCH_XIDS
        return re.match(rf"recovery stopping after (commit|abort) of transaction {short},", stopped) is not None
    if target.name is not None:
        return stopped.startswith(f'recovery stopping at restore point "{target.name}"')
    return stopped == "recovery stopping after reaching consistency"


def promote(server: PostgresServer) -> int:
    """Promote a server that stands where it should; its new timeline. Raises VaultError (`restore.not_promoted`)."""
    with psycopg.connect(superuser_dsn(server), autocommit=True) as session:
        paused = session.execute("SELECT pg_get_wal_replay_pause_state() = 'paused'").fetchone()
        if paused == (True,):
            # At its target a server looks for a promotion once a second only, and needs none: it goes on as a primary.
            session.execute("SELECT pg_wal_replay_resume()")
            _wait_promoted(session)
        else:
            session.execute("SELECT pg_promote(true, %s)", (_PROMOTE_TIMEOUT_S,))
        row = session.execute(
            "SELECT false, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
            if session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
            else "SELECT true, '0'"
        ).fetchone()
    if row is None or row[0] is not False:
        raise VaultError(
            "restore.not_promoted",
            f"the recovered server did not become a primary; its log ends:\n{server.log_tail(8)}",
            "try again; the vault is as it was",
        )
    return int(row[1], 16)


def _wait_promoted(session: psycopg.Connection[tuple[object, ...]]) -> None:
    deadline_s = time.monotonic() + _PROMOTE_TIMEOUT_S
    while session.execute("SELECT pg_is_in_recovery()").fetchone() != (False,) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
