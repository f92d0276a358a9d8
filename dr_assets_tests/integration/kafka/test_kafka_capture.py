"""A capture of Apache Kafka's topics: byte for byte, gapless, and with every jump on record."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from dr_assets.engines.kafka.noida import NoidaServer
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka import fetcher
from dr_assets.stores.kafka.capture_facts import gaps, record_capture, recreated, settle, unsettled_gaps
from dr_assets.stores.kafka.export import open_export
from dr_assets.stores.kafka.fetching import fetch
from dr_assets.stores.kafka.line import Security
from dr_assets.stores.kafka.position import stored_recovery_point
from dr_assets.stores.kafka.wire import EARLIEST, Cluster
from dr_assets.vault.format.pack_list import PACK_LIST
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify

ANSWER_S = 180.0
WAIT_S = 180.0
Vaults = Callable[[Any], Vault]


@pytest.fixture
def rig(capture_rig: ModuleType) -> ModuleType:
    """The module capture_rig.py."""
    return capture_rig


@pytest.fixture
def vaults(rig: ModuleType, tmp_path: Path) -> Vaults:
    """`vaults(dataset)`: a vault in memory."""
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    return lambda dataset: rig.make_vault(MemoryStore(), keys, dataset)


@pytest.fixture
def cluster(kafka: KafkaServer) -> Iterator[Cluster]:
    """The session's cluster, connected to."""
    with Cluster.connect(kafka.bootstrap, patience_s=WAIT_S) as connected:
        yield connected


def _errors(vault: Vault) -> list[str]:
    return [f"{each.kind} {each.key} {each.detail}" for each in verify(vault).findings if each.severity == "error"]


def _id(cluster: Cluster, topic: str) -> str:
    """A topic's id, once every broker has heard of it."""
    _until(lambda: topic in cluster.metadata([topic]).topics, f"no topic {topic}")
    return cluster.metadata([topic]).topics[topic].topic_id


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.05)


def test_every_batch_is_stored_as_the_broker_holds_it(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str], cluster: Cluster
) -> None:
    """Four compressions, several partitions, an empty one, a batch of another size: the very bytes; verify is green.

    What the catalogues of the packs tell is what the packs tell.
    """
    names = [topic(partitions=3, name=f"cap-{kind}") for kind in ("none", "gzip", "snappy", "lz4", "zstd")]
    for name in names:
        kind = name.split("-")[1]
        for partition in (0, 1):
            rig.produce(
                kafka.bootstrap, name, rig.random_values(300), partition=partition, **{"compression.type": kind}
            )
    dataset = rig.make_dataset(names)
    vault = vaults(dataset)
    with rig.CaptureThread(vault, dataset, kafka.bootstrap, catalogue_every=1) as capture:
        capture.wait_stored()
        rig.produce(kafka.bootstrap, names[0], [b"v" * 200_000, None, b""])
        capture.wait_stored()
    for name in names:
        for partition in range(3):
            stored = rig.stored_bytes(vault, (_id(cluster, name), partition, 0))
            assert stored == rig.source_bytes(cluster, name, partition), (name, partition)
    assert _errors(vault) == []
    export = open_export(vault, "events")
    assert {topic.name for topic in export.topics.values()} == set(names)
    assert export.topics == open_export(vault, "events", catalogues=False).topics
    assert any(vault.objects("events", PACK_LIST))
    first = export.topic(names[0])
    assert (first.partitions[0].next, first.partitions[0].count, first.partitions[2].next) == (303, 303, 0)
    point = stored_recovery_point(vault, dataset)
    assert point is not None
    assert (point.topics, point.partitions, point.at) == (5, 15, export.recovery_point_at)


