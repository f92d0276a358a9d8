from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from dr_assets.components.drill import DUE_TAG, drill_due_sensor, drill_request, due_since
from dr_assets.components.labels import SNAPSHOT_KIND_TAG
from dr_assets.components.postgres_jobs import dataset_jobs, dataset_schedules, due_kind, tick_of
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.format.canonical import format_time


@dg.op
def nothing() -> None:
    """Stands for a drill."""


@dg.job(name="estate_drill")
def drill_job() -> None:
    """Stands for the drill job."""
    nothing()


def asked(instance: dg.DagsterInstance, filled: Any, estate: Estate) -> list[dg.RunRequest]:
    """What one tick of `drill_due` asks for."""
    context = dg.build_sensor_context(instance=instance, resources={"vault_primary": filled})
    return list(drill_due_sensor(estate, drill_job).evaluate_tick(context).run_requests or [])


def test_a_dataset_that_was_never_drilled_is_due(instance: dg.DagsterInstance, filled: Any, estate: Estate) -> None:
    """As soon as there is a base backup to drill with, and for exactly that dataset."""
    assert asked(instance, filled, estate) == []
    filled.seal_snapshot()
    (request,) = asked(instance, filled, estate)
    assert request.run_config["ops"]["estate__drill"]["config"]["datasets"] == ["ledger"]


def test_a_sealed_drill_holds_until_the_next_fire(instance: dg.DagsterInstance, filled: Any, estate: Estate) -> None:
    """After a drill nothing is due until the cron line fires again and the schedule had its chance."""
    filled.seal_snapshot()
    filled.seal("drill", outcome="passed")
    assert asked(instance, filled, estate) == []
    filled.now = datetime(2026, 4, 1, 4, 1, tzinfo=UTC)
    assert asked(instance, filled, estate) == []
    filled.later(minutes=1)
    (request,) = asked(instance, filled, estate)
    assert request.tags[DUE_TAG] == "ledger@20260401T040000"


def test_a_drill_that_was_started_is_not_started_again(
    instance: dg.DagsterInstance, filled: Any, estate: Estate, ledger: PostgresDataset
) -> None:
    """A run of the schedule for the same due moment keeps the sensor still."""
    filled.now = datetime.now(UTC)
    filled.seal_snapshot()
    due_at = due_since(ledger, None, filled.now)
    assert due_at is not None
    instance.create_run_for_job(drill_job, tags=drill_request(ledger, due_at, attempt=0).tags)
    assert asked(instance, filled, estate) == []


def test_a_drill_that_left_no_statement_is_asked_for_again_the_next_day(
    instance: dg.DagsterInstance, filled: Any, estate: Estate
) -> None:
    """The daemon drops a run key it has seen, so a new one a day is a new attempt a day and no more."""
    filled.seal_snapshot()
    keys = []
    for _ in range(48):
        keys += [request.run_key for request in asked(instance, filled, estate)]
        filled.later(hours=1)
    assert len(set(keys)) == 3


def snapshot_due(instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset) -> bool:
    """Whether one tick of the snapshot schedule asks for a base backup."""
    schedule = next(each for each in dataset_schedules(ledger, dataset_jobs(ledger)) if each.name == "ledger_snapshot")
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=filled.now, resources={"vault_primary": filled}
    )
    return bool(schedule.evaluate_tick(context).run_requests)


def test_base_backups_follow_the_age_of_the_newest_sealed_one(
    stored_instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset
) -> None:
    """Due at once when there is none, then a day later at the same hour, whatever the event log says."""
    assert snapshot_due(stored_instance, filled, ledger)
    filled.seal_snapshot()
    due = []
    for hour in range(1, 25):
        filled.later(hours=1)
        if snapshot_due(stored_instance, filled, ledger):
            due.append(hour)
    assert due == [24]


def test_incrementals_are_due_between_fulls(
    stored_instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset
) -> None:
    """Each by its own age, and a full when the full is a day old, however young the newest incremental is."""
    hourly = replace(
        ledger, snapshot=replace(ledger.snapshot, every=timedelta(hours=6), incremental_every=timedelta(hours=2))
    )
    schedule = next(each for each in dataset_schedules(hourly, dataset_jobs(hourly)) if each.name == "ledger_snapshot")
    kinds, full_begin_at = [], filled.now
    for minute in range(0, 13 * 60, 20):
        context = dg.build_schedule_context(
            instance=stored_instance, scheduled_execution_time=filled.now, resources={"vault_primary": filled}
        )
        for request in schedule.evaluate_tick(context).run_requests or []:
            kind = request.tags[SNAPSHOT_KIND_TAG]
            full_begin_at = filled.now if kind == "full" else full_begin_at
            filled.seal_snapshot(full_begin_at=format_time(full_begin_at))
            kinds.append((minute // 60, kind))
        filled.later(minutes=20)
    assert kinds == [
        (0, "full"), (2, "incremental"), (4, "incremental"), (6, "full"), (8, "incremental"), (10, "incremental"),
        (12, "full"),
    ]  # fmt: skip


def test_a_backup_sealed_before_there_were_incrementals_counts_as_a_full(filled: Any, ledger: PostgresDataset) -> None:
    """Its fact says nothing of its kind, and an incremental may follow it."""
    hourly = replace(ledger.snapshot, incremental_every=timedelta(hours=1))
    filled.seal_snapshot()
    newest = latest_fact(filled.open_vault(), "ledger", "snapshot")
    assert due_kind(newest, hourly, filled.now + timedelta(hours=2)) == "incremental"
    assert due_kind(newest, hourly, filled.now + timedelta(hours=24)) == "full"
    assert due_kind(newest, ledger.snapshot, filled.now + timedelta(hours=2)) is None


def test_one_base_backup_at_a_time(stored_instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset) -> None:
    """While one is being taken no second one is started."""
    stored_instance.add_run(dg.DagsterRun(job_name="ledger_snapshot", status=dg.DagsterRunStatus.STARTED))
    assert not snapshot_due(stored_instance, filled, ledger)


@pytest.mark.parametrize(("every", "tick"), [(timedelta(days=1), 3600), (timedelta(hours=1), 60)])
def test_short_cadences_are_looked_at_each_minute(every: timedelta, tick: int) -> None:
    """The look is fine enough for the cadence."""
    assert tick_of(every).total_seconds() == tick
