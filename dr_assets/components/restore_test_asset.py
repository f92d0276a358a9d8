"""`<dataset>/restore_test` of a dataset without money: one restore from the vault alone proves it.

What belongs here: the asset with its check, its job and its schedule, the same for topics and buckets. What stays out:
the restore test itself (proving/), which each kind hands in; a database's, which reconciles too (postgres_assets.py).
"""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import failure_of, shown_as_failure
from dr_assets.components.labels import RESTORE_HOST, STORING, artefact_key, cadence_window, dataset_labels
from dr_assets.components.parts import Parts, job_of, restore_test_schedule
from dr_assets.components.proofs import judge_proofs, proof_check_specs
from dr_assets.components.vault_resource import VaultResource, resource_key
from dr_assets.estate import cadence
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import Dataset
from dr_assets.vault.vault import Vault


def restore_test_parts(
    dataset: Dataset, prove: Callable[[VaultResource, Vault], object], description: str, kinds: set[str]
) -> Parts:
    """Asset, job and schedule. `prove` restores, compares and seals the fact `restore_test`, also when it fails."""
    key, labels = artefact_key(dataset, "restore_test"), dataset_labels(dataset)

    @dg.multi_asset(
        name=f"{dataset.name}_restore_test_step",
        specs=[
            dg.AssetSpec(
                key,
                deps=[artefact_key(dataset, artefact) for artefact in STORING[dataset.kind]],
                description=description,
                kinds=kinds,
                freshness_policy=cadence_window(cadence.longest_interval(dataset.restore_test.cron)),
                owners=labels.owners,
                group_name=labels.group,
                tags=labels.tags,
            )
        ],
        check_specs=proof_check_specs(dataset),
        pool=RESTORE_HOST,
        required_resource_keys={resource_key(dataset.vault)},
    )
    def restore_test(context: dg.AssetExecutionContext) -> Iterator[Any]:
        failed: DrError | None = None
        with shown_as_failure():
            resource = getattr(context.resources, resource_key(dataset.vault))
            vault = resource.open_vault(signing=True)
            try:
                prove(resource, vault)
            except DrError as error:  # it is on record in the vault, and so the check can be judged
                failed = error
            judged = judge_proofs(vault, dataset)
        yield from (check_result(each, verdict) for each, verdict in judged.items())
        if failed is not None:
            raise failure_of(failed) from failed
        for each, verdict in judged.items():
            yield dg.MaterializeResult(asset_key=each.asset_key, metadata=metadata_of(verdict.values))

    told = "Restores the newest recovery point into a throwaway place and compares it with what is stored."
    job = job_of(f"{dataset.name}_restore_test", key, told)
    return Parts(assets=[restore_test], jobs=[job], schedules=[restore_test_schedule(dataset, job)])
