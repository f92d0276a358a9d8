"""Which streams are captured, how far each was fetched, and who leads it: shared by the threads that fetch and keep.

What belongs here: cursors and the lock around them. What stays out: fetching (fetcher.py), looking after topics
(keeper.py), what is stored (capture_loop.py).

A stream is a partition of a topic by its id, in one generation: a compacted topic is exported anew now and then, and
two of its generations are fetched at a time until the new one holds everything.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dr_assets.stores.kafka.fetching import Want
from dr_assets.vault.format.pack import Break, Row, Stream


@dataclass(slots=True)
class Cursor:
    """One stream's. `offset` is where the next fetch begins, `last_epoch` the leader epoch of what was fetched last.

    `broken` goes into the next slice. `held` says why nothing is fetched; the keeper sees to that. `complete`: fetched
    to the end of the log once.
    """

    topic: str
    topic_id: str
    partition: int
    generation: int
    begin: int
    began_at: datetime
    offset: int
    last_epoch: int = -1
    high_watermark: int = -1
    last_stable: int = -1
    log_start: int = -1
    complete: bool = False
    leader: int = -1
    leader_epoch: int = -1
    broken: Break | None = None
    held: str | None = None
    errno: int = 0

    @property
    def stream(self) -> Stream:
        """Its key."""
        return self.topic_id, self.partition, self.generation

    @classmethod
    def of(cls, row: Row, topic: str) -> "Cursor":
        """A stream goes on where it was stored to."""
        return cls(
            topic, row.topic_id, row.partition, row.generation, row.begin, row.began_at, row.next, row.leader_epoch,
            row.high_watermark, row.last_stable, row.log_start, row.complete,
        )  # fmt: skip


class Book:
    """All cursors. Each method takes the lock for a moment; `changed` is raised when there may be more to fetch."""

    def __init__(self, cursors: Iterable[Cursor] = ()) -> None:
        self._mutex = threading.Lock()
        self._cursors = {cursor.stream: cursor for cursor in cursors}
        self._turns: dict[int, int] = {}

    def streams(self) -> dict[Stream, Cursor]:
        """The cursors by stream, as they are now; only who keeps a stream may change what it holds."""
        with self._mutex:
            return dict(self._cursors)

    def add(self, cursor: Cursor) -> None:
        """A stream to be fetched from now on."""
        with self._mutex:
            self._cursors[cursor.stream] = cursor

    def drop(self, stream: Stream) -> None:
        """A stream that is not fetched any more."""
        with self._mutex:
            self._cursors.pop(stream, None)

    def lead(self, stream: Stream, leader: int, leader_epoch: int) -> None:
        """Who leads it from now on, -1 for nobody."""
        with self._mutex:
            cursor = self._cursors.get(stream)
            if cursor is not None:
                cursor.leader, cursor.leader_epoch = leader, leader_epoch

    def hold(self, stream: Stream, why: str, errno: int = 0) -> None:
        """Fetch nothing of it until it is released."""
        with self._mutex:
            cursor = self._cursors.get(stream)
            if cursor is not None:
                cursor.held, cursor.errno = why, errno

    def release(self, stream: Stream, *, offset: int | None = None, broken: Break | None = None) -> None:
        """Fetch it again, from another offset if one is given; its next slice says why."""
        with self._mutex:
            cursor = self._cursors.get(stream)
            if cursor is None:
                return
            cursor.held, cursor.errno = None, 0
            if offset is not None:
                cursor.offset, cursor.last_epoch = offset, -1
                cursor.broken = _joined(cursor.broken or broken, offset)

    def held(self) -> list[Cursor]:
        """Those that wait for the keeper."""
        with self._mutex:
            return [cursor for cursor in self._cursors.values() if cursor.held is not None]

    def nodes(self) -> set[int]:
        """The brokers that lead something."""
        with self._mutex:
            return {cursor.leader for cursor in self._cursors.values() if cursor.leader >= 0}

    def wants(self, node: int, max_bytes: int) -> dict[tuple[str, int], tuple[Cursor, Want]]:
        """What to ask a broker for now; of two generations of a partition one, by turns.

        A broker fills its answer from the front, and gives a batch larger than the rest of it to the first alone: so
        topics take turns at the front, and the partitions within them, each broker's by a count of its own.
        """
        with self._mutex:
            turn = self._turns[node] = self._turns.get(node, 0) + 1
            own = [each for each in self._cursors.values() if each.leader == node and each.held is None]
            at = turn % len(own) if own else 0
            turned = own[at:] + own[:at]
            # A topic's partitions stay together, so that a request names it once.
            order = {topic_id: index for index, topic_id in enumerate(dict.fromkeys(each.topic_id for each in turned))}
            chosen: dict[tuple[str, int], tuple[Cursor, Want]] = {}
            for cursor in sorted(turned, key=lambda each: order[each.topic_id]):
                place = cursor.topic_id, cursor.partition
                if place in chosen and (cursor.generation + turn) % 2:
                    continue
                chosen[place] = (cursor, Want(
                    cursor.topic, cursor.topic_id, cursor.partition, cursor.offset, cursor.leader_epoch,
                    cursor.last_epoch, max_bytes,
                ))  # fmt: skip
            return chosen

    def advance(
        self, cursor: Cursor, offset: int, last_epoch: int, marks: tuple[int, int, int], *, reached: bool
    ) -> None:
        """Fetched up to `offset`; `marks` are high watermark, last stable offset and log start as the leader told."""
        with self._mutex:
            if offset != cursor.offset:
                cursor.offset, cursor.last_epoch, cursor.broken = offset, last_epoch, None
            cursor.high_watermark, cursor.last_stable, cursor.log_start = marks
            cursor.complete = cursor.complete or reached


def _joined(broken: Break | None, offset: int) -> Break | None:
    """What the next slice says when a stream jumped, perhaps twice, before anything was fetched behind the first jump.

    It is told from where the stored part ends; each jump has a fact of its own. A second one that leads back there
    leaves nothing to tell.
    """
    if broken is None or broken.was == offset:
        return None
    return Break("gap" if broken.was < offset else "diverged", broken.was)
