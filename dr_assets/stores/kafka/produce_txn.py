"""Transactions in the target: producers of ours in whose name the source's transactions are repeated.

What belongs here: the coordinator's calls, and finding out after a kill where each of our transactions stands. What
stays out: the batches (produce.py), which transactions there are (restore_steps.py).

One transactional id for each producer of the source and partition, so that each ends alone, at the offset where its
marker was. The id is made of the target topic's own id: whoever goes on after a kill finds what was begun. The newer
way, in which brokers count epochs up at each end (KIP-890), is not used: every broker since 2.8 speaks the older one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from kafka.protocol.admin import DescribeProducersRequest, DescribeTransactionsRequest
from kafka.protocol.producer import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.refusals import COORDINATOR_MOVED, BrokerError
from dr_assets.stores.kafka.wire import LATEST, Cluster, Place

# The longest that brokers allow as they come, and shorter ones for those that were told to allow less; a restore that
# stands still for so long loses its open transactions.
TIMEOUTS_MS: Final = (900_000, 300_000, 60_000, 10_000)
_INVALID_TIMEOUT: Final = 50
_ADD_VERSION, _END_VERSION, _INIT_VERSION = 3, 4, 5
_CONCURRENT: Final = 51
_TXN_ID_NOT_FOUND: Final = 105
_BUSY: Final = COORDINATOR_MOVED | {_CONCURRENT}
_PATIENCE_S: Final = 120.0

State = Literal["none", "ongoing", "committed", "aborted"]


@dataclass(slots=True)
class Producer:
    """One of ours. `sequence` is its next record's, `is_open` whether the partition is part of its transaction now."""

    transactional_id: str
    producer_id: int
    epoch: int
    sequence: int = 0
    is_open: bool = False

    def advance(self, count: int) -> None:
        """So many records were sent; sequences wrap as Kafka's do."""
        self.sequence = (self.sequence + count) % (1 << 31)


def transactional_id(topic_id: str, partition: int, producer: int) -> str:
    """The id under which the source's `producer` is repeated in one partition of one topic of the target."""
    return f"dr-assets-restore-{topic_id}-{partition}-{producer}"


def init_producer(cluster: Cluster, name: str | None, timeouts_ms: tuple[int, ...] = TIMEOUTS_MS) -> tuple[int, int]:
    """A producer id and epoch, under a transactional id or for itself; ends what is open under that id."""
    for timeout_ms in timeouts_ms:
        try:
            response = _patiently(
                cluster,
                name,
                lambda timeout_ms=timeout_ms: InitProducerIdRequest(  # type: ignore[misc]
                    transactional_id=name,
                    transaction_timeout_ms=timeout_ms,
                    producer_id=-1,
                    producer_epoch=-1,
                    max_version=_INIT_VERSION,
                ),
                lambda said: said.error_code,
                "a producer id",
            )
        except BrokerError as error:
            if error.errno != _INVALID_TIMEOUT or timeout_ms == timeouts_ms[-1]:
                raise
        else:
            return response.producer_id, response.producer_epoch
    raise AssertionError  # the last one raises


def begin(cluster: Cluster, producer: Producer, place: Place) -> None:
    """Make the partition part of the producer's transaction: from here on it must be ended."""
    kind = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic
    topic, partition = place

    def errno(said: Any) -> int:
        return max(
            (
                each.partition_error_code
                for one in said.results_by_topic_v3_and_below
                for each in one.results_by_partition
            ),
            default=0,
        )

    _patiently(
        cluster,
        producer.transactional_id,
        lambda: AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=producer.transactional_id,
            v3_and_below_producer_id=producer.producer_id,
            v3_and_below_producer_epoch=producer.epoch,
            v3_and_below_topics=[kind(name=topic, partitions=[partition])],
            max_version=_ADD_VERSION,
        ),
        errno,
        f"a transaction in {topic}/{partition}",
    )
    producer.is_open = True


