"""What a restore promises, on Apache Kafka: the export is another cluster, so that no capture's bug can hide in it."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient

from dr_assets.engines.errors import EngineError
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import PolicyError
from dr_assets.stores.kafka import restore_record
from dr_assets.stores.kafka.admin import Acl, acls, topic_configs
from dr_assets.stores.kafka.compare import compare
from dr_assets.stores.kafka.restore_plan import Limits, Options, plan_restore
from dr_assets.stores.kafka.restore_read import live_source
from dr_assets.stores.kafka.restore_rules import create_rules
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.wire import EARLIEST, LATEST, Cluster
from dr_assets.vault.facts import facts, latest_fact
from dr_assets.vault.throwaway import throwaway_vault

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ANSWER_S = 180.0


@pytest.fixture
def rig(kafka: KafkaServer, kafka_target: KafkaServer, tmp_path: Path, restore_rig: ModuleType) -> Iterator[Any]:
    """Two brokers and a folder."""
    with restore_rig.rig(kafka, kafka_target, tmp_path) as made:
        yield made


def _is_equal(rig: Any, export: Any, restored: Any, **options: Any) -> None:
    with rig.cluster() as cluster:
        found = compare(export, cluster, restored.plan.names, maps=restored.maps, **options)
    assert found.differences == []
    assert found.is_equal


def _has_settings(cluster: Cluster, topic: str, own: dict[str, str]) -> None:
    """These and no others, once the broker has heard of what the controller took."""
    found: dict[str, str] = {}

    def has() -> bool:
        found.clear()
        found.update(topic_configs(cluster, [topic])[topic].own)
        return found == own

    try:
        wait_until(has, timeout_s=ANSWER_S, what="the topic's settings", every_s=0.1)
    except EngineError:
        assert found == own


def test_topics_come_back_with_the_offsets_they_had(rig: Any) -> None:
    """All codecs, null and repeated headers, tombstones, old times, a deleted head, an empty and emptied partition."""
    topic = rig.make("plain", 8, {"retention.ms": "-1", "max.message.bytes": "2000000"})
    for index, codec in enumerate(CODECS):
        producer = rig.producer(**{"compression.type": codec})
        for number in range(300):
            headers = [("h", None), ("h", b"2"), ("", b"")] if number % 3 else None
            value = None if number % 7 == 0 else b"value %d " % number * 5
            at = 1_700_000_000_000 + number * 1000
            producer.produce(topic, value, b"k%d" % (number % 20), index, timestamp=at, headers=headers)
        producer.flush()
    producer = rig.producer()
    for number in range(900):
        producer.produce(topic, b"%d" % number, partition=5 + number % 2)
    producer.flush()
    rig.behead(topic, {1: 100, 5: 123, 6: 450})
    group = f"g-{topic}"
    groups = {group: {(topic, 1): Commit(150, "where I was"), (topic, 6): Commit(450, ""), (topic, 0): Commit(0, "")}}
    with rig.export(topic, groups=groups) as export:
        restored = rig.restore(export)
        assert restored.is_identical
        _is_equal(rig, export, restored)
    assert rig.read(rig.target, topic) == rig.read(rig.source, topic)
    with rig.cluster() as cluster:
        places = [(topic, index) for index in range(8)]
        assert [cluster.list_offsets(places, EARLIEST)[place] for place in places] == [0, 100, 0, 0, 0, 123, 450, 0]
        assert cluster.list_offsets(places, LATEST)[(topic, 6)] == 450
        _has_settings(cluster, topic, {"retention.ms": "-1", "max.message.bytes": "2000000"})
    admin = KafkaAdminClient(bootstrap_servers=rig.target.bootstrap)  # confluent-kafka reads beyond a metadata's end
    committed = admin.list_group_offsets([group])[group]
    admin.close()
    assert {(place.partition, one.offset, one.metadata) for place, one in committed.items()} == {
        (1, 150, "where I was"), (6, 450, ""), (0, 0, "")
    }  # fmt: skip


def test_transactions_come_back_as_transactions(rig: Any) -> None:
    """Two producers' transactions in one another, aborted ones, one open at the cut: both isolation levels agree."""
    topic = rig.make("txn")
    rig.transactions(topic)
    with rig.export(topic) as export:
        restored = rig.restore(export)
        _is_equal(rig, export, restored)
    assert restored.is_identical
    there = rig.read(rig.target, topic, committed=True)
    assert [(row[1], row[4]) for row in there] == [
        (row[1], row[4]) for row in rig.read(rig.source, topic, committed=True)
    ]
    assert not any(b"never ended" in row[4] or row[4] == b"one 1" for row in there)
    assert any(b"never ended" in row[4] for row in rig.read(rig.target, topic))
    with rig.cluster() as cluster:
        stable = cluster.list_offsets([(topic, 0)], LATEST, committed=True)
        assert stable == cluster.list_offsets([(topic, 0)], LATEST), "a transaction is still open in the target"


