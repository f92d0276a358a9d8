"""What topics tell a reconciliation, from a cluster and from the vault; and the casino's books with its topics."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from dr_assets.casino import schema
from dr_assets.casino.events import TOPICS, Publisher, create_topics, stored_events
from dr_assets.cli import outbox as outbox_cli
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.reconciliation.run import Reconciliation, reconcile
from dr_assets.reconciliation.streams.gather import Gathered, gather_cluster, gather_vault
from dr_assets.reconciliation.streams.rules import StreamRules
from dr_assets.recovery.outbox import plan_outbox
from dr_assets.recovery.outbox_proof import FACT, prove_outbox, record_replay
from dr_assets.stores.kafka.groups import commit_positions
from dr_assets.stores.kafka.restore_plan import Cut
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets_tests.integration.kafka.making import delete_topics
from dr_assets_tests.integration.kafka.relaying import relayed

PATIENCE_S = 180.0
AREAS = ("outbox", "queues", "read_models", "crm")


@pytest.fixture
def rig(kafka: KafkaServer, tmp_path: Path, restore_rig: ModuleType) -> Iterator[Any]:
    """The session's broker and a folder."""
    with restore_rig.rig(kafka, kafka, tmp_path) as made:
        yield made


def rows_of(gathered: Gathered) -> list[dict[str, Any]]:
    """The relation `records`, in order."""
    rows: list[dict[str, Any]] = pq.read_table(gathered.records).to_pylist()
    return sorted(rows, key=lambda row: (row["topic"], row["partition"], row["record_offset"]))


def test_a_cluster_and_the_vault_tell_the_same(rig: Any, capture_rig: ModuleType, tmp_path: Path) -> None:
    """Headers, tombstones, dead letters, a head that was deleted; aborted and unfinished transactions are not seen."""
    plain, txn, dead = rig.make("plain", 2), rig.make("txn"), rig.make("plain.dlq")
    producer = rig.producer()
    at_ms = int(time.time() * 1000) - 60_000
    for number in range(20):
        value = None if number == 12 else b"v%d" % number
        headers = [("idempotency-key", b"key-%d" % number), ("other", None)]
        producer.produce(plain, value, b"k", number % 2, timestamp=at_ms + number, headers=headers)
    producer.produce(dead, b"{}", b"k", headers=[("idempotency-key", b"key-3")])
    producer.flush()
    rig.behead(plain, {0: 4})
    rig.transactions(txn)
    group, rules = f"bonus-{plain}", StreamRules(dead_letters=("*.dlq-*",))
    with rig.cluster() as cluster:
        commit_positions(cluster, group, {(plain, 1): Commit(3)})
        live = gather_cluster(cluster, _folder(tmp_path, "live"), rules, topics=(plain, txn, dead))
    dataset = capture_rig.make_dataset((plain, txn, dead))
    (tmp_path / "keys").mkdir()
    vault = capture_rig.make_vault(MemoryStore(), tmp_path / "keys", dataset)
    with capture_rig.CaptureThread(vault, dataset, rig.source.bootstrap) as thread:
        thread.wait_stored()
        thread.wait_surveyed(group)
    stored = gather_vault(vault, dataset.name, _folder(tmp_path, "stored"), rules)
    assert rows_of(live) == rows_of(stored)
    assert live.spared == stored.spared > 0
    own = [row for row in rows_of(live) if row["topic"] == plain]
    assert [row["record_offset"] for row in own if row["partition"] == 0] == [4, 5, 6, 7, 8, 9]
    (tombstone,) = (row for row in rows_of(stored) if row["payload_sha256"] is None and row["topic"] == plain)
    assert (tombstone["idempotency_key"], tombstone["record_offset"]) == ("key-12", 6)
    assert own[0]["payload_sha256"] == hashlib.sha256(b"v8").hexdigest()
    assert own[0]["timestamp_us"] == (at_ms + 8) * 1000
    assert [row["dead_letter"] for row in rows_of(live) if row["topic"] == dead] == [True]
    seen = rig.read(rig.source, txn, committed=True)
    assert [row["record_offset"] for row in rows_of(live) if row["topic"] == txn] == [row[1] for row in seen]
    begun = {(row["topic"], row["partition"]): row for row in live.partitions.to_pylist()}
    assert begun[plain, 0]["complete_from_us"] == (at_ms + 8) * 1000
    assert begun[plain, 1]["complete_from_us"] == 0
    places = [row for row in live.group_offsets.to_pylist() if row["group_name"] == group]
    assert [(row["committed"], row["begin_offset"], row["end_offset"]) for row in places] == [(3, 0, 10)]
    assert places == [row for row in stored.group_offsets.to_pylist() if row["group_name"] == group]
    cut = gather_vault(vault, dataset.name, _folder(tmp_path, "cut"), cut=Cut(offsets={(plain, 0): 6, (plain, 1): 2}))
    assert [row["record_offset"] for row in rows_of(cut) if row["topic"] == plain] == [4, 5, 0, 1]