def test_a_capture_goes_on_where_the_vault_ends_and_finds_new_topics(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str], cluster: Cluster
) -> None:
    """Two runs: no offset twice, none left out; a topic that fits the pattern is captured from its first offset."""
    mark = secrets.token_hex(3)
    old = topic(name=f"go-{mark}")
    dataset = rig.make_dataset([f"go-{mark}-*", f"new-{mark}-*"])
    vault, names = vaults(dataset), [old]
    for turn in range(2):
        rig.produce(kafka.bootstrap, old, rig.random_values(50))
        with rig.CaptureThread(vault, dataset, kafka.bootstrap) as capture:
            capture.wait_stored()
            names.append(topic(name=f"new-{mark}-{turn}"))
            rig.produce(kafka.bootstrap, names[-1], rig.random_values(20))
            rig.produce(kafka.bootstrap, old, rig.random_values(50))
            new_id = _id(cluster, names[-1])
            _until(lambda new_id=new_id: bool(rig.slices_of(vault, new_id)), "the new topic is not captured")
            capture.wait_stored()
    for name in names:
        slices = rig.slices_of(vault, _id(cluster, name))
        assert slices[0].first == 0
        assert [each.first for each in slices[1:]] == [each.next for each in slices[:-1]]
        assert rig.stored_bytes(vault, (_id(cluster, name), 0, 0)) == rig.source_bytes(cluster, name)
    assert _errors(vault) == []


def test_idle_topics_write_one_heartbeat_for_all(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """Twenty idle partitions: the recovery point moves by packs that hold nothing."""
    dataset = rig.make_dataset([topic(partitions=20, name="idle")])
    vault = vaults(dataset)
    with rig.CaptureThread(vault, dataset, kafka.bootstrap) as capture:
        for _ in range(3):
            capture.wait_stored()
    packs = rig.packs(vault)
    assert all(not pack.index.slices for pack in packs)
    assert sum(pack.index.table is not None for pack in packs) <= 4
    assert open_export(vault, "events").recovery_point_at is not None


def test_a_gap_by_retention_is_on_record_before_anything_behind_it(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str], cluster: Cluster
) -> None:
    """Records deleted while nobody captured: a fact with the offsets, a break in the slice, a red standing, no jump."""
    name = topic(name="gap")
    dataset = rig.make_dataset([name])
    vault, topic_id = vaults(dataset), _id(cluster, name)
    rig.produce(kafka.bootstrap, name, rig.random_values(100))
    with rig.CaptureThread(vault, dataset, kafka.bootstrap) as capture:
        capture.wait_stored()
    rig.produce(kafka.bootstrap, name, rig.random_values(100))
    admin, upto = AdminClient(kafka.client_config()), TopicPartition(name, 0, 150)
    admin.delete_records([upto])[upto].result(ANSWER_S)
    assert cluster.list_offsets([(name, 0)], EARLIEST)[(name, 0)] == 150
    with rig.CaptureThread(vault, dataset, kafka.bootstrap) as capture:
        report = capture.wait_stored()
        assert report.gaps == 1
    [(fact, gap)] = gaps(vault, "events")
    assert (gap.topic, gap.partition, gap.why, gap.begin, gap.end) == (name, 0, "gap", 100, 150)
    behind = [each for each in rig.slices_of(vault, topic_id) if each.broken is not None]
    assert [(each.first, each.broken.why, each.broken.was) for each in behind] == [(150, "gap", 100)]
    export = open_export(vault, "events")
    assert [(each.was, each.first) for each in export.gaps] == [(100, 150)]
    assert export.topic(name).partitions[0].next == 200
    assert _errors(vault) == []
    assert [each.kind for each in verify(vault).findings if each.kind == "gap"] == ["gap"]
    assert [each for each, _ in unsettled_gaps(vault, "events")] == [fact]
    settle(vault, "events", str(fact.key), "ops", "consumers were told")
    assert unsettled_gaps(vault, "events") == []