@pytest.fixture(scope="session")
def compacted(kafka: KafkaServer, kafka_target: KafkaServer, restore_rig: ModuleType, engines_dir: Path) -> str:
    """One compacted topic for all tests that only read it."""
    name: str = restore_rig.Rig(kafka, kafka_target, engines_dir).compacted()
    return name


def test_a_compacted_topic_keeps_its_offsets_its_holes_filled_with_what_nobody_reads(rig: Any, compacted: str) -> None:
    """Every record at its offset, and a consumer of either isolation level sees these records and no other."""
    with rig.export(compacted) as export:
        assert export.topics[compacted].partitions[0].holes > 150
        restored = rig.restore(export, Options(prefix="identical-"))
        _is_equal(rig, export, restored)
    assert restored.is_identical
    target = f"identical-{compacted}"
    rows = rig.read(rig.source, compacted)
    assert rig.read(rig.target, target) == rows == rig.read(rig.target, target, committed=True)


def test_beyond_the_limit_a_map_tells_where_each_record_went_and_groups_follow_it(rig: Any, compacted: str) -> None:
    """Records without holes, in order; a group's next record is the same record as before, also from within a hole."""
    with rig.export(compacted) as plain:
        end = plain.topics[compacted].partitions[0].end
        rows = rig.read(rig.source, compacted)
    taken = {row[1] for row in rows}
    hole = next(offset for offset in range(end) if offset not in taken and offset > rows[5][1])
    wanted = {"in a hole": hole, "on a record": rows[7][1], "at the end": end, "at the begin": 0}
    groups = {group: {(compacted, 0): Commit(offset, "m")} for group, offset in wanted.items()}
    with rig.export(compacted, groups=groups) as export:
        restored = rig.restore(export, Options(prefix="mapped-", limits=Limits(holes=0)))
        _is_equal(rig, export, restored)
    assert not restored.is_identical
    target = f"mapped-{compacted}"
    there = rig.read(rig.target, target)
    assert [row[2:] for row in there] == [row[2:] for row in rows]
    assert [row[1] for row in there] == list(range(len(rows)))
    found = restored.maps[(target, 0)]
    assert [found.record_at(row[1]) for row in rows] == [row[1] for row in there]
    assert found.record_at(hole) is None
    admin = AdminClient(rig.target.client_config())
    for group, offset in wanted.items():
        asked = [ConsumerGroupTopicPartitions(group, [TopicPartition(target, 0)])]
        [position] = admin.list_consumer_group_offsets(asked)[group].result(ANSWER_S).topic_partitions
        following = [row[2:] for row in rows if row[1] >= offset]
        assert [row[2:] for row in there if row[1] >= position.offset] == following, group


def test_the_brokers_own_times_become_the_records(rig: Any) -> None:
    """LogAppendTime cannot be produced: the stamps come back as each record's time, equal."""
    topic = rig.make("stamped", configs={"message.timestamp.type": "LogAppendTime"})
    producer = rig.producer(**{"compression.type": "zstd"})
    for number in range(500):
        producer.produce(topic, b"%d" % number, timestamp=1_600_000_000_000 + number)
        if number % 100 == 0:
            producer.flush()
    producer.flush()
    with rig.export(topic) as export:
        restored = rig.restore(export)
        _is_equal(rig, export, restored)
    assert restored.is_identical
    assert rig.read(rig.target, topic) == rig.read(rig.source, topic)


