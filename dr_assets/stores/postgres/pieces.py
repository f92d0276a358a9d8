"""When a piece of the WAL stream is cut, and which heartbeats it has passed.

What belongs here: pure bookkeeping over positions and a given `now` (seconds of a monotonic clock). What stays out:
sockets, threads, sealing, and which pieces count (vault/prefix.py). Why pieces may grow:
docs/decisions/0020.
"""

from dataclasses import dataclass, field
from datetime import datetime

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.protocol import WalData
from dr_assets.stores.sealing.linked import Body

PIECE_BYTES = 1 << 20
PIECE_CAP_BYTES = 8 << 20
BACKLOG_PIECE_BYTES = 16 << 20
_ARRIVALS_KEPT = 512


@dataclass(frozen=True, slots=True)
class Arrival:
    """The stream had reached `end` at `at_s` of our monotonic clock: one sample for the ingestion lag."""

    end: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A contiguous piece of WAL, [begin, end), ready to be sealed. Times are the source's clock.

    Once sealed, `data` is let go.
    """

    begin: int
    end: int
    begin_at: datetime
    end_at: datetime
    data: Body
    arrivals: tuple[Arrival, ...]

    @property
    def size_bytes(self) -> int:
        """Plaintext bytes."""
        return self.end - self.begin


@dataclass(slots=True)
class Cutter:
    """Gathers the stream into the next piece.

    A piece is due at `linger_s` after its first byte or at 1 MiB. When nobody could take it then, or the server has
    `behind_bytes` more to send than a large piece holds, it keeps growing up to 8 MiB, and to 16 MiB where that much is
    still to come: a backlog becomes few large objects instead of many small ones, and the costs of a put, here and at
    the store, are paid once for many.
    """

    position: int
    linger_s: float
    behind_bytes: int = 0
    _parts: list[memoryview | bytes] = field(default_factory=list)
    _arrivals: list[Arrival] = field(default_factory=list)
    _seen: int = 0
    _stride: int = 1
    _size: int = 0
    _first_at_s: float = 0.0
    _begin_at: datetime | None = None
    _end_at: datetime | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes gathered for the next piece."""
        return self._size

    def is_full(self) -> bool:
        """Whether one more message could push the piece over its cap: stop reading until it is cut."""
        return self._size > self._cap_bytes - PIECE_BYTES

    @property
    def _cap_bytes(self) -> int:
        return BACKLOG_PIECE_BYTES if self.behind_bytes >= BACKLOG_PIECE_BYTES else PIECE_CAP_BYTES

    def add(self, wal: WalData, now_s: float) -> None:
        """Take the next bytes. Raises SourceError (`source.stream_gap`) unless they begin where the last ended."""
        if wal.begin != self.position:
            raise SourceError(
                "source.stream_gap",
                f"expected WAL from {format_lsn(self.position)}, the server sent {format_lsn(wal.begin)}",
                "check that one server, not a pooler or a balancer over several, stands behind the connection string",
            )
        if not wal.data:
            return
        if not self._parts:
            self._first_at_s, self._begin_at = now_s, wal.sent_at
        self._parts.append(wal.data)
        self._size += len(wal.data)
        self._end_at = wal.sent_at
        self.position = wal.end
        self._sample(Arrival(wal.end, now_s))

    def _sample(self, arrival: Arrival) -> None:
        """Keep arrivals evenly over the piece: only the first ones would make every lag look like the longest."""
        if self._seen % self._stride == 0:
            self._arrivals.append(arrival)
        self._seen += 1
        if len(self._arrivals) > _ARRIVALS_KEPT:
            self._arrivals = self._arrivals[::2]
            self._stride *= 2

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until the piece should be cut: 0 when it is due, None when there is nothing to cut."""
        if not self._parts:
            return None
        if self._size >= (PIECE_BYTES if self.behind_bytes < PIECE_CAP_BYTES else self._cap_bytes - PIECE_BYTES):
            return 0.0
        return max(0.0, self._first_at_s + self.linger_s - now_s)

    def cut(self) -> Piece | None:
        """The piece gathered so far, None when there is none. The next one begins where it ends."""
        if self._begin_at is None or self._end_at is None:
            return None
        piece = Piece(
            begin=self.position - self._size,
            end=self.position,
            begin_at=self._begin_at,
            end_at=max(self._begin_at, self._end_at),
            data=Body(self._parts),
            arrivals=tuple(self._arrivals),
        )
        self._parts, self._arrivals, self._size = [], [], 0
        self._seen, self._stride = 0, 1
        self._begin_at = self._end_at = None
        return piece


@dataclass(slots=True)
class Marks:
    """Heartbeats that the stream has not passed yet, and the newest that it has.

    A heartbeat written at `at` of the source's clock with its commit before `lsn` proves: whoever holds the WAL up to
    `lsn` holds every commit that was made before `at`.
    """

    passed_at: datetime | None = None
    _ahead: list[tuple[int, datetime]] = field(default_factory=list)

    def note(self, lsn: int, at: datetime) -> None:
        """A heartbeat is known, in the order they were written."""
        self._ahead.append((lsn, at))

    def at_position(self, position: int) -> datetime | None:
        """Time of the newest heartbeat at or before `position`; positions must not go back."""
        while self._ahead and self._ahead[0][0] <= position:
            self.passed_at = self._ahead.pop(0)[1]
        return self.passed_at
