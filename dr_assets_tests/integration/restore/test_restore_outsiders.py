"""A restore test of a dataset with `reconcile:`: restored books against a provider's files and the vault's topics."""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dr_assets.casino import schema
from dr_assets.casino.events import KEY_HEADER, TOPICS
from dr_assets.casino.provider_files import write_provider_files
from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.reconcile import ProviderFeed, Reconcile
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.restore_test import RestoreTestResult, run_restore_test
from dr_assets.reconciliation.result import AREAS
from dr_assets.reconciliation.sealed import read_breaks
from dr_assets.stores.kafka import survey
from dr_assets.stores.kafka.batches import Record, encode
from dr_assets.stores.kafka.capture_facts import Anchor, record_capture
from dr_assets.stores.kafka.pack import Cutter, Part
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import Fact, latest_fact, record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets_tests.integration.restore.conftest import ESTATE, Source, make_dataset
from dr_assets_tests.reconciliation.lived import MAPPINGS, RecordedWorkload, _mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.integration

EVENTS, CLUSTER_ID = "game_events", "5a" * 16
IDS = {hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(): name for name in TOPICS}


@dataclass
class Known:
    """What is left of a casino: its vault with ledger and topics, and the provider's folder."""

    source: Source
    provider: Path
    env: dict[str, str]

    def test(self, **changed: str) -> RestoreTestResult:
        """Restore the newest and reconcile it."""
        env = {name: value for name, value in (self.env | changed).items() if value}
        return run_restore_test(self.source.vault, self.source.dataset, Target("latest"), level="quick", env=env)

    def newest(self, kind: str) -> Fact:
        """The newest fact of a kind."""
        fact = latest_fact(self.source.vault, "ledger", kind)
        assert fact is not None
        return fact


@pytest.fixture
def known(postgres_server: Callable[..., PostgresServer], engine_dir: Path, tmp_path: Path) -> Known:
    """It lived for some hundred transfers, was backed up, and its outbox's events lie in the vault's topics."""
    dataset = make_dataset()
    kept = (dataset.retention, dataset.snapshot.every)
    vault = throwaway_vault(estate=ESTATE, rules={dataset.name: kept, EVENTS: kept})
    source = Source(postgres_server(17, {"fsync": False}), vault, dataset)
    schema.create(source.dsn, players=40)
    workload = RecordedWorkload(source.dsn, tmp_path / "acks", rate_per_s=200, workers=2, seed=3)
    workload.start()
    while workload.stats().acknowledged < 300:
        Event().wait(0.05)
    workload.stop()
    source.snapshot()
    source.beat()
    source.feed()
    put_topics(vault, source.dsn, workload.topics.records)
    source.server.kill()
    provider, now = tmp_path / "provider", datetime.now(UTC)
    write_provider_files(tmp_path / "acks", provider, "csv", until=now, batch_every=timedelta(seconds=1))
    assert "csv" in MAPPINGS
    feeds = (ProviderFeed("cards", "csv", "CARDS_DIR", _mapping(tmp_path, "csv")),)
    source.dataset = replace(dataset, reconcile=Reconcile(feeds, topics=EVENTS))
    return Known(source, provider, {WORK_DIR_ENV: str(engine_dir), "CARDS_DIR": str(provider)})


def put_topics(vault: Vault, dsn: str, published: "Sequence[dict[str, Any]]") -> None:
    """One pack with all that was published, and what a capture says beside it."""
    with psycopg.connect(dsn) as ledger:
        said: dict[Any, Any] = dict(
            ledger.execute("SELECT payload ->> 'key', payload::text FROM casino.outbox").fetchall()
        )
    places: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for record in published:
        places[str(record["topic"]), int(record["partition"])].append(record)
    now, cutter = datetime.now(UTC), Cutter("cluster", 0, 0.25)
    for topic_id, name in sorted(IDS.items()):
        for partition in range(TOPICS[name]):
            own = places[name, partition]
            if not own:
                continue
            body = encode([_record(one, said[str(one["idempotency_key"])]) for one in own])
            end, at_ms = len(own), int(own[-1]["timestamp_us"]) // 1000
            part = Part(
                (topic_id, partition, 0), 0, end, memoryview(body), end, at_ms, 0, end, end, 0, transactional=False
            )
            cutter.add(part, 0.0, now)
    pack = cutter.cut(IDS, None, now, now)
    prepared = vault.prepare(
        dataset=EVENTS, stream="packs", kind="pack", system_id=CLUSTER_ID, timeline=0, first=pack.begin, last=pack.end,
        begin_at=pack.begin_at, end_at=pack.end_at, plaintext=pack.data.whole(), writer_epoch=1, previous=None,
        extra={"recovery_point_at": format_time(now)},
    )  # fmt: skip
    sealed = prepared.seal()
    key = vault.put(sealed, vault.locks.lock(EVENTS, "pack", now)).key
    anchor = Anchor(CLUSTER_ID, 0, cutter.number, sealed.header.digest, str(key), 1, now)
    record_capture(vault, EVENTS, "position", anchor)
    topics: dict[str, Json] = {
        name: {
            "topic_id": topic_id, "partitions": TOPICS[name], "replication_factor": 1, "configs": {},
            "cleanup_policy": "delete",
        }
        for topic_id, name in IDS.items()
    }  # fmt: skip
    record_fact(vault, EVENTS, survey.TOPICS, {"topics": topics})


def _record(told: dict[str, Any], payload: str) -> Record:
    key = None if told["message_key"] is None else str(told["message_key"]).encode()
    headers = ((KEY_HEADER.encode(), str(told["idempotency_key"]).encode()),)
    return Record(int(told["record_offset"]), int(told["timestamp_us"]) // 1000, key, payload.encode(), headers)


def a_cent_more(path: Path) -> None:
    """Write another amount of the first payment into a provider's file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    victim = next(row for row in rows if row["type"] == "payment" and row["currency"] == "EUR")
    for column in ("gross", "net"):
        victim[column] = str(Decimal(victim[column]) + Decimal("0.01"))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_restored_books_are_held_against_everybody_who_is_declared(known: Known) -> None:
    """All eight are checked and agree; a cent in a provider's file fails the restore test, and that break is sealed."""
    result = known.test()
    books = result.books
    assert books is not None
    assert result.ok, (result.reason, books.kinds())
    body = known.newest("reconciliation").body
    areas: Any = body["areas"]
    assert [area for area in AREAS if not areas[area]["checks"]] == []
    matched = {check: sum(row["count"] for row in rows if row["outcome"] == "matched")
               for check, rows in books.matched().items()}  # fmt: skip
    assert matched["payments/settled_agree"] > 0
    assert matched["outbox/published"] > 100
    assert books.rows["records"] > 100

    (file,) = known.provider.glob("*.csv")
    a_cent_more(file)
    result = known.test()
    assert not result.ok
    body = known.newest("reconciliation").body
    assert (body["ok"], body["outcome"]) == (False, "failed")
    sealed: Any = body["breaks_file"]
    breaks = read_breaks(known.source.vault, "ledger", sealed["sha256"]).to_pylist()
    assert ("payments/settled_agree", "amount_differs", Decimal(1)) in {
        (row["check"], row["reason"], row["amount_minor"]) for row in breaks
    }
    assert {row["check"].partition("/")[0] for row in breaks if row["severity"] == "red"} == {"payments"}

    with pytest.raises(PolicyError, match="CARDS_DIR"):
        known.test(CARDS_DIR="")
    assert known.newest("restore_test").body["outcome"] == "failed"
