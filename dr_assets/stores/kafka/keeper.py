"""Looks after the streams of a capture: new topics, leaders that moved, streams that can't be fetched, generations.

What belongs here: one thread that asks the cluster every other second, or when a fetcher wants it, and sets the book
right. What stays out: fetching (fetcher.py), what is stored (capture_loop.py).

A jump is on record before the stream is fetched again: a gap where retention overtook us, a divergence where the log
is another one than that which was fetched.
"""

import threading
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.stores.kafka.book import Book, Cursor
from dr_assets.stores.kafka.capture_facts import StreamGap, record_gap, record_recreated
from dr_assets.stores.kafka.fetcher import DIVERGING, Fetcher
from dr_assets.stores.kafka.refusals import OFFSET_OUT_OF_RANGE, TRANSIENT, BrokerError
from dr_assets.stores.kafka.wire import EARLIEST, LATEST, Cluster, Metadata, Topic
from dr_assets.vault.format.pack import Break, Row, Stream
from dr_assets.vault.vault import Vault

LOOK_EVERY_S: Final = 2.0
_LOOK_AT_MOST_EVERY_S: Final = 0.2
_TRY_AGAIN_S: Final = 5.0
_GENERATION_S: Final = 4
_GONE_AFTER: Final = 3  # looks: a broker that has just started doesn't know all topics yet


@dataclass(frozen=True, slots=True)
class Begun:
    """A stream is captured from now on."""

    row: Row
    topic: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream is not captured any more: its topic is gone."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Looked:
    """The topics were looked at: what was made before `at` is known."""

    at: datetime


Kept = Begun | Ended | Looked


