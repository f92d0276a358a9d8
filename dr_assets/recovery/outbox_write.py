"""Events written to their partitions in transactions: a step is there whole, or not at all.

What belongs here: one producer with its sequences, one step's batches and its commit. What stays out: what to send and
in which order (outbox_replay.py).

A transactional id of one ledger's own makes it safe to be killed: whoever begins again ends what was open before it
reads what is there, and what was committed is there then, whichever answer got lost.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from kafka.protocol.producer import ProduceRequest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.batches import Headers, Record, encode
from dr_assets.stores.kafka.produce import TRANSACTIONAL_VERSION
from dr_assets.stores.kafka.produce_txn import Producer, begin, decide, init_producer
from dr_assets.stores.kafka.refusals import BrokerError
from dr_assets.stores.kafka.wire import LATEST, Cluster, Place

_TIMEOUTS_MS: Final = (60_000, 10_000)
_ANSWER_MS: Final = 60_000
_ANSWER_S: Final = 90.0
_SETTLE_S: Final = 120.0
_GIVE_UP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """One record to be: where it goes and what it says."""

    place: Place
    key: bytes | None
    value: bytes
    headers: Headers

    @property
    def size_bytes(self) -> int:
        """About what it weighs in its batch."""
        return (
            len(self.key or b"") + len(self.value) + sum(len(name) + len(value or b"") for name, value in self.headers)
        )


class OutboxProducer:
    """Writes steps, one after the other; to be made before the topics are read.

    Making it ends what a former one of this id had open, and no former one can commit any more. Every method raises
    SourceError; then nobody knows whether the step is there, and only reading tells.
    """

    def __init__(self, cluster: Cluster, transactional_id: str) -> None:
        self._cluster = cluster
        self._name = transactional_id
        self._id, self._epoch = init_producer(cluster, transactional_id, _TIMEOUTS_MS)
        self._sequences: dict[Place, int] = {}

    def write(self, events: Sequence[Event]) -> None:
        """One transaction with these events, each partition's in this order; they are there when this returns."""
        by_place: dict[Place, list[Event]] = {}
        for event in events:
            by_place.setdefault(event.place, []).append(event)
        producer = Producer(self._name, self._id, self._epoch)
        try:
            for place in sorted(by_place):
                begin(self._cluster, producer, place)
            for place, own in sorted(by_place.items()):
                self._produce(place, own)
        except SourceError:
            # Else readers of committed records would wait for the transaction's timeout.
            with suppress(SourceError):
                decide(self._cluster.with_patience(_GIVE_UP_S), producer, commit=False, what="giving a step up")
            raise
        decide(self._cluster, producer, commit=True, what=f"the commit of {len(events)} events")

    def _produce(self, place: Place, events: Sequence[Event]) -> None:
        """One batch, alone in its request, answered by all in-sync replicas."""
        topic, partition = place
        sequence, now_ms = self._sequences.get(place, 0), int(time.time() * 1000)
        batch = encode(
            [Record(index, now_ms, event.key, event.value, event.headers) for index, event in enumerate(events)],
            base_offset=0, producer_id=self._id, producer_epoch=self._epoch, base_sequence=sequence, transactional=True,
        )  # fmt: skip
        kind = ProduceRequest.TopicProduceData
        request = ProduceRequest(
            transactional_id=self._name,
            acks=-1,
            timeout_ms=_ANSWER_MS,
            topic_data=[kind(name=topic, partition_data=[kind.PartitionProduceData(index=partition, records=batch)])],
            max_version=TRANSACTIONAL_VERSION,
        )
        node = self._cluster.leader_of(topic, partition)
        response = self._cluster.ask_once(request, node, timeout_s=_ANSWER_S)
        said = response.responses[0].partition_responses[0]
        if said.error_code:
            raise BrokerError(said.error_code, f"{len(events)} events for {topic}/{partition}")
        self._sequences[place] = (sequence + len(events)) % (1 << 31)


def wait_until_decided(cluster: Cluster, places: Sequence[Place]) -> Mapping[Place, int]:
    """Where each partition ends once no transaction is open in it, or after two minutes where one still is."""
    deadline_s = time.monotonic() + _SETTLE_S
    while True:
        # In this order: what is stable lies before an end that was asked for later.
        ends = cluster.list_offsets(places, LATEST)
        stable = cluster.list_offsets(places, LATEST, committed=True)
        if all(stable[place] >= end for place, end in ends.items()) or time.monotonic() > deadline_s:
            return ends
        time.sleep(0.05)
