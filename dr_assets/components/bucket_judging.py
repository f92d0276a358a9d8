"""What is judged of a bucket without a run: recovery point, completeness, proofs.

What belongs here: reading the vault, and the keys of the checks. What stays out: the verdicts (point_judgements.py),
writing them (judging_sensor.py).
"""

from datetime import datetime

import dagster as dg

from dr_assets.components.judgements import Judgement, judge_unreadable
from dr_assets.components.labels import artefact_key
from dr_assets.components.point_judgements import copy_values, judge_complete, judge_point
from dr_assets.components.proofs import judge_proofs, proof_keys
from dr_assets.components.restore_sensor import Standing
from dr_assets.components.vault_resource import VaultResource
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import BucketDataset
from dr_assets.stores.bucket.position import recovery_point
from dr_assets.stores.objective import age_text, age_trouble
from dr_assets.vault.vault import Vault


def copy_check(dataset: BucketDataset, name: str) -> dg.AssetCheckKey:
    """A check on `<dataset>/bucket_copy`: `rpo`, `complete`, `verified`, `locked`."""
    return dg.AssetCheckKey(artefact_key(dataset, "bucket_copy"), name)


def judge_bucket(resource: VaultResource, dataset: BucketDataset) -> dict[dg.AssetCheckKey, Judgement]:
    """The verdicts that need no run. What cannot be read is red, with the reason."""
    rpo, complete = copy_check(dataset, "rpo"), copy_check(dataset, "complete")
    try:
        vault = resource.open_vault()
        point, now = recovery_point(vault, dataset.name), vault.clock()
        return {
            rpo: judge_point(dataset, point, now, {} if point is None else copy_values(point.fact)),
            complete: judge_complete(dataset, None if point is None else point.fact, now),
            **judge_proofs(vault, dataset),
        }
    except DrError as error:
        return dict.fromkeys((rpo, complete, *proof_keys(dataset)), judge_unreadable(error))


def standing_of(vault: Vault, dataset: BucketDataset, now: datetime) -> Standing | None:
    """For `restore_when_stale`."""
    point = recovery_point(vault, dataset.name)
    if point is None or point.at is None:
        return None
    return Standing(point.at, age_trouble(dataset, point, now), age_text(now, point.at))