def test_a_cut_goes_through_batches_and_transactions(rig: Any) -> None:
    """Up to an offset in the middle of a batch nothing more and nothing less; what was open there is aborted."""
    topic, txn = rig.make("cut"), rig.make("cut-txn")
    producer = rig.producer(**{"linger.ms": 200, "compression.type": "gzip"})
    for number in range(100):
        producer.produce(topic, b"%d" % number)
    producer.flush()
    rig.transactions(txn)
    rows = rig.read(rig.source, txn)
    with rig.export(topic, txn) as export:
        for index, cut in enumerate((0, 1, 5, 8, 13)):
            options = Options(prefix=f"cut{index}-")
            ends = {(topic, 0): 37 + index, (txn, 0): cut}
            restored = rig.restore(export, options, ends=ends)
            _is_equal(rig, export, restored, ends=ends)
            assert len(rig.read(rig.target, f"cut{index}-{topic}")) == 37 + index
            there = rig.read(rig.target, f"cut{index}-{txn}")
            assert there == [row for row in rows if row[1] < cut]


def test_a_target_that_holds_records_is_refused_unless_told(rig: Any) -> None:
    """Nothing is written to it then; told, the records follow those that are there, and the map says where."""
    topic = rig.make("once")
    producer = rig.producer()
    for number in range(50):
        producer.produce(topic, b"%d" % number)
    producer.flush()
    with rig.export(topic) as export:
        rig.restore(export)
        with pytest.raises(PolicyError) as caught:
            rig.restore(export)
        assert caught.value.code == "kafka.restore_not_empty"
        assert len(rig.read(rig.target, topic)) == 50
        again = rig.restore(export, Options(append=True))
        assert again.maps[(topic, 0)].record_at(0) == 50
        with rig.cluster() as cluster:
            found = compare(export, cluster, {topic: topic}, behind={(topic, 0): 50}, maps=again.maps)
        assert found.is_equal, found.differences
    values = [row[4] for row in rig.read(rig.target, topic)]
    assert values == 2 * [b"%d" % number for number in range(50)]


def test_a_topic_is_loaded_before_it_may_forget(rig: Any) -> None:
    """Records older than the topic's retention are there when the data is; the topic's own settings come last."""
    topic = rig.make("old", configs={"retention.ms": "-1", "segment.ms": "1000"})
    producer = rig.producer()
    old = int(time.time() * 1000) - 40 * 86_400_000
    for number in range(20):
        producer.produce(topic, b"%d" % number, timestamp=old + number)
    producer.flush()
    with rig.export(topic) as export:
        source = export.topics[topic]
        object.__setattr__(source, "configs", {"retention.ms": "86400000", "cleanup.policy": "delete"})
        held = rig.restore(export, Options(prefix="held-", held=True))
        _is_equal(rig, export, held)
        freed = rig.restore(export, Options(prefix="freed-"))
        assert freed.is_identical
    with rig.cluster() as cluster:
        # Whatever it is given, a held topic keeps what holds its records.
        _has_settings(
            cluster, f"held-{topic}", {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
        )
        _has_settings(cluster, f"freed-{topic}", {"retention.ms": "86400000", "cleanup.policy": "delete"})
        wait_until(
            lambda: cluster.list_offsets([(f"freed-{topic}", 0)], EARLIEST)[(f"freed-{topic}", 0)] == 20,
            timeout_s=ANSWER_S, what="retention in the topic that has its own settings", every_s=0.5,
        )  # fmt: skip
        assert cluster.list_offsets([(f"held-{topic}", 0)], EARLIEST)[(f"held-{topic}", 0)] == 0


def test_settings_that_the_target_does_not_know_are_told_the_others_hold(rig: Any) -> None:
    """A source of another version has others: its restore ends all the same, and names what was left out."""
    topic = rig.make("versions")
    with rig.export(topic) as export:
        configs = {"message.format.version": "3.0", "retention.ms": "777000000", "segment.bytes": "1048576"}
        object.__setattr__(export.topics[topic], "configs", configs)
        restored = rig.restore(export)
    assert any("message.format.version" in note for note in restored.notes)
    with rig.cluster() as cluster:
        _has_settings(cluster, topic, {"retention.ms": "777000000", "segment.bytes": "1048576"})


def test_a_plan_touches_nothing_and_says_what_is_lost(rig: Any, compacted: str) -> None:
    """Methods, pads and holes are told, an unfitting wish is refused; the target has no topic afterwards."""
    with rig.export(compacted) as export, rig.cluster() as cluster:
        plan = plan_restore(export, cluster, Options(prefix="never-"))
        assert [(each.method, (each.holes or 0) > 150) for each in plan.topics[0].partitions] == [("identical", True)]
        with pytest.raises(PolicyError) as caught:
            plan_restore(export, cluster, Options(prefix="never-", wish="identical", limits=Limits(holes=0)))
        assert caught.value.code == "kafka.restore_not_identical"
        with pytest.raises(PolicyError) as caught:
            plan_restore(export, cluster, Options(mapping={"no such topic": "x"}))
        assert caught.value.code == "kafka.restore_unknown_topic"
        assert cluster.metadata([f"never-{compacted}"]).topics == {}


def test_a_group_with_members_is_not_moved_beneath_them(rig: Any) -> None:
    """The records are there, the group is refused by name, and the same restore goes on when its members are gone."""
    topic = rig.make("busy")
    producer = rig.producer()
    producer.produce(topic, b"1")
    producer.flush()
    group = f"busy-{topic}"
    state = rig.folder / "state.json"
    with rig.export(topic, groups={group: {(topic, 0): Commit(1, "")}}) as export:
        rig.restore(export, Options(groups=()))
        consumer = Consumer(rig.target.client_config() | {"group.id": group})
        consumer.subscribe([topic])
        wait_until(
            lambda: consumer.poll(0.5) is None and bool(consumer.assignment()), timeout_s=ANSWER_S, what="a member"
        )
        again = Options(prefix="again-", mapping={topic: topic}, append=True)
        with pytest.raises(PolicyError) as caught:
            rig.restore(export, again, state)
        assert caught.value.code == "kafka.group_in_use"
        consumer.close()
        restored = rig.restore(export, again, state)
        assert restored.maps[(topic, 0)].position(1) == 2


def test_an_offset_map_is_kept_as_evidence(rig: Any, compacted: str) -> None:
    """Sealed in as many parts as it takes, named by the restore, and read back the same map."""
    with rig.export(compacted) as export:
        restored = rig.restore(export, Options(prefix="kept-", wish="mapped"))
    vault = throwaway_vault()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_record, "_RUNS", 2)
        restore_record.record_restore(vault, "ledger", restored, None)
    fact = latest_fact(vault, "ledger", restore_record.RESTORE)
    assert fact is not None
    [said] = fact.body["maps"]
    parts = {str(each.key): each for each in facts(vault, "ledger", restore_record.OFFSET_MAP)}
    assert len(said["facts"]) > 1
    assert restore_record.joined([parts[name] for name in said["facts"]]) == restored.maps[(f"kept-{compacted}", 0)]


