"""A small topic set with everything a restore finds hard, and restores of it; no vault (the cluster is the export).

What belongs here: making it, restoring it, reading it as any consumer would. What stays out: the tests.
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.engines.waiting import wait_until
from dr_assets.stores.kafka.restore import Restored, restore
from dr_assets.stores.kafka.restore_plan import Options, plan_restore
from dr_assets.stores.kafka.restore_read import LiveSource, live_source
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.restore_state import RestoreState
from dr_assets.stores.kafka.wire import LATEST, Cluster
from dr_assets_tests.integration.kafka.making import ANSWER_S, make_topic


@dataclass
class Rig:
    """Two clusters, the second to restore into."""

    source: KafkaServer
    target: KafkaServer
    folder: Path
    open: list[Producer] = field(default_factory=list)

    def make(self, label: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        """A new topic's name in the source."""
        name = f"{label}-{secrets.token_hex(4)}"
        wanted = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(configs or {}))
        make_topic(AdminClient(self.source.client_config()), wanted)
        return name

    def producer(self, **options: Any) -> Producer:
        """A producer of somebody else's."""
        return Producer(self.source.client_config() | {"linger.ms": 5} | options)

    def behead(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete the first records of partitions."""
        admin = AdminClient(self.source.client_config())
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        for future in admin.delete_records(wanted).values():
            future.result(ANSWER_S)

    @contextmanager
    def cluster(self, server: KafkaServer | None = None) -> Iterator[Cluster]:
        """A connection of ours, to the target by default."""
        with Cluster.connect((server or self.target).bootstrap, patience_s=180.0) as cluster:
            yield cluster

    @contextmanager
    def export(
        self, *topics: str, groups: Mapping[str, Mapping[tuple[str, int], Commit]] | None = None
    ) -> Iterator[LiveSource]:
        """These topics as they are now, counted."""
        with self.cluster(self.source) as cluster:
            yield live_source(cluster, topics, groups)

    def restore(
        self,
        export: LiveSource,
        options: Options | None = None,
        state: Path | None = None,
        ends: Mapping[tuple[str, int], int] | None = None,
    ) -> Restored:
        """Plan and carry out; with the state of a run before, go on."""
        state = state or self.folder / f"{secrets.token_hex(4)}.json"
        begun = RestoreState.load(state)
        with self.cluster() as cluster:
            plan = plan_restore(
                export, cluster, options or Options(), ends=begun.ends if begun else ends,
                ours=begun.behind if begun else None,
            )  # fmt: skip
            return restore(plan, cluster, state)

    def read(self, server: KafkaServer, topic: str, *, committed: bool = False) -> list[tuple[Any, ...]]:
        """What a consumer of somebody else's finds, partition by partition: offset, time, key, value, headers."""
        config = server.client_config() | {
            "group.id": f"reader-{secrets.token_hex(4)}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
        }
        consumer = Consumer(config)
        try:
            partitions = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions
            consumer.assign([TopicPartition(topic, index, 0) for index in partitions])
            ended: set[int] = set()
            found = []
            while len(ended) < len(partitions):
                message = consumer.poll(ANSWER_S)
                assert message is not None, f"{topic}: no answer"
                if message.error():
                    ended.add(message.partition())
                    continue
                found.append(
                    (
                        message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(),
                        tuple(message.headers() or ()),
                    )
                )  # fmt: skip
            return sorted(found)
        finally:
            consumer.close()

    def compacted(self) -> str:
        """A topic with holes at its head, inside batches and between them, and a tail that isn't compacted yet."""
        name = self.make("compacted", configs={
            "cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01",
            "delete.retention.ms": "86400000",
        })  # fmt: skip
        for part in range(4):
            producer = self.producer(**{"compression.type": "lz4", "batch.num.messages": 25})
            for number in range(100):
                key = number if number % 3 == 0 else 1000 + part
                producer.produce(name, b"%d of %d" % (number, part) if number % 9 else None, b"%d" % key)
            delivered(producer)
            time.sleep(0.2)  # so that the next batch begins another segment
        with self.cluster(self.source) as cluster:
            wait_until(
                lambda: self._is_cleaned(name)
                and (live_source(cluster, [name]).topics[name].partitions[0].holes or 0) > 150,
                timeout_s=ANSWER_S, what="compaction", every_s=0.5,
            )  # fmt: skip
        # From here on nothing is compacted, or it would go on beneath a test.
        admin = AdminClient(self.source.client_config())
        still = [ConfigEntry("min.cleanable.dirty.ratio", "1.0", incremental_operation=AlterConfigOpType.SET),
                 ConfigEntry("segment.ms", "604800000", incremental_operation=AlterConfigOpType.SET)]  # fmt: skip
        wanted = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=still)
        admin.incremental_alter_configs([wanted])[wanted].result(ANSWER_S)
        return name

    def _is_cleaned(self, topic: str) -> bool:
        """Whether the source's cleaner has been through all of partition 0 but the active segment: no more to come."""
        checkpoint = self.source.data_dir / "cleaner-offset-checkpoint"
        lines = checkpoint.read_text().splitlines() if checkpoint.exists() else []
        cleaned = {words[0]: int(words[2]) for line in lines if len(words := line.split()) == 3 and words[1] == "0"}
        active = max(int(path.stem) for path in (self.source.data_dir / f"{topic}-0").glob("*.log"))
        return 0 < active <= cleaned.get(topic, 0)

    def transactions(self, topic: str, rounds: int = 4) -> None:
        """Two producers whose transactions lie in one another, some aborted; the last one is left open."""
        one, two = (self.producer(**{"transactional.id": f"{topic}-{n}"}) for n in "ab")
        one.init_transactions(ANSWER_S)
        two.init_transactions(ANSWER_S)
        for number in range(rounds):
            one.begin_transaction()
            two.begin_transaction()
            for producer, who in ((one, b"one"), (two, b"two"), (one, b"one again")):
                producer.produce(topic, who + b" %d" % number, partition=0)
                producer.flush(ANSWER_S)
            (one.abort_transaction if number % 2 else one.commit_transaction)(ANSWER_S)
            two.produce(topic, b"two still %d" % number, partition=0)
            two.flush(ANSWER_S)
            two.commit_transaction(ANSWER_S)
        with self.cluster(self.source) as cluster:  # a marker comes a moment after the commit was acknowledged
            place = [(topic, 0)]
            wait_until(
                lambda: cluster.list_offsets(place, LATEST, committed=True) == cluster.list_offsets(place, LATEST),
                timeout_s=ANSWER_S, what="the last transaction's marker", every_s=0.05,
            )  # fmt: skip
        one.begin_transaction()
        one.produce(topic, b"never ended", partition=0)
        one.flush(ANSWER_S)
        self.open.append(one)


@contextmanager
def rig(source: KafkaServer, target: KafkaServer, folder: Path) -> Iterator[Rig]:
    """A rig; transactions that it leaves open are ended with it, or their clients would go on asking for a broker."""
    made = Rig(source, target, folder)
    try:
        yield made
    finally:
        for producer in made.open:
            with suppress(KafkaException):  # on a slow machine the broker has ended it by itself
                producer.abort_transaction(ANSWER_S)


def delivered(producer: Producer) -> None:
    """Everything that was produced has arrived."""
    assert producer.flush(ANSWER_S) == 0