def test_a_topic_made_again_is_another_stream(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str], cluster: Cluster
) -> None:
    """Deleted and made again under its name while it is captured: a fact with both ids, both exports are there."""
    name = topic(name="again")
    dataset = rig.make_dataset([name])
    vault, was = vaults(dataset), _id(cluster, name)
    rig.produce(kafka.bootstrap, name, rig.random_values(30))
    admin = AdminClient(kafka.client_config())
    with rig.CaptureThread(vault, dataset, kafka.bootstrap) as capture:
        capture.wait_stored()
        admin.delete_topics([name])[name].result(ANSWER_S)
        _until(lambda: name not in cluster.metadata([name]).topics, "the topic is not deleted")
        admin.create_topics([NewTopic(name, 1, 1)])[name].result(ANSWER_S)
        rig.produce(kafka.bootstrap, name, rig.random_values(10))
        now = _id(cluster, name)
        _until(lambda: bool(rig.slices_of(vault, now)), "the topic made again is not captured")
        capture.wait_stored()
    found = [(fact.body["topic"], fact.body["was"], fact.body["now"]) for fact in recreated(vault, "events")]
    assert was != now
    assert found[0][:2] == (name, was)
    export = open_export(vault, "events")
    assert export.topics[was].is_gone
    assert export.topics[was].partitions[0].next == 30
    assert (export.topic(name).topic_id, export.topic(name).partitions[0].next) == (now, 10)
    assert _errors(vault) == []


def test_a_second_capture_stands_by_and_takes_over(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str], cluster: Cluster
) -> None:
    """Two captures of one dataset: one writes, the other takes over when it ends; one chain, no offset twice."""
    name = topic(name="two")
    dataset = rig.make_dataset([name])
    vault = vaults(dataset)
    patient = {"session_s": 30.0}  # a machine that is short of time must not make the one that stands by take over
    with ExitStack() as stack:
        first = stack.enter_context(rig.CaptureThread(vault, dataset, kafka.bootstrap, **patient))
        first.wait_stored()
        second = stack.enter_context(rig.CaptureThread(vault, dataset, kafka.bootstrap, **patient))
        second.wait(lambda report: report.state == "standby", "the second does not stand by")
        rig.produce(kafka.bootstrap, name, rig.random_values(50))
        first.wait_stored()
        assert all(report.state == "standby" for report in second.reports)
        third = rig.CaptureThread(vault, dataset, kafka.bootstrap, stand_by=False, **patient)
        with pytest.raises(SourceError, match=r"kafka\.owned"), third:
            third.wait(lambda _: False, "a third was let in")
        first.wait_stored()
        first.stop()
        rig.produce(kafka.bootstrap, name, rig.random_values(50))
        second.wait_stored()
    assert rig.stored_bytes(vault, (_id(cluster, name), 0, 0)) == rig.source_bytes(cluster, name)
    epochs = [pack.header.writer_epoch for pack in rig.packs(vault)]
    assert set(epochs) == {1, 2}
    assert epochs == sorted(epochs)
    assert _errors(vault) == []


def test_a_compacted_topic_is_exported_anew(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str], cluster: Cluster
) -> None:
    """A second generation from the first offset, the first going on until it is complete; a reader takes the newest."""
    name = topic(name="compacted", configs={"cleanup.policy": "compact"})
    dataset = rig.make_dataset([name], compacted_every=timedelta(seconds=1))
    vault, topic_id = vaults(dataset), _id(cluster, name)
    for key in (b"a", b"b"):
        rig.produce(kafka.bootstrap, name, rig.random_values(50), key=key)
    with rig.CaptureThread(vault, dataset, kafka.bootstrap) as capture:
        capture.wait_stored()
        _until(lambda: any(each.generation > 0 for each in rig.slices_of(vault, topic_id)), "no second generation")
        rig.produce(kafka.bootstrap, name, rig.random_values(10), key=b"a")
        capture.wait_stored()
    part = open_export(vault, "events").topic(name).partitions[0]
    assert (part.generation > 0, part.begin, part.next, part.complete) == (True, 0, 110, True)
    export = open_export(vault, "events")
    whole = b"".join(export.batches(topic_id, 0, 0, 110))
    assert whole == rig.source_bytes(cluster, name)
    assert export.topic(name).compacted
    assert _errors(vault) == []


