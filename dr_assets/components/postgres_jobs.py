"""When things run for one Postgres dataset: its jobs and the schedules that the policy asks for.

What belongs here: jobs, the snapshot schedule (due by the age of the newest sealed base backup) and the restore test's
cron. What stays out: what the jobs do, and runs that an event asks for (the sensors).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import dagster as dg

from dr_assets.components.labels import artefact_key
from dr_assets.components.rpo_sensor import contiguous_key
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.durations import format_duration
from dr_assets.estate.model import Dataset
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.format.canonical import parse_time

UNFINISHED: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


@dataclass(frozen=True)
class DatasetJobs:
    """What can be launched for a dataset: by schedule, by sensor or by hand."""

    snapshot: Any
    wal_chain: Any
    restore_test: Any


def dataset_jobs(dataset: Dataset) -> DatasetJobs:
    """`<dataset>_snapshot`, `<dataset>_wal_chain` (checks only) and `<dataset>_restore_test`.

    `contiguous` isn't part of the restore test: behind a hole there is all the more reason to prove what is left.
    """
    snapshot, chain = artefact_key(dataset, "snapshot"), dg.AssetSelection.checks(contiguous_key(dataset))
    proofs = [artefact_key(dataset, "restore_test"), artefact_key(dataset, "reconciliation")]
    return DatasetJobs(
        snapshot=dg.define_asset_job(
            f"{dataset.name}_snapshot",
            selection=dg.AssetSelection.assets(snapshot) | chain,
            description="Takes a base backup and reads it back: verified, locked, continued by the WAL chain.",
        ),
        wal_chain=dg.define_asset_job(
            f"{dataset.name}_wal_chain", selection=chain, description="Looks for holes in the stored WAL."
        ),
        restore_test=dg.define_asset_job(
            f"{dataset.name}_restore_test",
            selection=dg.AssetSelection.assets(*proofs),
            description="Restores the newest recovery point into a sandbox and reconciles its money.",
        ),
    )


def dataset_schedules(dataset: Dataset, jobs: DatasetJobs) -> list[dg.ScheduleDefinition]:
    """The base backup whenever one is due, the search for holes hourly, the restore test by its cron line (UTC)."""
    searched = dg.ScheduleDefinition(
        name=f"{dataset.name}_wal_chain",
        job=jobs.wal_chain,
        cron_schedule="17 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks for holes in the stored WAL, hourly.",
    )
    tested = dg.ScheduleDefinition(
        name=f"{dataset.name}_restore_test",
        job=jobs.restore_test,
        cron_schedule=dataset.restore_test.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="The policy's restore_test.cron.",
    )
    return [_snapshot_schedule(dataset, jobs), searched, tested]


def _snapshot_schedule(dataset: Dataset, jobs: DatasetJobs) -> dg.ScheduleDefinition:
    tick = tick_of(dataset.snapshot.every)

    @dg.schedule(
        name=f"{dataset.name}_snapshot",
        job=jobs.snapshot,
        cron_schedule="0 * * * *" if tick == timedelta(hours=1) else "* * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Takes a base backup when the newest sealed one is {format_duration(dataset.snapshot.every)} old.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def snapshot_when_due(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
        newest = latest_fact(vault, dataset.name, "snapshot")
        if not is_due(newest, dataset.snapshot.every, vault.clock()):
            return dg.SkipReason(f"the newest base backup is of {newest.at:%Y-%m-%d %H:%M} UTC" if newest else "")
        running = dg.RunsFilter(job_name=f"{dataset.name}_snapshot", statuses=UNFINISHED)
        if context.instance.get_run_records(running, limit=1):
            return dg.SkipReason("a base backup is being taken")
        return dg.RunRequest(run_key=f"{context.scheduled_execution_time.isoformat()}")

    return snapshot_when_due


def tick_of(every: timedelta) -> timedelta:
    """How often to look whether a base backup is due: hourly, or each minute for cadences under six hours."""
    return timedelta(hours=1) if every >= timedelta(hours=6) else timedelta(minutes=1)


def is_due(newest: Fact | None, every: timedelta, now: datetime) -> bool:
    """Due by the age of what the vault holds: a missed tick, a failed run or a new dataset all lead to a backup.

    Measured from the last one's beginning, and half a tick early counts as due: else each would slip a little further.
    """
    if newest is None:
        return True
    begin_at = parse_time(str(newest.body["begin_at"]), str(newest.key))
    return now - begin_at >= every - tick_of(every) / 2
