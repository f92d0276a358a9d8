"""Topics and buckets in the graph: what turns a check red, what starts a run, and that facts alone decide."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from dr_assets.components.bucket_erasures import judge_from_vault
from dr_assets.components.bucket_judging import copy_check, judge_bucket
from dr_assets.components.copy_due import copy_due_sensor, is_due
from dr_assets.components.erasure_judgement import judge_erasures
from dr_assets.components.point_judgements import judge_contiguous, judge_groups, judge_point, judge_topics_kept
from dr_assets.components.protected_bucket import ProtectedBucket
from dr_assets.components.protected_topics import ProtectedTopics
from dr_assets.components.topics_judging import export_check, judge_topics, standing_of
from dr_assets.components.topics_reporting import report_kafka_export
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import BucketDataset, Estate, TopicsDataset
from dr_assets.stores.kafka.capture_facts import StreamGap, record_gap, record_recreated, recreated, settle
from dr_assets.stores.kafka.report import KafkaCaptureReport
from dr_assets.vault.erasure.standing import ErasureStanding
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.format.pack import Row
from dr_assets.vault.subjects.history import record, times
from dr_assets.vault.throwaway import throwaway_vault

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
SYSTEM = "a" * 32


@pytest.fixture(scope="module")
def whole() -> Estate:
    """The packaged estate with all that it declares."""
    return load_estate(default_defs_dir())


@pytest.fixture
def events(whole: Estate) -> TopicsDataset:
    """Its topics."""
    return whole.topics()["game_events"]


@pytest.fixture
def kyc(whole: Estate) -> BucketDataset:
    """Its bucket."""
    return whole.buckets()["kyc"]


class Resource:
    """Stands where the vault's resource stands: hands out a vault in memory, or refuses like a store that is away."""

    def __init__(self, whole: Estate) -> None:
        self.now = NOW
        self.away = False
        rules = {name: (dataset.retention, dataset.base_every) for name, dataset in whole.datasets.items()}
        self.vault = throwaway_vault(rules=rules, clock=lambda: self.now)

    def open_vault(self, **_: Any) -> Any:
        """As the resource does."""
        if self.away:
            raise VaultError("vault.unreachable", "the object store does not answer", "start it")
        return self.vault


@pytest.fixture
def resource(whole: Estate) -> Resource:
    """An empty vault at a fixed moment."""
    return Resource(whole)


def point(age_s: float, *, locked: bool = True) -> Any:
    """A recovery point of that age."""
    return SimpleNamespace(at=NOW - timedelta(seconds=age_s), retain_until=NOW + timedelta(days=30) if locked else None)


def row(begin: int, after: int, *, complete: bool = True) -> Row:
    """Where a stream stands."""
    return Row("b" * 32, 0, 0, begin, after, 0, after, after, begin, NOW, complete)


@pytest.mark.parametrize(
    ("given", "passed"), [(point(119), True), (point(121), False), (point(1, locked=False), False), (None, False)]
)
def test_the_rpo_of_topics_is_two_minutes(events: TopicsDataset, given: Any, passed: bool) -> None:
    """Young and locked is green; old, unlocked or nothing at all is red, with the age beside it."""
    verdict = judge_point(events, given, NOW, {"topics": 3})
    assert verdict.passed is passed
    assert verdict.values["rpo_s"] == 120
    assert verdict.values["topics"] == 3


def test_a_gap_by_retention_is_red_until_a_person_settles_it(resource: Resource, events: TopicsDataset) -> None:
    """The sensor judges it without a run, names topic and offsets, and the word of a person ends it."""
    gap = StreamGap("ledger.bet", "b" * 32, 2, "gap", 10, 250, "retention removed them")
    record_gap(resource.vault, events.name, SYSTEM, gap)
    key = export_check(events, "contiguous")
    verdict = judge_topics(resource, events)[key]  # type: ignore[arg-type]  # it opens vaults as the resource does
    assert not verdict.passed
    assert "ledger.bet-2 [10, 250)" in verdict.reason
    assert verdict.values["offsets_lost"] == 240
    fact = latest_fact(resource.vault, events.name, "kafka_gap")
    assert fact is not None
    settle(resource.vault, events.name, str(fact.key), "ana", "replayed from the producer")
    assert key not in judge_topics(resource, events)  # type: ignore[arg-type]  # as above


