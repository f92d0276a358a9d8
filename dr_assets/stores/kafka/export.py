"""The reading side of a Kafka capture: what the vault holds of a cluster as of a moment, and its batches in order.

What belongs here: resolving packs into partitions, streaming batches out of them, positions as of a time. What stays
out: writing any of it anywhere (restore*.py), what a record is (batches.py).

Packs hold many partitions, so whoever wants several asks for all of them at once and each pack is read once.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import takewhile

from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.admin import GroupOffset, Place
from dr_assets.stores.kafka.batches import parse_header, records
from dr_assets.stores.kafka.capture_facts import TIMELINE, latest_anchor
from dr_assets.stores.kafka.catalogue import catalogued, require_same
from dr_assets.stores.kafka.expired import begin_on_record
from dr_assets.stores.kafka.pack import OpenedPack, open_pack
from dr_assets.stores.kafka.restore_source import Pinned
from dr_assets.stores.kafka.surveyed import Surveyed, SurveyedTopic, surveyed
from dr_assets.vault.chain import resolve
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import PACKS
from dr_assets.vault.format.pack import Row, Slice, Why
from dr_assets.vault.format.pack_list import PackRow
from dr_assets.vault.vault import StoredObject, Vault

Where = tuple[str, int]  # a topic's id and a partition of it
_AHEAD = 3
_KEPT = 4
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ExportGap:
    """A jump in a partition: see `vault.format.pack.Break`. `at` is when its pack was cut."""

    topic_id: str
    partition: int
    why: Why
    was: int
    first: int
    at: datetime


@dataclass(frozen=True, slots=True)
class ExportPartition:
    """What is stored of a partition: offsets [begin, next).

    `count` is how many of them hold something, None where a slice was cut. `log_start` and `high_watermark` are what
    the leader said last, -1 for unknown. Of transactions that begin below `last_stable` the ends are in here, or
    compaction has taken them; -1 where nobody can tell. `complete`: the export once reached the end of the log; of a
    compacted topic only a complete one has the last record of every key.
    """

    index: int
    generation: int
    begin: int
    next: int
    log_start: int
    high_watermark: int
    last_stable: int
    count: int | None
    size_bytes: int
    transactional: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class ExportTopic:
    """A topic as of the export's moment. `configs` are its own settings. `is_gone`: it had been deleted by then."""

    name: str
    topic_id: str
    partitions: Mapping[int, ExportPartition]
    partition_count: int
    replication_factor: int
    configs: Mapping[str, str]
    policy: str
    is_gone: bool

    @property
    def compacted(self) -> bool:
        """Whether its cleanup policy compacts."""
        return "compact" in self.policy


@dataclass(frozen=True, slots=True)
class ExportSlice:
    """Whole batches for offsets [first, next); the first may begin before, the last end behind what was asked for."""

    topic_id: str
    partition: int
    first: int
    next: int
    batches: memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Held:
    """A slice in its pack; `end` is below `slice.next` where a later one took its place from there on."""

    pack: int
    slice: Slice
    end: int


@dataclass(slots=True)
class _Stream:
    """One generation of a partition while packs are gone through."""

    row: Row
    held: list[_Held] = field(default_factory=list)

    def add(self, pack: int, each: Slice) -> None:
        """The next slice; one that is broken off backwards takes the place of what was stored from there on."""
        if each.broken is not None and each.broken.why == "diverged":
            kept = [held for held in self.held if held.slice.first < each.first]
            self.held = [_Held(held.pack, held.slice, min(held.end, each.first)) for held in kept]
        self.held.append(_Held(pack, each, each.next))