def test_what_continues_a_cluster_is_kept_as_versions(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str], registry: "Registry"
) -> None:
    """Groups' offsets with metadata, topics' configuration, access rules, a registry's subjects: now, and as before."""
    name = topic(name="kept", partitions=2, configs={"retention.ms": "1234567890"})
    dataset = rig.make_dataset([name], groups=("kept-*",), schema_registry_env="REGISTRY")
    vault, group = vaults(dataset), f"kept-{secrets.token_hex(4)}"
    rule = AclBinding(
        ResourceType.TOPIC,
        name,
        ResourcePatternType.LITERAL,
        "User:carol",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )
    admin = AdminClient(kafka.client_config())
    admin.create_acls([rule])[rule].result(ANSWER_S)
    rig.produce(kafka.bootstrap, name, rig.random_values(30))
    with rig.CaptureThread(vault, dataset, kafka.bootstrap, registry=registry.url) as capture:
        capture.wait_stored()
        _commit(kafka, group, name, 7, "seven")
        _until(lambda: group in open_export(vault, "events").groups, "the group is not captured")
        before = datetime.now(UTC)
        _commit(kafka, group, name, 21, "twenty-one")
        AdminClient(kafka.client_config())
        _until(
            lambda: open_export(vault, "events").groups[group][(name, 0)].offset == 21, "the new offset is not captured"
        )
        _until(lambda: len(open_export(vault, "events").subjects) == 3, "the subjects are not captured")
        capture.wait_stored()
    export = open_export(vault, "events")
    # This client sends the end of its C string along, so that is what the broker holds.
    assert (export.groups[group][(name, 0)].offset, export.groups[group][(name, 0)].metadata) == (21, "twenty-one\0")
    assert export.topic(name).configs == {"retention.ms": "1234567890"}
    assert (export.topic(name).partition_count, export.topic(name).replication_factor) == (2, 1)
    assert [(each["subject"], each["version"]) for each in export.subjects] == [
        ("bets-value", 1), ("bets-value", 2), ("players/é-value", 1)
    ]  # fmt: skip
    assert (name, "User:carol") in {(each["resource_name"], each["principal"]) for each in export.acls}
    assert not any(known.startswith("dr-assets.") for known in export.groups)
    early = open_export(vault, "events", as_of=before)
    assert (early.groups[group][(name, 0)].offset, early.groups[group][(name, 0)].metadata) == (7, "seven\0")


