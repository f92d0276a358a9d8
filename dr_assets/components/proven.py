"""`<dataset>/proven`: what the resident prover has replayed and reconciled, as Dagster sees it.

What belongs here: the asset, its checks `replayed` and `reconciled`, their verdicts. What stays out: reporting from the
prover (proven_reporting.py), the rules (proving/prover/judged.py).
"""

from datetime import datetime
from typing import Final

import dagster as dg

from dr_assets.components.evaluations import check_result
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judgements import Judgement, Value, judge_unreadable
from dr_assets.components.labels import artefact_key, dataset_labels, rpo_window
from dr_assets.components.parts import Parts
from dr_assets.components.vault_resource import VaultResource, resource_key
from dr_assets.estate.durations import format_duration
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import PostgresDataset
from dr_assets.proving.prover.judged import reconciled_trouble, reconciled_window, replayed_trouble
from dr_assets.proving.prover.points import Point, Proven, latest_proven
from dr_assets.stores.postgres.lsn import format_lsn

CHECKS: Final = ("replayed", "reconciled")
_DESCRIPTIONS: Final = {
    "replayed": "The newest commit that a restore from the vault alone has replayed is younger than the RPO.",
    "reconciled": "The newest commit at which the restored money added up is as young as the schedule says.",
}
Judged = dict[dg.AssetCheckKey, Judgement]


def proven_parts(dataset: PostgresDataset) -> Parts:
    """The asset and its checks, of a dataset that declares `prove:`; nothing otherwise."""
    if dataset.prove is None:
        return Parts()
    return Parts(assets=[_spec(dataset)], checks=[_check(dataset, name) for name in CHECKS])


def proven_keys(dataset: PostgresDataset) -> dict[str, dg.AssetCheckKey]:
    """The checks by name."""
    return {name: dg.AssetCheckKey(artefact_key(dataset, "proven"), name) for name in CHECKS}


def judge_proven(dataset: PostgresDataset, proven: Proven | None, now: datetime) -> Judged:
    """Both verdicts on what a prover published, or sealed, last."""
    replayed, reconciled = replayed_trouble(dataset, proven, now), reconciled_trouble(dataset, proven, now)
    keys, values = proven_keys(dataset), {} if proven is None else proven_values(proven)
    fine = {
        "replayed": f"replayed within the RPO of {format_duration(dataset.rpo)}",
        "reconciled": f"the money adds up; {format_duration(reconciled_window(dataset))} may pass until it does again",
    }
    return {
        keys[name]: Judgement(trouble is None, trouble or fine[name], values)
        for name, trouble in (("replayed", replayed), ("reconciled", reconciled))
    }


def proven_from_vault(dataset: PostgresDataset, resource: VaultResource) -> Judged:
    """What the sensor judges: whether the prover lives, by its own sealed words. Nothing where none is declared."""
    if dataset.prove is None:
        return {}
    try:
        vault = resource.open_vault()
        return judge_proven(dataset, latest_proven(vault, dataset.name), vault.clock())
    except DrError as error:
        return dict.fromkeys(proven_keys(dataset).values(), judge_unreadable(error))


def proven_values(proven: Proven) -> dict[str, Value]:
    """What people look at."""
    books, deep, trouble = proven.books, proven.deep, proven.trouble
    return {
        "state": proven.state,
        **_point_values("replayed", proven.replayed, proven.now),
        **_point_values("reconciled", proven.reconciled, proven.now),
        "published_at": proven.now,
        "reconciliation": None if books is None else books.reason,
        "reconciliation_duration_s": None if books is None else round(books.duration_s, 3),
        "deep_pass": None if deep is None else deep.reason,
        "deep_pass_at": None if deep is None else deep.end_at,
        "deep_pass_duration_s": None if deep is None else round(deep.duration_s, 3),
        "restarted_at": proven.restarted_at,
        "base_backup": proven.base_key or None,
        "failures": proven.failures,
        "disk_bytes": proven.size_bytes,
        "trouble": None if trouble is None else f"{trouble.code}: {trouble.found}",
    }


def _point_values(name: str, point: Point | None, now: datetime) -> dict[str, Value]:
    if point is None:
        return {}
    age_s = point.age_s(now)
    return {
        f"{name}_lsn": format_lsn(point.lsn),
        f"{name}_at": point.at,
        f"{name}_age_s": None if age_s is None else round(age_s, 3),
    }


def _spec(dataset: PostgresDataset) -> dg.AssetSpec:
    labels = dataset_labels(dataset)
    return dg.AssetSpec(
        key=artefact_key(dataset, "proven"),
        deps=[artefact_key(dataset, "snapshot"), artefact_key(dataset, "wal_chain")],
        description="The newest commit that was restored, replayed and reconciled, by `dr-assets prove`, all the time.",
        kinds={"postgres", "duckdb"},
        freshness_policy=rpo_window(dataset),
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )


def _check(dataset: PostgresDataset, name: str) -> dg.AssetChecksDefinition:
    key = proven_keys(dataset)[name]

    @dg.asset_check(
        asset=key.asset_key,
        name=name,
        description=_DESCRIPTIONS[name],
        required_resource_keys={resource_key(dataset.vault)},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with shown_as_failure():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
            verdicts = judge_proven(dataset, latest_proven(vault, dataset.name), vault.clock())
        return check_result(key, verdicts[key])

    return check
