"""What a piece of the graph is made of, and how such pieces are put together and put on a cadence.

What belongs here: the shapes that all pieces share. What stays out: what any of them does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import dagster as dg

from dr_assets.estate.model import Dataset

UNFINISHED: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


@dataclass(frozen=True)
class Parts:
    """Assets, checks, jobs, schedules and sensors that belong together; empty where nothing is declared."""

    assets: list[Any] = field(default_factory=list)
    checks: list[dg.AssetChecksDefinition] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    schedules: list[dg.ScheduleDefinition] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.assets + other.assets,
            self.checks + other.checks,
            self.jobs + other.jobs,
            self.schedules + other.schedules,
            self.sensors + other.sensors,
        )

    def definitions(self, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
        """All of it for Dagster."""
        return dg.Definitions(
            assets=self.assets,
            asset_checks=self.checks,
            jobs=self.jobs,
            schedules=self.schedules,
            sensors=self.sensors,
            resources=resources,
        )


def job_of(name: str, selection: dg.AssetKey | dg.AssetSelection, description: str) -> Any:
    """A job over one asset with its checks, or over a selection."""
    chosen = dg.AssetSelection.assets(selection) if isinstance(selection, dg.AssetKey) else selection
    return dg.define_asset_job(name, selection=chosen, description=description)


def schedule_of(
    name: str, job: Any, cron: str, description: str, tags: Mapping[str, str] | None = None
) -> dg.ScheduleDefinition:
    """A schedule in UTC that is switched on: one that waits for somebody to do that watches nothing."""
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        tags=tags,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )


def restore_test_schedule(dataset: Dataset, job: Any) -> dg.ScheduleDefinition:
    """The restore test by its cron line."""
    name = f"{dataset.name}_restore_test"
    return schedule_of(name, job, dataset.restore_test.cron, "The policy's restore_test.cron.")
