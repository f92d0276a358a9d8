"""Packs: record batches of many partitions gathered into one object, byte for byte, and read back.

What belongs here: checking what a fetch brought, gathering it, when a pack is cut, and opening one. What stays out: the
index's form (vault/format/pack.py), fetching, sealing, which packs count.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from dr_assets.stores.kafka.batches import split
from dr_assets.stores.sealing.linked import Body
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.pack import Break, PackIndex, Row, Slice, Stream, index_length, parse_index
from dr_assets.vault.vault import StoredObject, Vault

if TYPE_CHECKING:  # whoever only reads packs needs none of Kafka's protocol, which takes a second to import
    from dr_assets.stores.kafka.fetching import Fetched

PACK_BYTES: Final = 8 << 20
PACK_CAP_BYTES: Final = 16 << 20
TABLE_EVERY: Final = 32  # packs, at most, from one table of all streams to the next
_ARRIVALS_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Part:
    """Whole batches of one stream, checked, for offsets [first, next)."""

    stream: Stream
    first: int
    next: int
    batches: memoryview = field(repr=False)
    count: int
    max_timestamp: int
    leader_epoch: int
    high_watermark: int
    last_stable: int
    log_start: int
    transactional: bool
    broken: Break | None = None


def part_of(stream: Stream, position: int, fetched: "Fetched", broken: Break | None = None) -> Part | None:
    """What of a fetch at `position` is new, every batch's CRC checked; None where it brought nothing.

    A broker answers with the whole batch that holds the position, and may answer with one before it: what ends at or
    before the position is there already. Raises SourceError `kafka.crc`, `kafka.batch`.
    """
    records = fetched.records
    begin = end = count = 0
    upto, newest, epoch, transactional = position, -1, -1, False
    for header, batch in split(records):
        end += len(batch)
        if header.next_offset <= position:
            begin = end
            continue
        upto, epoch = header.next_offset, header.leader_epoch
        count += header.count
        newest = max(newest, header.max_timestamp)
        transactional = transactional or header.is_transactional
    if begin == end:
        return None
    return Part(
        stream, position, upto, records[begin:end], count, newest, epoch, fetched.high_watermark,
        fetched.last_stable, fetched.log_start, transactional, broken,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something was fetched at `at_s` of the monotonic clock, its newest record being of `newest_ms`."""

    at_s: float
    newest_ms: int


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack that was cut: `begin` is its running number. Times are the capture's clock."""

    begin: int
    size_bytes: int
    begin_at: datetime
    end_at: datetime
    index: PackIndex
    data: Body
    arrivals: tuple[Arrival, ...]
    recovery_point_at: datetime | None

    @property
    def end(self) -> int:
        """The next pack's number."""
        return self.begin + 1


@dataclass(slots=True)
class Cutter:
    """Gathers parts into the next pack.

    One is due at `linger_s` after its first part or at 8 MiB. When nobody could take it then it grows up to 16 MiB; a
    backlog becomes few large objects.
    """

    cluster_id: str
    number: int
    linger_s: float
    _parts: dict[Stream, list[Part]] = field(default_factory=dict)
    _arrivals: list[Arrival] = field(default_factory=list)
    _size: int = 0
    _first_at_s: float = 0.0
    _begin_at: datetime | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of batches gathered for the next pack."""
        return self._size

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be added before it is cut."""
        return self._size >= PACK_CAP_BYTES

    def add(self, part: Part, now_s: float, at: datetime) -> None:
        """Take the next part; parts of one stream come in the order of their offsets."""
        own = self._parts.setdefault(part.stream, [])
        if own and own[-1].next != part.first and part.broken is None:
            raise AssertionError(f"{part.stream} jumps from {own[-1].next} to {part.first}")  # our own bug
        if not self._size:
            self._first_at_s, self._begin_at = now_s, at
        own.append(part)
        self._size += len(part.batches)
        if len(self._arrivals) < _ARRIVALS_KEPT:
            self._arrivals.append(Arrival(now_s, part.max_timestamp))

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until the pack should be cut: 0 when it is due, None when there is nothing to cut."""
        if not self._parts:
            return None
        return 0.0 if self._size >= PACK_BYTES else max(0.0, self._first_at_s + self.linger_s - now_s)

    def cut(
        self, topics: dict[str, str], table: tuple[Row, ...] | None, now: datetime, recovery_point_at: datetime | None
    ) -> Pack:
        """The pack gathered so far, which may hold nothing but a `table`, or nothing. `topics`: names by id."""
        index, bodies = _index_of(self.cluster_id, topics, self._parts, table)
        head = index.encoded()
        begin_at = self._begin_at or now
        pack = Pack(
            self.number, len(head) + self._size, begin_at, max(begin_at, now), index, Body([head, *bodies]),
            tuple(self._arrivals), recovery_point_at,
        )  # fmt: skip
        self.number += 1
        self._parts, self._arrivals, self._size, self._begin_at = {}, [], 0, None
        return pack


def _index_of(
    cluster_id: str, topics: dict[str, str], parts: dict[Stream, list[Part]], table: tuple[Row, ...] | None
) -> tuple[PackIndex, list[memoryview]]:
    """The index, and the batches in its order."""
    runs = [run for stream in sorted(parts) for run in _runs(parts[stream])]
    used = {stream[0] for stream in parts} | {row.topic_id for row in table or ()}
    index = PackIndex(cluster_id, {each: topics[each] for each in used}, tuple(_slices(runs)), table)
    return index, [part.batches for run in runs for part in run]


def _runs(parts: list[Part]) -> Iterator[list[Part]]:
    """Parts that continue each other are one slice; one that is broken off begins another."""
    run: list[Part] = []
    for part in parts:
        if run and part.broken is not None:
            yield run
            run = []
        run.append(part)
    yield run


def _slices(runs: list[list[Part]]) -> Iterator[Slice]:
    at = 0
    for run in runs:
        first, last = run[0], run[-1]
        size_bytes = sum(len(part.batches) for part in run)
        topic_id, partition, generation = first.stream
        yield Slice(
            topic_id, partition, generation, first.first, last.next, at, size_bytes,
            count=sum(part.count for part in run), max_timestamp=max(part.max_timestamp for part in run),
            leader_epoch=last.leader_epoch, high_watermark=last.high_watermark, last_stable=last.last_stable,
            log_start=last.log_start, transactional=any(part.transactional for part in run), broken=first.broken,
        )  # fmt: skip
        at += size_bytes


@dataclass(frozen=True, slots=True)
class OpenedPack:
    """A pack whose digest, signature, key and plaintext were verified, and its index parsed."""

    header: Header
    index: PackIndex
    _begin: int
    _frames: tuple[bytes, ...] = field(repr=False)

    def batches(self, part: Slice) -> memoryview:
        """The record batches of one slice, as the broker held them."""
        frames = self._frames
        size_bytes = len(frames[0]) if frames else 0
        at = self._begin + part.at
        first, last = at // size_bytes, (at + part.size_bytes - 1) // size_bytes
        run = frames[first] if first == last else b"".join(frames[first : last + 1])
        begin = at - first * size_bytes
        return memoryview(run)[begin : begin + part.size_bytes]


def open_pack(vault: Vault, obj: StoredObject) -> OpenedPack:
    """Fetch, verify, decrypt and parse. Raises VaultError."""
    opened = vault.open(obj)
    head = opened.frames[0] if opened.frames else b""
    if len(head) < index_length(head):
        head = opened.plaintext
    index = parse_index(head, size_bytes=opened.header.size_bytes, name=str(obj.key))
    return OpenedPack(opened.header, index, index_length(head), opened.frames)
