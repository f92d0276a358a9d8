"""The asset `estate/drill`, and when a drill is due.

What belongs here: the asset's body, its schedule by the policy's cron, and the `drill_due` sensor that catches what a
schedule misses. What stays out: the drill itself (drills/) and its verdict (judgements.py).

The schedule starts drills on time. The sensor looks at the newest *sealed* drill instead of the clock alone: a
daemon that was down, a dataset that was never drilled, a drill that left no statement all show there as due.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg
from pydantic import Field

from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import failure_of, shown_as_failure
from dr_assets.components.judgements import judge_drills
from dr_assets.components.labels import RESTORE_HOST, estate_labels, storing_keys
from dr_assets.components.vault_resource import VaultResource, resource_key
from dr_assets.estate import cadence
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import BucketDataset, Dataset, DatasetKind, Estate, PostgresDataset, TopicsDataset
from dr_assets.stores.bucket.position import BUCKET_COPY
from dr_assets.stores.kafka.capture_facts import CAPTURE
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.vault import Vault

KEY: Final = dg.AssetKey(["estate", "drill"])
CHECK: Final = dg.AssetCheckKey(KEY, "within_objectives")
INTERVAL_S: Final = 30
# The schedule is given this long to start a drill on time before the sensor steps in.
GRACE: Final = timedelta(minutes=2)
DUE_TAG: Final = "dr_assets/drill_due"
# The fact without which there is nothing to drill with yet.
FIRST: Final[dict[DatasetKind, str]] = {"postgres": "snapshot", "kafka": CAPTURE, "bucket": BUCKET_COPY}
ENGINES: Final[dict[DatasetKind, str]] = {"postgres": "postgres", "kafka": "kafka", "bucket": "s3"}


class DrillConfig(dg.Config):
    """Which datasets to drill; all of them when none is named."""

    datasets: list[str] = Field(default_factory=list)


def drill_asset(estate: Estate) -> dg.AssetsDefinition:
    """Drills each dataset in turn; recovery durations and recovery point ages are measured, never estimated."""
    labels = estate_labels(estate)
    resources = {resource_key(dataset.vault) for dataset in estate.datasets.values()}

    @dg.asset(
        key=KEY,
        description="A drill: the real recovery steps from the vault alone, timed against each dataset's RTO and RPO.",
        kinds={ENGINES[dataset.kind] for dataset in estate.datasets.values()} or {"postgres"},
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=shortest_overdue(estate)),
        deps=storing_keys(estate, but="roll_up"),
        check_specs=[
            dg.AssetCheckSpec(
                CHECK.name,
                asset=KEY,
                description="Each dataset's newest sealed drill met RTO and RPO, and none is overdue.",
            )
        ],
        pool=RESTORE_HOST,
        required_resource_keys=resources,
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )
    def drill(context: dg.AssetExecutionContext, config: DrillConfig) -> Iterator[Any]:
        drilled = config.datasets or list(estate.datasets)
        failed: DrError | None = None
        with shown_as_failure():
            vaults = {
                dataset.name: getattr(context.resources, resource_key(dataset.vault)).open_vault(signing=True)
                for dataset in estate.datasets.values()
            }
            for name in drilled:
                dataset = estate.datasets[name]
                try:
                    _drill(estate, dataset, getattr(context.resources, resource_key(dataset.vault)), vaults[name])
                except DrError as error:  # it is on record; the other datasets still have to be drilled
                    failed = failed or error
            newest = {name: latest_fact(vault, name, "drill") for name, vault in vaults.items()}
        verdict = judge_drills(estate, newest, datetime.now(UTC))
        yield check_result(CHECK, verdict)
        if failed is not None:
            raise failure_of(failed) from failed
        yield dg.MaterializeResult(asset_key=KEY, metadata=metadata_of(verdict.values))

    return drill


def _drill(estate: Estate, dataset: Dataset, resource: VaultResource, vault: Vault) -> None:
    # Brokers, their protocol and reconciliations take seconds to import, which only a drill should pay.
    from dr_assets.drills.drill import run_drill  # noqa: PLC0415 - see above
    from dr_assets.drills.restored_drill import drill_bucket, drill_topics  # noqa: PLC0415 - see above

    match dataset:
        case TopicsDataset():
            drill_topics(vault, dataset, eraser=resource.topic_eraser(dataset, vault))
        case BucketDataset():
            drill_bucket(vault, estate, dataset)
        case PostgresDataset():
            run_drill(vault, dataset, erasures=resource.erasures(dataset, vault))


def drill_schedules(estate: Estate, job: Any) -> list[dg.ScheduleDefinition]:
    """One schedule a dataset, by its `drill.cron` (UTC)."""
    return [_drill_schedule(dataset, job) for dataset in estate.datasets.values()]


def drill_due_sensor(estate: Estate, job: Any) -> dg.SensorDefinition:
    """Starts what is due and was not started: once for each due moment, and again daily while no drill is sealed."""
    resources = {resource_key(dataset.vault) for dataset in estate.datasets.values()}

    @dg.sensor(
        name="drill_due",
        job=job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a drill whose due moment passed without one, as the newest sealed drill shows.",
        required_resource_keys=resources,
    )
    def drill_due(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        requests = []
        for dataset in estate.datasets.values():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
            if latest_fact(vault, dataset.name, FIRST[dataset.kind]) is None:
                continue  # nothing to drill with yet
            now = vault.clock()
            due_at = due_since(dataset, latest_fact(vault, dataset.name, "drill"), now)
            if due_at is not None and now - due_at >= GRACE and not _started(context.instance, dataset, due_at, now):
                requests.append(drill_request(dataset, due_at, attempt=(now - due_at).days))
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("no drill is due")

    return drill_due


def due_since(dataset: Dataset, newest: Fact | None, now: datetime) -> datetime | None:
    """The moment a drill became due that has not been held since, or None. `newest` is the newest sealed drill."""
    fire = cadence.last_fire(dataset.drill.cron, now)
    return fire if newest is None or newest.at < fire else None


def drill_request(dataset: Dataset, due_at: datetime, *, attempt: int) -> dg.RunRequest:
    """A run for one dataset's due drill. Its tag tells schedule and sensor of each other's runs."""
    return dg.RunRequest(
        run_key=f"drill-{dataset.name}-{due_at:%Y%m%dT%H%M%S}-{attempt}",
        run_config=dg.RunConfig(ops={"estate__drill": DrillConfig(datasets=[dataset.name])}),
        tags={DUE_TAG: _due_text(dataset, due_at)},
    )


def shortest_overdue(estate: Estate) -> timedelta:
    """The window in which every dataset must have been drilled; a quarter when nothing is declared yet."""
    return min((dataset.drill.overdue_after for dataset in estate.datasets.values()), default=timedelta(days=92))


def _drill_schedule(dataset: Dataset, job: Any) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{dataset.name}_drill",
        job=job,
        cron_schedule=dataset.drill.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="The policy's drill.cron.",
    )
    def drill_on_time(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return drill_request(dataset, context.scheduled_execution_time, attempt=0)

    return drill_on_time


def _started(instance: dg.DagsterInstance, dataset: Dataset, due_at: datetime, now: datetime) -> bool:
    tags = {DUE_TAG: _due_text(dataset, due_at)}
    return bool(instance.get_run_records(dg.RunsFilter(tags=tags, created_after=now - timedelta(days=1)), limit=1))


def _due_text(dataset: Dataset, due_at: datetime) -> str:
    return f"{dataset.name}@{due_at:%Y%m%dT%H%M%S}"
