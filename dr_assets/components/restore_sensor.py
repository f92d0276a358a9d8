"""The `restore_when_stale` sensor: when the RPO is missed, prove at once what can still be recovered.

What belongs here: asking for one restore test an episode. What stays out: the episode's rule (stale.py), the recovery
point, which each kind of dataset reads in its own way, and the restore test.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import dagster as dg

from dr_assets.components.stale import StaleEpisode, follow
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import Dataset
from dr_assets.vault.vault import Vault

INTERVAL_S: Final = 10


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a dataset that can be restored stands: its recovery point, and why that is too old (None: it is not)."""

    at: datetime
    trouble: str | None
    told: str


def restore_when_stale_sensor(
    dataset: Dataset, job: Any, look: Callable[[Vault, datetime], Standing | None]
) -> dg.SensorDefinition:
    """Launches the restore test once per stale episode; `look` is None while there is nothing to restore."""

    @dg.sensor(
        name=f"{dataset.name}_restore_when_stale",
        job=job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts one restore test each time the recovery point grows older than the RPO.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def restore_when_stale(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
        now = vault.clock()
        found = look(vault, now)
        if found is None:
            return dg.SensorResult(skip_reason="there is nothing to restore yet", cursor=context.cursor)
        stale_since = None if found.trouble is None else found.at + dataset.rpo
        episode = follow(StaleEpisode.from_cursor(context.cursor), stale_since=stale_since, now=now)
        if episode.begin_at is None or episode.requested:
            return dg.SensorResult(skip_reason=found.trouble or found.told, cursor=episode.to_cursor())
        request = dg.RunRequest(run_key=episode.run_key, tags={"dr_assets/because": "stale"})
        return dg.SensorResult(run_requests=[request], cursor=replace(episode, requested=True).to_cursor())

    return restore_when_stale