def test_a_topic_that_was_made_again_is_red_until_settled(resource: Resource, events: TopicsDataset) -> None:
    """Deleted, or deleted and made again: another stream under the old name, which somebody has to look at."""
    key = export_check(events, "topics_kept")
    assert judge_topics(resource, events)[key].passed  # type: ignore[arg-type]  # as above
    record_recreated(resource.vault, events.name, SYSTEM, "ledger.win", "b" * 32, "c" * 32)
    verdict = judge_topics(resource, events)[key]  # type: ignore[arg-type]  # as above
    assert not verdict.passed
    assert "ledger.win was deleted and made again" in verdict.reason
    (fact,) = recreated(resource.vault, events.name)
    settle(resource.vault, events.name, str(fact.key), "ana", "planned")
    assert judge_topics_kept(recreated(resource.vault, events.name)).passed


def test_a_vault_that_cannot_be_read_is_red_for_both_kinds(
    resource: Resource, events: TopicsDataset, kyc: BucketDataset
) -> None:
    """Nothing stays green because nobody can look."""
    resource.away = True
    of_topics: dict[dg.AssetCheckKey, Any] = judge_topics(resource, events)  # type: ignore[arg-type]  # as above
    of_bucket = judge_bucket(resource, kyc)  # type: ignore[arg-type]  # as above
    assert {key.name for key in of_topics} == {"rpo", "topics_kept", "restorable"}
    assert {key.name for key in of_bucket} == {"rpo", "complete", "restorable"}
    assert not any(verdict.passed for verdict in (*of_topics.values(), *of_bucket.values()))


def test_holes_and_unfinished_partitions_are_told_apart() -> None:
    """A missing pack is red, a partition on its first way to the end a warning, everything there green."""
    assert judge_contiguous([], [], [row(0, 9)], 5).passed
    hole = judge_contiguous([], [(3, 4)], [row(0, 9)], 5)
    assert (hole.passed, hole.is_warning) == (False, False)
    unfinished = judge_contiguous([], [], [row(0, 9, complete=False)], 5)
    assert (unfinished.passed, unfinished.is_warning) == (False, True)


def test_a_group_that_would_skip_records_is_red() -> None:
    """Behind the first stored record is a loss for that group; ahead of the last is only read again."""
    stored = {("ledger.bet", 0): row(100, 200)}
    fits = {"bonus-engine": {("ledger.bet", 0): SimpleNamespace(offset=100)}}
    ahead = {"bonus-engine": {("ledger.bet", 0): SimpleNamespace(offset=201)}}
    behind = {"bonus-engine": {("ledger.bet", 0): SimpleNamespace(offset=99)}}
    assert judge_groups(fits, stored).passed
    assert judge_groups(ahead, stored).values["ahead"] == 1
    assert judge_groups(ahead, stored).passed
    verdict = judge_groups(behind, stored)
    assert not verdict.passed
    assert "ledger.bet-0:99" in verdict.reason


def copied(resource: Resource, kyc: BucketDataset, *, is_complete: bool = True, unread: int = 0) -> None:
    """The fact of a run that began now."""
    body = {"is_complete": is_complete, "unread": unread, "listing_begin_at": format_time(resource.now)}
    record_fact(resource.vault, kyc.name, "bucket_copy", {**body, "listed": {"versions": 3}})


def test_an_incomplete_or_late_comparison_is_red(resource: Resource, kyc: BucketDataset) -> None:
    """What could not be read, and a comparison that nobody makes any more, are not complete."""
    key = copy_check(kyc, "complete")

    def complete() -> bool:
        return judge_bucket(resource, kyc)[key].passed  # type: ignore[arg-type]  # as above

    assert not complete()
    copied(resource, kyc)
    assert complete()
    copied(resource, kyc, is_complete=False, unread=2)
    assert not complete()
    resource.now += timedelta(minutes=5)
    copied(resource, kyc)
    resource.now += timedelta(hours=2)
    assert not complete()


def test_a_comparison_is_started_when_the_newest_is_old_enough(
    resource: Resource, kyc: BucketDataset, instance: dg.DagsterInstance
) -> None:
    """By the newest sealed run, so that a resident follower and Dagster never both compare."""
    copied(resource, kyc)
    fact = latest_fact(resource.vault, kyc.name, "bucket_copy")
    assert is_due(kyc, None, NOW)
    assert not is_due(kyc, fact, NOW + timedelta(minutes=4))
    assert is_due(kyc, fact, NOW + timedelta(minutes=5))
    assert fact is not None
    events_only: dict[str, Json] = {
        "is_whole_listing": False,
        "listing_begin_at": format_time(NOW + timedelta(minutes=4)),
    }
    told = replace(fact, body={**events_only, "compared_at": format_time(NOW)})
    assert is_due(kyc, told, NOW + timedelta(minutes=5))  # what events told of is no comparison
    assert is_due(kyc, replace(fact, body=events_only), NOW)
    sensor = copy_due_sensor(kyc, _job)

    def asked() -> int:
        context = dg.build_sensor_context(instance=instance, resources={"vault_primary": resource})
        return len(sensor.evaluate_tick(context).run_requests or [])

    assert asked() == 0
    resource.now += timedelta(minutes=6)
    assert asked() == 1


