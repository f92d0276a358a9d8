"""The outbox replayed into Apache Kafka: what is missing, in order, each once, however often it is killed."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaProducer

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.reconciliation.relations import LEDGER
from dr_assets.recovery import outbox_replay, outbox_write
from dr_assets.recovery.outbox import plan_outbox
from dr_assets.recovery.outbox_mark import mark_outbox
from dr_assets.recovery.outbox_plan import OutboxPlan, load_plan
from dr_assets.recovery.outbox_proof import Proof, prove_outbox
from dr_assets.recovery.outbox_replay import Replayed, replay_outbox
from dr_assets.recovery.outbox_write import Event, OutboxProducer
from dr_assets.stores.kafka.groups import commit_positions
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.wire import Cluster
from dr_assets_tests.integration.kafka.killing import KilledError, Killer

ANSWER_S = 120.0
HEADER = "idempotency-key"
_SQL_TYPES = {"id": "bigint", "minor": "bigint", "text": "text", "flag": "boolean", "bytes": "bytea"}


@dataclass
class Rig:
    """A ledger that is nothing but an outbox, two topics, and a contract that says so."""

    server: KafkaServer
    dsn: str
    contract: str
    topics: tuple[str, str]
    folder: Path
    cluster: Cluster
    made: int = 0
    sent: list[str] = field(default_factory=list)

    def add(self, count: int, *, published: bool = False, topic: int | None = None) -> list[str]:
        """New rows; their keys."""
        keys = []
        with psycopg.connect(self.dsn, autocommit=True) as ledger:
            for _ in range(count):
                self.made += 1
                name = self.topics[self.made % 4 == 0 if topic is None else topic]
                payload = json.dumps({"n": self.made})
                ledger.execute(
                    "INSERT INTO events VALUES (%s, %s, %s, %s, %s, now() - interval '1 hour', %s, %s)",
                    (self.made, name, f"key-{self.made}", f"player-{self.made % 5}", payload, published, '{"v": "1"}'),
                )
                keys.append(f"key-{self.made}")
        return keys

    def publish(self, keys: list[str]) -> None:
        """As an application's relay does, with its own client's partitioner."""
        producer = KafkaProducer(bootstrap_servers=self.server.bootstrap, acks="all")
        with psycopg.connect(self.dsn) as ledger:
            for topic, key, message_key, payload in ledger.execute(
                "SELECT topic, key, message_key, payload FROM events WHERE key = ANY (%s) ORDER BY id", (keys,)
            ):
                headers = [(HEADER, key.encode())]
                producer.send(topic, key=message_key.encode(), value=payload.encode(), headers=headers).get(ANSWER_S)
        producer.close()

    def plan(self, **options: Any) -> OutboxPlan:
        """What is missing now."""
        return plan_outbox(self.dsn, self.contract, self.cluster, dataset="ledger", workdir=self.folder, **options)

    def replay(self, plan: OutboxPlan, **options: Any) -> Replayed:
        """Send it, by a connection of its own."""
        with Cluster.connect(self.server.bootstrap, patience_s=ANSWER_S) as cluster:
            return replay_outbox(plan, self.dsn, cluster, workdir=self.folder, **options)

    def prove(self, plan: OutboxPlan) -> Proof:
        """Read it back."""
        return prove_outbox(plan, self.cluster, workdir=self.folder)

    def read(self) -> list[tuple[str, int, str, bytes | None, dict[str, bytes]]]:
        """What somebody else's consumer of committed records finds, partition by partition in order."""
        config = {"group.id": "reader", "enable.partition.eof": True, "isolation.level": "read_committed"}
        consumer = Consumer(self.server.client_config() | config)
        found = []
        places = [TopicPartition(name, index, 0) for name, count in zip(self.topics, (3, 1), strict=True)
                  for index in range(count)]  # fmt: skip
        consumer.assign(places)
        ended = 0
        while ended < len(places):
            message = consumer.poll(ANSWER_S)
            assert message is not None
            if message.error():
                ended += 1
                continue
            headers = dict(message.headers() or [])
            key = headers[HEADER].decode()
            found.append((message.topic(), message.partition(), key, message.key(), headers))
        consumer.close()
        return found


