"""The refusals: what a declaration may not ask for, each with file, line and reason (docs/policy.md lists them).

What belongs here: rules over declarations that were read, and making the accepted policy from them. What stays out:
reading files (declarations.py) and the shape of single fields (schema.py). Nothing here looks at the clock or the
environment: the same declarations get the same verdict everywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from dr_assets.estate import cadence
from dr_assets.estate.accepted import estate_of, location_of, postgres_of, slot_of
from dr_assets.estate.approvals import approval_rules
from dr_assets.estate.bucket import bucket_of, bucket_places, bucket_rules
from dr_assets.estate.documents import Document, Place
from dr_assets.estate.durations import format_duration, parse_duration
from dr_assets.estate.findings import Finding
from dr_assets.estate.keeping import dataset_keeping, declared_regimes, estate_keeping
from dr_assets.estate.key_life import life_of_keys
from dr_assets.estate.key_rules import chosen_findings, key_findings
from dr_assets.estate.log_policy import log_rules
from dr_assets.estate.model import TIERS, Dataset, Estate, Regime
from dr_assets.estate.reconcile import reconcile_findings
from dr_assets.estate.regimes import shipped_regimes
from dr_assets.estate.schema import (
    BUCKET_TYPE,
    ESTATE_TYPE,
    POSTGRES_TYPE,
    TOPICS_TYPE,
    DatasetDeclaration,
    EstateDeclaration,
    LocationDeclaration,
    PostgresDeclaration,
)
from dr_assets.estate.schema_bucket import BucketDeclaration
from dr_assets.estate.schema_topics import TopicsDeclaration
from dr_assets.estate.shape import literal_transport, validate
from dr_assets.estate.topics import topics_of, topics_rules
from dr_assets.estate.verification import verification_rules

QUARTER: Final = timedelta(days=92)
LONGEST_LINGER: Final = timedelta(milliseconds=500)
# `estate/...` and `vault/...` are the asset keys of what belongs to no single dataset; below `vault`, `log` and
# `subjects` lie the vault's own objects.
RESERVED_NAMES: Final = frozenset({"estate", "vault", "log", "subjects"})
# A dataset's kind by the type of its component.
DATASET_TYPES: Final[dict[str, type[DatasetDeclaration]]] = {
    POSTGRES_TYPE: PostgresDeclaration,
    TOPICS_TYPE: TopicsDeclaration,
    BUCKET_TYPE: BucketDeclaration,
}


def judge(defs_dir: Path, documents: list[Document]) -> tuple[Estate | None, list[Finding]]:
    """Judge a folder's declarations together: the policy, if there are no findings, and the findings."""
    findings: list[Finding] = []
    heads = [(doc, validate(EstateDeclaration, doc, findings)) for doc in documents if doc.type == ESTATE_TYPE]
    rows = [(doc, validate(DATASET_TYPES[doc.type], doc, findings)) for doc in documents if doc.type in DATASET_TYPES]
    findings += [finding for document in documents for finding in literal_transport(document)]
    findings += _one_estate(defs_dir, [document for document, _ in heads])
    estates = [(document, declared) for document, declared in heads if declared is not None]
    findings += [finding for document, declared in estates for finding in _estate_rules(document, declared)]
    findings += [finding for document, declared in estates for finding in key_findings(document, declared)]
    estate = estates[0][1] if estates else None
    datasets = [(document, declared) for document, declared in rows if declared is not None]
    for place, dataset in datasets:
        findings += _dataset_rules(place, dataset)
        findings += dataset_keeping(place, dataset, declared_regimes(estate) if estate else shipped_regimes())
        findings += _place_rules(place, dataset, estate) if estate is not None else ()
        findings += chosen_findings(place, dataset, estate) if estate is not None else ()
        if isinstance(dataset, BucketDeclaration) and estate is not None:
            findings += bucket_places(place, dataset, estate)
        if isinstance(dataset, PostgresDeclaration):
            topics = {
                one.dataset: (one.vault, *one.replicas) for _, one in datasets if isinstance(one, TopicsDeclaration)
            }
            findings += reconcile_findings(place, dataset.reconcile, dataset.vault, topics)
    findings += _unique(datasets)
    if findings or estate is None:
        return None, findings
    regimes = declared_regimes(estate)
    return estate_of(estate, [_accepted(document, declared, regimes) for document, declared in datasets]), []