class Keeper:
    """Keeps a book until it is stopped. `tell` takes what the loop has to know, in order, and does not block.

    `before` are ids of topics that were ever captured. `is_compacted` tells of a topic's name whether compaction takes
    records away. `fetcher` makes one for a node.
    """

    def __init__(
        self, cluster: Cluster, vault: Vault, dataset: str, book: Book, *, covers: Callable[[str], bool],
        topics: Mapping[str, str], before: AbstractSet[str], compacted_every: timedelta,
        is_compacted: Callable[[str], bool], fetcher: Callable[[int], Fetcher], tell: Callable[[Kept], None],
        clock: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._vault = vault
        self._dataset = dataset
        self._book = book
        self._covers = covers
        self._ids = {name: topic_id for topic_id, name in topics.items()}
        self._before = set(before)
        self._compacted_every = compacted_every
        self._is_compacted = is_compacted
        self._fetcher = fetcher
        self._tell = tell
        self._clock = clock
        self._fetchers: dict[int, Fetcher] = {}
        self._missing: dict[str, int] = {}
        self._tried: dict[Stream, float] = {}
        self._wanted = threading.Event()
        self._stop = threading.Event()
        self._source_trouble: str | None = None
        self._stream_trouble: str | None = None
        self._unled: frozenset[str] = frozenset()
        self._unled_trouble: str | None = None
        self.topics: dict[str, Topic] = {}
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"keep-{dataset}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def want(self) -> None:
        """Look soon."""
        self._wanted.set()

    def stop(self) -> None:
        """End, and all fetchers too."""
        self._stop.set()
        self._wanted.set()
        for fetcher in list(self._fetchers.values()):
            fetcher.stop()
        if self._thread.is_alive():
            self._thread.join(30)
        for fetcher in list(self._fetchers.values()):
            fetcher.stop()
            fetcher.join()

    @property
    def trouble(self) -> str | None:
        """What keeps streams from being fetched, if anything."""
        fetching = [each.trouble for each in list(self._fetchers.values()) if each.trouble]
        troubles = [
            each for each in (self._source_trouble, self._stream_trouble, self._unled_trouble, *fetching[:2]) if each
        ]
        return "; ".join(troubles) or None

    @property
    def throttled_s(self) -> float:
        """How long quotas have held fetchers up so far."""
        return sum(each.throttled_s for each in list(self._fetchers.values()))

    def fetcher_error(self) -> BaseException | None:
        """A bug in one of the fetchers."""
        return next((each.error for each in list(self._fetchers.values()) if each.error is not None), None)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._wanted.clear()
                try:
                    self._look()
                except SourceError as error:
                    self._source_trouble = f"{error.code}: {error.found}"
                else:
                    self._source_trouble = None
                self._stop.wait(_LOOK_AT_MOST_EVERY_S)
                self._wanted.wait(LOOK_EVERY_S)
        except BaseException as error:  # noqa: BLE001 - a thread's bug must end the capture, so it crosses over
            self.error = error

    # -- one look ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        at = self._clock()
        metadata = self._cluster.metadata()
        covered = {name: topic for name, topic in metadata.topics.items() if self._is_ours(topic)}
        self._note_gone(covered)
        self._begin_new(covered)
        self._note_leaders(covered)
        self.topics = covered
        self._see_to_held(metadata)
        self._renew(covered)
        self._keep_fetchers()
        if self._knows_all(covered):
            self._tell(Looked(at))

    def _knows_all(self, covered: Mapping[str, Topic]) -> bool:
        """Whether every partition there is has a stream: what nobody leads yet can't be begun, and may hold records."""
        known = {stream[:2] for stream in self._book.streams()}
        unknown = sorted(
            name for name, topic in covered.items()
            if not topic.partitions or any((topic.topic_id, each.index) not in known for each in topic.partitions)
        )  # fmt: skip
        # A topic that was made this moment has no leaders for a moment.
        lasting = [name for name in unknown if name in self._unled]
        self._unled = frozenset(unknown)
        self._unled_trouble = f"no leader, so nothing is fetched: {', '.join(lasting[:3])}" if lasting else None
        return not unknown

    def _is_ours(self, topic: Topic) -> bool:
        return not topic.is_internal and self._covers(topic.name)

    def _note_gone(self, covered: Mapping[str, Topic]) -> None:
        """Topics that were deleted, and those whose name another one has now: on record, and their streams end."""
        for name, topic_id in list(self._ids.items()):
            topic = covered.get(name)
            if topic is not None and topic.topic_id == topic_id:
                self._missing.pop(name, None)
                continue
            self._missing[name] = self._missing.get(name, 0) + 1
            if topic is None and (self._missing[name] < _GONE_AFTER or not self._covers(name)):
                continue
            record_recreated(
                self._vault, self._dataset, self._cluster.system_id, name, topic_id,
                None if topic is None else topic.topic_id,
            )  # fmt: skip
            del self._ids[name]
            self._missing.pop(name, None)
            for stream in [each for each in self._book.streams() if each[0] == topic_id]:
                self._book.drop(stream)
                self._tell(Ended(stream))

    def _begin_new(self, covered: Mapping[str, Topic]) -> None:
        known = {stream[:2] for stream in self._book.streams()}
        new = [
            (topic, each.index)
            for topic in covered.values()
            for each in topic.partitions
            if (topic.topic_id, each.index) not in known and each.leader >= 0
        ]
        if not new:
            return
        begins = self._cluster.list_offsets([(topic.name, index) for topic, index in new], EARLIEST)
        later = int(self._clock().timestamp()) // _GENERATION_S
        for topic, index in new:
            # What was captured before, and then was gone or left out, is another export: offsets begin anew in it.
            generation = later if topic.topic_id in self._before else 0
            self._begin(topic, index, generation, begins[(topic.name, index)])
        self._before |= {topic.topic_id for topic, _ in new}

    def _begin(self, topic: Topic, index: int, generation: int, begin: int) -> None:
        began_at = self._clock()
        row = Row(topic.topic_id, index, generation, begin, begin, -1, -1, -1, begin, began_at, complete=False)
        cursor = Cursor.of(row, topic.name)
        leader = next(each for each in topic.partitions if each.index == index)
        cursor.leader, cursor.leader_epoch = leader.leader, leader.leader_epoch
        self._ids[topic.name] = topic.topic_id
        self._tell(Begun(row, topic.name))
        self._book.add(cursor)

    def _note_leaders(self, covered: Mapping[str, Topic]) -> None:
        leaders = {
            (topic.topic_id, each.index): (each.leader, each.leader_epoch)
            for topic in covered.values()
            for each in topic.partitions
        }
        for stream in self._book.streams():
            self._book.lead(stream, *leaders.get(stream[:2], (-1, -1)))

    def _keep_fetchers(self) -> None:
        """One for every broker that leads something; one that leads nothing idles, and ends with its broker."""
        for node in self._book.nodes() - self._fetchers.keys():
            fetcher = self._fetchers[node] = self._fetcher(node)
            fetcher.start()

    # -- streams that can't be fetched ------------------------------------------------------------------------------

    def _see_to_held(self, metadata: Metadata) -> None:
        troubles: list[str] = []
        for cursor in self._book.held():
            topic = metadata.topics.get(cursor.topic)
            if topic is None or topic.topic_id != cursor.topic_id:
                continue  # gone, or about to be noticed as such
            now_s = time.monotonic()
            if cursor.errno == OFFSET_OUT_OF_RANGE or cursor.held == DIVERGING:
                self._jump(cursor)
            elif cursor.errno in TRANSIENT:
                self._book.release(cursor.stream)
            else:
                troubles.append(f"{cursor.topic}/{cursor.partition}: {cursor.held}")
                if now_s - self._tried.get(cursor.stream, 0.0) > _TRY_AGAIN_S:
                    self._tried[cursor.stream] = now_s
                    self._book.release(cursor.stream)
        # What is tried again now is still the trouble that it was until it goes well.
        waiting = {stream for stream, at_s in self._tried.items() if time.monotonic() - at_s < _TRY_AGAIN_S}
        if troubles or not waiting:
            self._stream_trouble = "; ".join(troubles[:3]) or None

    def _jump(self, cursor: Cursor) -> None:
        """Go on where the log is: behind what retention removed, or where it parts from what was fetched."""
        place = cursor.topic, cursor.partition
        try:
            earliest = self._cluster.list_offsets([place], EARLIEST)[place]
            latest = self._cluster.list_offsets([place], LATEST)[place]
            end = latest
            if cursor.last_epoch >= 0 and cursor.offset >= earliest:
                parted = self._cluster.epoch_ends({place: cursor.last_epoch})[place]
                end = min(latest, parted.end_offset) if parted.end_offset >= 0 else latest
        except BrokerError as error:
            if not error.is_transient:
                raise
            return
        was = cursor.offset
        if was < earliest:
            found = f"the log begins at {earliest}, captured is up to {was}"
            self._record_jump(cursor, "gap", was, earliest, found)
            self._book.release(cursor.stream, offset=earliest, broken=Break("gap", was))
        elif end < was:
            at = max(end, earliest)
            found = f"the log parts at {at} from what was captured up to {was} under epoch {cursor.last_epoch}"
            self._record_jump(cursor, "diverged", at, was, found)
            self._book.release(cursor.stream, offset=at, broken=Break("diverged", was))
        else:
            self._book.release(cursor.stream)

    def _record_jump(self, cursor: Cursor, why: str, begin: int, end: int, found: str) -> None:
        gap = StreamGap(
            cursor.topic, cursor.topic_id, cursor.partition, "gap" if why == "gap" else "diverged", begin, end, found
        )
        try:
            record_gap(self._vault, self._dataset, self._cluster.system_id, gap)
        except VaultError as error:
            # Nothing of the stream is fetched before this is on record.
            raise SourceError(
                "kafka.gap_unrecorded", f"{cursor.topic}/{cursor.partition}: {found}; {error.code}: {error.found}",
                error.hint,
            ) from None  # fmt: skip

    # -- generations ------------------------------------------------------------------------------------------------

    def _renew(self, covered: Mapping[str, Topic]) -> None:
        """Begin compacted partitions anew whose export is old: what holds a key's last record may expire otherwise."""
        by_id = {topic.topic_id: topic for topic in covered.values()}
        newest: dict[tuple[str, int], Cursor] = {}
        for stream, cursor in sorted(self._book.streams().items()):
            newest[stream[:2]] = cursor
        due = [
            cursor for cursor in newest.values()
            if cursor.complete and cursor.topic_id in by_id
            and self._clock() - cursor.began_at >= self._compacted_every and self._is_compacted(cursor.topic)
        ]  # fmt: skip
        if not due:
            return
        begins = self._cluster.list_offsets([(each.topic, each.partition) for each in due], EARLIEST)
        for cursor in due:
            begin = begins[(cursor.topic, cursor.partition)]
            self._begin(by_id[cursor.topic_id], cursor.partition, cursor.generation + 1, begin)