@pytest.fixture
def rig(
    kafka: KafkaServer, topic: Callable[..., str], fresh_database: Callable[..., str], tmp_path: Path
) -> Iterator[Rig]:
    """An empty outbox, and empty topics of three partitions and of one."""
    with rigged(kafka, (topic(3, name="bets"), topic(1, name="wins")), fresh_database(), tmp_path) as made:
        yield made


@contextmanager
def rigged(kafka: KafkaServer, topics: tuple[str, str], dsn: str, tmp_path: Path) -> Iterator[Rig]:
    """A ledger of events and its contract, for topics that are there."""
    with psycopg.connect(dsn, autocommit=True) as ledger:
        ledger.execute(
            "CREATE TABLE events (id bigint, topic text, key text, message_key text, payload text, at timestamptz,"
            " published boolean, headers text)"
        )
    folder = tmp_path / "contract"
    folder.mkdir()
    for relation, columns in LEDGER.items():
        nulls = ", ".join(f"NULL::{_SQL_TYPES[one.kind]} AS {one.name}" for one in columns)
        (folder / f"{relation}.sql").write_text(f"SELECT {nulls}\n")
    (folder / "outbox.sql").write_text(
        "SELECT id AS transfer_id, id AS position, topic, key AS idempotency_key, message_key, payload, published,"
        " (extract(epoch FROM at) * 1000000)::bigint AS created_us, headers FROM events\n"
    )
    relations = "".join(f"  {name}: {name}.sql\n" for name in (*LEDGER, "outbox"))
    (folder / "contract.yaml").write_text(f"contract: events\nrelations:\n{relations}")
    with Cluster.connect(kafka.bootstrap, patience_s=ANSWER_S) as cluster:
        yield Rig(kafka, dsn, str(folder), topics, tmp_path, cluster)


def test_what_is_missing_is_replayed_in_order_and_proven(rig: Rig) -> None:
    """Lost, published and never published events: each is there once, in order, where the application puts its keys."""
    rig.publish(rig.add(9, published=True))
    lost, late = rig.add(4, published=True), rig.add(14)
    rig.publish(late[:2])  # sent, and the mark was lost
    plan = rig.plan()
    assert [entry.idempotency_key for entry in plan.entries] == lost + late[2:]
    assert sum(plan.counts.values()) == 16
    place = (rig.topics[0], plan.entries[0].partition)
    commit_positions(rig.cluster, f"bonus-{rig.topics[0]}", {place: Commit(plan.ends[place])})
    rig.plan().save(rig.folder / "plan.json")
    plan = load_plan(rig.folder / "plan.json")
    told: list[tuple[int, int]] = []
    done = rig.replay(plan, step_events=5, progress=lambda there, of: told.append((there, of)))
    assert (done.present, done.sent, done.steps) == (0, 16, 4)
    assert told[-1] == (16, 16)
    proof = rig.prove(plan)
    assert proof.ok, proof.examples
    assert (proof.once, proof.spared) == (16, 0)
    assert [(one.group, one.standing, one.covered) for one in proof.groups] == [
        (f"bonus-{rig.topics[0]}", "to_read", True)
    ]
    found = rig.read()
    keys = [key for _, _, key, _, _ in found]
    assert sorted(keys) == sorted(f"key-{number}" for number in range(1, 28))
    partition_of: dict[tuple[str, bytes | None], int] = {}
    for name, partition, key, message_key, headers in found:
        assert partition_of.setdefault((name, message_key), partition) == partition
        assert headers.get("v", b"1") == b"1"
        assert ("v" in headers) == (key in lost + late[2:])
    assert rig.plan().entries == ()
    assert rig.replay(plan).sent == 0