def test_access_rules_are_made_where_they_are_asked_for(rig: Any) -> None:
    """A rule of the source's topic holds in the target for its new name; made twice, it is there once."""
    wanted = Acl(2, f"rules-{time.time_ns()}", 3, "User:nobody", "*", 3, 3)
    with rig.cluster() as cluster:
        assert create_rules(cluster, [wanted]) == create_rules(cluster, [wanted]) == 1
        # What the controller took, a broker hears of a moment later.
        wait_until(lambda: wanted in (acls(cluster) or ()), timeout_s=ANSWER_S, what="the rule")
        assert (acls(cluster) or ()).count(wanted) == 1


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("value", "value differs"),
        ("missing", "missing"),
        ("more", "a record more"),
        ("time", "timestamp differs"),
        ("group", "group g has offset"),
    ],
)
def test_a_comparison_finds_what_differs(rig: Any, damage: str, what: str) -> None:
    """One byte, one record, one time or one group's position: each is found and told, and no record's text is."""
    one, other = (rig.make(label, configs={"retention.ms": "-1"}) for label in ("one", "other"))
    producer = rig.producer()
    for topic in (one, other):
        for number in range(10):
            value = b"secret!" if (damage, number, topic) == ("value", 3, other) else b"secret."
            if (damage, number, topic) == ("missing", 9, other):
                continue
            at = 5000 + (1 if (damage, number, topic) == ("time", 4, other) else 0)
            producer.produce(topic, value, partition=0, timestamp=at)
        if (damage, topic) == ("more", other):
            producer.produce(topic, b"secret.", partition=0, timestamp=5000)
        producer.flush()
    admin = AdminClient(rig.source.client_config())
    position = [TopicPartition(other, 0, 4 if damage == "group" else 5)]
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions("g", position)])["g"].result(ANSWER_S)
    with rig.cluster(rig.source) as cluster:
        export = live_source(cluster, [one], {"g": {(one, 0): Commit(5)}})
        found = compare(export, cluster, {one: other})
    assert not found.is_equal
    assert found.count <= 2
    assert any(what in str(each) for each in found.differences)
    assert "secret" not in str(found.to_json())
