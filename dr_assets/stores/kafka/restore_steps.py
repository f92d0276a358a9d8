"""What must be written to bring one partition back, step by step: pure, and the same again after a kill.

What belongs here: turning an export's batches into appends, ends of transactions and filled holes, and the offset map
that follows from them. What stays out: doing it (produce.py, restore_write.py).

Two methods. *identical*: every record gets the offset it had; what lies between records (compaction's holes, gaps of
the capture, markers of transactions that can't be recreated) is filled with abort markers of no transaction, which no
consumer of either isolation level sees. *mapped*: records follow each other without holes; the map tells where each
went. Both recreate transactions: data under a producer of ours, then that transaction's own end.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.batches import (
    ABORT,
    COMMIT,
    BatchHeader,
    at_offset,
    marker,
    split,
    with_producer,
)
from dr_assets.stores.kafka.offset_map import OffsetMap
from dr_assets.stores.kafka.reencode import dense_runs, made_anew, must_be_made_anew, wanted_records

Method = Literal["identical", "mapped"]


@dataclass(frozen=True, slots=True)
class Append:
    """A batch that comes to lie at offset `target`; `producer` is the source's producer whose transaction it is in."""

    target: int
    batch: bytes = field(repr=False)
    count: int
    producer: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The end of the transaction that the source's `producer` has open here; its marker lies at `target`."""

    target: int
    producer: int
    commit: bool
    count: int = 1


@dataclass(frozen=True, slots=True)
class Fill:
    """`count` offsets from `target` on that hold nothing anybody reads."""

    target: int
    count: int


Step = Append | End | Fill


class Course:
    """One partition's way from the export into the target.

    Feed it batches in order, then `finish`. `begin` and `end` are the source's offsets that are wanted, `start` is the
    target's offset at which the first step lies: of an identical partition, the first batch's own.
    """

    def __init__(self, method: Method, begin: int, end: int, *, start: int, last_stable: int | None = None) -> None:
        self.method = method
        self.begin = begin
        self.end = end
        self.target = start
        self.map = OffsetMap(start, start)
        # Where the next batch is expected to begin, in the source.
        self._source = start if method == "identical" else begin
        self._open: dict[int, int] = {}
        self._epoch = -1
        self._last_stable = last_stable

    @property
    def open_transactions(self) -> frozenset[int]:
        """The source's producers whose transactions are open here."""
        return frozenset(self._open)

    def feed(self, data: memoryview | bytes) -> Iterator[Step]:
        """The steps for whole batches.

        Raises SourceError (`kafka.crc` …), VaultError (`kafka.restore_overlap`, `kafka.restore_diverged`).
        """
        for header, batch in split(data):
            if header.next_offset <= self._source or header.base_offset >= self.end:
                continue  # stored twice, or behind the cut
            if header.base_offset < self._source and not self._begins_in_mid_batch(header):
                raise VaultError(
                    "kafka.restore_overlap",
                    f"a batch of offsets [{header.base_offset}, {header.next_offset}) follows one that ends at "
                    f"{self._source}",
                    "two captures wrote into one export: run `dr-assets vault verify`",
                )
            self._require_one_log(header)
            yield from self._batch(header, batch)
            self._source = min(header.next_offset, self.end)

    def finish(self) -> Iterator[Step]:
        """The last steps: a hole up to the end, and an end for every transaction that the cut went through.

        A transaction whose marker compaction took was committed: an aborted one's records go before its marker does.
        """
        yield from self._fill_to(self.end)
        for producer, first in sorted(self._open.items(), key=lambda item: item[1]):
            committed = self._last_stable is not None and first < self._last_stable and self._is_decided()
            yield self._step(End(self.target, producer, commit=committed))
        self._open.clear()
        self.map.end = self.target

    def _is_decided(self) -> bool:
        """Whether what the source called stable is all inside the cut: only then is "stable" said of this cut."""
        return self._last_stable is not None and self._last_stable <= self.end

    def _require_one_log(self, header: BatchHeader) -> None:
        """Leader epochs only rise in one log: an older one behind a newer was written by a leader that was cut off."""
        if 0 <= header.leader_epoch < self._epoch:
            raise VaultError(
                "kafka.restore_diverged",
                f"the batch at offset {header.base_offset} is of leader epoch {header.leader_epoch}, behind one of "
                f"{self._epoch}",
                "two logs are mixed in the export: run `dr-assets vault verify`, restore up to that offset (--to)",
            )
        self._epoch = max(self._epoch, header.leader_epoch)

    def _begins_in_mid_batch(self, header: BatchHeader) -> bool:
        return header.base_offset < self.begin and not self.map.runs

    def _batch(self, header: BatchHeader, batch: memoryview) -> Iterator[Step]:
        if header.is_control or not header.count:
            yield from self._control(header, batch)
            return
        begin = self.map.begin if self.method == "identical" else self.begin
        if must_be_made_anew(header, begin, self.end):
            yield from self._anew(header, batch, begin)
            return
        yield from self._fill_to(header.base_offset)
        yield self._append(header, header.base_offset, at_offset(_freed(header, batch), 0), header.count)

    def _anew(self, header: BatchHeader, batch: memoryview, begin: int) -> Iterator[Step]:
        found = wanted_records(batch, begin, self.end)
        if self.method == "mapped":
            if found:
                made = made_anew(header, found)
                target = self.target
                step = self._append(header, None, made, len(found))
                for run in dense_runs(found):
                    self.map.add(run[0].offset, target, len(run))
                    target += len(run)
                yield step
            return
        for run in dense_runs(found):
            yield from self._fill_to(run[0].offset)
            yield self._append(header, run[0].offset, made_anew(header, run), len(run))
        yield from self._fill_to(min(header.next_offset, self.end))

    def _append(self, header: BatchHeader, source: int | None, batch: bytes, count: int) -> Append:
        producer = header.producer_id if header.is_transactional else None
        if producer is not None:
            self._open.setdefault(producer, header.base_offset)
        if source is not None:
            self.map.add(source, self.target, count)
        step = Append(self.target, batch, count, producer)
        self.target += count
        return step

    def _control(self, header: BatchHeader, batch: memoryview) -> Iterator[Step]:
        yield from self._fill_to(header.base_offset)
        kind = marker(batch) if header.count else None
        if kind in {ABORT, COMMIT} and header.producer_id in self._open:
            del self._open[header.producer_id]
            self.map.add(header.base_offset, self.target, 1)
            yield self._step(End(self.target, header.producer_id, commit=kind == COMMIT))
        # Anything else (a marker of no transaction here, an empty batch that compaction left) is a hole.
        yield from self._fill_to(min(header.next_offset, self.end))

    def _fill_to(self, source: int) -> Iterator[Step]:
        if self.method == "identical" and source > self.target:
            yield self._step(Fill(self.target, source - self.target))

    def _step(self, step: End | Fill) -> Step:
        self.target += step.count
        return step


def steps_of(course: Course, slices: Iterable[memoryview | bytes]) -> Iterator[Step]:
    """Every step of a partition, to the last."""
    for data in slices:
        yield from course.feed(data)
    yield from course.finish()


def _freed(header: BatchHeader, batch: memoryview) -> memoryview | bytes:
    """The batch without its producer's id: a producer that is given that id again would be taken for this one."""
    if header.is_transactional or header.producer_id == header.producer_epoch == header.base_sequence == -1:
        return batch
    return with_producer(batch, -1, -1, -1)
