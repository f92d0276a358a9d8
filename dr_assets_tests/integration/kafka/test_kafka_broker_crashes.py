"""A broker that crashes, and one that comes back with less than it had: followed, or on record."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.stores.kafka.capture_facts import gaps
from dr_assets.stores.kafka.export import open_export
from dr_assets.stores.kafka.wire import LATEST, Cluster
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import verify

ANSWER_S = 180.0


@pytest.fixture
def crashing(kafka_server: Callable[..., KafkaServer]) -> Iterator[KafkaServer]:
    """A broker of the test's own."""
    return kafka_server()


def test_crashes_are_followed_and_a_log_that_came_back_shorter_is_on_record(
    capture_rig: ModuleType, crashing: KafkaServer, tmp_path: Path
) -> None:
    """Killed and started again under a capture: it goes on, byte for byte; then, of a log cut short, the divergence.

    It loses its end while nobody captures and grows anew: a fact with the offsets, and a reader gets what it now holds.
    """
    rig, name = capture_rig, "crashing"
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    admin = AdminClient(crashing.client_config())
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(ANSWER_S)
    dataset = rig.make_dataset([name])
    vault = rig.make_vault(MemoryStore(), keys, dataset)
    with rig.CaptureThread(vault, dataset, crashing.bootstrap) as capture:
        rig.produce(crashing.bootstrap, name, rig.random_values(50))
        capture.wait_stored()
        crashing.kill()
        capture.wait(lambda report: report.state == "reconnecting", "the crash is not noticed")
        crashing.start()
        rig.produce(crashing.bootstrap, name, rig.random_values(50))
        capture.wait_stored()
        with Cluster.connect(crashing.bootstrap) as cluster:
            topic_id = cluster.metadata([name]).topics[name].topic_id
            assert rig.stored_bytes(vault, (topic_id, 0, 0)) == rig.source_bytes(cluster, name)
    crashing.kill()
    _cut_log(Path(crashing.data_dir), name)
    crashing.start()
    with Cluster.connect(crashing.bootstrap) as cluster:
        end = _end(cluster, name)
        assert end < 100
        rig.produce(crashing.bootstrap, name, rig.random_values(120))
        with rig.CaptureThread(vault, dataset, crashing.bootstrap) as capture:
            report = capture.wait_stored()
            assert report.gaps == 1
        [(_, gap)] = gaps(vault, "events")
        assert (gap.topic, gap.partition, gap.why, gap.begin, gap.end) == (name, 0, "diverged", end, 100)
        export = open_export(vault, "events")
        assert [(each.why, each.was, each.first) for each in export.gaps] == [("diverged", 100, end)]
        assert export.topic(name).partitions[0].next == end + 120
        whole = b"".join(export.batches(topic_id, 0, 0, end + 120))
        assert whole == rig.source_bytes(cluster, name)
    assert [each for each in verify(vault).findings if each.severity == "error"] == []


def _end(cluster: Cluster, name: str) -> int:
    """The end of the log, once the broker has read it."""
    deadline_s = time.monotonic() + ANSWER_S
    while True:
        found: Any = cluster.list_offsets([(name, 0)], LATEST)[(name, 0)]
        if found or time.monotonic() > deadline_s:
            return int(found)
        time.sleep(0.2)


def _cut_log(data: Path, name: str) -> None:
    """Take the last batches off a partition's log, as a disk does that lost what it had not written yet."""
    [log] = data.rglob(f"{name}-0/00000000000000000000.log")
    whole = log.read_bytes()
    ends, at = [0], 0
    while at < len(whole):
        at += 12 + int.from_bytes(whole[at + 8 : at + 12])
        ends.append(at)
    log.write_bytes(whole[: ends[len(ends) // 2]])
    for index in log.parent.glob("*index"):
        index.unlink()
    for checkpoint in data.rglob("*checkpoint"):
        if "recovery-point" in checkpoint.name or "replication-offset" in checkpoint.name:
            checkpoint.unlink()
