"""`ledger/proven` as Dagster sees it: there only where it is declared, judged by sealed words, reported as it moves."""

import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from dr_assets.cli.status import status_of
from dr_assets.components.proven import proven_keys, proven_parts
from dr_assets.components.proven_reporting import proven_reporter
from dr_assets.components.rpo_sensor import rpo_sensor
from dr_assets.estate.model import PostgresDataset
from dr_assets.estate.prove import Prove
from dr_assets.proving.prover.points import Books, Point, Proven, Trouble, record_proven

DEADLINE_S = 120.0
KEY = dg.AssetKey(["ledger", "proven"])


def standing(now: datetime, **more: Any) -> Proven:
    """Of a prover for which everything is in order."""
    point = Point(0x3000028, 1, now - timedelta(seconds=1), now)
    books = Books(point, now, ok=True, breaks_total=0, reason="the money adds up", place="standby", duration_s=1.0)
    good = Proven(
        "ledger", now, "following", now, replayed=point, end_lsn=point.lsn, reconciled=point, books=books,
        restarted_at=now, restarts=1,
    )  # fmt: skip
    return replace(good, **more)


def test_without_a_declaration_there_is_nothing(ledger: PostgresDataset) -> None:
    """A check that nobody ever judges would be a promise that nobody keeps."""
    assert not proven_parts(ledger).assets
    parts = proven_parts(replace(ledger, prove=Prove()))
    graph = parts.definitions(resources={"vault_primary": dg.ResourceDefinition.none_resource()})
    nodes = graph.resolve_asset_graph()
    assert KEY in nodes.get_all_asset_keys()
    assert set(nodes.asset_check_keys) == set(proven_keys(replace(ledger, prove=Prove())).values())


def test_a_prover_that_fell_silent_is_red_by_its_own_last_words(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset
) -> None:
    """No prover yet, one that is well, one that died: the dataset's sensor tells, and `status` says the same."""
    declared = replace(ledger, prove=Prove())

    def tick() -> dict[str, bool]:
        context = dg.build_sensor_context(instance=instance, resources={"vault_primary": filled})
        events: list[Any] = list(rpo_sensor(declared).evaluate_tick(context).asset_events)
        for event in events:
            instance.report_runless_asset_event(event)
        return {event.check_name: event.passed for event in events if event.asset_key == KEY}

    assert tick() == {"replayed": False, "reconciled": False}
    record_proven(filled.vault, standing(filled.vault.clock()), "test")
    assert tick() == {"replayed": True, "reconciled": True}
    shown = status_of(filled.vault, declared).proven
    assert shown is not None
    assert (shown.replayed_trouble, shown.reconciled_trouble) == (None, None)
    filled.later(minutes=9)
    assert tick()["replayed"] is False
    shown = status_of(filled.vault, declared).proven
    assert shown is not None
    assert "silent" in (shown.replayed_trouble or "")


def test_a_point_that_does_not_move_or_is_in_trouble_is_not_reported_as_proven(
    instance: dg.DagsterInstance, ledger: PostgresDataset, filled: Any
) -> None:
    """The asset goes stale while nothing is proven; its checks say why, all the same."""
    declared, now = replace(ledger, prove=Prove()), filled.vault.clock()
    lost = Trouble("restore.hole", "a piece is missing", now)
    checks = list(proven_keys(declared).values())

    def verdicts() -> dict[str, bool]:
        found = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
        return {key.name: record.evaluation.passed for key, record in found.items() if record.evaluation is not None}

    def wait(expected: bool) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while verdicts().get("replayed") is not expected:
            assert time.monotonic() < deadline, verdicts()
            time.sleep(0.02)

    reporter = proven_reporter(lambda: nullcontext(instance), declared, interval_s=0.01)
    with reporter:
        reporter(standing(datetime.now(now.tzinfo), state="failed", trouble=lost))
        wait(expected=False)
        assert instance.get_latest_materialization_event(KEY) is None
        reporter(standing(datetime.now(now.tzinfo)))
        wait(expected=True)
        deadline = time.monotonic() + DEADLINE_S
        while (event := instance.get_latest_materialization_event(KEY)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert event.asset_materialization is not None
    metadata = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert metadata["replayed_lsn"] == "0/3000028"
    assert metadata["reconciliation"] == "the money adds up"
