"""`<dataset>/erasures`: what is due for people's keys is done every day, with the check that nobody erased comes back.

What belongs here: the asset, its job, schedule and check. What stays out: erasing (vault/erasure), which a host without
Dagster does by `dr-assets erasure daily`; the verdict (erasure_judgement.py).
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import dagster as dg

from dr_assets.components.erasure_judgement import bucket_replay, judge_erasures
from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judgements import Judgement
from dr_assets.components.labels import artefact_key, cadence_window, dataset_labels
from dr_assets.components.parts import Parts, job_of, schedule_of
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.cadence import longest_interval
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import BucketDataset, Estate
from dr_assets.proving.erasures import replays
from dr_assets.vault.erasure.daily import Daily, daily
from dr_assets.vault.erasure.standing import Replay, standing
from dr_assets.vault.subjects.connect import open_ring
from dr_assets.vault.vault import Vault

CRON: Final = "50 1 * * *"


def erasures_parts(estate: Estate, dataset: BucketDataset) -> Parts:
    """Asset, check, job and schedule; nothing for documents of nobody."""
    if dataset.subject.kind == "none":
        return Parts()
    name, key = f"{dataset.name}_erasures", artefact_key(dataset, "erasures")
    job = job_of(name, key, "Makes erasures final that are due, backs people's keys up, certifies, looks who is left.")
    told = "Daily: an erasure becomes final when its grace is over."
    return Parts([_asset(estate, dataset)], [_check(estate, dataset)], [job], [schedule_of(name, job, CRON, told)])


def erasures_key(dataset: BucketDataset) -> dg.AssetCheckKey:
    """The check `erasures_applied` on `<dataset>/erasures`."""
    return dg.AssetCheckKey(artefact_key(dataset, "erasures"), "erasures_applied")


def _asset(estate: Estate, dataset: BucketDataset) -> dg.AssetsDefinition:
    labels = dataset_labels(dataset)

    @dg.asset(
        key=artefact_key(dataset, "erasures"),
        deps=[artefact_key(dataset, "restore_test")],
        description="People's keys: erasures made final, backed up, certified; without a key nobody reads a document.",
        kinds={"s3"},
        freshness_policy=cadence_window(longest_interval(CRON)),
        required_resource_keys={resource_key(dataset.vault)},
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )
    def erasures(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        with shown_as_failure():
            ring = open_ring(estate, os.environ, patient=True)
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
            done = daily(ring, estate, _replays(estate, dataset, vault, {one.name: one for one in ring.vaults}))
            _require_done(done)
        return dg.MaterializeResult(metadata=_metadata(done))

    return erasures


def _check(estate: Estate, dataset: BucketDataset) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=artefact_key(dataset, "erasures"),
        name=erasures_key(dataset).name,
        description="No erasure is overdue, and the newest restore test has shown that nobody erased comes back.",
        required_resource_keys={resource_key(dataset.vault), resource_key(_deciding(estate, dataset))},
    )
    def erasures_applied(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with shown_as_failure():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
            deciding = getattr(context.resources, resource_key(_deciding(estate, dataset))).open_vault()
            verdict = judge_from_vault(estate, dataset, vault, deciding)
        return check_result(erasures_key(dataset), verdict)

    return erasures_applied


def _deciding(estate: Estate, dataset: BucketDataset) -> str:
    """The vault that holds what was decided about people: the first of the ring's, whichever holds their documents."""
    return dataset.vault if estate.subjects is None else estate.subjects.vaults[0]


def judge_from_vault(estate: Estate, dataset: BucketDataset, vault: Vault, deciding: Vault) -> Judgement:
    """The verdict from the facts: of erasures in the vault `deciding`, of restores in the dataset's own.

    Raises VaultError.
    """
    now = vault.clock()
    found = standing(deciding, estate.approvals, {dataset.name: bucket_replay(vault, dataset)}, now)
    return judge_erasures(dataset, found, now)


def _replays(
    estate: Estate, dataset: BucketDataset, vault: Vault, vaults: Mapping[str, Vault]
) -> dict[str, Replay | None]:
    """Of every dataset whose vault is among the ring's, and of this one: what a certificate tells of."""
    known = {**vaults, dataset.vault: vault}
    reached = {name: one for name, one in estate.datasets.items() if one.vault in known}
    others = replays(replace(estate, datasets=reached), known)
    return others | {dataset.name: bucket_replay(vault, dataset)}


def _require_done(done: Daily) -> None:
    """A step that failed fails the run; the others were done all the same."""
    if done.troubles:
        raise VaultError(
            "erasure.daily_troubles", "; ".join(done.troubles), "docs/erasure.md; run job `<dataset>_erasures` again"
        )


def _metadata(done: Daily) -> dict[str, dg.MetadataValue]:
    states = [one.state for one in done.standing]
    return metadata_of(
        {
            "people": done.ring.people,
            "people_backed_up": None if done.backed_up is None else done.backed_up.people,
            "erased_for_good": None if done.finished is None else len(done.finished.erased),
            "waiting": None if done.finished is None else len(done.finished.waiting),
            "certified": len(done.certified),
            **{f"erasures_{state}": states.count(state) for state in ("requested", "soft", "overdue", "final")},
        }
    )
