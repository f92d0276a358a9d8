"""One partition written back: from the offset at which the target ends, whoever brought it there before.

What belongs here: skipping what a run before a kill has written, holding its last batch to the export, pads, producers
of transactions. What stays out: which steps there are (restore_steps.py), lanes (lanes.py), which thread (restore.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.batches import (
    ABORT,
    COMMIT,
    CRC_FROM,
    BatchHeader,
    marker,
    parse_header,
    with_producer,
)
from dr_assets.stores.kafka.lanes import Lanes
from dr_assets.stores.kafka.offset_map import OffsetMap
from dr_assets.stores.kafka.produce import FILL_MAX, Write, delete_records
from dr_assets.stores.kafka.produce_txn import (
    Producer,
    begin,
    end,
    init_producer,
    sequence_of,
    state_of,
    transactional_id,
    wait_for_end,
)
from dr_assets.stores.kafka.restore_pads import pads
from dr_assets.stores.kafka.restore_read import batch_at
from dr_assets.stores.kafka.restore_steps import Append, Course, End, Fill, Method, Step
from dr_assets.stores.kafka.wire import LATEST, Cluster, Place

# Lost meanwhile: the coordinator ended a transaction that stood open for too long.
_LOST_HINT: Final = "delete the topic in the target and restore it anew; a throttled restore needs shorter transactions"


@dataclass(frozen=True, slots=True)
class Goal:
    """One partition's way: the source's offsets [begin, end), by which method, to which place.

    `behind` is the target's end before the restore began: 0, unless records are to follow what is there.
    """

    place: Place
    topic_id: str
    method: Method
    begin: int
    end: int
    behind: int = 0
    last_stable: int | None = None


class PartitionWriter:
    """Writes one partition. Feed it the export's batches in order, then `finish`; one thread's."""

    def __init__(self, goal: Goal, cluster: Cluster, lanes: Lanes, filler: int) -> None:
        self._goal = goal
        self._cluster = cluster
        self._lanes = lanes
        self._filler = filler
        self._course: Course | None = None
        self._producers: dict[int, Producer] = {}
        self._done = cluster.list_offsets([goal.place], LATEST)[goal.place]
        self._last_skipped: Step | None = None
        self._is_writing = False
        self._has_sent = False

    @property
    def map(self) -> OffsetMap:
        """Where each offset went; whole after `finish`."""
        if self._course is None:
            raise RuntimeError("nothing was written yet")
        return self._course.map

    def feed(self, data: memoryview) -> None:
        """Write whole batches. Raises SourceError for whatever the target refuses, VaultError for a wrong export."""
        course = self._course or self._started(parse_header(data).base_offset)
        self._do(course.feed(data))

    def finish(self) -> None:
        """Write what is left; then the partition begins and ends where it should."""
        goal = self._goal
        course = self._course or self._started(goal.end)
        self._do(course.finish())
        if not self._is_writing:
            self._begin_writing()
        self._lanes.drain()
        found = self._cluster.list_offsets([goal.place], LATEST)[goal.place]
        if found != course.target:
            raise SourceError(
                "kafka.restore_end",
                f"{goal.place[0]}/{goal.place[1]} ends at {found}, it should end at {course.target}",
                "nobody else may write to a topic that is being restored; delete it and restore it anew",
            )
        if goal.method == "identical" and goal.begin:
            delete_records(self._cluster, {goal.place: goal.begin})

    def _started(self, first: int) -> Course:
        goal = self._goal
        start = min(goal.begin, first) if goal.method == "identical" else goal.behind
        self._course = Course(goal.method, goal.begin, goal.end, start=start, last_stable=goal.last_stable)
        if goal.method == "identical":
            self._pad_to(start)
        return self._course

    def _pad_to(self, start: int) -> None:
        """Bring a fresh partition to `start`, and delete what brought it there."""
        place = self._goal.place
        if self._done >= start:
            return
        for batch, count in pads(start - self._done):
            self._send(Write(place, self._goal.topic_id, self._done, count, batch))
            self._done += count
        self._lanes.drain()
        delete_records(self._cluster, {place: start})

    def _do(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if self._is_writing:
                self._write(step)
            elif step.target + step.count <= self._done:
                self._last_skipped = step
            else:
                self._begin_writing()
                self._write(self._rest_of(step))

    def _send(self, write: Write) -> None:
        """Several may be under way, but not behind the first: a broker may not lead yet, and refuse that one alone."""
        self._lanes.send(write)
        if not self._has_sent:
            self._has_sent = True
            self._lanes.drain()

    def _write(self, step: Step) -> None:
        if isinstance(step, Append):
            self._append(step)
        elif isinstance(step, End):
            self._end(step)
        else:
            self._fill(step)

    def _begin_writing(self) -> None:
        """What a run before has written is held to the export by its last batch or marker."""
        self._is_writing = True
        if isinstance(self._last_skipped, Append | End):
            self._check_tail(self._last_skipped)

    def _rest_of(self, step: Step) -> Step:
        """What is left of the first step that is not done: of filled offsets perhaps a part, of others all."""
        if step.target >= self._done:
            return step
        if isinstance(step, Fill):
            return Fill(self._done, step.target + step.count - self._done)
        raise self._foreign(step.target)

    def _append(self, step: Append) -> None:
        goal = self._goal
        if step.producer is None:
            self._send(Write(goal.place, goal.topic_id, step.target, step.count, step.batch))
            return
        producer = self._producer(step.producer)
        batch = with_producer(step.batch, producer.producer_id, producer.epoch, producer.sequence)
        producer.advance(step.count)
        self._send(Write(goal.place, goal.topic_id, step.target, step.count, batch, producer.transactional_id))

    def _fill(self, step: Fill) -> None:
        at, left = step.target, step.count
        while left:
            count = min(left, FILL_MAX)
            self._send(Write(self._goal.place, self._goal.topic_id, at, count, None, producer_id=self._filler))
            at, left = at + count, left - count

    def _end(self, step: End) -> None:
        """End the transaction behind everything that was sent; only then may anything follow."""
        self._lanes.drain()
        place = self._goal.place
        known = self._producers.get(step.producer)
        if known is None:
            name = transactional_id(self._goal.topic_id, place[1], step.producer)
            state, known = state_of(self._cluster, name)
            if state == ("committed" if step.commit else "aborted"):
                # A run before was ended while the marker was under way.
                wait_for_end(self._cluster, place, step.target + 1)
                return
            if state != "ongoing" or known is None:
                raise self._lost(step)
            known.sequence = sequence_of(self._cluster, place, known)
            self._producers[step.producer] = known
        end(self._cluster, known, place, step.target, commit=step.commit)

    def _producer(self, source: int) -> Producer:
        """Our producer for one of the source's, its transaction open here."""
        place = self._goal.place
        producer = self._producers.get(source)
        if producer is None:
            producer = self._producers[source] = self._found_or_made(source)
        if not producer.is_open:
            # The partition must hold what was sent before, or the transaction would seem to begin earlier.
            begin(self._cluster, producer, place)
        return producer

    def _found_or_made(self, source: int) -> Producer:
        """What a run before began under this name is gone on with: to ask for a new producer would abort it."""
        place = self._goal.place
        name = transactional_id(self._goal.topic_id, place[1], source)
        state, producer = state_of(self._cluster, name)
        if state == "ongoing" and producer is not None:
            producer.sequence = sequence_of(self._cluster, place, producer)
            return producer
        return Producer(name, *init_producer(self._cluster, name))

    def _check_tail(self, step: Append | End) -> None:
        """The newest batch or marker that a run before has written is this one."""
        batch = batch_at(self._cluster, self._goal.place, self._goal.topic_id, step.target)
        if batch is None or not _is_same(step, parse_header(batch), batch):
            raise self._foreign(step.target)

    def _foreign(self, target: int) -> SourceError:
        topic, partition = self._goal.place
        return SourceError(
            "kafka.restore_foreign",
            f"{topic}/{partition} ends at {self._done}, and what it holds at {target} is not what a restore of this "
            "export would have written",
            "delete the topic in the target and restore it anew, or restore under another name",
        )

    def _lost(self, step: End) -> SourceError:
        topic, partition = self._goal.place
        return SourceError(
            "kafka.restore_transaction_lost",
            f"{topic}/{partition}: a transaction that was open at offset {step.target} is not any more: the broker "
            "ended it by itself",
            _LOST_HINT,
        )


def _is_same(step: Append | End, header: BatchHeader, batch: memoryview) -> bool:
    """Whether this is what the step writes; producers of transactions are the target's own."""
    if isinstance(step, End):
        return header.is_control and marker(batch) == (COMMIT if step.commit else ABORT)
    return with_producer(batch, -1, -1, -1)[CRC_FROM:] == with_producer(step.batch, -1, -1, -1)[CRC_FROM:]
