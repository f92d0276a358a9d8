"""The connection that WAL comes through: opened on the slot, lost, opened again, ended in order.

What belongs here: which connection failures are waited out and which are final. What stays out: the bytes' way from
here (capture.py) and the wire itself (protocol.py).
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.dsn import describe_dsn
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.overlap import DivergedError, Tail
from dr_assets.stores.postgres.pieces import PIECE_BYTES
from dr_assets.stores.postgres.protocol import (
    MIN_SERVER_VERSION,
    ConnectionLostError,
    ReplicationConnection,
    ServerRefusedError,
    StreamDone,
    StreamMessage,
    SystemIdentity,
    WalData,
)
from dr_assets.stores.postgres.resume import older_timeline, other_source, rewound, slot_lost

log = logging.getLogger("dr_assets.capture")

# The server ended the stream in order, so somebody stops it or fails it over: coming back at once would hold that up.
DONE_BACKOFF_S = 10.0
# How long a server that is being stopped may wait until the vault holds its last WAL.
GIVE_WAY_AFTER_S = 5.0
# A host that vanished says nothing, and so does a server with nothing to say: ask it before believing the worst.
ASK_AFTER_S = 10.0
SILENCE_LIMIT_S = 30.0
_BACKOFF_BEGIN_S = 0.2
_BACKOFF_END_S = 5.0
# Our own walsender of a broken connection may hold the slot until wal_sender_timeout (a minute by default) is over.
_TAKEOVER_S = 120.0
_COMPARE_WITHIN_S = 20.0
_ALL = 1 << 30
_SLOT_IN_USE = "55006"
_SLOT_INVALID = "55000"
_SLOT_MISSING = "42704"
_WAL_REMOVED = "58P01"
_GONE = frozenset({_SLOT_INVALID, _SLOT_MISSING, _WAL_REMOVED})


class TimelineEndError(SourceError):
    """The source has left the stream's timeline (`source.timeline_ended`): a capture follows, once all is stored."""

    def __init__(self, timeline: int, next_timeline: int, switch: int | None) -> None:
        where = "" if switch is None else f" at {format_lsn(switch)}"
        super().__init__(
            "source.timeline_ended",
            f"the source left timeline {timeline}{where} for timeline {next_timeline}",
            "start the capture again: it goes on where this timeline was left",
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Which WAL is meant: the one server, its slot, the history it is on, the size of its WAL segments."""

    dsn: str
    slot: str
    identity: SystemIdentity
    segment_bytes: int


def open_source(nodes: Nodes, application_name: str, *, connect_timeout_s: int = 10) -> ReplicationConnection:
    """A replication connection to the primary, if we can work with it; its `dsn` is that one server's.

    Raises SourceError (`source.unreachable`, `source.version`, `source.refused`).
    """
    try:
        connection = nodes.open_primary(application_name=application_name, connect_timeout_s=connect_timeout_s)
    except ConnectionLostError as error:
        raise SourceError(
            "source.unreachable", str(error), "check that the server runs and that the address is right"
        ) from None
    if connection.server_version < MIN_SERVER_VERSION:
        connection.close()
        raise SourceError(
            "source.version",
            f"{describe_dsn(connection.dsn)} is PostgreSQL {connection.server_version // 10000}, 15 is the oldest that "
            "can be protected",
            "upgrade the server",
        )
    return connection


def slot_in_use(place: Place, error: ServerRefusedError) -> SourceError:
    """Somebody else streams from the slot: one dataset has one capture."""
    return SourceError(
        "source.slot_in_use",
        f"{error.message}: another capture of this dataset runs, and a slot has one consumer",
        f"stop the other one; if its host is gone, slot {place.slot} is free after wal_sender_timeout, or at once when "
        "pg_terminate_backend() ends that PID",
    )


def start_stream(connection: ReplicationConnection, place: Place, position: int, *, patience_s: float) -> None:
    """START_REPLICATION on the slot, waiting up to `patience_s` for an earlier consumer to be gone.

    Raises SourceError (`source.slot_in_use`, `source.slot_lost`), ConnectionLostError.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            connection.start_replication(place.slot, position, place.identity.timeline)
        except ServerRefusedError as error:
            if error.sqlstate != _SLOT_IN_USE:
                raise refusal(place, error) from None
            if time.monotonic() > deadline:
                raise slot_in_use(place, error) from None
            time.sleep(0.2)
        else:
            return


def start_held_to(connection: ReplicationConnection, place: Place, tail: Tail, *, patience_s: float) -> bool:
    """Start the stream at the tail's end, once the source has shown that it has the same bytes before it.

    A slot lets WAL be read from before its restart LSN as long as the file is there, and it keeps the whole segment
    that we end in. False when the source has removed all the bytes that we could compare: the stream runs then too.
    Raises DivergedError when they differ (the stream runs, and nothing of it was taken), and as `start_stream` does.
    """
    segment = tail.end - tail.end % place.segment_bytes
    for begin in dict.fromkeys((tail.begin, max(tail.begin, segment))):
        if begin == tail.end:
            break
        start_stream(connection, place, begin, patience_s=patience_s)
        try:
            _compare(connection, tail, begin)
        except ServerRefusedError as error:
            if error.sqlstate != _WAL_REMOVED:
                raise refusal(place, error) from None
        else:
            return True
    start_stream(connection, place, tail.end, patience_s=patience_s)
    if tail.begin < tail.end:
        log.warning(
            "the source has removed the WAL before %s, so nothing shows that it goes on from what is stored",
            format_lsn(tail.end),
        )
    return False


def _compare(connection: ReplicationConnection, tail: Tail, position: int) -> None:
    """Read the stream up to the tail's end and no byte further."""
    deadline = time.monotonic() + _COMPARE_WITHIN_S
    while position < tail.end:
        messages = connection.receive(limit_bytes=1)
        if not messages:
            if not connection.wait(max(0.0, deadline - time.monotonic())):
                raise ConnectionLostError(f"the server sent nothing from {format_lsn(position)} on")
            connection.read_socket()
        for message in messages:
            if isinstance(message, StreamDone):
                if position < tail.end:
                    raise ConnectionLostError("the server ended the stream")
                connection.unread(message)
            if isinstance(message, WalData):
                _hold(connection, tail, message)
                position = message.end


def _hold(connection: ReplicationConnection, tail: Tail, wal: WalData) -> None:
    differs_at = tail.differs_at(wal.begin, wal.data)
    if differs_at is not None:
        raise DivergedError(differs_at, tail.end)
    if wal.end > tail.end:
        connection.unread(WalData(tail.end, wal.server_end, wal.sent_at, wal.data[tail.end - wal.begin :]))


def refusal(place: Place, error: ServerRefusedError) -> SourceError | ConnectionLostError:
    """What a refused command means. Shutdowns, time-outs and the like pass; a slot or WAL that is gone doesn't."""
    if error.sqlstate in _GONE:
        return slot_lost(place.slot)
    return ConnectionLostError(f"the server said {error.sqlstate}: {error.message}")


def _take(connection: ReplicationConnection) -> tuple[list[StreamMessage], ConnectionLostError | None]:
    """Up to a piece of what is there, and why there will be no more; of a broken connection, all it had brought.

    Far behind, the socket never holds more than a fraction of a piece, and a round of the capture costs the same for
    little as for much: so it is read again for as long as the server keeps up.
    """
    messages: list[StreamMessage] = []
    taken_bytes = 0
    while True:
        broken: ConnectionLostError | None = None
        try:
            connection.read_socket()
        except ConnectionLostError as error:
            broken = error
        try:
            arrived = connection.receive(limit_bytes=_ALL if broken else PIECE_BYTES - taken_bytes)
        except (ConnectionLostError, ServerRefusedError) as error:
            if not messages:
                raise
            connection.fail_later(error)  # what had arrived comes first
            return messages, None
        messages += arrived
        taken_bytes += sum(len(message.data) for message in arrived if isinstance(message, WalData))
        is_done = bool(messages) and isinstance(messages[-1], StreamDone)
        if broken or is_done or taken_bytes >= PIECE_BYTES or not connection.is_readable():
            return messages, broken


class SourceStream:
    """A stream that comes back after its source was away, at the same position or not at all."""

    def __init__(
        self, place: Place, connection: ReplicationConnection, tail: Tail, *, application_name: str, nodes: Nodes
    ) -> None:
        self._place = place
        self._nodes = nodes
        self._ended: TimelineEndError | None = None
        self._oldest_timeline = place.identity.timeline
        self._tail = tail
        self._application_name = application_name
        self._connection: ReplicationConnection | None = connection
        self._backoff_s = _BACKOFF_BEGIN_S
        self._next_try_s = 0.0
        self._lost_s = 0.0
        self._heard_s: float | None = None
        # A connection that takes nothing any more may still hold WAL for us: it ends when that is read.
        self._unwritable: ConnectionLostError | None = None
        self.trouble: str | None = None

    @property
    def connection(self) -> ReplicationConnection | None:
        """The live connection, None while the source is away."""
        return self._connection

    @property
    def serving(self) -> str | None:
        """The DSN of the server that the stream comes from, None while it is away; any thread may ask."""
        connection = self._connection
        return None if connection is None else connection.dsn

    def receive(self) -> list[StreamMessage]:
        """What has arrived, never waiting; nothing while the source is away.

        When the stream breaks, what had arrived before is still handed out: if the source never comes back, it is
        all there is. Raises SourceError when it broke for good, TimelineEndError behind a timeline's last byte.
        """
        connection = self._connection
        if connection is None:
            if self._ended is not None:
                raise self._ended
            return []
        try:
            messages, broken = _take(connection)
        except (ConnectionLostError, ServerRefusedError) as error:
            self._broke(error)
            return []
        broken = broken or self._unwritable
        if broken is not None:
            self._broke(broken)
        elif messages and isinstance(messages[-1], StreamDone):
            self._done(messages[-1])
        elif self._note_silence(heard=bool(messages)) > SILENCE_LIMIT_S:
            self.lost(f"the server said nothing for {SILENCE_LIMIT_S:g} s", _BACKOFF_BEGIN_S)
        else:
            self._backoff_s, self.trouble = _BACKOFF_BEGIN_S, None
        for message in messages:
            if isinstance(message, WalData):
                self._tail.add(message.data)
        return [message for message in messages if not isinstance(message, StreamDone)]

    def _done(self, done: StreamDone) -> None:
        """Keep away from a server that is being stopped, not from the one that may take its place."""
        if done.next_timeline is not None:
            self.close()
            self._ended = TimelineEndError(self._place.identity.timeline, done.next_timeline, done.next_begin)
            self._next_try_s = math.inf
            return
        self._nodes.rest(self._place.dsn, DONE_BACKOFF_S)
        self.lost("the server ended the stream", _BACKOFF_BEGIN_S if self._nodes.are_several else DONE_BACKOFF_S)

    def give_way(self, stopping_since_s: float) -> None:
        """Leave a server that is being stopped and can't end, since it waits for us to confirm its last WAL.

        A vault that is away would hold up a switch-over for as long as that lasts. The slot keeps what isn't stored.
        """
        if self._connection is not None and time.monotonic() - stopping_since_s > GIVE_WAY_AFTER_S:
            self._done(StreamDone())

    def leave(self, why: str, timeline: int) -> None:
        """The primary is elsewhere, on `timeline` or a newer one: this server is confirmed nothing any more.

        From then on a server on an older timeline is none to come back to. Where the stream is down already, that is
        all that changes.
        """
        self._oldest_timeline = max(self._oldest_timeline, timeline)
        if self._connection is not None:
            log.warning("%s", why)
            self.lost(why, _BACKOFF_BEGIN_S)  # a round of the loop passes, so that a report says it

    def paused(self) -> None:
        """Nobody listens for now, so silence is ours and not the server's."""
        self._heard_s = None

    def _note_silence(self, *, heard: bool) -> float:
        """Seconds since the server was last heard while we listened."""
        now_s = time.monotonic()
        if heard or self._heard_s is None:
            self._heard_s = now_s
        return now_s - self._heard_s

    def _broke(self, error: ConnectionLostError | ServerRefusedError) -> None:
        meaning = refusal(self._place, error) if isinstance(error, ServerRefusedError) else error
        if isinstance(meaning, SourceError):
            self.close()
            raise meaning from None
        self.lost(str(meaning), _BACKOFF_BEGIN_S)

    def send_status(self, *, vaulted: int, now: datetime) -> None:
        """Tell the server how far we are, if it is there; when it was silent for long, ask for an answer."""
        if self._connection is None:
            return
        try:
            silent = self._heard_s is not None and time.monotonic() - self._heard_s > ASK_AFTER_S
            self._connection.send_status(vaulted=vaulted, now=now, reply_requested=silent)
        except ConnectionLostError as error:
            self._unwritable = error

    def wait(self, timeout_s: float, *, also_read: Sequence[int]) -> None:
        """Wait until there is something to receive, or from `also_read`, at most `timeout_s`."""
        if self._connection is None or self._unwritable is not None:
            return
        try:
            self._connection.wait(timeout_s, also_read=also_read)
        except ConnectionLostError as error:
            self._unwritable = error

    def lost(self, why: str, wait_s: float) -> None:
        """Give the connection up and try again after `wait_s`."""
        self.close()
        self.trouble = why
        self._lost_s = time.monotonic()
        self._next_try_s = self._lost_s + wait_s

    def close(self) -> None:
        """Close the connection as it is; again is harmless."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def retry_in_s(self) -> float:
        """Seconds until the next attempt is due."""
        return max(0.0, self._next_try_s - time.monotonic())

    def try_again(self, position: int) -> bool:
        """One attempt to go on at `position`, the end of what was received. Whether it worked.

        Raises SourceError when going on is impossible: another system, a lost slot, WAL that ends before `position` or
        differs from what was received, a consumer that took our place; TimelineEndError for a newer timeline. A standby
        and a primary that was failed over from are no source: the right one is waited for.
        """
        connection: ReplicationConnection | None = None
        try:
            connection = self._nodes.open_primary(application_name=self._application_name, connect_timeout_s=3)
            self._check(connection, position)
            start_held_to(connection, self._place, self._tail, patience_s=0)
        except (ConnectionLostError, ServerRefusedError, SourceError) as error:
            if connection is not None:
                connection.close()
            self._raise_final(error)
            self._failed(str(error))
            return False
        self._connection, self._unwritable, self._heard_s = connection, None, None
        return True

    def _check(self, connection: ReplicationConnection, position: int) -> None:
        identity, expected = connection.identify_system(), self._place.identity
        if identity.system_id != expected.system_id:
            raise other_source(identity, expected)
        if connection.is_standby:
            raise ConnectionLostError(f"{describe_dsn(connection.dsn)} is a standby now")
        if identity.timeline < self._oldest_timeline:
            raise ConnectionLostError(str(older_timeline(identity, self._oldest_timeline)))
        if identity.timeline > expected.timeline:
            raise TimelineEndError(expected.timeline, identity.timeline, None)
        slot = connection.read_slot(self._place.slot)
        if slot is None or slot.restart_lsn is None:
            raise slot_lost(self._place.slot)
        if identity.flushed_lsn < position:
            raise rewound(position, identity)

    def _raise_final(self, error: Exception) -> None:
        """A source that refuses everybody for a while is waited for; one that is not ours any more isn't."""
        ours_lingers = time.monotonic() - self._lost_s < _TAKEOVER_S
        if isinstance(error, SourceError) and not (error.code == "source.slot_in_use" and ours_lingers):
            raise error

    def _failed(self, why: str) -> None:
        self.trouble = why
        self._next_try_s = time.monotonic() + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, _BACKOFF_END_S)
