"""A target held to an export: every record, offset, timestamp, header, transaction and group position.

What belongs here: reading both and telling the differences. What stays out: putting anything right. The export's
batches are decoded here by themselves, not by the code that restored them: what a restore got wrong is not repeated.

Batches that are equal in all bytes that their CRC covers, but for the producer, are equal; where they are not (made
anew, cut), their records are compared one by one. What a reader can't see is compared too where it changes what
others see: how each transaction ended, and where the partition begins and ends.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from dr_assets.stores.kafka.batches import COMMIT, CRC_FROM, BatchHeader, Record, marker, records, split, with_producer
from dr_assets.stores.kafka.groups import read_positions, translated
from dr_assets.stores.kafka.offset_map import OffsetMap
from dr_assets.stores.kafka.restore_read import partition_batches
from dr_assets.stores.kafka.restore_source import RestoreSource, SourceTopic, Where
from dr_assets.stores.kafka.wire import EARLIEST, LATEST, Cluster, Place
from dr_assets.vault.format.canonical import Json

_LISTED: Final = 100
_SHOWN_BYTES: Final = 40


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that isn't as it was. `offset` is the source's; -1 where it is about the whole partition or group."""

    topic: str
    partition: int
    offset: int
    what: str

    def __str__(self) -> str:
        where = f"{self.topic}/{self.partition}" if self.partition >= 0 else self.topic
        return f"{where}{f' at {self.offset}' if self.offset >= 0 else ''}: {self.what}"


@dataclass(slots=True)
class Comparison:
    """What was compared and what differs: `differences` lists the first hundred, `count` has them all.

    `identical_batches` were equal in every byte that a CRC covers but for the producer, `decoded_records` were compared
    one by one. `maps` tells where each record was found.
    """

    differences: list[Difference] = field(default_factory=list)
    count: int = 0
    partitions: int = 0
    records: int = 0
    identical_batches: int = 0
    decoded_records: int = 0
    transactions: int = 0
    positions: int = 0
    maps: dict[Place, OffsetMap] = field(default_factory=dict)

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return not self.count

    @property
    def is_identical(self) -> bool:
        """Whether nothing differs and every record has the offset that it had."""
        return self.is_equal and all(found.is_identical for found in self.maps.values())

    def add(self, topic: str, partition: int, offset: int, what: str) -> None:
        """Note a difference."""
        self.count += 1
        if len(self.differences) < _LISTED:
            self.differences.append(Difference(topic, partition, offset, what))

    def to_json(self) -> dict[str, Json]:
        """For evidence; holds no record."""
        return {
            "equal": self.is_equal,
            "offsets_identical": self.is_identical,
            "differences": self.count,
            "listed": [str(each) for each in self.differences],
            "partitions": self.partitions,
            "records": self.records,
            "identical_batches": self.identical_batches,
            "decoded_records": self.decoded_records,
            "transactions": self.transactions,
            "positions": self.positions,
        }


def compare(
    source: RestoreSource,
    cluster: Cluster,
    names: Mapping[str, str],
    *,
    ends: Mapping[tuple[str, int], int] | None = None,
    behind: Mapping[Place, int] | None = None,
    maps: Mapping[Place, OffsetMap] | None = None,
    groups: tuple[str, ...] | None = None,
    told: Callable[[int], None] | None = None,
) -> Comparison:
    """Hold the topics `names` (source's name to target's) in `cluster` to `source`.

    `ends` are where a restore was cut, `behind` where its records begin in targets that held others, `maps` what it
    says of where records went: each is held to what is found. `groups` None means all. `told` hears of compared bytes.
    Raises SourceError when the target can't be read, VaultError when the export can't.
    """
    result = Comparison()
    metadata = cluster.metadata(sorted(names.values()))
    sides: dict[Where, _Partition] = {}
    for name, target in sorted(names.items()):
        topic = source.topics[name]
        there = metadata.topics.get(target)
        if there is None or len(there.partitions) != len(topic.partitions):
            found = "is not there" if there is None else f"has {len(there.partitions)} partitions"
            result.add(target, -1, -1, f"the topic {found}, {len(topic.partitions)} were expected")
            continue
        sides |= _sides(topic, target, there.topic_id, cluster, result, ends or {}, behind or {})
    wanted = {where: (side.begin, side.end) for where, side in sides.items() if side.end > side.begin}
    for topic_id, partition, data in source.slices(wanted):
        sides[(topic_id, partition)].feed(data)
        if told is not None:
            told(len(data))
    for side in sides.values():
        side.finish()
        result.maps[side.place] = side.map
        if maps is not None and side.place in maps:
            side.hold_to(maps[side.place])
    _compare_groups(source, cluster, names, result, groups)
    return result