class Export:
    """What a vault holds of one dataset as of one moment. Made by `open_export`; threads may share it."""

    def __init__(
        self, vault: Vault, dataset: str, system_id: str, objects: Mapping[int, StoredObject],
        rows: Iterable[PackRow], seen: Surveyed, as_of: datetime | None,
    ) -> None:  # fmt: skip
        self._vault = vault
        self._objects = objects
        self.dataset = dataset
        self.system_id = system_id
        self.as_of = as_of
        self.surveyed = seen
        self.packs = len(objects)
        self.end = max((obj.key.last for obj in objects.values()), default=0)
        self.recovery_point_at: datetime | None = None
        self.cluster_id = ""
        gathered = _Gathered()
        for row in rows:
            points = (self.recovery_point_at, row.recovery_point_at)
            self.recovery_point_at = max(filter(None, points), default=None)
            self.cluster_id = row.index.cluster_id
            gathered.take(row)
        self._streams = gathered.chosen()
        self.gaps: tuple[ExportGap, ...] = tuple(gathered.gaps)
        self.topics: Mapping[str, ExportTopic] = _topics(self._streams, gathered, seen)

    @property
    def groups(self) -> Mapping[str, Mapping[Place, GroupOffset]]:
        """What each group had committed."""
        return self.surveyed.groups

    @property
    def acls(self) -> tuple[Mapping[str, Json], ...]:
        """Access rules, as admin.Acl."""
        return self.surveyed.acls

    @property
    def subjects(self) -> tuple[Mapping[str, Json], ...]:
        """A schema registry's subjects with their versions."""
        return self.surveyed.subjects

    def topic(self, name: str) -> ExportTopic:
        """The topic of this name: the one that was there, else the last. Raises VaultError `kafka.no_topic`."""
        own = [topic for topic in self.topics.values() if topic.name == name]
        if not own:
            known = ", ".join(sorted({topic.name for topic in self.topics.values()})[:20]) or "none"
            raise VaultError("kafka.no_topic", f"{self.dataset} holds no topic '{name}'", f"it holds: {known}")
        return min(own, key=lambda topic: topic.is_gone)

    def slices(self, wanted: Mapping[Where, tuple[int, int]]) -> Iterator[ExportSlice]:
        """The batches that hold any of the wanted offsets [begin, end), pack by pack, each partition's in order.

        Packs are read ahead, a few at a time. Raises VaultError.
        """
        by_pack: dict[int, list[_Held]] = {}
        for where, (begin, end) in wanted.items():
            stream = self._streams.get(where)
            for held in stream.held if stream is not None else ():
                if held.slice.first < end and begin < held.end:
                    by_pack.setdefault(held.pack, []).append(held)
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="packs") as pool:
            numbers, ahead = iter(sorted(by_pack)), deque[tuple[int, Future[OpenedPack]]]()

            def read_on() -> None:
                number = next(numbers, None)
                if number is not None:
                    ahead.append((number, pool.submit(open_pack, self._vault, self._objects[number])))

            for _ in range(_AHEAD):
                read_on()
            while ahead:
                number, reading = ahead.popleft()
                opened = reading.result()
                read_on()
                for held in sorted(by_pack[number], key=lambda each: each.slice.at):
                    begin, end = wanted[held.slice.topic_id, held.slice.partition]
                    yield _part_of(opened, held, begin, end)

    def batches(self, topic_id: str, partition: int, begin: int, end: int) -> Iterator[bytes]:
        """The same of one partition, as bytes."""
        for part in self.slices({(topic_id, partition): (begin, end)}):
            yield bytes(part.batches)

    def positions_at(self, at: datetime) -> dict[Where, int]:
        """Where each partition stood at `at` by its records' timestamps: the first offset that is not older.

        As Kafka's own offsets for times: what comes after may be older all the same. Raises VaultError, SourceError.
        """
        moment_ms = int(at.timestamp() * 1000)

        @lru_cache(_KEPT)  # most partitions' records of one moment came in the same packs
        def opened(number: int) -> OpenedPack:
            return open_pack(self._vault, self._objects[number])

        return {where: _position_at(stream, moment_ms, opened) for where, stream in self._streams.items()}


def _position_at(stream: _Stream, moment_ms: int, opened: Callable[[int], OpenedPack]) -> int:
    for held in stream.held:
        if held.slice.max_timestamp < moment_ms:
            continue
        for batch in _each(_part_of(opened(held.pack), held, held.slice.first, held.end).batches):
            if parse_header(batch).max_timestamp < moment_ms:
                continue
            for record in records(batch):
                if record.timestamp >= moment_ms and held.slice.first <= record.offset < held.end:
                    return record.offset
    return stream.held[-1].end if stream.held else stream.row.begin


