"""The checks `verified` and `locked`: everything that a vault holds of one dataset, whatever its kind, read back.

What belongs here: one reading for both. What stays out: reading (vault/verify), the verdicts (judgements.py).
"""

from collections.abc import Iterator

import dagster as dg

from dr_assets.components.evaluations import check_result
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judgements import judge_locked, judge_verified
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import Dataset
from dr_assets.vault.verify import verify


def stored_checks(dataset: Dataset, key: dg.AssetKey) -> dg.AssetChecksDefinition:
    """`verified` and `locked` on the asset `key`: one reading of every object of the dataset answers both."""
    verified, locked = dg.AssetCheckKey(key, "verified"), dg.AssetCheckKey(key, "locked")

    @dg.multi_asset_check(
        name=f"{dataset.name}_vault_verify",
        specs=[
            dg.AssetCheckSpec(
                "verified",
                asset=key,
                description="Every object of the dataset was read back: signatures, digests, decryption, no hole.",
                blocking=True,
            ),
            dg.AssetCheckSpec(
                "locked",
                asset=key,
                description="Every object's lock, mode and retain-until, was read back and is long enough.",
                blocking=True,
            ),
        ],
        required_resource_keys={resource_key(dataset.vault)},
    )
    def vault_verify(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with shown_as_failure():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
            report = verify(vault, dataset.name)
        yield check_result(verified, judge_verified(report))
        yield check_result(locked, judge_locked(report))

    return vault_verify
