"""What the `rpo` sensor of a database judges every 5 s, from the vault, without launching a run.

What belongs here: reading the recovery point and the sealed proofs. What stays out: the verdicts themselves
(judgements.py), writing them (judging_sensor.py).

A vault that cannot be read makes the verdicts red: an age that nobody can measure is no age to rely on.
"""

from datetime import datetime

import dagster as dg

from dr_assets.components.failover_judgements import judge_durability
from dr_assets.components.judgements import Judgement, judge_gap, judge_rpo, judge_unreadable
from dr_assets.components.judging_sensor import judging_sensor
from dr_assets.components.labels import artefact_key
from dr_assets.components.proofs import judge_proofs, proof_keys
from dr_assets.components.proven import proven_from_vault
from dr_assets.components.restore_sensor import Standing
from dr_assets.components.vault_resource import VaultResource
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.objective import age_text, age_trouble
from dr_assets.stores.postgres.capture_facts import GAP
from dr_assets.stores.postgres.durability_facts import DURABILITY
from dr_assets.stores.postgres.followed import left_on_the_way
from dr_assets.stores.postgres.objective import stream_of
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.vault import Vault


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
    return judging_sensor(
        dataset,
        lambda resource: {**judge_from_vault(resource, dataset), **proven_from_vault(dataset, resource)},
        rpo_key(dataset),
    )


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


def standing_of(vault: Vault, dataset: PostgresDataset, now: datetime) -> Standing | None:
    """For `restore_when_stale`: a chain without a base backup is red, and not for a restore to mend."""
    point = stored_recovery_point(vault, dataset)
    if point is None or point.at is None or latest_fact(vault, dataset.name, "snapshot") is None:
        return None
    return Standing(point.at, age_trouble(dataset, point, now), age_text(now, point.at))