@dg.op
def _nothing() -> None:
    """Stands for a comparison."""


@dg.job(name="kyc_bucket_copy")
def _job() -> None:
    """Stands for the job."""
    _nothing()


def erasure(state: str, days_ago: float = 1, unreplayed: tuple[str, ...] = ()) -> ErasureStanding:
    """One erasure of one person."""
    told: Any = SimpleNamespace(erasure_id="e1", subjects=("x",))
    return ErasureStanding(told, state, (), NOW - timedelta(days=days_ago), None, unreplayed, (), None)  # type: ignore[arg-type]  # a literal


def test_erasures_are_red_when_overdue_or_unproven(kyc: BucketDataset) -> None:
    """Overdue is red; one that no restore test has shown to hold is red once a test was due, and green before."""
    assert judge_erasures(kyc, [], NOW).passed
    assert judge_erasures(kyc, [erasure("final")], NOW).passed
    assert not judge_erasures(kyc, [erasure("overdue")], NOW).passed
    assert judge_erasures(kyc, [erasure("soft", 0.1, (kyc.name,))], NOW).passed
    assert not judge_erasures(kyc, [erasure("soft", 3, (kyc.name,))], NOW).passed
    assert not judge_erasures(kyc, [replace(erasure("final"), still_known=(kyc.name,))], NOW).passed


def test_a_capture_reports_what_people_look_at(instance: dg.DagsterInstance, events: TopicsDataset) -> None:
    """One materialization without a run, with lag, records, bytes and gaps."""
    report = KafkaCaptureReport(
        events.name, "streaming", NOW, SYSTEM, 1, 7, 3, 9, NOW, 0.5, 0.2, 0.5, 0.1, 0.0, 4, 0, 0, 7, 1000, 30000, 0,
        0.0, 1, None,
    )  # fmt: skip
    report_kafka_export(instance, report)
    key = dg.AssetKey([events.name, "kafka_export"])
    event = instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata
    expected = {"lag_s": 0.2, "records_stored": 1000, "stored_bytes": 30000, "behind_records": 4, "gaps": 1}
    assert {name: shown[name].value for name in expected} == expected


def test_nothing_is_restored_before_anything_is_stored(resource: Resource, events: TopicsDataset) -> None:
    """A stale episode needs a recovery point to prove."""
    assert standing_of(resource.vault, events, NOW) is None


def test_every_check_of_both_kinds_is_in_the_table_of_alarms(whole: Estate) -> None:
    """A check that can turn red and that the page for 3 a.m. doesn't name leaves the reader alone with it."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    built: list[Any] = [
        ProtectedTopics(whole.topics()["game_events"]).build_defs(None),  # type: ignore[arg-type]  # it isn't read
        ProtectedBucket(whole, whole.buckets()["kyc"]).build_defs(None),  # type: ignore[arg-type]  # as above
    ]
    checks = [check for each in built for check in each.asset_checks or ()]
    names = {key.name for check in checks for key in check.check_keys}
    assert {"groups_restorable", "topics_kept", "complete", "erasures_applied"} <= names
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert not [name for name in sorted(names) if not any(f"`{name}`" in each.split("|")[1] for each in rows)]


def test_erasures_are_judged_by_the_vault_that_decides_them(whole: Estate, kyc: BucketDataset) -> None:
    """Documents may lie in another vault than the ring's facts: an overdue erasure is red all the same."""
    documents, deciding = Resource(whole), Resource(whole)
    who, erasure_id = "ab" * 16, "c" * 32
    body: dict[str, Json] = {
        "event": "requested",
        "erasure": erasure_id,
        "subjects": [who],
        "keyless": [],
        "relationships": {},
    }
    record_fact(deciding.vault, "vault", "erasure", body)
    record(deciding.vault, "deleting", [who], **times(NOW - timedelta(days=40), NOW - timedelta(days=10), erasure_id))
    verdict = judge_from_vault(whole, kyc, documents.vault, deciding.vault)
    assert not verdict.passed
    assert "overdue" in verdict.reason
    assert judge_from_vault(whole, kyc, documents.vault, documents.vault).passed