@dataclass(slots=True)
class _Gathered:
    """Streams, names and gaps, put together pack by pack."""

    streams: dict[tuple[str, int, int], _Stream] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gaps: list[ExportGap] = field(default_factory=list)
    complete: set[tuple[str, int, int]] = field(default_factory=set)
    present: set[str] = field(default_factory=set)

    def take(self, pack: PackRow) -> None:
        """The next pack of the chain."""
        index, number = pack.index, pack.key.first
        self.names |= index.topics
        for row in index.table or ():
            known = self.streams.get(row.stream)
            if known is None:
                known = self.streams[row.stream] = _Stream(row)
            known.row = row
            if row.complete:
                self.complete.add(row.stream)
        if index.table is not None:
            self.present = {row.topic_id for row in index.table}
        for each in index.slices:
            stream = self.streams.get(each.stream)
            if stream is None:  # what came before has expired: it begins here
                stream = self.streams[each.stream] = _Stream(_row_of(each, pack.begin_at))
            stream.add(number, each)
            if each.next >= each.high_watermark:
                self.complete.add(each.stream)
            if each.broken is not None:
                self.gaps.append(
                    ExportGap(each.topic_id, each.partition, each.broken.why, each.broken.was, each.first, pack.end_at)
                )

    def chosen(self) -> dict[Where, _Stream]:
        """Of each partition the newest generation that is complete, else the newest there is."""
        found: dict[Where, _Stream] = {}
        for stream in sorted(self.streams):
            where = stream[:2]
            if where not in found or stream in self.complete:
                found[where] = self.streams[stream]
        return found


def _row_of(each: Slice, at: datetime) -> Row:
    return Row(
        each.topic_id, each.partition, each.generation, each.first, each.next, each.leader_epoch,
        each.high_watermark, each.last_stable, each.log_start, at, complete=False,
    )  # fmt: skip


def _topics(streams: Mapping[Where, _Stream], gathered: _Gathered, seen: Surveyed) -> dict[str, ExportTopic]:
    partitions: dict[str, dict[int, ExportPartition]] = {}
    for (topic_id, index), stream in streams.items():
        partitions.setdefault(topic_id, {})[index] = _partition(stream, gathered)
    found: dict[str, ExportTopic] = {}
    for topic_id, own in partitions.items():
        known: SurveyedTopic | None = seen.topics.get(topic_id)
        name = gathered.names.get(topic_id, topic_id)
        found[topic_id] = ExportTopic(
            name, topic_id, own, max(max(own) + 1, 0 if known is None else known.partitions),
            1 if known is None else known.replication_factor, {} if known is None else known.configs,
            "" if known is None else known.policy, topic_id not in gathered.present,
        )  # fmt: skip
    return found


def _partition(stream: _Stream, gathered: _Gathered) -> ExportPartition:
    row, held = stream.row, stream.held
    last = held[-1].slice if held else None
    newest = row if last is None or row.next > last.next else last
    is_cut = any(each.end != each.slice.next for each in held)
    return ExportPartition(
        index=row.partition,
        generation=row.generation,
        begin=held[0].slice.first if held else row.begin,
        next=held[-1].end if held else row.next,
        log_start=newest.log_start,
        high_watermark=newest.high_watermark,
        last_stable=decided_below([each.slice for each in held], held[-1].end if held else row.next),
        count=None if is_cut else sum(each.slice.count for each in held),
        size_bytes=sum(each.slice.size_bytes for each in held),
        transactional=any(each.slice.transactional for each in held),
        complete=row.stream in gathered.complete,
    )


def decided_below(slices: Sequence[Slice], end: int) -> int:
    """The highest offset below which the end of every transaction lies before `end`, or was compacted away; or -1.

    A leader calls stable what was ended anywhere in its log: while a backlog is fetched that end may lie behind what
    is stored, and may be an abort. So only what was said of a log that is stored up to its own end then is held to.
    """
    told: list[tuple[int, int]] = []
    for each in slices:
        if each.broken is not None and each.broken.why == "diverged":
            # The ends that were spoken of may lie in what this slice takes the place of.
            told = [(mark, stable) for mark, stable in told if mark <= each.first]
        told.append((each.high_watermark, each.last_stable))
    return max((stable for mark, stable in told if 0 <= mark <= end), default=-1)