def _sides(
    topic: SourceTopic,
    target: str,
    topic_id: str,
    cluster: Cluster,
    result: Comparison,
    ends: Mapping[tuple[str, int], int],
    behind: Mapping[Place, int],
) -> dict[Where, "_Partition"]:
    places = [(target, index) for index in topic.partitions]
    first, last = cluster.list_offsets(places, EARLIEST), cluster.list_offsets(places, LATEST)
    found = {}
    for index, part in topic.partitions.items():
        place = (target, index)
        end = min(ends.get((topic.name, index), part.end), part.end)
        begin_there = max(first[place], behind.get(place, 0))
        there = partition_batches(cluster, place, topic_id, begin_there, last[place])
        found[(topic.topic_id, index)] = _Partition(
            result, place, (part.begin, max(part.begin, end)), (begin_there, last[place]), there,
            part.last_stable if end == part.end else None,
        )  # fmt: skip
        result.partitions += 1
    return found


@dataclass(frozen=True, slots=True)
class _Seen:
    """One record of one side; `codec` is how it is compressed."""

    record: Record
    codec: int


class _Side:
    """One side's transactions: where each began, how it ended."""

    def __init__(self) -> None:
        self.open: dict[int, int] = {}
        self.ended: deque[tuple[int, int, bool]] = deque()

    def data(self, header: BatchHeader, first: int) -> None:
        if header.is_transactional:
            self.open.setdefault(header.producer_id, first)

    def control(self, header: BatchHeader, batch: memoryview) -> None:
        first = self.open.pop(header.producer_id, None) if header.count else None
        if first is not None:
            self.ended.append((header.base_offset, first, marker(batch) == COMMIT))


