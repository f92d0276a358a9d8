"""From the vault: captured, restored as of a time, under new names, and read as a table."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
import typer
from typer.testing import CliRunner

from dr_assets.cli import kafka_restore
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.estate.errors import PolicyError
from dr_assets.stores.kafka.compare import compare
from dr_assets.stores.kafka.groups import commit_positions, read_positions
from dr_assets.stores.kafka.parquet import offset_ranges, to_parquet
from dr_assets.stores.kafka.restore import restore
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.restore_plan import Cut, Options, plan_restore
from dr_assets.stores.kafka.restore_rules import rules_for
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.restore_state import RestoreState
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.storage.memory import MemoryStore


@pytest.fixture
def rig(kafka: KafkaServer, kafka_target: KafkaServer, tmp_path: Path, restore_rig: ModuleType) -> Iterator[Any]:
    """Two brokers and a folder."""
    with restore_rig.rig(kafka, kafka_target, tmp_path) as made:
        yield made


@pytest.fixture
def captured(rig: Any, capture_rig: ModuleType) -> Any:
    """`captured(topics, groups=())`: a vault with all that these hold now; again, what came since."""
    store = MemoryStore()

    def capture(*topics: str, groups: tuple[str, ...] = ()) -> Any:
        dataset = capture_rig.make_dataset(topics)
        vault = capture_rig.make_vault(store, rig.folder / "keys", dataset)
        (rig.folder / "keys").mkdir(exist_ok=True)
        with capture_rig.CaptureThread(vault, dataset, rig.source.bootstrap) as thread:
            thread.wait_stored()
            thread.wait_surveyed(*groups)
        return vault

    return capture


def test_what_was_captured_comes_back_equal_under_another_name_with_its_groups(rig: Any, captured: Any) -> None:
    """Plain and compacted topics, transactions and a group, from packs alone: no difference."""
    plain, txn, compacted = rig.make("plain", 3), rig.make("txn"), rig.compacted()
    producer = rig.producer(**{"compression.type": "snappy"})
    for number in range(3000):
        producer.produce(plain, b"%d" % number * 5, b"%d" % (number % 50), headers=[("h", None), ("h", b"")])
    producer.flush()
    rig.transactions(txn)
    rig.behead(plain, {0: 100})
    with rig.cluster(rig.source) as cluster:
        commit_positions(cluster, f"g-{plain}", {(plain, 0): Commit(120, "m"), (compacted, 0): Commit(3, "")})
    vault = captured(plain, txn, compacted, groups=(f"g-{plain}",))
    source = export_source(vault, "events")
    assert set(source.topics) == {plain, txn, compacted}
    names = {plain: f"back-{plain}", txn: f"back-{txn}", compacted: f"back-{compacted}"}
    with rig.cluster() as cluster:
        plan = plan_restore(source, cluster, Options(mapping=names, wish="identical"), ends=source.ends)
        restored = restore(plan, cluster, rig.folder / "state.json")
        found = compare(source, cluster, names, ends=source.ends, maps=restored.maps)
        assert found.differences == []
        assert found.is_identical
        positions = read_positions(cluster, f"g-{plain}", [(names[plain], 0), (names[compacted], 0)])
    assert positions == {(names[plain], 0): Commit(120, "m"), (names[compacted], 0): Commit(3, "")}
    for name, target in names.items():
        for committed in (False, True):
            assert rig.read(rig.target, target, committed=committed) == rig.read(rig.source, name, committed=committed)
    assert json.loads(json.dumps(restored.to_json()))["identical"] is True


def test_a_restore_ends_at_a_time_its_groups_too(rig: Any, captured: Any) -> None:
    """Records up to a moment and what groups had committed by then: later ones are not there."""
    topic = rig.make("timed")
    producer = rig.producer()
    for number in range(100):
        producer.produce(topic, b"early %d" % number)
    producer.flush()
    with rig.cluster(rig.source) as cluster:
        commit_positions(cluster, f"g-{topic}", {(topic, 0): Commit(40, "")})
        captured(topic, groups=(f"g-{topic}",))
        moment = datetime.now(UTC) + timedelta(milliseconds=5)
        time.sleep(0.05)
        for number in range(50):
            producer.produce(topic, b"late %d" % number)
        producer.flush()
        commit_positions(cluster, f"g-{topic}", {(topic, 0): Commit(140, "")})
    vault = captured(topic)
    source = export_source(vault, "events", Cut(at=moment))
    with rig.cluster() as cluster:
        plan = plan_restore(source, cluster, Options(), ends=source.ends)
        restored = restore(plan, cluster, rig.folder / "state.json")
        assert read_positions(cluster, f"g-{topic}", [(topic, 0)]) == {(topic, 0): Commit(40, "")}
        assert compare(source, cluster, {topic: topic}, ends=source.ends, maps=restored.maps).is_equal
    assert [row[4] for row in rig.read(rig.target, topic)] == [b"early %d" % number for number in range(100)]
    everything = export_source(vault, "events")
    assert everything.topics[topic].partitions[0].end == 150


def test_a_table_holds_what_a_reader_of_committed_transactions_sees(rig: Any, captured: Any) -> None:
    """DuckDB reads keys, values, times, null and repeated headers; aborted records are left out unless asked for."""
    plain, txn = rig.make("plain", 2, {"retention.ms": "-1"}), rig.make("txn")
    producer = rig.producer(**{"compression.type": "zstd"})
    at = 1_700_000_000_000
    for number in range(200):
        headers = [("a", None), ("a", b"2")] if number % 2 else None
        value = None if number % 5 == 0 else b"v%d" % number
        producer.produce(plain, value, b"k%d" % number, number % 2, timestamp=at + number, headers=headers)
    producer.flush()
    rig.transactions(txn)
    source = export_source(captured(plain, txn), "events")
    ranges = dict(offset_ranges(source))
    committed = to_parquet(source, rig.folder / "committed.parquet", ranges)
    everything = to_parquet(source, rig.folder / "all.parquet", ranges, read_committed=False)
    timed = to_parquet(source, rig.folder / "timed.parquet", ranges, times=(at + 10, at + 20))
    with duckdb.connect() as duck:
        rows = duck.sql(
            f'select topic, partition, "offset", epoch_ms("timestamp"), key, value, headers from \'{committed.path}\' '  # noqa: S608
            "order by all"
        ).fetchall()
    read = [(plain, *row[:5], row[5]) for row in rig.read(rig.source, plain)]
    assert len(read) == 200
    assert [row[:6] for row in rows if row[0] == plain] == [row[:6] for row in read]
    shown = [[(each["key"], each["value"]) for each in row[6]] for row in rows if row[0] == plain]
    assert shown == [[(name, value) for name, value in row[6]] for row in read]
    seen = rig.read(rig.source, txn, committed=True)
    assert [row[5] for row in rows if row[0] == txn] == [row[4] for row in seen]
    assert committed.records + committed.left_out == everything.records
    assert everything.records == 200 + len(rig.read(rig.source, txn))
    assert timed.records == 10
    with pytest.raises(PolicyError, match="parquet_exists"):
        to_parquet(source, committed.path, ranges)


def test_the_verbs_plan_restore_compare_and_record(
    rig: Any, captured: Any, capture_rig: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan touches nothing; then all is restored, compared and on record; what differs later ends with 1."""
    topic = rig.make("verbs", 2)
    producer = rig.producer()
    for number in range(100):
        producer.produce(topic, b"%d" % number, partition=0)  # so that a plan's table is too wide for a terminal
    producer.flush()
    vault, dataset = captured(topic), capture_rig.make_dataset((topic,))
    for name, value in (
        ("vault_or_bundle", vault), ("vault_of", vault), ("estate_of", None), ("topics_of", dataset),
        ("topic_eraser", None),
    ):  # fmt: skip
        monkeypatch.setattr(kafka_restore, name, lambda *_, value=value, **__: value)
    monkeypatch.setattr(kafka_restore, "record_blanked", lambda *_, **__: None)
    app = typer.Typer()
    app.command("restore")(kafka_restore.restore)
    app.command("compare")(kafka_restore.compare_command)
    app.command("to-parquet")(kafka_restore.to_parquet_command)

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, list(words), catch_exceptions=False)

    to = ("events", "--into", rig.target.bootstrap, "--topic", f"{topic}=new-{topic}")
    state = ("--state", str(rig.folder / "s.json"))
    planned = run("restore", *to, "--plan", "--json")
    assert json.loads(planned.stdout)["offsets"] == 100
    narrow = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["restore", *to, "--plan"], catch_exceptions=False)
    assert "identical" in narrow.output, "a method is not broken in two"
    done = run("restore", *to, *state, "--record", "--throttle", "50")
    assert done.exit_code == 0, done.output
    assert "all equal, offsets too" in done.output
    fact = latest_fact(vault, "events", "kafka_restore")
    assert fact is not None
    assert fact.body["identical"] is True
    beside = ("events", "--with", rig.target.bootstrap, "--topic", f"{topic}=new-{topic}")
    assert run("compare", *beside).exit_code == 0
    more = rig.producer(**{"bootstrap.servers": rig.target.bootstrap})
    more.produce(f"new-{topic}", b"one more")
    more.flush()
    differing = run("compare", *beside)
    assert differing.exit_code == 1
    assert "a record more" in differing.output
    table = run("to-parquet", "events", str(rig.folder / "t.parquet"), "--topic", topic, "--json")
    assert json.loads(table.stdout)["records"] == 100