def _part_of(opened: OpenedPack, held: _Held, begin: int, end: int) -> ExportSlice:
    """The batches of a slice that hold any of [begin, end)."""
    require_same(opened, held.slice)
    begin, end = max(begin, held.slice.first), min(end, held.end)
    batches = opened.batches(held.slice)
    if (begin, end) == (held.slice.first, held.slice.next):
        return ExportSlice(held.slice.topic_id, held.slice.partition, begin, end, batches)
    first = last = at = 0
    for batch in _each(batches):
        header = parse_header(batch)
        if header.base_offset >= end:
            break
        at += len(batch)
        if header.next_offset <= begin:
            first = at
        last = at
    return ExportSlice(held.slice.topic_id, held.slice.partition, begin, end, batches[first : max(first, last)])


def _each(batches: memoryview) -> Iterator[memoryview]:
    """Batch after batch."""
    at = 0
    while at < len(batches):
        size_bytes = parse_header(batches, at).size_bytes
        yield batches[at : at + size_bytes]
        at += size_bytes


def open_export(
    vault: Vault, dataset: str, *, as_of: datetime | None = None, system_id: str | None = None,
    catalogues: bool = True, pinned: Pinned | None = None, survey: bool = True,
) -> Export:  # fmt: skip
    """What is stored of a dataset, of its newest cluster unless `system_id` names another one.

    `as_of` (the capture's clock) leaves out packs that were cut later and what was surveyed later: so a restore to the
    recovery point of another dataset asks for that moment, and cuts records by `positions_at`. What packs hold is told
    by their `catalogues`, and by those packs that none of them has. `pinned` is what an earlier call was made of: the
    same again, whatever was stored since. Without `survey` nothing is known but records: what was seen beside them lies
    in as many facts as there were changes. Raises VaultError, among them `kafka.nothing_stored` and `kafka.hole`.
    """
    if pinned is not None:
        system_id = pinned.system_id
    if system_id is None:
        anchor = latest_anchor(vault, dataset)
        system_id = None if anchor is None else anchor.system_id
    objects = [] if system_id is None else list(
        vault.objects(dataset, PACKS, system_id=system_id, timeline=TIMELINE)
    )  # fmt: skip
    if not objects or system_id is None:
        raise VaultError(
            "kafka.nothing_stored", f"{dataset}: the vault holds no packs", "start `dr-assets capture` for it"
        )
    known = catalogued(vault, dataset, system_id, objects, believe=catalogues)
    chain = resolve(objects, known.link, objects[0].key.first, strict=True)
    begin = begin_on_record(vault, dataset, system_id) if chain.holes else 0
    if chain.end < begin:  # what lies before is what an expiry has not removed, or could not
        chain = resolve(objects, known.link, begin, strict=True)
    _refuse_holes(vault, dataset, system_id, chain.end)
    segments = [obj for obj in chain.segments if pinned is None or obj.key.last <= pinned.packs]
    early = takewhile(lambda obj: as_of is None or known.link(obj).end_at <= as_of, segments)
    chosen = {obj.key.first: obj for obj in early}
    if not chosen:
        raise VaultError(
            "kafka.nothing_stored", f"{dataset}: nothing was stored as early as that", "choose a later moment"
        )
    seen = Surveyed()
    if survey:
        seen = surveyed(vault, dataset, at=as_of if pinned is None else _behind(pinned.surveyed_at))
    return Export(vault, dataset, system_id, chosen, known.rows(list(chosen.values())), seen, as_of)


def _behind(at: datetime | None) -> datetime | None:
    """So that what was seen at this moment is within."""
    return None if at is None else at + _MICROSECOND


def _refuse_holes(vault: Vault, dataset: str, system_id: str, end: int) -> None:
    """What a capture said to be stored has to be there."""
    anchor = latest_anchor(vault, dataset, system_id=system_id)
    if anchor is not None and end < anchor.stored:
        raise VaultError(
            "kafka.hole", f"{dataset}: packs are there up to {end}, and were stored up to {anchor.stored}",
            "run `dr-assets vault verify`, and read from a replica of this vault",
        )  # fmt: skip
