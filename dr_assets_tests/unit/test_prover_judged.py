"""What a prover publishes: kept whole in a sealed fact, judged by pure rules, shown as metrics that grow old."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import PostgresDataset
from dr_assets.estate.prove import Prove
from dr_assets.observability.prover_metrics import PrometheusProverMetrics
from dr_assets.proving.prover.judged import reconciled_trouble, replayed_trouble
from dr_assets.proving.prover.points import Books, DeepPass, Point, Proven, Trouble, latest_proven, record_proven
from dr_assets.vault.throwaway import throwaway_vault

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
POINT = Point(0x3000028, 1, NOW - timedelta(seconds=2), NOW - timedelta(seconds=1))
BOOKS = Books(POINT, NOW, ok=True, breaks_total=0, reason="the money adds up", place="standby", duration_s=1.5)
DEEP = DeepPass(POINT, NOW, ok=True, reason="the money adds up", checks=("pg_checksums", "pg_amcheck"), duration_s=9.25)
GOOD = Proven(
    dataset="ledger", now=NOW, state="following", begin_at=NOW - timedelta(hours=1), replayed=POINT,
    end_lsn=POINT.lsn, reconciled=POINT, books=BOOKS, deep=DEEP, base_key="house/ledger/base/x",
    restarted_at=NOW - timedelta(minutes=50), restarts=1, failures=0, size_bytes=12345,
)  # fmt: skip
LOST = Trouble("restore.hole", "the WAL from 0/3000028 on is missing", NOW)


@pytest.fixture(scope="module")
def dataset() -> PostgresDataset:
    """The packaged ledger, with an RPO of 30 s and a prover."""
    return replace(load_estate(default_defs_dir()).postgres()["ledger"], prove=Prove())


def test_what_was_sealed_is_read_back_whole(dataset: PostgresDataset) -> None:
    """Every field, also of a prover that has proven nothing yet and says why."""
    vault = throwaway_vault(estate="house", rules={"ledger": (dataset.retention, dataset.snapshot.every)})
    bare = Proven("ledger", NOW, "failed", NOW, trouble=LOST, unbegun=LOST)
    for proven in (GOOD, bare):
        record_proven(vault, proven, "test")
        found = latest_proven(vault, "ledger")
        assert found is not None
        assert replace(found, now=NOW) == proven


REPLAYED = {
    "in order": (GOOD, None),
    "never": (None, "no prover has published"),
    "silent": (replace(GOOD, now=NOW - timedelta(minutes=9)), "silent since"),
    "stopped": (replace(GOOD, state="stopped"), "nobody follows any more: the prover was stopped"),
    "stopped in trouble": (replace(GOOD, state="stopped", trouble=LOST), "in trouble: restore.hole"),
    "troubled": (replace(GOOD, state="failed", trouble=LOST), "restore.hole"),
    "building": (replace(GOOD, replayed=None), "nothing is replayed yet"),
    "undated": (replace(GOOD, replayed=replace(POINT, at=None)), "no heartbeat"),
    "old": (replace(GOOD, replayed=replace(POINT, at=NOW - timedelta(seconds=31))), "over the RPO"),
    "ahead": (replace(GOOD, replayed=replace(POINT, at=NOW + timedelta(minutes=1))), "in the future"),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_a_replayed_point_is_counted_on_only_from_a_prover_that_lives_and_moves(
    dataset: PostgresDataset, name: str
) -> None:
    """Silence, trouble, age and clocks that disagree: each is told in words."""
    proven, expected = REPLAYED[name]
    found = replayed_trouble(dataset, proven, NOW)
    assert (found is None) if expected is None else (expected in (found or ""))


RECONCILED = {
    "in order": (GOOD, None),
    "never": (None, "no prover has published"),
    "nothing yet": (replace(GOOD, books=None, reconciled=None), "nothing is reconciled yet"),
    "breaks": (replace(GOOD, books=replace(BOOKS, ok=False, reason="3 breaks")), "3 breaks"),
    "deep damage": (replace(GOOD, deep=replace(DEEP, ok=False, reason="pg_amcheck found damage")), "pg_amcheck"),
    "old": (replace(GOOD, reconciled=replace(POINT, at=NOW - timedelta(minutes=25))), "allowed by the schedule"),
    "deep pass late": (replace(GOOD, deep=replace(DEEP, end_at=NOW - timedelta(hours=8))), "deep pass is overdue"),
    "never deep": (replace(GOOD, deep=None, begin_at=NOW - timedelta(hours=8)), "deep pass is overdue"),
    "restart late": (replace(GOOD, restarted_at=NOW - timedelta(hours=28)), "base backup is overdue"),
    "ahead": (replace(GOOD, reconciled=replace(POINT, at=NOW + timedelta(minutes=1))), "in the future"),
    "no new beginning": (replace(GOOD, unbegun=LOST), "nothing can be begun from a base backup"),
}


@pytest.mark.parametrize("name", RECONCILED)
def test_a_reconciled_point_needs_books_pages_and_beginnings_as_often_as_declared(
    dataset: PostgresDataset, name: str
) -> None:
    """Breaks and damage at once; what is late by more than its schedule's grace as well."""
    proven, expected = RECONCILED[name]
    found = reconciled_trouble(dataset, proven, NOW)
    assert (found is None) if expected is None else (expected in (found or ""))


def test_ages_grow_while_a_prover_says_nothing() -> None:
    """A prover that hangs shows a growing age; what it said of jobs and states is shown as it was said."""
    clock_s = [100.0]
    registry = CollectorRegistry()
    monotonic: Callable[[], float] = lambda: clock_s[0]  # noqa: E731 - one expression
    metrics = PrometheusProverMetrics(registry, monotonic=monotonic)
    metrics.reported(replace(GOOD, end_lsn=POINT.lsn + 10, unbegun=LOST))
    clock_s[0] += 40
    value = registry.get_sample_value
    age = "dr_prover_recovery_point_age_seconds"
    assert value(age, {"dataset": "ledger", "point": "replayed"}) == pytest.approx(42.0)
    assert value("dr_prover_unreplayed_bytes", {"dataset": "ledger"}) == 10
    assert value("dr_prover_state_info", {"dataset": "ledger", "state": "following"}) == 1
    assert value("dr_prover_state_info", {"dataset": "ledger", "state": "failed"}) == 0
    assert value("dr_prover_job_ok", {"dataset": "ledger", "job": "restart"}) == 0
    assert value("dr_prover_job_ok", {"dataset": "ledger", "job": "deep"}) == 1
