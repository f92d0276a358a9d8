"""The assets of one Postgres dataset: `snapshot`, `wal_chain`, `restore_test`, `reconciliation`.

What belongs here: asset bodies that plan, act and record. What stays out: the work itself (stores/, proving/), the
verdicts (judgements.py) and when things run (postgres_jobs.py and the sensors).
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import dagster as dg

from dr_assets.components.drift import drift_check_spec, drift_key, judge_drift
from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import failure_of, shown_as_failure
from dr_assets.components.labels import (
    RESTORE_HOST,
    SNAPSHOT_KIND_TAG,
    artefact_key,
    cadence_window,
    dataset_labels,
    rpo_window,
)
from dr_assets.components.proofs import judge_proofs, proof_check_specs
from dr_assets.components.reconciled import area_check_specs, judge_areas, reconciled_metadata
from dr_assets.components.vault_resource import read_env, resource_key
from dr_assets.estate import cadence
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.snapshot import SnapshotProgress, SnapshotResult, take_snapshot
from dr_assets.stores.postgres.target import Target

PROGRESS_EVERY_S: Final = 30.0


def snapshot_asset(dataset: PostgresDataset) -> dg.AssetsDefinition:
    """`<dataset>/snapshot`: a base backup in the vault."""
    labels = dataset_labels(dataset)

    @dg.asset(
        key=artefact_key(dataset, "snapshot"),
        description="A base backup, streamed into encrypted, locked parts; its manifest is sealed last.",
        kinds={"postgres", "s3"},
        freshness_policy=cadence_window(dataset.snapshot.every),
        required_resource_keys={resource_key(dataset.vault)},
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )
    def snapshot(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        with shown_as_failure():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault(
                signing=True,
                role="roller",  # an incremental extends the locks of what it builds on
            )
            result = take_snapshot(
                vault,
                dataset,
                read_env(dataset.dsn_env),
                # Whoever materializes by hand gets a full; the schedule says when an incremental is due.
                incremental=context.run.tags.get(SNAPSHOT_KIND_TAG) == "incremental",
                full_if_refused=True,
                progress=_told_seldom(context.log),
            )
        return dg.MaterializeResult(metadata=_snapshot_metadata(result))

    return snapshot


def wal_chain_spec(dataset: PostgresDataset) -> dg.AssetSpec:
    """`<dataset>/wal_chain`: what the resident capture streams into the vault, and reports here."""
    labels = dataset_labels(dataset)
    return dg.AssetSpec(
        key=artefact_key(dataset, "wal_chain"),
        description="The write-ahead log, streamed into the vault by `dr-assets capture`, which reports it here.",
        kinds={"postgres", "s3"},
        freshness_policy=rpo_window(dataset),
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )


def restore_test_assets(dataset: PostgresDataset) -> dg.AssetsDefinition:
    """`<dataset>/restore_test` and `<dataset>/reconciliation`: one restore into a sandbox proves both.

    One step, because the reconciliation reads the sandbox that the restore made and that is destroyed after it.
    """
    window = cadence_window(cadence.longest_interval(dataset.restore_test.cron))
    labels = dataset_labels(dataset)
    restored, reconciled = artefact_key(dataset, "restore_test"), artefact_key(dataset, "reconciliation")
    upstream = [artefact_key(dataset, "snapshot"), artefact_key(dataset, "wal_chain")]

    @dg.multi_asset(
        name=f"{dataset.name}_restore_and_reconcile",
        specs=[
            dg.AssetSpec(
                restored,
                deps=upstream,
                description="A restore from the vault alone into a throwaway server, verified and timed.",
                kinds={"postgres"},
                freshness_policy=window,
                owners=labels.owners,
                group_name=labels.group,
                tags=labels.tags,
            ),
            dg.AssetSpec(
                reconciled,
                deps=[restored],
                description="The restored money, added up: transfers balance, balances are their postings' sum.",
                kinds={"duckdb"},
                freshness_policy=window,
                owners=labels.owners,
                group_name=labels.group,
                tags=labels.tags,
            ),
        ],
        check_specs=[*proof_check_specs(dataset), *area_check_specs(dataset), drift_check_spec(dataset)],
        pool=RESTORE_HOST,
        required_resource_keys={resource_key(dataset.vault)},
    )
    def restore_test(context: dg.AssetExecutionContext) -> Iterator[Any]:
        # What adds up the money takes two seconds to import, which no other process of Dagster's should pay.
        from dr_assets.proving.restore_test import run_restore_test  # noqa: PLC0415 - see above

        failed: DrError | None = None
        with shown_as_failure():
            resource = getattr(context.resources, resource_key(dataset.vault))
            vault = resource.open_vault(signing=True)
            try:
                run_restore_test(vault, dataset, Target("latest"), erasures=resource.erasures(dataset, vault))
            except DrError as error:  # it is on record in the vault, and so the checks can be judged
                failed = error
            judged = judge_proofs(vault, dataset)
            areas = judge_areas(vault, dataset)
            tables = {reconciled: reconciled_metadata(vault, dataset)}
            ordinary = judge_drift(vault, dataset)
        yield from (check_result(key, verdict) for key, verdict in (judged | areas).items())
        yield check_result(drift_key(dataset), ordinary)
        if failed is not None:
            raise failure_of(failed) from failed
        for key, verdict in judged.items():
            shown = metadata_of(verdict.values) | tables.get(key.asset_key, {})
            yield dg.MaterializeResult(asset_key=key.asset_key, metadata=shown)

    return restore_test


def _told_seldom(log: logging.Logger) -> Callable[[SnapshotProgress], None]:
    """Progress as log lines, one in half a minute: they end up in the event log, which keeps everything."""
    told_s = 0.0

    def progress(made: SnapshotProgress) -> None:
        nonlocal told_s
        if made.elapsed_s - told_s >= PROGRESS_EVERY_S:
            told_s = made.elapsed_s
            log.info("%d bytes received, %d stored, %.0f s", made.received_bytes, made.stored_bytes, made.elapsed_s)

    return progress


def _snapshot_metadata(result: SnapshotResult) -> dict[str, dg.MetadataValue]:
    return metadata_of(
        {
            "kind": result.kind,
            **({"depth": result.depth, "builds_on": result.parent_snapshot_id} if result.depth else {}),
            **({"why_full": result.why_full} if result.why_full else {}),
            "size_bytes": result.size_bytes,
            "stored_bytes": result.stored_bytes,
            "duration_s": result.duration_s,
            "throughput_mb_s": result.mb_s,
            "parts": result.parts,
            "start_lsn": format_lsn(result.start_lsn),
            "stop_lsn": format_lsn(result.stop_lsn),
            "timeline": result.timeline,
            "locked_until": result.lock.retain_until,
            "lock_mode": result.lock.mode,
            "manifest": result.manifest_key,
        }
    )