class _Partition:
    """One partition's comparison: the export's batches are fed, the target's drawn as they are needed."""

    def __init__(
        self,
        result: Comparison,
        place: Place,
        wanted: tuple[int, int],
        there: tuple[int, int],
        batches: Iterator[tuple[BatchHeader, memoryview]],
        last_stable: int | None,
    ) -> None:
        self._last_stable = last_stable
        self.place = place
        self.begin, self.end = wanted
        self._there_begin, self._there_end = there
        self._batches = batches
        self._result = result
        self._ours: deque[_Seen] = deque()
        self._theirs: deque[_Seen] = deque()
        self._source, self._target = _Side(), _Side()
        self._next = self.begin
        self.map = OffsetMap(self._there_begin, self._there_end)

    def feed(self, data: memoryview) -> None:
        """Compare whole batches of the export, in order."""
        for header, batch in split(data):
            if header.next_offset <= self._next or header.base_offset >= self.end:
                continue
            self._next = header.next_offset
            if header.is_control or not header.count:
                if header.is_control:
                    self._source.control(header, batch)
                continue
            self._data(header, batch)

    def finish(self) -> None:
        """What is left on either side is a difference; then transactions and the partition's two ends."""
        self._pair()
        while (header_batch := self._draw()) is not None:
            self._theirs.extend(_seen(*header_batch, self._there_begin, self._there_end))
        for seen in self._ours:
            self._differs(seen.record.offset, "the record is missing in the target")
        for seen in self._theirs:
            self._differs(-1, f"the target holds a record more, at its offset {seen.record.offset}")
        self._compare_transactions()
        if not self.map.runs or not self.map.is_identical:
            return
        if self._there_end < self.end:
            self._differs(-1, f"the target ends at {self._there_end}, the export at {self.end}")
        if self._there_begin > self.begin:
            self._differs(-1, f"the target begins at {self._there_begin}, the export at {self.begin}")

    def hold_to(self, said: OffsetMap) -> None:
        """The map of the restore must place every record where it was found, and end where the partition does."""
        if said.end != self._there_end:
            self._differs(-1, f"the offset map ends at {said.end}, the target at {self._there_end}")
        for run in self.map.runs:
            for offset in (run.source, run.source + run.count - 1):
                found = run.target + offset - run.source
                if said.record_at(offset) != found:
                    self._differs(offset, f"the offset map says {said.record_at(offset)}, the record is at {found}")

    def _data(self, header: BatchHeader, batch: memoryview) -> None:
        self._source.data(header, header.base_offset)
        if not self._ours and not self._theirs:
            drawn = self._draw()
            if drawn is None:
                self._ours.extend(_seen(header, batch, self.begin, self.end))
                return
            if self._same(header, batch, *drawn):
                self._add(header.base_offset, drawn[0].base_offset, header.count)
                self._result.identical_batches += 1
                self._result.records += header.count
                return
            self._theirs.extend(_seen(*drawn, self._there_begin, self._there_end))
        self._ours.extend(_seen(header, batch, self.begin, self.end))
        self._pair()

    def _same(self, header: BatchHeader, batch: memoryview, there: BatchHeader, other: memoryview) -> bool:
        if header.count != there.count or header.size_bytes != there.size_bytes or not header.is_dense:
            return False
        if not self.begin <= header.base_offset <= header.next_offset <= self.end:
            return False
        return with_producer(batch, -1, -1, -1)[CRC_FROM:] == with_producer(other, -1, -1, -1)[CRC_FROM:]

    def _pair(self) -> None:
        while self._ours:
            if not self._theirs:
                drawn = self._draw()
                if drawn is None:
                    return
                self._theirs.extend(_seen(*drawn, self._there_begin, self._there_end))
                continue
            self._compare_records(self._ours.popleft(), self._theirs.popleft())

    def _compare_records(self, ours: _Seen, theirs: _Seen) -> None:
        one, other = ours.record, theirs.record
        self._result.records += 1
        self._result.decoded_records += 1
        self._add(one.offset, other.offset, 1)
        for what, was, found in (
            ("timestamp", one.timestamp, other.timestamp),
            ("key", one.key, other.key),
            ("value", one.value, other.value),
            ("headers", one.headers, other.headers),
            ("codec", ours.codec, theirs.codec),
        ):
            if was != found:
                self._differs(one.offset, f"its {what} differs{_sizes(was, found)}")

    def _draw(self) -> tuple[BatchHeader, memoryview] | None:
        """The target's next batch of records; markers on the way are noted."""
        for header, batch in self._batches:
            if header.is_control:
                self._target.control(header, batch)
            elif header.count:
                self._target.data(header, header.base_offset)
                return header, batch
        return None

    def _compare_transactions(self) -> None:
        """Each of the source's, by where it began: ended the same way, behind the same records."""
        there = {first: (at, commit) for at, first, commit in self._target.ended}
        for at, first, commit in self._source.ended:
            self._result.transactions += 1
            found = there.pop(self._found(first), None)
            if found is None or found[1] != commit:
                how = "not ended" if found is None else "committed" if found[1] else "aborted"
                self._differs(first, f"its transaction was {'committed' if commit else 'aborted'}, in the target {how}")
            elif self.map.is_identical and found[0] != at:
                self._differs(at, f"a transaction's marker lies at {found[0]} in the target")
        for first in self._source.open.values():
            self._result.transactions += 1
            found = there.pop(self._found(first), None)
            # Below the last stable offset it was committed, and compaction has taken the marker.
            wanted = self._last_stable is not None and first < self._last_stable <= self.end
            if found is None or found[1] != wanted:
                how = "not ended" if found is None else "committed" if found[1] else "aborted"
                self._differs(first, f"its transaction had no end at the cut, in the target it was {how}")
        for first in [*there, *self._target.open.values()]:
            self._differs(-1, f"the target holds a transaction that the export does not, from its offset {first}")

    def _found(self, source: int) -> int:
        """Where a transaction's first record was found; its own place if the export's cut left it out."""
        return self.map.position(source)

    def _add(self, source: int, target: int, count: int) -> None:
        try:
            self.map.add(source, target, count)
        except ValueError:
            self._differs(source, f"it lies at {target} in the target, before what was there already")

    def _differs(self, offset: int, what: str) -> None:
        self._result.add(*self.place, offset, what)


def _seen(header: BatchHeader, batch: memoryview, begin: int, end: int) -> list[_Seen]:
    codec = header.compression
    return [_Seen(record, codec) for record in records(batch) if begin <= record.offset < end]


def _sizes(was: object, found: object) -> str:
    """What may be said of two values that differ: numbers, or how long they are; never what people wrote."""
    if isinstance(was, int) and isinstance(found, int):
        return f": {was} became {found}"
    sizes = [f"{len(each)} bytes" if isinstance(each, bytes) else "null" for each in (was, found)]
    return f": {sizes[0]}, in the target {sizes[1]}" if not isinstance(was, tuple) else ""


def _compare_groups(
    source: RestoreSource,
    cluster: Cluster,
    names: Mapping[str, str],
    result: Comparison,
    groups: tuple[str, ...] | None,
) -> None:
    for group, commits in sorted(source.groups.items()):
        if groups is not None and group not in groups:
            continue
        wanted = translated(group, commits, names, result.maps).positions
        if not wanted:
            continue
        found = read_positions(cluster, group, wanted)
        for place, commit in wanted.items():
            result.positions += 1
            there = found.get(place)
            if there is None:
                result.add(*place, commit.offset, f"group {group} has no position in the target")
            elif there != commit:
                what = f"offset {there.offset}" if there.offset != commit.offset else "other metadata"
                result.add(*place, commit.offset, f"group {group} has {what} in the target")