def _commit(kafka: KafkaServer, group: str, topic: str, offset: int, metadata: str) -> None:
    consumer = Consumer({**kafka.client_config(), "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset, metadata=metadata)], asynchronous=False)
    consumer.close()


@pytest.mark.parametrize("door", ["SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_every_door_leads_to_the_same_records(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str], cluster: Cluster, door: str
) -> None:
    """TLS, SCRAM, both: captured alike."""
    name = topic(name="door")
    rig.produce(kafka.bootstrap, name, rig.random_values(30))
    dataset = rig.make_dataset([name])
    vault = vaults(dataset)
    with rig.CaptureThread(vault, dataset, kafka.address(door), security=_security(kafka, door)) as capture:
        capture.wait_stored()
    assert rig.stored_bytes(vault, (_id(cluster, name), 0, 0)) == rig.source_bytes(cluster, name)


def _security(kafka: KafkaServer, door: str, mechanism: str = "SCRAM-SHA-512", **changes: Any) -> Security:
    user = next(iter(kafka.users))
    fields: dict[str, Any] = {"protocol": door}
    if "SSL" in door:
        fields["ca_file"] = str(kafka.ca_file)
    if "SASL" in door:
        fields |= {"mechanism": mechanism, "username": user, "password": kafka.users[user]}
    return Security(**{**fields, **changes})


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_wrong_password_is_refused_at_once_and_shown_nowhere(kafka: KafkaServer, mechanism: str) -> None:
    """Each mechanism: let in with the right one, `kafka.auth` with another, which is not in the error."""
    door = "SASL_SSL"
    Cluster.connect(kafka.address(door), _security(kafka, door, mechanism)).close()
    wrong = _security(kafka, door, mechanism, password="a-secret-that-is-wrong")
    with pytest.raises(SourceError) as refused:
        Cluster.connect(kafka.address(door), wrong, patience_s=WAIT_S)
    assert refused.value.code == "kafka.auth"
    assert "a-secret" not in str(refused.value) + repr(wrong) + repr(refused.value.__context__)


def test_a_stranger_s_certificate_is_refused(kafka: KafkaServer) -> None:
    """Without the CA of the broker: `kafka.tls`."""
    with pytest.raises(SourceError) as refused:
        Cluster.connect(kafka.address("SSL"), Security("SSL"), patience_s=WAIT_S)
    assert refused.value.code == "kafka.tls"


def test_a_kept_capture_fact_of_another_cluster_begins_a_chain_of_its_own(
    rig: ModuleType, vaults: Vaults, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """A dataset that moved to another cluster: its packs lie under the new id, from 0 on."""
    from dr_assets.stores.kafka.capture_facts import Anchor  # noqa: PLC0415 - only here

    dataset = rig.make_dataset([topic(name="moved")])
    vault = vaults(dataset)
    record_capture(vault, "events", "stopped", Anchor("ab" * 16, 0, 0, None, None, 9, None))
    with rig.CaptureThread(vault, dataset, kafka.bootstrap) as capture:
        report = capture.wait_stored()
    assert (report.writer_epoch, rig.packs(vault)[0].header.first) == (1, 0)


def test_the_emulator_is_captured_too_and_not_asked_without_end(
    rig: ModuleType, vaults: Vaults, noida: NoidaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without long polls or, at times, topic ids: the same bytes, and no more fetches than a broker would get."""
    asked: list[float] = []

    def counted(*arguments: Any, **named: Any) -> Any:
        asked.append(time.monotonic())
        return fetch(*arguments, **named)

    monkeypatch.setattr(fetcher, "fetch", counted)
    admin = AdminClient({"bootstrap.servers": noida.bootstrap})
    admin.create_topics([NewTopic("emulated", 2, 1)])["emulated"].result(ANSWER_S)
    rig.produce(noida.bootstrap, "emulated", rig.random_values(100))
    dataset = rig.make_dataset(["emulated"])
    vault = vaults(dataset)
    with rig.CaptureThread(vault, dataset, noida.bootstrap) as capture:
        capture.wait_stored()
        asked.clear()
        capture.wait_stored()
        capture.wait_stored()
        times = [*asked]  # it goes on asking
        waits = (times[-1] - times[0]) / (dataset.linger.total_seconds() / 2)
        assert len(times) <= waits + 2
    with Cluster.connect(noida.bootstrap) as connected:
        stored = rig.stored_bytes(vault, (_id(connected, "emulated"), 0, 0))
        assert stored == rig.source_bytes(connected, "emulated")


class Registry:
    """A local server that speaks a schema registry's REST, read-only."""

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Two subjects, one with two versions and one with a name to be quoted."""
    with _serving() as port:
        yield Registry(f"http://127.0.0.1:{port}")


@contextmanager
def _serving() -> Iterator[int]:
    import json  # noqa: PLC0415 - only here
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415 - only here
    from urllib.parse import unquote  # noqa: PLC0415 - only here

    schemas = {"bets-value": ['"string"', '"bytes"'], "players/é-value": ['{"type":"int"}']}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = [unquote(part) for part in self.path.split("/")[1:]]
            told: Any = None
            match parts:
                case ["subjects"]:
                    told = list(schemas)
                case ["config"]:
                    told = {"compatibilityLevel": "BACKWARD"}
                case ["subjects", name, "versions"]:
                    told = list(range(1, len(schemas[name]) + 1))
                case ["subjects", name, "versions", version]:
                    told = {
                        "subject": name,
                        "version": int(version),
                        "id": 7,
                        "schema": schemas[name][int(version) - 1],
                    }
            self.send_response(200 if told is not None else 404)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