def test_killed_at_every_step_each_event_is_there_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after each call that writes: begun again it goes on, and nothing is lost or there twice."""
    killer = Killer(
        monkeypatch,
        (outbox_write, "init_producer"),
        (outbox_write, "begin"),
        (outbox_write, "decide"),
        (OutboxProducer, "_produce"),
    )
    rig.add(4, topic=1)
    killer.aim(-1, after=False)
    rig.replay(rig.plan(), step_events=2)
    steps = killer.calls
    assert steps == 7  # a producer; twice: a transaction, its records, its commit
    aborted = 0
    for at in range(steps):
        for after in (False, True):
            killer.aim(-1, after=False)
            rig.add(4, topic=1)
            plan = rig.plan()
            killer.aim(at, after=after)
            with pytest.raises(KilledError):
                rig.replay(plan, step_events=2)
            killer.aim(-1, after=False)
            done = rig.replay(plan, step_events=2)
            proof = rig.prove(plan)
            assert proof.ok, (at, after, proof.faults)
            assert done.present + done.sent == proof.once == 4
            aborted = proof.spared
    assert aborted > 0  # some of the kills left records that nobody who reads committed ones has seen
    keys = [key for _, _, key, _, _ in rig.read()]
    assert sorted(keys) == sorted({f"key-{number}" for number in range(1, rig.made + 1)})


def test_a_replay_that_was_thought_dead_cannot_commit(rig: Rig) -> None:
    """The newer one ends what the older had open; whatever the older does then is refused."""
    rig.add(6)
    plan = rig.plan()
    with Cluster.connect(rig.server.bootstrap, patience_s=ANSWER_S) as cluster:
        cluster.metadata()
        older = OutboxProducer(cluster, plan.transactional_id)
        place = (plan.entries[0].topic, plan.entries[0].partition)
        event = Event(place, b"player", b"{}", ((HEADER.encode(), plan.entries[0].idempotency_key.encode()),))
        older.write([replace(event, headers=((HEADER.encode(), b"of nobody"),))])
        rig.replay(plan)
        with pytest.raises(SourceError, match=r"kafka\.(refused|denied)"):
            older.write([event])
    proof = rig.prove(plan)
    assert proof.ok
    assert proof.once == 6


def test_a_plan_that_is_no_longer_true_is_refused(rig: Rig) -> None:
    """New rows, changed payloads, a file that was written in, another cluster: nothing is sent."""
    rig.add(3)
    plan = rig.plan()
    path = rig.folder / "plan.json"
    plan.save(path)
    path.write_text(path.read_text().replace("player-1", "player-2"))
    with pytest.raises(PolicyError, match="digest"):
        load_plan(path)
    with pytest.raises(PolicyError, match=r"outbox\.other_cluster"):
        rig.replay(replace(plan, cluster_id="another"))
    with pytest.raises(PolicyError, match=r"outbox\.other_cluster"):
        rig.prove(replace(plan, cluster_id="another"))
    with pytest.raises(PolicyError, match=r"outbox\.other_cluster"):
        mark_outbox(replace(plan, cluster_id="another"), rig.dsn, rig.cluster)
    rig.add(1)
    with pytest.raises(PolicyError, match="does not list"):
        rig.replay(plan)
    plan = rig.plan()
    with psycopg.connect(rig.dsn, autocommit=True) as ledger:
        ledger.execute("UPDATE events SET payload = '{}' WHERE id = 2")
    with pytest.raises(PolicyError, match=r"outbox\.plan_changed"):
        rig.replay(plan)
    assert rig.read() == []


def test_what_would_not_be_once_or_not_be_read_is_refused(rig: Rig) -> None:
    """Another partitioner, a group beyond the end, an open transaction, a key twice, a topic that is not there."""
    rig.publish(rig.add(8, published=True, topic=0))
    rig.add(3, topic=0)
    with pytest.raises(PolicyError, match=r"outbox\.partitioner"):
        rig.plan(partitioner="crc32")
    plan = rig.plan()
    place = (rig.topics[0], plan.entries[0].partition)
    commit_positions(rig.cluster, f"ahead-{rig.topics[0]}", {place: Commit(10_000)})
    with pytest.raises(PolicyError, match=r"outbox\.group_beyond_end"):
        rig.replay(plan)
    other = KafkaProducer(bootstrap_servers=rig.server.bootstrap, transactional_id=f"other-{rig.topics[0]}")
    other.init_transactions()
    other.begin_transaction()
    other.send(rig.topics[0], value=b"open").get(ANSWER_S)
    with pytest.raises(PolicyError, match=r"outbox\.undecided"):
        rig.plan()
    other.abort_transaction()
    other.close()
    with psycopg.connect(rig.dsn, autocommit=True) as ledger:
        ledger.execute("UPDATE events SET key = 'key-9' WHERE id = 10")
        with pytest.raises(PolicyError, match=r"outbox\.not_unique"):
            rig.plan()
        ledger.execute("UPDATE events SET key = 'key-10', topic = 'not.there' WHERE id = 10")
    with pytest.raises(PolicyError, match=r"outbox\.no_topic"):
        rig.plan()


def test_topics_are_read_from_the_moment_on(rig: Rig) -> None:
    """With `since` only what is younger is read and missed, and rows that nobody marked are never forgotten.

    An outbox that is empty lacks nothing, and an old row's topic may be gone.
    """
    nothing = rig.plan()
    assert (nothing.entries, rig.replay(nothing).sent, rig.prove(nothing).ok) == ((), 0, True)
    rig.add(3, published=True)
    with psycopg.connect(rig.dsn, autocommit=True) as ledger:
        ledger.execute("UPDATE events SET at = at - interval '3 hours'")
    lost, late = rig.add(2, published=True), rig.add(2)
    with psycopg.connect(rig.dsn) as ledger:
        (since,) = ledger.execute("SELECT now() - interval '2 hours'").fetchone() or (None,)
    assert [entry.idempotency_key for entry in rig.plan(since=since).entries] == lost + late
    assert len(rig.plan().entries) == 7
    with psycopg.connect(rig.dsn, autocommit=True) as ledger:
        ledger.execute("UPDATE events SET topic = 'gone' WHERE id = 1")
    assert len(rig.plan(since=since).entries) == 4


def test_a_second_publisher_is_found_out(rig: Rig) -> None:
    """What an application's relay sends after the replay is there twice, and the proof says so."""
    keys = rig.add(3)
    plan = rig.plan()
    rig.replay(plan)
    rig.publish(keys[:1])
    proof = rig.prove(plan)
    assert not proof.ok
    assert proof.faults == {"repeated": 1}


