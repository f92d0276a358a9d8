"""The `copy_due` sensor of a bucket: starts a comparison whenever the newest one is `copy_every` old.

What belongs here: deciding and asking. What stays out: copying. It goes by the newest *sealed* run, so that a resident
`dr-assets bucket follow` and Dagster never both compare, and a run that failed is tried again.
"""

from datetime import datetime, timedelta
from typing import Any, Final

import dagster as dg

from dr_assets.components.parts import UNFINISHED
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import BucketDataset
from dr_assets.stores.bucket.position import BUCKET_COPY
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.format.canonical import parse_time

INTERVAL_S: Final = 10
# A run that fails at once must not be started six times a minute.
AGAIN_AFTER: Final = timedelta(minutes=1)
TAG: Final = "dr_assets/copy_due"


def copy_due_sensor(dataset: BucketDataset, job: Any) -> dg.SensorDefinition:
    """`<dataset>_copy_due`; one run at a time."""

    @dg.sensor(
        name=f"{dataset.name}_copy_due",
        job=job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a comparison of the bucket with what is stored, whenever the newest is copy_every old.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def copy_due(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
        newest, now = latest_fact(vault, dataset.name, BUCKET_COPY), vault.clock()
        if not is_due(dataset, newest, now):
            return dg.SkipReason(f"the newest comparison is of {newest.at:%Y-%m-%d %H:%M:%S} UTC" if newest else "")
        running = dg.RunsFilter(job_name=f"{dataset.name}_bucket_copy", statuses=UNFINISHED)
        if context.instance.get_run_records(running, limit=1):
            return dg.SkipReason("a comparison is under way")
        tags = {TAG: dataset.name}
        if context.instance.get_run_records(dg.RunsFilter(tags=tags, created_after=now - AGAIN_AFTER), limit=1):
            return dg.SkipReason("tried within the last minute")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"copy-{now:%Y%m%dT%H%M%S}", tags=tags)])

    return copy_due


def is_due(dataset: BucketDataset, newest: Fact | None, now: datetime) -> bool:
    """By when the newest run's listing began; half a tick early counts, else each would slip a little further."""
    if newest is None:
        return True
    # A run that looked at single names, which events told of, has compared nothing: it repeats when somebody last did.
    is_whole = newest.body.get("is_whole_listing") is not False
    told = newest.body.get("listing_begin_at" if is_whole else "compared_at")
    if told is None:
        return True
    began = parse_time(told, str(newest.key))
    return now - began >= dataset.copy_every - timedelta(seconds=INTERVAL_S / 2)
