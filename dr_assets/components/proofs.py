"""The proofs of a dataset: what its newest sealed restore test and reconciliation say.

What belongs here: which checks they are and reading the facts behind them. What stays out: the verdicts
(judgements.py) and making the proofs (proving/).
"""

import dagster as dg

from dr_assets.components.judgements import Judgement, judge_money, judge_restorable
from dr_assets.components.labels import artefact_key
from dr_assets.estate.model import Dataset, PostgresDataset
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.vault import Vault


def restorable_key(dataset: Dataset) -> dg.AssetCheckKey:
    """The check `restorable` on `<dataset>/restore_test`."""
    return dg.AssetCheckKey(artefact_key(dataset, "restore_test"), "restorable")


def money_key(dataset: Dataset) -> dg.AssetCheckKey:
    """The check `money_adds_up` on `<dataset>/reconciliation`."""
    return dg.AssetCheckKey(artefact_key(dataset, "reconciliation"), "money_adds_up")


def proof_keys(dataset: Dataset) -> tuple[dg.AssetCheckKey, ...]:
    """Both, where there is money to add up; `restorable` alone for what holds none."""
    return (restorable_key(dataset), *((money_key(dataset),) if isinstance(dataset, PostgresDataset) else ()))


def proof_check_specs(dataset: Dataset) -> list[dg.AssetCheckSpec]:
    """Blocking: nothing further down may rest on a backup that was not restored or whose money does not add up."""
    said = {
        "restorable": "The newest sealed restore test passed, and is not older than its cadence allows.",
        "money_adds_up": "The newest sealed reconciliation found no break, and is not older than its cadence allows.",
    }
    return [
        dg.AssetCheckSpec(key.name, asset=key.asset_key, description=said[key.name], blocking=True)
        for key in proof_keys(dataset)
    ]


def judge_proofs(vault: Vault, dataset: Dataset) -> dict[dg.AssetCheckKey, Judgement]:
    """The verdicts, from the newest facts. Raises `VaultError` when the vault cannot be read or is tampered with."""
    now = vault.clock()
    judged = {restorable_key(dataset): judge_restorable(dataset, latest_fact(vault, dataset.name, "restore_test"), now)}
    if isinstance(dataset, PostgresDataset):
        judged[money_key(dataset)] = judge_money(dataset, latest_fact(vault, dataset.name, "reconciliation"), now)
    return judged