def test_two_replays_at_once_send_each_event_once(rig: Rig) -> None:
    """The later one takes over, whatever the other was about to do."""
    rig.add(20)
    plan = rig.plan()
    ended: list[BaseException | Replayed] = []

    def run() -> None:
        try:
            ended.append(rig.replay(plan, step_events=1))
        except SourceError as error:
            ended.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ANSWER_S)
    if not any(isinstance(one, Replayed) for one in ended):
        rig.replay(plan)
    assert rig.prove(plan).ok
    assert outbox_replay.STEP_EVENTS > 1


def test_a_broker_that_is_away_is_waited_for(
    kafka_server: Callable[..., KafkaServer], fresh_database: Callable[..., str], tmp_path: Path
) -> None:
    """Killed in the middle of a replay and started again: the same call ends, and each event is there once."""
    server = kafka_server()
    topics = ("bets", "wins")
    admin = AdminClient(server.client_config())
    for future in admin.create_topics([NewTopic("bets", 3, 1), NewTopic("wins", 1, 1)]).values():
        future.result(ANSWER_S)
    del admin  # or it goes on asking for the broker
    with rigged(server, topics, fresh_database(), tmp_path) as rig:
        rig.add(12)
        plan = rig.plan()
        killed: list[threading.Thread] = []

        def kill(there: int, of: int) -> None:
            if 0 < there < of and not killed:
                server.kill()
                killed.append(threading.Thread(target=server.start))
                killed[0].start()

        done = rig.replay(plan, step_events=3, progress=kill)
        killed[0].join()
        assert (done.present, done.sent) == (0, 12)
        proof = rig.prove(plan)
        assert proof.ok, proof.examples
