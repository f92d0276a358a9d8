"""The `restore_when_stale` sensor: when the RPO is missed, prove at once what can still be recovered.

What belongs here: reading the recovery point and asking for one restore test an episode. What stays out: the episode's
rule (stale.py) and the restore test.
"""

from dataclasses import replace
from typing import Final

import dagster as dg

from dr_assets.components.postgres_jobs import DatasetJobs
from dr_assets.components.stale import StaleEpisode, follow
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.objective import age_text, age_trouble
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.vault.facts import latest_fact

INTERVAL_S: Final = 10


def restore_when_stale_sensor(dataset: PostgresDataset, jobs: DatasetJobs) -> dg.SensorDefinition:
    """Launches the restore test once per stale episode, as soon as there is a base backup to restore."""

    @dg.sensor(
        name=f"{dataset.name}_restore_when_stale",
        job=jobs.restore_test,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts one restore test and reconciliation each time the recovery point grows older than the RPO.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def restore_when_stale(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
        point = stored_recovery_point(vault, dataset)
        if point is None or point.at is None or latest_fact(vault, dataset.name, "snapshot") is None:
            return dg.SensorResult(skip_reason="there is nothing to restore yet", cursor=context.cursor)
        now = vault.clock()
        trouble = age_trouble(
            dataset, point, now
        )  # a chain without a base backup is red, and not for a restore to mend
        stale_since = None if trouble is None else point.at + dataset.rpo
        episode = follow(StaleEpisode.from_cursor(context.cursor), stale_since=stale_since, now=now)
        if episode.begin_at is None or episode.requested:
            return dg.SensorResult(skip_reason=trouble or age_text(now, point.at), cursor=episode.to_cursor())
        request = dg.RunRequest(run_key=episode.run_key, tags={"dr_assets/because": "stale"})
        return dg.SensorResult(run_requests=[request], cursor=replace(episode, requested=True).to_cursor())

    return restore_when_stale
