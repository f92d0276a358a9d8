"""Batches written to a partition as they are, several under way, each proven to lie where it belongs.

What belongs here: one connection's produce requests and filled holes in order, what comes back, pads' DeleteRecords.
What stays out: transactions' own calls (produce_txn.py), what to write (restore_steps.py), trying again (lanes.py).

Order is safe because a broker works off one connection's requests one after the other; and it is checked: every answer
must name the offset that was expected. A batch goes alone in its request, as brokers want it for a partition.
"""

import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from kafka.protocol.admin import DeleteRecordsRequest
from kafka.protocol.producer import ProduceRequest, WriteTxnMarkersRequest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.line import Line
from dr_assets.stores.kafka.refusals import BrokerError
from dr_assets.stores.kafka.wire import Cluster, Place, by_topic

# Under way on one connection: enough to hide the way there and back, little enough to be written again after a fall.
IN_FLIGHT: Final = 64
IN_FLIGHT_BYTES: Final = 16 << 20
_TIMEOUT_MS: Final = 60_000
_ANSWER_S: Final = 90.0
# Version 13 names topics by id: what was deleted and made again meanwhile is not written to.
_BY_ID: Final = 13
# From version 12 on a broker adds partitions to transactions by itself, under another numbering of epochs (KIP-890);
# the older way is spoken by every broker since 2.8, and its sequences go on over transactions.
TRANSACTIONAL_VERSION: Final = 11
FILL_MAX: Final = 500
_MARKERS_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Write:
    """Something to be written that must come to lie at `target`: a batch, or filled offsets where that is None.

    `producer_id` is whose markers fill, `transactional_id` in whose transaction the batch is.
    """

    place: Place
    topic_id: str
    target: int
    count: int
    batch: bytes | None = field(repr=False)
    transactional_id: str | None = None
    producer_id: int = -1

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.target + self.count

    @property
    def size_bytes(self) -> int:
        """What it weighs in the export."""
        return len(self.batch) if self.batch is not None else 0


class Lane:
    """One connection to one broker with what is under way on it. One thread's."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._sent: deque[Write] = deque()
        self._refused: list[Write] = []
        self._bytes = 0

    @property
    def under_way(self) -> tuple[Write, ...]:
        """What was refused, or sent and not answered yet, oldest first; nobody knows whether the latter was done."""
        return (*self._refused, *self._sent)

    @property
    def is_full(self) -> bool:
        """Whether an answer should be taken before more is write."""
        return len(self._sent) >= IN_FLIGHT or self._bytes >= IN_FLIGHT_BYTES

    def send(self, write: Write) -> None:
        """Send it; from now on it is under way, also when this raises SourceError as Line.post does."""
        self._sent.append(write)
        self._bytes += write.size_bytes
        request = self._fill(write) if write.batch is None else self._append(write)
        self._line.post(request, timeout_s=_ANSWER_S)

    def take(self) -> Write:
        """The oldest answer: what was to be written lies where it belongs, in all in-sync replicas.

        Raises BrokerError for a refusal, SourceError `kafka.restore_displaced` when something else lies there, and as
        Line.take. What was under way stays so, for whoever finds out what became of it.
        """
        write = self._sent[0]
        response = self._line.take(timeout_s=_ANSWER_S)
        self._sent.popleft()
        self._bytes -= write.size_bytes
        try:
            if write.batch is None:
                _check_markers(response, write)
            else:
                _check_produced(response, write)
        except SourceError:
            self._refused.append(write)
            raise
        return write

    def quiesce(self) -> Iterator[Write]:
        """After a refusal: every answer that is still to come, so that nothing is worked off behind our back.

        What was written all the same is handed out. Raises as `take`, but for further refusals.
        """
        while self._sent:
            try:
                yield self.take()
            except BrokerError:
                continue

    def close(self) -> None:
        """End the connection and forget what was under way."""
        self._line.close()
        self._sent.clear()
        self._refused.clear()
        self._bytes = 0

    def _append(self, write: Write) -> ProduceRequest:
        topic, partition = write.place
        kind = ProduceRequest.TopicProduceData
        highest = TRANSACTIONAL_VERSION if write.transactional_id else _BY_ID
        by_id = not write.transactional_id and self._line.version_of(ProduceRequest) >= _BY_ID
        named: dict[str, Any] = {"topic_id": uuid.UUID(write.topic_id)} if by_id else {"name": topic}
        return ProduceRequest(
            transactional_id=write.transactional_id,
            acks=-1,
            timeout_ms=_TIMEOUT_MS,
            topic_data=[
                kind(partition_data=[kind.PartitionProduceData(index=partition, records=write.batch)], **named)
            ],
            max_version=highest,
        )

    def _fill(self, write: Write) -> WriteTxnMarkersRequest:
        kind = WriteTxnMarkersRequest.WritableTxnMarker
        topics = [kind.WritableTxnMarkerTopic(name=write.place[0], partition_indexes=[write.place[1]])]
        one = kind(
            producer_id=write.producer_id,
            producer_epoch=0,
            transaction_result=False,
            coordinator_epoch=0,
            topics=topics,
        )
        return WriteTxnMarkersRequest(markers=[one] * write.count, max_version=_MARKERS_VERSION)


def can_fill(cluster: Cluster, node: int) -> bool:
    """Whether a broker takes markers at all; emulators don't."""
    line = cluster.own_line(node)
    try:
        line.version_of(WriteTxnMarkersRequest)
    except SourceError as error:
        if error.code != "kafka.unsupported":
            raise
        return False
    finally:
        line.close()
    return True


def delete_records(cluster: Cluster, before: dict[Place, int]) -> None:
    """Make each place begin at the offset given. Raises BrokerError."""
    kind = DeleteRecordsRequest.DeleteRecordsTopic

    def ask(node: int, own: list[Place]) -> dict[Place, int]:
        topics = [
            kind(
                name=topic,
                partitions=[
                    kind.DeleteRecordsPartition(partition_index=index, offset=before[(topic, index)])
                    for index in indices
                ],
            )
            for topic, indices in by_topic(own).items()
        ]
        response = cluster.ask(lambda: DeleteRecordsRequest(topics=topics, timeout_ms=_TIMEOUT_MS), node)
        return {
            (topic.name, each.partition_index): each.error_code
            for topic in response.topics
            for each in topic.partitions
        }

    cluster.by_leader(before, ask, "the deletion of pads")


def _check_produced(response: Any, write: Write) -> None:
    each = response.responses[0].partition_responses[0]
    if each.error_code:
        raise BrokerError(each.error_code, _what(write, each))
    if each.base_offset != write.target:
        raise displaced(write.place, write.target, each.base_offset)


def _check_markers(response: Any, write: Write) -> None:
    errors = {
        partition.error_code for marker in response.markers for topic in marker.topics for partition in topic.partitions
    } - {0}
    for errno in errors:
        topic, partition = write.place
        raise BrokerError(errno, f"filling {write.count} offsets from {write.target} of {topic}/{partition}")


def displaced(place: Place, wanted: int, found: int) -> SourceError:
    """Something lies where a batch should: somebody else writes, or what was thought lost arrived late."""
    return SourceError(
        "kafka.restore_displaced",
        f"{place[0]}/{place[1]}: what belongs at offset {wanted} came to lie at {found}",
        "nobody else may write to a topic that is being restored; delete it and restore it anew",
    )


def _what(write: Write, each: Any) -> str:
    said = f": {each.error_message}" if getattr(each, "error_message", None) else ""
    return f"writing to offset {write.target} of {write.place[0]}/{write.place[1]}{said}"
