"""When things run for one Postgres dataset: its jobs and the schedules that the policy asks for.

What belongs here: jobs, the snapshot schedule (due by the age of the newest sealed base backup) and the restore test's
cron. What stays out: what the jobs do, and runs that an event asks for (the sensors).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import dagster as dg

from dr_assets.components.labels import SNAPSHOT_KIND_TAG, artefact_key
from dr_assets.components.parts import UNFINISHED, job_of, restore_test_schedule, schedule_of
from dr_assets.components.rpo_sensor import contiguous_key
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.durations import format_duration
from dr_assets.estate.model import PostgresDataset, Snapshot
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.format.canonical import parse_time


@dataclass(frozen=True)
class DatasetJobs:
    """What can be launched for a dataset: by schedule, by sensor or by hand."""

    snapshot: Any
    wal_chain: Any
    restore_test: Any


def dataset_jobs(dataset: PostgresDataset) -> DatasetJobs:
    """`<dataset>_snapshot`, `<dataset>_wal_chain` (checks only) and `<dataset>_restore_test`.

    `contiguous` isn't part of the restore test: behind a hole there is all the more reason to prove what is left.
    """
    snapshot, chain = artefact_key(dataset, "snapshot"), dg.AssetSelection.checks(contiguous_key(dataset))
    proofs = [artefact_key(dataset, "restore_test"), artefact_key(dataset, "reconciliation")]
    return DatasetJobs(
        snapshot=job_of(
            f"{dataset.name}_snapshot",
            dg.AssetSelection.assets(snapshot) | chain,
            "Takes a base backup and reads it back: verified, locked, continued by the WAL chain.",
        ),
        wal_chain=job_of(f"{dataset.name}_wal_chain", chain, "Looks for holes in the stored WAL."),
        restore_test=job_of(
            f"{dataset.name}_restore_test",
            dg.AssetSelection.assets(*proofs),
            "Restores the newest recovery point into a sandbox and reconciles its money.",
        ),
    )


def dataset_schedules(dataset: PostgresDataset, jobs: DatasetJobs) -> list[dg.ScheduleDefinition]:
    """The base backup whenever one is due, the search for holes hourly, the restore test by its cron line (UTC)."""
    searched = f"{dataset.name}_wal_chain"
    return [
        _snapshot_schedule(dataset, jobs),
        schedule_of(searched, jobs.wal_chain, "17 * * * *", "Looks for holes in the stored WAL, hourly."),
        restore_test_schedule(dataset, jobs.restore_test),
    ]


def _snapshot_schedule(dataset: PostgresDataset, jobs: DatasetJobs) -> dg.ScheduleDefinition:
    cadence = dataset.snapshot
    tick = tick_of(cadence.incremental_every or cadence.every)

    @dg.schedule(
        name=f"{dataset.name}_snapshot",
        job=jobs.snapshot,
        cron_schedule="0 * * * *" if tick == timedelta(hours=1) else "* * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=_said(cadence),
        required_resource_keys={resource_key(dataset.vault)},
    )
    def snapshot_when_due(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
        newest = latest_fact(vault, dataset.name, "snapshot")
        kind = due_kind(newest, cadence, vault.clock())
        if kind is None:
            return dg.SkipReason(f"the newest base backup is of {newest.at:%Y-%m-%d %H:%M} UTC" if newest else "")
        running = dg.RunsFilter(job_name=f"{dataset.name}_snapshot", statuses=UNFINISHED)
        if context.instance.get_run_records(running, limit=1):
            return dg.SkipReason("a base backup is being taken")
        return dg.RunRequest(run_key=f"{context.scheduled_execution_time.isoformat()}", tags={SNAPSHOT_KIND_TAG: kind})

    return snapshot_when_due


def tick_of(every: timedelta) -> timedelta:
    """How often to look whether a base backup is due: hourly, or each minute for cadences under six hours."""
    return timedelta(hours=1) if every >= timedelta(hours=6) else timedelta(minutes=1)


def due_kind(newest: Fact | None, cadence: Snapshot, now: datetime) -> Literal["full", "incremental"] | None:
    """What is due by the age of what the vault holds: after a missed tick, a failed run, for a new dataset.

    A full by the age of the newest one's full, else an incremental by its own. Measured from the beginning, and half a
    tick early counts as due: else each would slip a little further.
    """
    if newest is None:
        return "full"
    early = tick_of(cadence.incremental_every or cadence.every) / 2
    begin_at = parse_time(str(newest.body["begin_at"]), str(newest.key))
    # What was sealed before there were incrementals is a full and doesn't say so.
    full_begin_at = parse_time(str(newest.body.get("full_begin_at", newest.body["begin_at"])), str(newest.key))
    if now - full_begin_at >= cadence.every - early:
        return "full"
    if cadence.incremental_every is not None and now - begin_at >= cadence.incremental_every - early:
        return "incremental"
    return None


def _said(cadence: Snapshot) -> str:
    said = f"Takes a full base backup when the newest sealed one is {format_duration(cadence.every)} old"
    if cadence.incremental_every is None:
        return f"{said}."
    return f"{said}, an incremental every {format_duration(cadence.incremental_every)} in between."
