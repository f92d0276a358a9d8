"""What a loss window lost, listed by those outside who know, and held to the casino's own record of what it told."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dr_assets.casino.provider_files import write_provider_files
from dr_assets.cli.app import app
from dr_assets.demo.embedded import PRIMARY_MAJOR
from dr_assets.engines.kafka.find import find_broker
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import find_programs
from dr_assets.reconciliation.providers.open import Feed, provider_lines
from dr_assets.reconciliation.streams.gather import gather, gather_cluster
from dr_assets.reconciliation.streams.rules import StreamRules
from dr_assets.recovery.estate_restore import EstateRestore, point_of
from dr_assets.recovery.orphans import find_orphans
from dr_assets.recovery.outbox import plan_outbox
from dr_assets.recovery.outbox_proof import prove_outbox
from dr_assets.recovery.outbox_replay import replay_outbox
from dr_assets.recovery.restorers import Ground, Targets
from dr_assets.recovery.sides import ledger_relations
from dr_assets.recovery.stores import recovery_point
from dr_assets.recovery.worklist.score import Score, score
from dr_assets.recovery.worklist.sources import events, restored_ledger, rounds_file
from dr_assets.recovery.worklist.worklist import Window, WorkList, work_list
from dr_assets.recovery.worklist.written import FACT, json_of
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import latest_fact
from dr_assets_tests.integration.recovery.loss import Had, Truth, what_was_lost

pytestmark = pytest.mark.timeout(900)

SLACK = timedelta(seconds=10)
SPAN = timedelta(seconds=30)
ANSWER_S = 120.0


@contextmanager
def standing(data_dir: Path) -> Iterator[str]:
    """A restored cluster's server, for as long as the block lasts; its connection string."""
    server = PostgresServer(data_dir, find_programs("postgres", PRIMARY_MAJOR))
    server.adopt()
    with server:
        server.start()
        yield server.dsn("ledger")


@contextmanager
def ledger_at(lived: Any, target: Target, folder: Path) -> Iterator[Any]:
    """The ledger restored to a target, its server running."""
    plan = plan_restore(lived.vault(), "ledger", target)
    with restore(plan, lived.vault(), folder) as restored:
        yield restored


def listed(lived: Any, dsn: str, since: datetime, folder: Path) -> WorkList:
    """The list as the command makes it: the restored ledger, files of both providers, the vault's topics."""
    folder.mkdir()
    acks, files = lived.embedded.ack_dir, folder / "files"
    write_provider_files(acks, files, "stripe", until=datetime.now(UTC))
    (rounds,) = write_provider_files(acks, folder, "rounds", until=datetime.now(UTC))
    options = folder / "stripe.yaml"
    options.write_text("payouts: [transfer]\n")  # to players; Stripe's own word is for what comes to us
    ledger = restored_ledger(dsn, "casino_ledger")
    source = export_source(lived.vault(), "game_events")
    records = gather(source, folder, StreamRules(with_payload=True)).records
    with provider_lines([Feed("stripe", "stripe", files, options)]) as lines:
        given = {
            **ledger,
            "provider_lines": lines,
            "rounds": rounds_file(rounds),
            "events": events(pq.read_table(records), ledger, "casino_ledger"),
        }
        return work_list(given, Window(since, lived.killed_at, SLACK))


def commanded(lived: Any, dsn: str, since: datetime, folder: Path) -> dict[str, Any]:
    """The command over the same files; what it says as JSON."""
    done = CliRunner().invoke(
        app,
        [
            "work-list", "--dsn-env", "RESTORED_DSN", "--since", since.isoformat(),
            "--until", lived.killed_at.isoformat(),
            "--provider-files", f"stripe={folder / 'files'}", "--provider-mapping", f"stripe={folder / 'stripe.yaml'}",
            "--rounds", str(folder / "game-rounds.csv"), "--topics", "game_events", "--out", str(folder / "list"),
            "--seal", "--json",
        ],
        env={**lived.env, "RESTORED_DSN": dsn},
    )  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def identity(line: dict[str, Any]) -> tuple[str, str]:
    """What a line is about, as the casino's record names it."""
    by_reference = {"deposit", "deposit_reversed", "withdrawal_paid"}
    return line["what"], line["reference"] if line["what"] in by_reference else line["idempotency_key"]


def held_to(found: WorkList, truth: Truth) -> Score:
    """Every line that there ought to be is there once, and no other; what was lost and is on none, nobody was told."""
    lines = {identity(line): line for line in found.lines.to_pylist()}
    assert len(lines) == found.lines.num_rows
    missing, invented = sorted(truth.right.keys() - lines.keys()), sorted(lines.keys() - truth.right.keys())
    assert (missing[:5], invented[:5], len(missing), len(invented)) == ([], [], 0, 0)
    known = {line["idempotency_key"] for line in lines.values()}
    by_provider = sum(line["idempotency_key"].startswith("work-list/") for line in lines.values())
    assert truth.acknowledged - known <= truth.unknowable
    assert len(truth.unknowable - known) <= by_provider + len(truth.acknowledged) // 10
    assert sum(found.read.values()) == found.on_lines + sum(found.handled.values())
    return score((truth.right[line], found_line["action"]) for line, found_line in lines.items())


