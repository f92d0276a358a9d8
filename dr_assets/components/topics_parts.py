"""The assets, checks, jobs, schedules and sensors of one dataset of topics.

What belongs here: making them part of the graph. What stays out: judging (topics_judging.py, point_judgements.py), the
restore test (proving/), capturing, which is a resident process's (`dr-assets capture`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg

from dr_assets.components.evaluations import check_result, evaluation, worth_writing
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judging_sensor import judging_sensor
from dr_assets.components.labels import artefact_key, dataset_labels, rpo_window
from dr_assets.components.parts import UNFINISHED, Parts, job_of, schedule_of
from dr_assets.components.restore_sensor import restore_when_stale_sensor
from dr_assets.components.restore_test_asset import restore_test_parts
from dr_assets.components.stored_checks import stored_checks
from dr_assets.components.topics_judging import export_check, judge_export, judge_topics, restore_needed, standing_of
from dr_assets.components.vault_resource import VaultResource, resource_key
from dr_assets.estate.model import TopicsDataset
from dr_assets.vault.vault import Vault

LINEAGE_S: Final = 15
# A restore test that fails at once must not be started four times a minute.
AGAIN_AFTER: Final = timedelta(minutes=30)
TAG: Final = "dr_assets/restore_test_for"
VERIFY_CRON: Final = "10 2 * * *"
EXPORT_CRON: Final = "17 * * * *"


def topics_parts(dataset: TopicsDataset) -> Parts:
    """Everything about this dataset."""
    tested = restore_test_parts(
        dataset,
        lambda resource, vault: _prove(resource, vault, dataset),
        "The newest export, restored into a throwaway broker: every record, offset, header and group compared.",
        {"kafka"},
    )
    (test_job,) = tested.jobs
    name, export = dataset.name, artefact_key(dataset, "kafka_export")
    read_back = stored_checks(dataset, export)
    of_export = dg.AssetSelection.checks(
        export_check(dataset, "contiguous"), export_check(dataset, "groups_restorable")
    )
    of_bytes = dg.AssetSelection.checks(export_check(dataset, "verified"), export_check(dataset, "locked"))
    jobs = [
        job_of(f"{name}_kafka_export", of_export, "Looks for holes in the export, and where the groups stand in it."),
        job_of(f"{name}_kafka_verify", of_bytes, "Reads back everything that the vault holds of these topics."),
    ]
    own = Parts(
        assets=[export_spec(dataset)],
        checks=[read_back, _rpo(dataset), _topics_kept(dataset), _export_checks(dataset)],
        jobs=jobs,
        schedules=[
            schedule_of(f"{name}_kafka_export", jobs[0], EXPORT_CRON, "Looks for holes in the export, hourly."),
            schedule_of(f"{name}_kafka_verify", jobs[1], VERIFY_CRON, "Reads everything back, daily."),
        ],
        sensors=[
            judging_sensor(dataset, lambda resource: judge_topics(resource, dataset), export_check(dataset, "rpo")),
            restore_when_stale_sensor(dataset, test_job, lambda vault, now: standing_of(vault, dataset, now)),
            lineage_sensor(dataset, test_job),
        ],
    )
    return own + tested


def _prove(resource: VaultResource, vault: Vault, dataset: TopicsDataset) -> None:
    # Kafka's protocol takes a second to import, which no other process of Dagster's should pay.
    from dr_assets.proving.kafka_test import run_kafka_restore_test  # noqa: PLC0415 - see above

    run_kafka_restore_test(vault, dataset, eraser=resource.topic_eraser(dataset, vault))


def export_spec(dataset: TopicsDataset) -> dg.AssetSpec:
    """`<dataset>/kafka_export`: what the resident capture fetches into the vault, and reports here."""
    labels = dataset_labels(dataset)
    return dg.AssetSpec(
        key=artefact_key(dataset, "kafka_export"),
        description="Topics as raw record batches, streamed into the vault by `dr-assets capture`, which reports here.",
        kinds={"kafka", "s3"},
        freshness_policy=rpo_window(dataset),
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )


def _rpo(dataset: TopicsDataset) -> dg.AssetChecksDefinition:
    text = "Every record that the brokers had acknowledged before the RPO is in the vault, locked."
    return _judged(dataset, "rpo", text)


def _topics_kept(dataset: TopicsDataset) -> dg.AssetChecksDefinition:
    text = "No topic was deleted, or deleted and made again, without a person having settled it."
    return _judged(dataset, "topics_kept", text)


def _judged(dataset: TopicsDataset, name: str, description: str) -> dg.AssetChecksDefinition:
    """A check that the sensor judges every few seconds and anyone may run by hand."""

    @dg.asset_check(
        asset=artefact_key(dataset, "kafka_export"),
        name=name,
        description=description,
        required_resource_keys={resource_key(dataset.vault)},
    )
    def judged(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        key = export_check(dataset, name)
        return check_result(key, judge_topics(getattr(context.resources, resource_key(dataset.vault)), dataset)[key])

    return judged


def _export_checks(dataset: TopicsDataset) -> dg.AssetChecksDefinition:
    key = artefact_key(dataset, "kafka_export")
    contiguous, groups = export_check(dataset, "contiguous"), export_check(dataset, "groups_restorable")

    @dg.multi_asset_check(
        name=f"{dataset.name}_export_checks",
        specs=[
            dg.AssetCheckSpec(
                contiguous.name,
                asset=key,
                description="No offset is missing from the export: not by a hole in it, and not by the retention.",
                blocking=True,
            ),
            dg.AssetCheckSpec(
                groups.name,
                asset=key,
                description="Every consumer group's offset leads to a stored record: restored, no group skips any.",
            ),
        ],
        required_resource_keys={resource_key(dataset.vault)},
    )
    def export_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with shown_as_failure():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
            judged = judge_export(vault, dataset)
        yield from (check_result(each, verdict) for each, verdict in judged.items())

    return export_checks


def lineage_sensor(dataset: TopicsDataset, job: Any) -> dg.SensorDefinition:
    """Judges `topics_kept`, and starts a restore test when another cluster is captured than the newest one was of."""

    @dg.sensor(
        name=f"{dataset.name}_lineage",
        job=job,
        minimum_interval_seconds=LINEAGE_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="After topics were made again or the cluster became another: judges it, proves a restore at once.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def lineage(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        resource: VaultResource = getattr(context.resources, resource_key(dataset.vault))
        now, key = datetime.now(UTC), export_check(dataset, "topics_kept")
        due = worth_writing(context.instance, {key: judge_topics(resource, dataset)[key]}, now)
        needed = restore_needed(resource.open_vault(), dataset)
        request = None if needed is None else _request(context.instance, dataset, needed[0], now)
        told = "the newest restore test is of the cluster that is captured" if needed is None else needed[1]
        return dg.SensorResult(
            run_requests=[request] if request else [],
            skip_reason=None if request else told,
            asset_events=[evaluation(*each) for each in due.items()],
        )

    return lineage


def _request(
    instance: dg.DagsterInstance, dataset: TopicsDataset, system_id: str, now: datetime
) -> dg.RunRequest | None:
    """One restore test at a time, and half an hour between attempts for the same cluster."""
    running = dg.RunsFilter(job_name=f"{dataset.name}_restore_test", statuses=UNFINISHED)
    tags = {TAG: system_id}
    recent = dg.RunsFilter(tags=tags, created_after=now - AGAIN_AFTER)
    if instance.get_run_records(running, limit=1) or instance.get_run_records(recent, limit=1):
        return None
    return dg.RunRequest(run_key=f"restore-{system_id}-{now:%Y%m%dT%H%M%S}", tags=tags)
