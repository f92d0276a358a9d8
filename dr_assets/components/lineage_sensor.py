"""The `lineage` sensor of a dataset: after a failover, an upgrade or an accepted gap, a base backup at once.

What belongs here: noticing, judging `timeline` and `diverged`, asking for the base backup. What stays out: the verdicts
(failover_judgements.py) and taking it. The schedule goes by age alone; a new chain can't wait for that.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg

from dr_assets.components.evaluations import evaluation, worth_writing
from dr_assets.components.failover_judgements import describe_stream, judge_diverged, judge_timeline
from dr_assets.components.judgements import Judgement, judge_unreadable
from dr_assets.components.labels import artefact_key
from dr_assets.components.parts import UNFINISHED
from dr_assets.components.postgres_jobs import DatasetJobs
from dr_assets.components.vault_resource import VaultResource, resource_key
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.diverged import DIVERGED
from dr_assets.stores.postgres.followed import left_on_the_way
from dr_assets.stores.postgres.objective import stream_of, stream_of_base, unfollowed
from dr_assets.stores.postgres.settled import SETTLED
from dr_assets.vault.facts import facts, latest_fact
from dr_assets.vault.vault import Vault

INTERVAL_S: Final = 15
# A base backup that fails at once must not be started four times a minute.
AGAIN_AFTER: Final = timedelta(minutes=5)
TAG: Final = "dr_assets/base_backup_for"


def timeline_key(dataset: PostgresDataset) -> dg.AssetCheckKey:
    """The check `timeline` on `<dataset>/wal_chain`."""
    return dg.AssetCheckKey(artefact_key(dataset, "wal_chain"), "timeline")


def diverged_key(dataset: PostgresDataset) -> dg.AssetCheckKey:
    """The check `diverged` on `<dataset>/wal_chain`."""
    return dg.AssetCheckKey(artefact_key(dataset, "wal_chain"), "diverged")


def lineage_sensor(dataset: PostgresDataset, jobs: DatasetJobs) -> dg.SensorDefinition:
    """Judges `timeline` and `diverged`, and starts a base backup whenever none is of what is captured now."""

    @dg.sensor(
        name=f"{dataset.name}_lineage",
        job=jobs.snapshot,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="After a failover, an upgrade or a gap: judges what was left behind, takes a base backup at once.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def lineage(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        resource: VaultResource = getattr(context.resources, resource_key(dataset.vault))
        now = datetime.now(UTC)
        due = worth_writing(context.instance, judge_lineage(resource, dataset), now)
        request, reason = _request(context.instance, resource.open_vault(), dataset, now)
        return dg.SensorResult(
            run_requests=[request] if request else [],
            skip_reason=None if request else reason,
            asset_events=[evaluation(*each) for each in due.items()],
        )

    return lineage


def judge_lineage(resource: VaultResource, dataset: PostgresDataset) -> dict[dg.AssetCheckKey, Judgement]:
    """`timeline` and `diverged` from the vault's facts. What cannot be read is red, with the reason."""
    try:
        vault = resource.open_vault()
        base, anchor = latest_fact(vault, dataset.name, "snapshot"), latest_anchor(vault, dataset.name)
        found = list(facts(vault, dataset.name, DIVERGED))
        settled = list(facts(vault, dataset.name, SETTLED)) if found else []
    except DrError as error:
        return dict.fromkeys((timeline_key(dataset), diverged_key(dataset)), judge_unreadable(error))
    return {timeline_key(dataset): judge_timeline(base, anchor), diverged_key(dataset): judge_diverged(found, settled)}


def base_backup_needed(vault: Vault, dataset: PostgresDataset) -> str | None:
    """Why a base backup is due now whatever the newest one's age is; None when it is not. Raises VaultError."""
    anchor = latest_anchor(vault, dataset.name)
    if anchor is None:
        return None
    base = latest_fact(vault, dataset.name, "snapshot")
    left = left_on_the_way(vault, dataset.name, stream_of(anchor), base)
    trouble = unfollowed(stream_of(anchor), base, left)
    if trouble is None and base is not None and stream_of_base(base) != (anchor.system_id, anchor.timeline):
        return f"the newest base backup is of an older timeline than {anchor.timeline}"
    return trouble


def _request(
    instance: dg.DagsterInstance, vault: Vault, dataset: PostgresDataset, now: datetime
) -> tuple[dg.RunRequest | None, str]:
    """One base backup at a time, and five minutes between attempts for the same stream."""
    needed, anchor = base_backup_needed(vault, dataset), latest_anchor(vault, dataset.name)
    if needed is None or anchor is None:
        return None, "the newest base backup is of what is captured now"
    running = dg.RunsFilter(job_name=f"{dataset.name}_snapshot", statuses=UNFINISHED)
    if instance.get_run_records(running, limit=1):
        return None, "a base backup is being taken"
    tags = {TAG: describe_stream(anchor)}
    recent = dg.RunsFilter(tags=tags, created_after=now - AGAIN_AFTER)
    if instance.get_run_records(recent, limit=1):
        return None, f"tried within the last five minutes: {needed}"
    return dg.RunRequest(run_key=f"base-{describe_stream(anchor)}-{now:%Y%m%dT%H%M%S}", tags=tags), needed