def captured(lived: Any) -> dict[tuple[str, int], int]:
    """Up to which offset each partition is in the vault."""
    source = export_source(lived.vault(), "game_events")
    return {
        (name, index): part.end for name, topic in source.topics.items() for index, part in topic.partitions.items()
    }


def test_what_everything_at_once_cost_is_listed_line_by_line(lived: Any, engine_dir: Path) -> None:
    """Killed all at once under load: three stores back at one moment, no orphan left after the outbox is replayed.

    What was lost beyond that moment, and beyond one some tens of seconds earlier, is listed as the casino's own record
    has it, each thing on one line, and the proposed actions score far above holding everything.
    """
    point = recovery_point(lived.estate, lived.vaults())
    if not point.is_consistent:  # a machine too busy to copy documents in time: then they hold the money back
        point = recovery_point(lived.estate, lived.vaults(), strict=True)
    assert abs(point.skew_ms) <= 2000, point.to_json()
    bucket, place = lived.new_bucket()
    del bucket
    with find_broker(resolve=False).server(engine_dir / "broker", name="after") as broker:
        broker.start()
        targets = Targets(engine_dir / "estate", {"game_events": broker.bootstrap}, {"kyc": place}, plaintext=True)
        done = EstateRestore(point_of(point), lived.vaults(), Ground(lived.estate, lived.env, targets)).run()
        assert done.is_whole, done.to_json()
        assert done.money_adds_up, [one.details.get("reconciliation") for one in done.outcomes]
        assert done.orphans is not None
        left = {kind: count for kind, count in done.orphans.counts.items() if count}
        assert set(left) <= {"outbox_without_event", "posting_without_event"}, left
        with standing(engine_dir / "estate" / "ledger" / "data") as dsn:
            assert replayed_and_whole(dsn, broker.bootstrap, engine_dir) == 0
            restored = Had.of(dsn)
            newest = listed(lived, dsn, point.at, engine_dir / "newest")
    with ledger_at(lived, Target("latest"), engine_dir / "latest") as end:
        last = Had.of(end.reader_dsn())
    truth = what_was_lost(lived.embedded.ack_dir, restored, last, captured(lived), point.at, SLACK.total_seconds())
    told = {"latest": (held_to(newest, truth), newest, truth)}

    base = plan_restore(lived.vault(), "ledger", Target("time", at=point.at)).base
    since = max(base.end_at + timedelta(milliseconds=500), point.at - SPAN)
    with ledger_at(lived, Target("time", at=since), engine_dir / "early") as early:
        restored = Had.of(early.reader_dsn())
        earlier = listed(lived, early.reader_dsn(), since, engine_dir / "earlier")
        told_by_command = commanded(lived, early.reader_dsn(), since, engine_dir / "earlier")
    truth = what_was_lost(lived.embedded.ack_dir, restored, last, captured(lived), since, SLACK.total_seconds())
    told["earlier"] = (held_to(earlier, truth), earlier, truth)
    show(point, left, told, since, lived.killed_at)
    reached, _, truth = told["earlier"]
    assert len(truth.acknowledged) >= 300
    assert reached.score >= 0.9
    assert reached.harmful <= 0.01 * reached.lines

    assert told_by_command["sha256"] == hashlib.sha256(json_of(earlier, "Work-list: ledger")).hexdigest()
    fact = latest_fact(lived.vault(), "ledger", FACT)
    assert fact is not None
    assert fact.body["sha256"] == told_by_command["sha256"]


def replayed_and_whole(dsn: str, bootstrap: str, folder: Path) -> int:
    """Replay the outbox into the restored topics, prove it, and count what orphans are left."""
    with Cluster.connect(bootstrap, patience_s=ANSWER_S) as cluster:
        plan = plan_outbox(dsn, "casino_ledger", cluster, dataset="ledger", workdir=folder)
        replay_outbox(plan, dsn, cluster, workdir=folder)
        assert prove_outbox(plan, cluster, workdir=folder).ok
        side = folder / "side"
        side.mkdir()
        relations: dict[str, Any] = dict(ledger_relations(dsn, "casino_ledger", side))
        found = find_orphans(relations | gather_cluster(cluster, side).externals)
    return found.total


def show(point: Any, left: dict[str, int], told: dict[str, Any], since: datetime, killed_at: datetime) -> None:
    """What was measured, for the docs."""
    age_s = (killed_at - point.at).total_seconds()
    print(f"skew {point.skew_ms} ms, {age_s:.1f} s before the kill, orphans {left}")  # noqa: T201 - read off for the docs
    for name, (reached, found, truth) in told.items():
        at = point.at if name == "latest" else since
        print(  # noqa: T201
            f"{name}: window {(killed_at - at).total_seconds():.1f} s, {len(truth.acknowledged)} acknowledged lost,"
            f" {len(truth.unknowable)} nobody was told of or only a provider, {found.lines.num_rows} lines,"
            f" score {reached.score:.4f}, right {reached.right}/{reached.lines}, harmful {reached.harmful},"
            f" {found.per_action()}, {dict(Counter(found.lines['rule'].to_pylist()))}, {dict(reached.confusion)}"
        )
