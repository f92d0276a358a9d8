"""One thread for each broker: long polls over all partitions it leads, each batch checked as it comes.

What belongs here: the loop of a fetcher, what it hands over, when it waits. What stays out: what is done about a
stream that can't be fetched (keeper.py), packs (pack.py).
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.book import Book, Cursor
from dr_assets.stores.kafka.fetching import Fetched, fetch
from dr_assets.stores.kafka.line import Line
from dr_assets.stores.kafka.pack import Part, part_of
from dr_assets.stores.kafka.refusals import name_of
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.format.pack import Stream

MIN_BYTES: Final = 2 << 20
MAX_BYTES: Final = 7 << 19  # below what the C library maps anew each time (stores/postgres/host.py)
_IDLE_S: Final = 0.1
_BACKOFF_BEGIN_S: Final = 0.1
_BACKOFF_END_S: Final = 2.0
_KEEPERS: Final = frozenset({"kafka.crc", "kafka.batch", "kafka.magic"})
DIVERGING: Final = "diverging"


@dataclass(frozen=True, slots=True)
class Brought:
    """What one fetch brought.

    `asked_at` is our clock when it was sent: what was acknowledged to a producer before is in it, or in `parts` of an
    earlier one, for every stream in `reached`.
    """

    asked_at: datetime
    at_s: float
    parts: tuple[Part, ...]
    reached: tuple[Stream, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of batches."""
        return sum(len(part.batches) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Reach:
    """How a fetcher behaves. `max_wait_s` is how long a broker may gather before it answers."""

    max_wait_s: float
    min_bytes: int = MIN_BYTES
    max_bytes: int = MAX_BYTES


class Fetcher:
    """Fetches what one broker leads until it is stopped.

    `deliver` takes what was brought and blocks while memory is full. `wanted` is called when a stream needs the keeper.
    """

    def __init__(
        self, node: int, cluster: Cluster, book: Book, *, reach: Reach, clock: Callable[[], datetime],
        deliver: Callable[[Brought], None], wanted: Callable[[], None],
    ) -> None:  # fmt: skip
        self.node = node
        self._cluster = cluster
        self._book = book
        self._reach = reach
        self._clock = clock
        self._deliver = deliver
        self._wanted = wanted
        self._stop = threading.Event()
        self._line: Line | None = None
        self.trouble: str | None = None
        self.throttled_s = 0.0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"fetch-{node}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end, and end its long poll; `join` waits for that."""
        self._stop.set()
        line = self._line
        if line is not None:
            line.close()

    def join(self, timeout_s: float = 30.0) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        backoff_s = _BACKOFF_BEGIN_S
        try:
            while not self._stop.is_set():
                try:
                    self._round()
                except SourceError as error:
                    if self._stop.is_set():
                        return
                    self._lose_line(error)
                    self._stop.wait(backoff_s)
                    backoff_s = min(backoff_s * 2, _BACKOFF_END_S)
                else:
                    self.trouble, backoff_s = None, _BACKOFF_BEGIN_S
        except BaseException as error:  # noqa: BLE001 - a thread's bug must end the capture, so it crosses over
            self.error = error
        finally:
            if self._line is not None:
                self._line.close()

    def _lose_line(self, error: SourceError) -> None:
        """The broker is away, or its address is another one now: the keeper looks, and a new line is made."""
        self.trouble = f"{error.code}: {error.found}"
        if self._line is not None:
            self._line.close()
            self._line = None
        self._wanted()

    def _round(self) -> None:
        wanted = self._book.wants(self.node, self._reach.max_bytes)
        if not wanted:
            self._stop.wait(_IDLE_S)
            return
        if self._line is None:
            self._line = self._cluster.own_line(self.node)
        asked_at, asked_s, line = self._clock(), time.monotonic(), self._line
        answers = fetch(
            line, [want for _, want in wanted.values()], max_wait_ms=int(self._reach.max_wait_s * 1000),
            min_bytes=self._reach.min_bytes, max_bytes=self._reach.max_bytes,
        )  # fmt: skip
        self.throttled_s = line.throttled_s
        parts: list[Part] = []
        reached: list[Stream] = []
        for fetched in answers:
            found = wanted.get((fetched.topic_id, fetched.partition))
            if found is not None and self._take(found[0], fetched, parts):
                reached.append(found[0].stream)
        brought = Brought(asked_at, time.monotonic(), tuple(parts), tuple(reached))
        self._deliver(brought)
        if len(reached) == len(wanted) and brought.size_bytes < self._reach.min_bytes:
            # A broker has waited already; an emulator that answers at once must not be asked without end.
            self._stop.wait(asked_s + self._reach.max_wait_s - time.monotonic())

    def _take(self, cursor: Cursor, fetched: Fetched, parts: list[Part]) -> bool:
        """Note what came of a stream; whether it is fetched to its end now."""
        if fetched.errno or fetched.diverging is not None:
            why = DIVERGING if not fetched.errno else name_of(fetched.errno)
            self._book.hold(cursor.stream, why, fetched.errno)
            self._wanted()
            return False
        try:
            part = part_of(cursor.stream, cursor.offset, fetched, cursor.broken)
        except SourceError as error:
            if error.code not in _KEEPERS:
                raise
            self._book.hold(cursor.stream, f"{error.code}: {error.found}")
            self._wanted()
            return False
        offset = cursor.offset if part is None else part.next
        reached = offset >= fetched.high_watermark
        marks = fetched.high_watermark, fetched.last_stable, fetched.log_start
        epoch = cursor.last_epoch if part is None else part.leader_epoch
        if part is not None:
            parts.append(part)
        self._book.advance(cursor, offset, epoch, marks, reached=reached)
        return reached