def test_access_rules_follow_a_topic_to_its_new_name() -> None:
    """A rule for a topic that isn't restored is left out; those for patterns and groups stay as they are."""
    rule: dict[str, Any] = {
        "resource_type": 2, "resource_name": "bets", "pattern_type": 3, "principal": "User:alice", "host": "*",
        "operation": 3, "permission": 3,
    }  # fmt: skip
    others = [rule | {"resource_name": "wins"}, rule | {"pattern_type": 4, "resource_name": "be"}]
    found = rules_for([rule, *others, rule | {"resource_type": 3, "resource_name": "g"}], {"bets": "new"})
    assert [(each.resource_type, each.resource_name) for each in found] == [(2, "new"), (2, "be"), (3, "g")]


def test_a_restore_goes_on_though_the_source_lived_on(rig: Any, captured: Any) -> None:
    """Begun, then ended; meanwhile records came, the log's head went, a compacted topic grew, and all was captured.

    The same restore goes on to the end it had: what the state file pins is read again, the newest would be another.
    """
    plain, compacted = rig.make("plain", 2), rig.compacted()
    producer = rig.producer()
    for number in range(400):
        producer.produce(plain, b"%d" % number, partition=number % 2)
    producer.flush()
    state = rig.folder / "state.json"
    source = export_source(captured(plain, compacted), "events")

    class EndedError(Exception):
        """Stands for a kill: nothing after the records is done."""

    def end(_: Any) -> None:
        raise EndedError

    with rig.cluster() as cluster:
        plan = plan_restore(source, cluster, Options(), ends=source.ends)
        with pytest.raises(EndedError):
            restore(plan, cluster, state, check=end)
        for number in range(400):
            producer.produce(plain, b"later %d" % number, partition=number % 2)
            producer.produce(compacted, b"later", b"%d" % (number % 7))
        producer.flush()
        rig.behead(plain, {0: 150})
        vault = captured(plain, compacted)
        begun = RestoreState.load(state)
        assert begun is not None

        def planned(now: Any) -> Any:
            return plan_restore(now, cluster, Options(), ends=begun.ends, ours=begun.behind)

        with pytest.raises(PolicyError, match="another restore"):
            restore(planned(export_source(vault, "events")), cluster, state)
        again = export_source(vault, "events", pinned=begun.pinned)
        restored = restore(planned(again), cluster, state)
        assert compare(again, cluster, restored.plan.names, ends=begun.ends, maps=restored.maps).is_equal
    assert [row[4] for row in rig.read(rig.target, plain)].count(b"later 0") == 0
    assert len(rig.read(rig.target, plain)) == 400
