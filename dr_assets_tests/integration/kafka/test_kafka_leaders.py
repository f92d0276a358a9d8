"""A cluster of several brokers: leaders that die, and leaders that move while everybody lives, are followed."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.engines.waiting import wait_until
from dr_assets.stores.kafka.capture_facts import gaps
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import verify

ANSWER_S = 180.0


@pytest.fixture
def brokers(kafka_server: Callable[..., KafkaServer]) -> list[KafkaServer]:
    """Three, of which the first is the controller as well."""
    first = kafka_server(heap_mib=256)
    return [first, *(kafka_server(joins=first, node_id=number, heap_mib=256) for number in (2, 3))]


def test_leaders_that_die_and_leaders_that_move_are_followed(
    capture_rig: ModuleType, brokers: list[KafkaServer], tmp_path: Path
) -> None:
    """Two partitions led by two brokers: one is killed, comes back and leads again; every byte is stored, no gap."""
    rig, name = capture_rig, "moving"
    first, second, _ = brokers
    admin = AdminClient(first.client_config())
    admin.create_topics([NewTopic(name, 2, replica_assignment=[[2, 3], [3, 2]])])[name].result(ANSWER_S)
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    dataset = rig.make_dataset([name])
    vault = rig.make_vault(MemoryStore(), keys, dataset)

    def produced() -> None:
        for partition in (0, 1):
            rig.produce(first.bootstrap, name, rig.random_values(50), partition=partition)

    with (
        Cluster.connect(first.bootstrap, patience_s=ANSWER_S) as cluster,
        rig.CaptureThread(vault, dataset, first.bootstrap) as capture,
    ):

        def led_by(*leaders: int) -> Callable[[], bool]:
            def led() -> bool:
                # Any broker is asked, and one that has not heard of the topic yet knows none.
                found = cluster.metadata([name]).topics.get(name)
                return found is not None and tuple(each.leader for each in found.partitions) == leaders

            return led

        wait_until(led_by(2, 3), timeout_s=ANSWER_S, what="the leaders that were asked for")
        produced()
        capture.wait_stored()
        second.kill()
        wait_until(led_by(3, 3), timeout_s=ANSWER_S, what="another leader")
        produced()
        capture.wait_stored()
        second.start()
        wait_until(lambda: _elected(admin, name), timeout_s=ANSWER_S, what="the first leader's return")
        wait_until(led_by(2, 3), timeout_s=ANSWER_S, what="the first leader's return")
        produced()
        capture.wait_stored()
        topic_id = cluster.metadata([name]).topics[name].topic_id
        for partition in (0, 1):
            assert rig.stored_bytes(vault, (topic_id, partition, 0)) == rig.source_bytes(cluster, name, partition)
    slices = [part for partition in (0, 1) for part in rig.slices_of(vault, topic_id, partition)]
    assert sum(part.count for part in slices) == 300
    assert len({part.leader_epoch for part in slices}) > 1
    assert list(gaps(vault, "events")) == []
    assert [each for each in verify(vault).findings if each.severity == "error"] == []


def _elected(admin: AdminClient, name: str) -> bool:
    """Whether the preferred leader leads: it may only once it has caught up."""
    try:
        asked = admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(name, 0)]).result(ANSWER_S)
    except KafkaException:  # asked of one that is on its way back
        return False
    return all(error is None or error.name() == "ELECTION_NOT_NEEDED" for error in asked.values())