def _accepted(document: Document, declared: DatasetDeclaration, regimes: Mapping[str, Regime]) -> Dataset:
    """The policy of a declaration without findings, by its kind."""
    match declared:
        case TopicsDeclaration():
            return topics_of(document, declared, regimes)
        case BucketDeclaration():
            return bucket_of(document, declared, regimes)
        case PostgresDeclaration():
            return postgres_of(document, declared, regimes)
        case _:
            raise AssertionError(type(declared))


# --- one estate, its vaults ---------------------------------------------------------------------------------------


def _one_estate(defs_dir: Path, heads: list[Document]) -> list[Finding]:
    if not heads:
        return [Finding(defs_dir, 0, "policy.estate", f"no defs.yaml here declares a {ESTATE_TYPE}")]
    reason = f"the estate is already declared in {heads[0].path}; an estate has one licence and one set of vaults"
    return [document.finding("policy.estate", reason) for document in heads[1:]]


def _estate_rules(document: Document, declared: EstateDeclaration) -> Iterator[Finding]:
    allowed = declared.licence.jurisdictions
    seen: dict[tuple[str, str], str] = {}
    for name, vault in declared.vaults.items():
        yield from _jurisdiction(document, vault.location, declared, ("vaults", name, "location", "jurisdiction"))
        twin = seen.setdefault((vault.endpoint_env, vault.bucket), name)
        if twin != name:
            reason = f"vault {name} is the same place as {twin}: same endpoint, same bucket"
            yield document.finding("policy.vault_twice", reason, "vaults", name)
    yield from estate_keeping(document, declared)
    yield from life_of_keys(document, declared)
    yield from log_rules(document, declared)
    yield from verification_rules(document, declared)
    yield from approval_rules(document, declared)
    if len(set(allowed)) != len(allowed):
        yield document.finding("policy.value", "a jurisdiction is listed twice", "licence", "jurisdictions")


def _jurisdiction(
    document: Document, declared: LocationDeclaration, estate: EstateDeclaration, place: Place
) -> Iterator[Finding]:
    allowed = estate.licence.jurisdictions
    if declared.jurisdiction not in allowed:
        reason = (
            f"{declared.jurisdiction} is not allowed by the {estate.licence.authority} licence ({', '.join(allowed)})"
        )
        yield document.finding("policy.jurisdiction", reason, *place)


# --- one dataset --------------------------------------------------------------------------------------------------


def _dataset_rules(document: Document, declared: DatasetDeclaration) -> Iterator[Finding]:
    rules: tuple[Callable[[Document, DatasetDeclaration], Iterator[Finding]], ...] = (
        _names,
        _objectives,
        _restore_test,
        _drill,
    )
    for rule in rules:
        yield from rule(document, declared)
    match declared:
        case TopicsDeclaration():
            yield from topics_rules(document, declared)
        case BucketDeclaration():
            yield from bucket_rules(document, declared)
        case PostgresDeclaration():
            yield from _linger(document, declared)
            yield from _durability(document, declared)
            yield from _snapshot(document, declared)


def _names(document: Document, declared: DatasetDeclaration) -> Iterator[Finding]:
    if declared.dataset in RESERVED_NAMES:
        reason = f"`{declared.dataset}` names what belongs to the whole estate"
        yield document.finding("policy.reserved_name", reason, "dataset")


def _linger(document: Document, declared: PostgresDeclaration) -> Iterator[Finding]:
    if parse_duration(declared.linger) > LONGEST_LINGER:
        reason = f"linger {declared.linger} is over 500ms: the vault would lag by that much before anything failed"
        yield document.finding("policy.linger", reason, "linger")


def _durability(document: Document, declared: PostgresDeclaration) -> Iterator[Finding]:
    is_declared = declared.on_capture_loss is not None
    if declared.durability == "zero_loss" and not is_declared:
        reason = "zero_loss has to say what commits do while the capture is away: `block` or `{degrade_after: 10s}`"
        yield document.finding("policy.on_capture_loss", reason, "durability")
    if declared.durability != "zero_loss" and is_declared:
        reason = "without `durability: zero_loss` commits never wait for the capture, so there is nothing to declare"
        yield document.finding("policy.on_capture_loss", reason, "on_capture_loss")