def test_a_key_may_be_in_the_value_or_be_the_records_own(rig: Any, tmp_path: Path) -> None:
    """The declared place is looked at, and values come along only when asked for."""
    topic = rig.make("keys")
    producer = rig.producer()
    producer.produce(topic, json.dumps({"a": {"b": 7}}).encode(), b"k1")
    producer.produce(topic, b"no json", b"k2")
    producer.flush()
    with rig.cluster() as cluster:
        by_path = gather_cluster(
            cluster, _folder(tmp_path, "p"), StreamRules(None, "a.b", with_payload=True), topics=(topic,)
        )
        by_key = gather_cluster(cluster, _folder(tmp_path, "k"), StreamRules(None, is_key=True), topics=(topic,))
    assert [row["idempotency_key"] for row in rows_of(by_path)] == ["7", None]
    assert rows_of(by_path)[1]["payload"] == "no json"
    assert [row["idempotency_key"] for row in rows_of(by_key)] == ["k1", "k2"]
    assert "payload" not in rows_of(by_key)[0]


def _folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


@pytest.fixture
def casino(kafka: KafkaServer, fresh_database: Callable[..., str]) -> Iterator[str]:
    """A casino's database with opening deposits; its topics, empty, on the session's broker."""
    create_topics(kafka.bootstrap)
    dsn = fresh_database()
    schema.create(dsn, players=12)
    yield dsn
    delete_topics(AdminClient(dict(kafka.client_config())), list(TOPICS))


def judged(dsn: str, bootstrap: str, folder: Path) -> Reconciliation:
    """Checks 5 to 8, an hour from now: nothing is young enough to be on its way."""
    with Cluster.connect(bootstrap, patience_s=PATIENCE_S) as cluster:
        gathered = gather_cluster(cluster, folder, topics=tuple(TOPICS))
    moment = datetime.now(UTC) + timedelta(hours=2)
    return reconcile(dsn, externals=gathered.externals, areas=AREAS, as_of=moment)


def test_the_casinos_books_and_topics_agree_after_a_replay(
    kafka: KafkaServer, casino: str, tmp_path: Path, capture_rig: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published: no break. Posted and not published: found, planned, replayed and proven; then the relay sends none."""
    assert relayed(casino, Publisher(kafka.bootstrap, tmp_path / "first.events")).published >= 12
    clean = judged(casino, kafka.bootstrap, _folder(tmp_path, "clean"))
    assert clean.breaks.to_pylist() == []
    assert {check.area for check in clean.checks} == set(AREAS)
    with psycopg.connect(casino, autocommit=True) as ledger:
        for number in range(5):
            ledger.execute(
                "SELECT casino.deposit(%s, player_id, currency, 500, 0, %s) FROM casino.accounts WHERE account_id ="
                " (SELECT min(account_id) FROM casino.accounts WHERE kind = 'player_cash')",
                (f"late-{number}", f"ref-{number}"),
            )
    found = {
        check.name: check.breaks_by_reason
        for check in judged(casino, kafka.bootstrap, _folder(tmp_path, "late")).checks
    }
    assert found["outbox/published"] == {"not_published": 5}
    assert found["read_models/up_to_date"] == {"behind": 1}
    monkeypatch.setenv("RESTORED_DSN", casino)
    plan = tmp_path / "plan.json"
    at = ["--ledger-env", "RESTORED_DSN", "--topics", "game_events", "--into", kafka.bootstrap]
    assert "late-4" in _run("plan", "ledger", "--out", str(plan), "--format", "csv", *at)
    assert "--yes" in str(_failed("replay", "ledger", "--plan", str(plan), *at))
    said = json.loads(_run("replay", "ledger", "--plan", str(plan), "--yes", "--json", *at))
    assert (said["ok"], said["once"], said["replay"]["sent"]) == (True, 5, 5)
    assert "proven: 5 of 5" in _run("prove", "ledger", "--plan", str(plan), *at[2:])
    assert "5 events are marked" in _run("mark", "ledger", "--plan", str(plan), "--yes", *at)
    assert relayed(casino, Publisher(kafka.bootstrap, tmp_path / "second.events")).published == 0
    keys = [each.event.idempotency_key for each in stored_events(kafka.bootstrap)]
    assert len(keys) == len(set(keys))
    assert judged(casino, kafka.bootstrap, _folder(tmp_path, "after")).breaks.to_pylist() == []
    _recorded(kafka, casino, tmp_path, capture_rig)


def _recorded(kafka: KafkaServer, dsn: str, folder: Path, capture_rig: ModuleType) -> None:
    """A replay is a fact of the ledger's."""
    (folder / "keys").mkdir()
    dataset = capture_rig.make_dataset(name="ledger")
    vault = capture_rig.make_vault(MemoryStore(), folder / "keys", dataset)
    with Cluster.connect(kafka.bootstrap, patience_s=PATIENCE_S) as cluster:
        plan = plan_outbox(dsn, "casino_ledger", cluster, dataset="ledger")
        record_replay(vault, plan, prove_outbox(plan, cluster))
    fact = latest_fact(vault, "ledger", FACT)
    assert fact is not None
    assert fact.body["plan"]["digest"] == plan.digest  # type: ignore[call-overload, index]


def _run(*arguments: str) -> str:
    done = CliRunner().invoke(outbox_cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def _failed(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(outbox_cli.app, list(arguments)).exception
