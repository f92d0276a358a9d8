"""A thread beside the stream: beats the source's heart and looks after the slot, on a session of its own.

What belongs here: when to beat and to look, and surviving a source that is away. What stays out: the rows
(heartbeat.py), the slot's meaning (slot.py), what follows from either (capture.py).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue

import psycopg

from dr_assets.stores.postgres.beside import Beside, keep_looking
from dr_assets.stores.postgres.dsn import masked
from dr_assets.stores.postgres.heartbeat import Beat, Heartbeat
from dr_assets.stores.postgres.session import Connection, connect
from dr_assets.stores.postgres.slot import SlotStatus, slot_status

# With several hosts in the connection string a session may reach a server that was promoted since.
_TIMELINE = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"


# A refused connection attempt comes without an SQLSTATE, so the English text decides, as in protocol.py.
_STOPPING = "the database system is shutting down"


class _WrongServerError(Exception):
    """The session reached another server than the stream; a beat there would date the wrong WAL."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The newest look at the source. `clock_offset` is the source's clock minus ours."""

    slot: SlotStatus | None = None
    clock_offset: timedelta = timedelta(0)
    trouble: str | None = None


class SourceWatch(Beside):
    """Beats and looks every `interval_s` until `stop`; failures are told in `newest.trouble` and tried again.

    `stopping_since_s` is the moment (monotonic) from which on the source says that it is being stopped, None else.

    What nobody foresaw ends the thread and is in `error`: without heartbeats the recovery point has no age, so whoever
    started the watch must end as well.
    """

    def __init__(
        self,
        dsn: str,
        *,
        slot: str,
        system_id: str,
        timeline: int,
        heartbeat: Heartbeat,
        interval_s: float,
        clock: Callable[[], datetime],
    ) -> None:
        super().__init__(f"watch-{slot}")
        self._dsn = dsn
        self._slot = slot
        self._system_id = system_id
        self._timeline = timeline
        self._heartbeat = heartbeat
        self._interval_s = interval_s
        self._clock = clock
        self._beats: SimpleQueue[Beat] = SimpleQueue()
        self.newest = Watched()
        self.stopping_since_s: float | None = None

    def start(self) -> None:
        """Begin; the first beat comes at once."""
        self._thread.start()

    def take_beats(self) -> list[Beat]:
        """The beats committed since the last call, in order."""
        beats: list[Beat] = []
        while True:
            try:
                beats.append(self._beats.get_nowait())
            except Empty:
                return beats

    def _watch(self) -> None:
        keep_looking(
            self._stop, self._interval_s, connect=self._connect, look=self._look, failed=self._failed,
            passing=(psycopg.Error, _WrongServerError),
        )  # fmt: skip

    def _failed(self, error: Exception) -> None:
        said = f"heartbeat: {masked(str(error), self._dsn)}"
        self._note_stopping(is_stopping=_STOPPING in said)
        self.newest = Watched(self.newest.slot, self.newest.clock_offset, said)

    def _note_stopping(self, *, is_stopping: bool) -> None:
        self.stopping_since_s = (self.stopping_since_s or time.monotonic()) if is_stopping else None

    def _connect(self) -> Connection:
        connection = connect(self._dsn, application_name="dr-assets heartbeat")
        row = connection.execute(
            "SELECT system_identifier::text, pg_is_in_recovery() FROM pg_control_system()"
        ).fetchone()
        if row != (self._system_id, False):
            connection.close()
            raise _WrongServerError(f"expected the primary of system {self._system_id}, found (system, standby) {row}")
        return connection

    def _look(self, connection: Connection) -> None:
        row = connection.execute(_TIMELINE).fetchone()
        if row != (f"{self._timeline:08X}",):
            raise _WrongServerError(
                f"the stream is of timeline {self._timeline:08X}, this session's server is on {row}"
            )
        self._note_stopping(is_stopping=False)
        asked_at = self._clock()
        beat = self._heartbeat.write(connection)
        self._beats.put(beat)
        self.newest = Watched(slot_status(connection, self._slot), beat.row.at - asked_at)