def _objectives(document: Document, declared: DatasetDeclaration) -> Iterator[Finding]:
    excused = declared.exception is not None and bool(declared.exception.strip())
    if declared.exception is not None and not excused:
        yield document.finding(
            "policy.exception", "`exception` is empty: write why, who agreed and until when", "exception"
        )
    tier = TIERS.get(declared.tier)
    if tier is None:
        yield document.finding("policy.tier", f"no tier `{declared.tier}`; there are {', '.join(TIERS)}", "tier")
        return
    for name, text, limit in (("rpo", declared.rpo, tier.rpo), ("rto", declared.rto, tier.rto)):
        if text is not None and parse_duration(text) > limit and not excused:
            reason = f"{name} {text} is over the {format_duration(limit)} of tier {tier.name} without an `exception:`"
            yield document.finding(f"policy.{name}", reason, name)


def _snapshot(document: Document, declared: PostgresDeclaration) -> Iterator[Finding]:
    incremental = declared.snapshot.incremental_every
    if incremental is not None and parse_duration(incremental) >= parse_duration(declared.snapshot.every):
        reason = f"incremental_every {incremental} is not shorter than every {declared.snapshot.every}"
        yield document.finding("policy.snapshot", reason, "snapshot", "incremental_every")


def _restore_test(document: Document, declared: DatasetDeclaration) -> Iterator[Finding]:
    yield from _cron(document, declared.restore_cron, ("restore_test", "cron"))


def _drill(document: Document, declared: DatasetDeclaration) -> Iterator[Finding]:
    refused = list(_cron(document, declared.drill.cron, ("drill", "cron")))
    if refused:
        yield from refused
        return
    interval = cadence.longest_interval(declared.drill.cron)
    if interval > QUARTER:
        reason = f"up to {format_duration(interval)} pass between two drills; at least quarterly (92 days) is asked for"
        yield document.finding("policy.drill_cadence", reason, "drill", "cron")
    if parse_duration(declared.drill.overdue_after) < interval:
        shown = declared.drill.overdue_after
        reason = f"overdue_after {shown} is shorter than the {format_duration(interval)} between two drills"
        yield document.finding("policy.drill_overdue", reason, "drill", "overdue_after")


def _cron(document: Document, text: str, place: Place) -> Iterator[Finding]:
    if not cadence.is_cron(text):
        reason = f"`{text}` is not a five-field cron line that ever fires (minute hour day month weekday, UTC)"
        yield document.finding("policy.cron", reason, *place)


# --- a dataset among vaults and other datasets --------------------------------------------------------------------


def _place_rules(document: Document, declared: DatasetDeclaration, estate: EstateDeclaration) -> Iterator[Finding]:
    yield from _jurisdiction(document, declared.location, estate, ("location", "jurisdiction"))
    if declared.vault not in estate.vaults:
        yield document.finding("policy.vault", _unknown_vault(declared.vault, estate), "vault")
    taken = {location_of(declared.location).failure_domain: "the source"}
    if declared.vault in estate.vaults:
        taken.setdefault(location_of(estate.vaults[declared.vault].location).failure_domain, f"vault {declared.vault}")
    used = {declared.vault}
    for index, replica in enumerate(declared.replicas):
        place = ("replicas", index)
        if replica not in estate.vaults:
            yield document.finding("policy.vault", _unknown_vault(replica, estate), *place)
            continue
        if replica in used:
            yield document.finding("policy.vault_twice", f"vault {replica} already holds this dataset", *place)
            continue
        used.add(replica)
        domain = location_of(estate.vaults[replica].location).failure_domain
        if domain in taken:
            reason = f"replica {replica} lies in {'/'.join(domain)}, the failure domain of {taken[domain]}"
            yield document.finding("policy.failure_domain", reason, *place)
        taken.setdefault(domain, f"replica {replica}")


def _unknown_vault(name: str, estate: EstateDeclaration) -> str:
    return f"no vault `{name}`; the estate declares {', '.join(estate.vaults)}"


def _unique(datasets: list[tuple[Document, DatasetDeclaration]]) -> Iterator[Finding]:
    names: dict[str, Document] = {}
    slots: dict[str, str] = {}
    for document, declared in datasets:
        first = names.setdefault(declared.dataset, document)
        if first is not document:
            reason = f"dataset `{declared.dataset}` is already declared in {first.path}"
            yield document.finding("policy.dataset_twice", reason, "dataset")
            continue
        if not isinstance(declared, PostgresDeclaration):
            continue
        slot = slot_of(declared)
        owner = slots.setdefault(slot, declared.dataset)
        if owner != declared.dataset:
            reason = f"slot `{slot}` is already {owner}'s; a replication slot has one consumer"
            yield document.finding("policy.slot_twice", reason, "slot")
