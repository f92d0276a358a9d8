"""The `rpo` sensor of a dataset: judges every 5 s, from the vault, without launching a run.

What belongs here: reading the recovery point and the sealed proofs, and writing verdicts worth writing. What stays out:
the verdicts themselves (judgements.py).

A vault that cannot be read makes the verdicts red: an age that nobody can measure is no age to rely on.
"""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from dr_assets.components.evaluations import evaluation, worth_writing
from dr_assets.components.failover_judgements import judge_durability
from dr_assets.components.judgements import Judgement, judge_gap, judge_rpo, judge_unreadable
from dr_assets.components.labels import artefact_key
from dr_assets.components.proofs import judge_proofs, proof_keys
from dr_assets.components.vault_resource import VaultResource, resource_key
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.capture_facts import GAP
from dr_assets.stores.postgres.durability_facts import DURABILITY
from dr_assets.stores.postgres.followed import left_on_the_way
from dr_assets.stores.postgres.objective import stream_of
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.vault.facts import latest_fact

INTERVAL_S: Final = 5


def rpo_key(dataset: PostgresDataset) -> dg.AssetCheckKey:
    """The check `rpo` on `<dataset>/wal_chain`."""
    return dg.AssetCheckKey(artefact_key(dataset, "wal_chain"), "rpo")


def contiguous_key(dataset: PostgresDataset) -> dg.AssetCheckKey:
    """The check `contiguous` on `<dataset>/wal_chain`: judged in runs, and here as soon as WAL is known to be lost."""
    return dg.AssetCheckKey(artefact_key(dataset, "wal_chain"), "contiguous")


def durability_key(dataset: PostgresDataset) -> dg.AssetCheckKey:
    """The check `durability` on `<dataset>/wal_chain`, of a dataset that is declared zero loss."""
    return dg.AssetCheckKey(artefact_key(dataset, "wal_chain"), "durability")


def rpo_sensor(dataset: PostgresDataset) -> dg.SensorDefinition:
    """Judges `rpo`, and whether the newest proofs still stand; writes on change and once a minute."""

    @dg.sensor(
        name=f"{dataset.name}_rpo",
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Judges the recovery point's age and the newest proofs from the vault itself. Launches nothing.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def rpo(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        judged = judge_from_vault(getattr(context.resources, resource_key(dataset.vault)), dataset)
        due = worth_writing(context.instance, judged, datetime.now(UTC))
        reason = judged[rpo_key(dataset)].reason
        if not due:
            return dg.SkipReason(reason)
        return dg.SensorResult(skip_reason=reason, asset_events=[evaluation(*each) for each in due.items()])

    return rpo


def judge_from_vault(resource: VaultResource, dataset: PostgresDataset) -> dict[dg.AssetCheckKey, Judgement]:
    """The verdicts that need no run. What cannot be read is red, with the reason."""
    try:
        vault = resource.open_vault()
        point = stored_recovery_point(vault, dataset)
        base, now = latest_fact(vault, dataset.name, "snapshot"), vault.clock()
        left = {} if point is None else left_on_the_way(vault, dataset.name, stream_of(point), base)
        judged = {rpo_key(dataset): judge_rpo(dataset, point, base, left, now), **judge_proofs(vault, dataset)}
        if dataset.zero_loss is not None:
            said = latest_fact(vault, dataset.name, DURABILITY)
            judged[durability_key(dataset)] = judge_durability(said, dataset, point, now)
        lost = judge_gap(base, latest_fact(vault, dataset.name, GAP))
        return judged if lost is None else {**judged, contiguous_key(dataset): lost}
    except DrError as error:
        durability = () if dataset.zero_loss is None else (durability_key(dataset),)
        return dict.fromkeys((rpo_key(dataset), *durability, *proof_keys(dataset)), judge_unreadable(error))