def end(cluster: Cluster, producer: Producer, place: Place, target: int, *, commit: bool) -> None:
    """End the transaction and wait until its marker lies at `target`, the partition's end until now."""
    decide(cluster, producer, commit=commit, what=f"the end of a transaction in {place[0]}/{place[1]}")
    wait_for_end(cluster, place, target + 1)


def decide(cluster: Cluster, producer: Producer, *, commit: bool, what: str) -> None:
    """Have the transaction committed or aborted; its markers are written soon after this returns."""
    _patiently(
        cluster,
        producer.transactional_id,
        lambda: EndTxnRequest(
            transactional_id=producer.transactional_id,
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
            committed=commit,
            max_version=_END_VERSION,
        ),
        lambda said: said.error_code,
        what,
    )
    producer.is_open = False


def wait_for_end(cluster: Cluster, place: Place, wanted: int) -> None:
    """Wait until a partition ends at `wanted`: markers are written after the end of a transaction was agreed to."""
    deadline_s = time.monotonic() + _PATIENCE_S
    pause_s = 0.001
    while True:
        found = cluster.list_offsets([place], LATEST)[place]
        if found == wanted:
            return
        if found > wanted or time.monotonic() > deadline_s:
            raise SourceError(
                "kafka.restore_marker",
                f"{place[0]}/{place[1]} ends at {found}, a transaction's marker should have brought it to {wanted}",
                "nobody else may write to a topic that is being restored; look at the broker's log",
            )
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.1)


def state_of(cluster: Cluster, name: str) -> tuple[State, Producer | None]:
    """Where a transactional id of ours stands, and its producer; "none" when it has nothing begun or ended.

    "committed" and "aborted" also while the markers are still to be written.
    """
    try:
        response = cluster.ask_coordinator(
            "transaction",
            name,
            lambda: DescribeTransactionsRequest(transactional_ids=[name]),
            lambda said: [each.error_code for each in said.transaction_states],
        )
    except SourceError as error:
        if error.code != "kafka.unsupported":
            raise
        return "none", None  # older than 3.0: a restore that is killed within a transaction can't go on there
    found = response.transaction_states[0]
    if found.error_code == _TXN_ID_NOT_FOUND:
        return "none", None
    if found.error_code:
        raise BrokerError(found.error_code, f"the state of transaction {name}")
    producer = Producer(name, found.producer_id, found.producer_epoch)
    if found.transaction_state == "Ongoing":
        producer.is_open = True
        return "ongoing", producer
    if found.transaction_state in {"PrepareCommit", "CompleteCommit"}:
        return "committed", producer
    return ("none" if found.transaction_state == "Empty" else "aborted"), producer


def sequence_of(cluster: Cluster, place: Place, producer: Producer) -> int:
    """The next sequence of a producer in a partition, by what its leader remembers; 0 if it wrote nothing yet."""
    found: dict[tuple[int, int], int] = {}

    def ask(node: int, own: list[Place]) -> dict[Place, int]:
        kind = DescribeProducersRequest.TopicRequest
        response = cluster.ask(
            lambda: DescribeProducersRequest(topics=[kind(name=place[0], partition_indexes=[place[1]])]), node
        )
        said = response.topics[0].partitions[0]
        for each in said.active_producers:
            found[(each.producer_id, each.producer_epoch)] = each.last_sequence
        return dict.fromkeys(own, said.error_code)

    cluster.by_leader([place], ask, "the producers")
    last = found.get((producer.producer_id, producer.epoch), -1)
    return (last + 1) % (1 << 31)


def _patiently(
    cluster: Cluster, name: str | None, make: Callable[[], Any], errno_of: Callable[[Any], int], what: str
) -> Any:
    """The coordinator's answer, asked again while it moves or still ends the transaction before."""
    deadline_s = time.monotonic() + _PATIENCE_S
    pause_s = 0.002
    while True:
        if name is None:
            response = cluster.ask(make)
        else:
            response = cluster.ask_coordinator("transaction", name, make, lambda said: [errno_of(said)])
        errno = errno_of(response)
        if not errno:
            return response
        if errno not in _BUSY or time.monotonic() > deadline_s:
            raise BrokerError(errno, what)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.2)
