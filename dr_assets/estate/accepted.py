"""From accepted declarations to the policy: strings parsed, defaults filled in.

What belongs here: the one conversion. What stays out: judging (rules.py runs first and lets nothing unparsable by).
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypedDict

from dr_assets.estate.approvals import approval_rule_of
from dr_assets.estate.documents import Document
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.keeping import cold_of, own_regimes, retention_of, sampling_of
from dr_assets.estate.key_rules import providers_of, signer_of
from dr_assets.estate.log_policy import log_policy_of
from dr_assets.estate.model import (
    ROLES,
    TIERS,
    Alerts,
    Credentials,
    Dataset,
    Drill,
    Estate,
    Licence,
    Location,
    PostgresDataset,
    Regime,
    RestoreTest,
    Retention,
    Role,
    Sampling,
    Snapshot,
    Spool,
    Subjects,
    Tier,
    VaultPlace,
    ZeroLoss,
)
from dr_assets.estate.prove import prove_of
from dr_assets.estate.reconcile import reconcile_of
from dr_assets.estate.schema import (
    CaptureLossDeclaration,
    DatasetDeclaration,
    EstateDeclaration,
    LocationDeclaration,
    PostgresDeclaration,
    RolesDeclaration,
    SubjectsDeclaration,
)
from dr_assets.estate.sizes import parse_size
from dr_assets.estate.verification import verification_of


def slot_of(declared: PostgresDeclaration) -> str:
    """The replication slot, by default named after the dataset."""
    return declared.slot or f"dr_assets_{declared.dataset}"


def location_of(declared: LocationDeclaration) -> Location:
    """Where a source or a vault lies."""
    return Location(declared.provider, declared.region, declared.jurisdiction)


class Common(TypedDict):
    """What every dataset has (`estate.model.Dataset`), parsed."""

    name: str
    tier: Tier
    rpo: timedelta
    rto: timedelta
    retention: Retention
    location: Location
    vault: str
    replicas: tuple[str, ...]
    drill: Drill
    owners: tuple[str, ...]
    exception: str | None
    linger: timedelta
    source: Path
    line: int
    sampling: Sampling
    key_providers: tuple[str, ...] | None


def common_of(document: Document, declared: DatasetDeclaration, regimes: Mapping[str, Regime]) -> Common:
    """What is the same for every kind; objectives default to the tier's, the lock to the retention, the strictest."""
    tier = TIERS[declared.tier]
    return Common(
        name=declared.dataset,
        tier=tier,
        rpo=parse_duration(declared.rpo) if declared.rpo else tier.rpo,
        rto=parse_duration(declared.rto) if declared.rto else tier.rto,
        retention=retention_of(declared, regimes),
        location=location_of(declared.location),
        vault=declared.vault,
        replicas=tuple(declared.replicas),
        drill=Drill(declared.drill.cron, parse_duration(declared.drill.overdue_after)),
        owners=tuple(declared.owners),
        exception=declared.exception,
        linger=parse_duration(declared.linger),
        source=document.path,
        line=document.line("dataset"),
        sampling=sampling_of(declared),
        key_providers=tuple(declared.key_providers) if declared.key_providers else None,
    )


def _contract_of(document: Document, contract: str) -> str:
    """A packaged contract's name, or an absolute folder: wherever a run is started, it is the same one."""
    return str((document.path.parent / contract).resolve()) if "/" in contract else contract


def postgres_of(document: Document, declared: PostgresDeclaration, regimes: Mapping[str, Regime]) -> PostgresDataset:
    """One database's policy."""
    incremental = declared.snapshot.incremental_every
    return PostgresDataset(
        **common_of(document, declared, regimes),
        dsn_env=declared.dsn_env,
        slot=slot_of(declared),
        snapshot=Snapshot(
            parse_duration(declared.snapshot.every),
            parse_duration(incremental) if incremental else None,
            declared.snapshot.incrementals_max,
        ),
        restore_test=RestoreTest(
            declared.restore_test.cron,
            _contract_of(document, declared.restore_test.contract),
            declared.restore_test.level,
        ),
        zero_loss=_zero_loss_of(declared),
        spool=Spool(declared.spool.dir_env, parse_size(declared.spool.max)) if declared.spool else None,
        wal_volume_bytes=parse_size(declared.wal_volume) if declared.wal_volume else None,
        patroni_env=declared.patroni_env,
        cold=cold_of(declared),
        prove=None if declared.prove is None else prove_of(declared.prove),
        reconcile=None if declared.reconcile is None else reconcile_of(document, declared.reconcile),
    )


def _zero_loss_of(declared: PostgresDeclaration) -> ZeroLoss | None:
    if declared.durability != "zero_loss":
        return None
    loss = declared.on_capture_loss
    return ZeroLoss(parse_duration(loss.degrade_after) if isinstance(loss, CaptureLossDeclaration) else None)


def roles_of(declared: RolesDeclaration) -> dict[Role, Credentials]:
    """The identities that are declared, by role."""
    pairs = {role: getattr(declared, role) for role in ROLES}
    return {role: Credentials(pair.access_key_env, pair.secret_key_env) for role, pair in pairs.items() if pair}


def _subjects_of(declared: SubjectsDeclaration) -> Subjects:
    return Subjects(
        tuple(declared.vaults),
        declared.bucket,
        declared.id_key_env,
        parse_duration(declared.erasure_grace),
        declared.most_at_once,
        declared.most_a_day,
        declared.escrow_recipient,
        declared.relationships_env,
    )


def estate_of(declared: EstateDeclaration, datasets: list[Dataset]) -> Estate:
    """The whole policy."""
    places = [
        VaultPlace(
            name,
            location_of(vault.location),
            vault.bucket,
            vault.endpoint_env,
            vault.access_key_env,
            vault.secret_key_env,
            vault.s3_region,
            roles_of(vault.roles),
            vault.replication,
        )
        for name, vault in declared.vaults.items()
    ]
    return Estate(
        name=declared.estate,
        licence=Licence(declared.licence.authority, tuple(declared.licence.jurisdictions)),
        vaults={place.name: place for place in places},
        datasets={dataset.name: dataset for dataset in datasets},
        alerts=Alerts(declared.alerts.slack_webhook_env, declared.alerts.webhook_env),
        keys_dir_env=declared.keys.dir_env or "",
        trust_file_env=declared.keys.trust_file_env,
        signing_key_env=declared.keys.signing_key_env or "",
        regimes=own_regimes(declared),
        owners=tuple(declared.owners),
        subjects=_subjects_of(declared.subjects) if declared.subjects else None,
        rotate_every=parse_duration(declared.keys.rotate_every),
        log=log_policy_of(declared.log),
        providers=providers_of(declared.keys),
        signer=signer_of(declared.keys),
        approvals=approval_rule_of(declared.approvals),
        verification=verification_of(declared.verification),
    )
