"""Topics made by kcat, the Java console tools and librdkafka, exported and restored: 0 differences.

Captured from one Apache Kafka into a bucket with Object Lock, restored into another one that never saw them, and
compared without anything of ours: by a consumer's eyes, and by the bytes on both brokers' disks (comparing.py).
"""

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.stores.kafka.compare import compare
from dr_assets.stores.kafka.export import open_export
from dr_assets.stores.kafka.restore import Restored, restore
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.restore_plan import Options, plan_restore
from dr_assets.stores.kafka.surveyed import surveyed
from dr_assets.stores.kafka.wire import Cluster
from dr_assets_tests.integration.kafka.making import ANSWER_S, delete_topics

# What can't come back byte for byte, and comes back record for record: batches with holes, and those whose times the
# broker gave.
RE_ENCODED = ("compacted", "appended")


@pytest.fixture(scope="module")
def vault(foreign_topics: Any, region: Any, capture_rig: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A vault that has captured all of them, and their groups, configurations and rules."""
    keys = tmp_path_factory.mktemp("keys")
    keys.chmod(0o700)
    bucket = f"foreign-{secrets.token_hex(4)}"
    region.create_bucket(bucket)
    place = capture_rig.Place(
        region.endpoint, region.access_key, region.secret_key, bucket, keys, (f"{foreign_topics.prefix}-*",)
    )
    with capture_rig.CaptureThread(place.vault(), place.dataset(), foreign_topics.server.bootstrap) as capture:
        capture.wait_stored()
        vault = place.vault()
        capture.wait(lambda _: is_surveyed(vault, foreign_topics), "groups, settings and rules are on record")
    return place.vault()


def is_surveyed(vault: Any, foreign_topics: Any) -> bool:
    """Whether what continues the topics beside their records is known as well."""
    seen = surveyed(vault, "events")
    topics = {topic.name for topic in seen.topics.values()}
    rules = [rule for rule in seen.acls if rule["principal"] == foreign_topics.principal]
    return (
        set(foreign_topics.groups) <= set(seen.groups)
        and set(foreign_topics.topics.values()) <= topics
        and len(rules) == 3
    )


@pytest.fixture
def target(foreign_topics: Any, kafka_target: KafkaServer) -> Iterator[KafkaServer]:
    """The other cluster, which does not have these topics and groups; they are gone again after the test."""
    admin = AdminClient(kafka_target.client_config())
    yield kafka_target
    there = admin.list_topics(timeout=ANSWER_S).topics
    delete_topics(admin, [name for name in foreign_topics.topics.values() if name in there])
    for future in admin.delete_consumer_groups(foreign_topics.groups).values():
        future.exception(ANSWER_S)


def bring_back(vault: Any, target: KafkaServer, state: Path, wish: Any = "auto") -> Restored:
    """Everything that is stored, restored."""
    with Cluster.connect(target.bootstrap) as cluster:
        return restore(plan_restore(export_source(vault, "events"), cluster, Options(wish=wish)), cluster, state)


def test_the_export_holds_every_byte(foreign_topics: Any, vault: Any, comparing: ModuleType) -> None:
    """Each partition's batches in the vault are, byte for byte, those in the broker's own segment files."""
    export = open_export(vault, "events")
    seen = comparing.consumed(foreign_topics.server, foreign_topics.topics.values())
    for (topic, index), partition in seen.items():
        stored = export.topic(topic)
        wanted = b"".join(comparing.raw_batches(foreign_topics.server, topic, index, partition.begin))
        begin, end = stored.partitions[index].begin, stored.partitions[index].next
        found = b"".join(export.batches(stored.topic_id, index, begin, end))
        assert (begin, end) == (partition.begin, partition.end), (topic, index)
        assert (len(found), digest(found)) == (len(wanted), digest(wanted)), (topic, index)


def test_everything_comes_back_at_its_offset(
    foreign_topics: Any, vault: Any, target: KafkaServer, foreign: ModuleType, comparing: ModuleType, tmp_path: Path
) -> None:
    """In a fresh cluster: every record, offset, time, header, transaction's end, group and setting is as it was."""
    done = bring_back(vault, target, tmp_path / "state.json")
    assert done.is_identical
    names = list(foreign_topics.topics.values())
    source, found = comparing.consumed(foreign_topics.server, names), comparing.consumed(target, names)
    assert comparing.record_differences(source, found, any_time={foreign_topics.name("appended")}) == []
    for label, name in foreign_topics.topics.items():
        for (topic, index), partition in source.items():
            if topic == name and label not in RE_ENCODED:
                pair = [comparing.on_disk(one, name, index, partition.begin) for one in (foreign_topics.server, target)]
                assert comparing.batch_differences(*pair) == [], (label, index)
    assert foreign.committed(target, foreign_topics.groups) == foreign.committed(
        foreign_topics.server, foreign_topics.groups
    )
    assert comparing.configs(target, names) == comparing.configs(foreign_topics.server, names)
    with Cluster.connect(target.bootstrap) as cluster:
        ours = compare(export_source(vault, "events"), cluster, {name: name for name in names})
    assert ours.is_equal, ours.differences


def test_everything_comes_back_by_its_map(
    foreign_topics: Any, vault: Any, target: KafkaServer, foreign: ModuleType, comparing: ModuleType, tmp_path: Path
) -> None:
    """Where offsets are not kept, each record lies where the map says, and groups go on at the same record."""
    done = bring_back(vault, target, tmp_path / "state.json", "mapped")
    assert not done.is_identical
    names = list(foreign_topics.topics.values())
    source, found = comparing.consumed(foreign_topics.server, names), comparing.consumed(target, names)

    def mapped(topic: str, index: int, offset: int) -> Any:
        return done.maps[topic, index].record_at(offset)

    differences = comparing.record_differences(
        source, found, offset_of=mapped, any_time={foreign_topics.name("appended")}
    )
    assert differences == []
    was, now = (
        foreign.committed(foreign_topics.server, foreign_topics.groups),
        foreign.committed(target, foreign_topics.groups),
    )
    for group, places in was.items():
        assert now[group].keys() == places.keys()
        for place, (offset, metadata) in places.items():
            wanted = [one for one in source[place].uncommitted if one.offset >= offset]
            left = [one for one in found[place].uncommitted if one.offset >= now[group][place][0]]
            assert [(one.key, one.value) for one in left] == [(one.key, one.value) for one in wanted], (group, place)
            assert now[group][place][1] == metadata


def digest(data: bytes) -> str:
    """To compare long bytes by."""
    return hashlib.sha256(data).hexdigest()
