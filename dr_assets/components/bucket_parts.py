"""The assets, checks, jobs, schedules and sensors of one protected bucket.

What belongs here: making them part of the graph. What stays out: copying and restoring (stores/bucket, proving/), the
verdicts (point_judgements.py), what is judged without a run (bucket_judging.py).
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import dagster as dg

from dr_assets.components.bucket_erasures import erasures_parts
from dr_assets.components.bucket_judging import copy_check, judge_bucket, standing_of
from dr_assets.components.copy_due import copy_due_sensor
from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judging_sensor import judging_sensor
from dr_assets.components.labels import artefact_key, dataset_labels, rpo_window
from dr_assets.components.parts import Parts, job_of, schedule_of
from dr_assets.components.restore_sensor import restore_when_stale_sensor
from dr_assets.components.restore_test_asset import restore_test_parts
from dr_assets.components.stored_checks import stored_checks
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import BucketDataset, Estate
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.stores.bucket.copy import CopyResult, copy
from dr_assets.stores.bucket.site import open_site, open_source
from dr_assets.vault.vault import Vault

VERIFY_CRON: Final = "20 2 * * *"
# Below the work folder: what is known to be stored already. It only saves time, and is made anew where it is gone.
INDEX_FOLDER: Final = "dr_assets-buckets"


def bucket_parts(estate: Estate, dataset: BucketDataset) -> Parts:
    """Everything about this dataset."""
    name, key = dataset.name, artefact_key(dataset, "bucket_copy")
    tested = restore_test_parts(
        dataset,
        lambda _, vault: _prove(vault, estate, dataset),
        "The newest copy, restored into a throwaway bucket: every document's bytes compared, erasures applied.",
        {"s3"},
    )
    (test_job,) = tested.jobs
    of_bytes = dg.AssetSelection.checks(copy_check(dataset, "verified"), copy_check(dataset, "locked"))
    copying = job_of(
        f"{name}_bucket_copy",
        dg.AssetSelection.assets(key) - of_bytes,
        "Compares the bucket's listing with what is stored, and copies what is new.",
    )
    reading = job_of(f"{name}_bucket_verify", of_bytes, "Reads back everything that the vault holds of this bucket.")
    own = Parts(
        assets=[_copy_asset(estate, dataset)],
        checks=[stored_checks(dataset, key), _judged(dataset)],
        jobs=[copying, reading],
        schedules=[schedule_of(f"{name}_bucket_verify", reading, VERIFY_CRON, "Reads everything back, daily.")],
        sensors=[
            copy_due_sensor(dataset, copying),
            judging_sensor(dataset, lambda resource: judge_bucket(resource, dataset), copy_check(dataset, "rpo")),
            restore_when_stale_sensor(dataset, test_job, lambda vault, now: standing_of(vault, dataset, now)),
        ],
    )
    return own + tested + erasures_parts(estate, dataset)


def _prove(vault: Vault, estate: Estate, dataset: BucketDataset) -> None:
    # Throwaway stores and their certificates are nothing that every process of Dagster's should import.
    from dr_assets.proving.bucket_test import run_bucket_restore_test  # noqa: PLC0415 - see above

    run_bucket_restore_test(vault, estate, dataset)


def _copy_asset(estate: Estate, dataset: BucketDataset) -> dg.AssetsDefinition:
    labels = dataset_labels(dataset)

    @dg.asset(
        key=artefact_key(dataset, "bucket_copy"),
        description="Every version of every document, sealed under its person's key; what was interrupted goes on.",
        kinds={"s3"},
        freshness_policy=rpo_window(dataset),
        required_resource_keys={resource_key(dataset.vault)},
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )
    def bucket_copy(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        with shown_as_failure():
            # A whole inventory lengthens the locks of what it refers to: the roller's right.
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault(signing=True, role="roller")
            site = open_site(estate, dataset, vault, os.environ, work_folder(os.environ))
            result = copy(site, open_source(site, os.environ))
        return dg.MaterializeResult(metadata=_copy_metadata(result))

    return bucket_copy


def _copy_metadata(result: CopyResult) -> dict[str, dg.MetadataValue]:
    return metadata_of(
        {
            "kind": result.kind,
            "why_full": result.why_full,
            "listing_begin_at": result.listing_begin_at,
            "versions_listed": result.listed.versions,
            "versions_held": result.held.versions,
            "delete_markers": result.held.markers,
            "size_bytes": result.held.size_bytes,
            "stored_bytes": result.stored_bytes,
            "copied": result.counts.copied,
            "copied_bytes": result.counts.copied_bytes,
            "withheld": result.counts.withheld,
            "unread": result.counts.unread,
            "gone": result.gone,
            "parts": result.parts,
            "duration_s": result.duration_s,
            "manifest": result.manifest_key,
        }
    )


def work_folder(env: Mapping[str, str]) -> Path:
    """Where runs keep their index, so that each goes on where the one before ended; `dr-assets bucket copy` as well."""
    root = env.get(WORK_DIR_ENV)
    return Path(root) / INDEX_FOLDER if root else Path(tempfile.gettempdir()) / f"{INDEX_FOLDER}-{os.getuid()}"


def _judged(dataset: BucketDataset) -> dg.AssetChecksDefinition:
    """`rpo` and `complete`: what the sensor judges every few seconds and anyone may run by hand."""
    key = artefact_key(dataset, "bucket_copy")
    rpo, complete = copy_check(dataset, "rpo"), copy_check(dataset, "complete")

    @dg.multi_asset_check(
        name=f"{dataset.name}_copy_checks",
        specs=[
            dg.AssetCheckSpec(
                rpo.name,
                asset=key,
                description="Every document that was written before the RPO is in the vault, locked.",
            ),
            dg.AssetCheckSpec(
                complete.name,
                asset=key,
                description="The newest comparison saw the whole listing, and everything in it is stored.",
                blocking=True,
            ),
        ],
        required_resource_keys={resource_key(dataset.vault)},
    )
    def copy_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        judged = judge_bucket(getattr(context.resources, resource_key(dataset.vault)), dataset)
        yield from (check_result(each, judged[each]) for each in (rpo, complete))

    return copy_checks
