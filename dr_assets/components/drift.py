"""The check `ordinary` on `<dataset>/restore_test`: what a backup's statistics say, held to those before it.

What belongs here: the check's spec and its verdict. What stays out: gathering (proving/drift.py) and judging numbers
(observability/anomalies/). It warns and never blocks.
"""

from typing import Final

import dagster as dg

from dr_assets.components.judgements import Judgement, Value
from dr_assets.components.labels import artefact_key
from dr_assets.estate.model import PostgresDataset
from dr_assets.observability.anomalies.record import STATISTICS, Look, newest_look
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.vault import Vault

_SHOWN: Final = 5


def drift_key(dataset: PostgresDataset) -> dg.AssetCheckKey:
    """The check `ordinary` on `<dataset>/restore_test`."""
    return dg.AssetCheckKey(artefact_key(dataset, "restore_test"), "ordinary")


def drift_check_spec(dataset: PostgresDataset) -> dg.AssetCheckSpec:
    """Not blocking: a suspicion is for people to look at."""
    key = drift_key(dataset)
    said = "Nothing in the restored data's statistics is far from what the backups before it let expect."
    return dg.AssetCheckSpec(key.name, asset=key.asset_key, description=said, blocking=False)


def judge_drift(vault: Vault, dataset: PostgresDataset) -> Judgement:
    """From the newest look on record. Raises `VaultError` when the vault can't be read."""
    failed = latest_fact(vault, dataset.name, f"{STATISTICS}_failed")
    return judge_look(newest_look(vault, dataset.name), failed)


def judge_look(found: Look | None, failed: Fact | None) -> Judgement:
    """Amber for suspicions that nobody accepted, and where the last try to look failed."""
    if failed is not None and (found is None or found.fact is None or failed.at > found.fact.at):
        return Judgement(
            passed=False, reason=f"statistics could not be gathered: {failed.body.get('why')}", is_warning=True
        )
    if found is None:
        return Judgement(passed=True, reason="no restore test has gathered statistics yet")
    values: dict[str, Value] = {
        "looked_at": found.at,
        "backups_before": found.backups,
        "suspicions": len(found.suspicions),
    }
    values |= {f"suspicion_{number}": one.why for number, one in enumerate(found.suspicions[:_SHOWN], 1)}
    if found.suspicions:
        more = f" and {len(found.suspicions) - 1} more" if len(found.suspicions) > 1 else ""
        return Judgement(passed=False, reason=f"{found.suspicions[0].why}{more}", values=values, is_warning=True)
    return Judgement(passed=True, reason=f"nothing strange, held to {found.backups} backups before", values=values)
