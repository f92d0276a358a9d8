"""The policy as a flat list of promises, and what a change from one list to another weakens.

What belongs here: which parts of the policy are promises, and in which direction each of them is weaker. What stays
out: recording changes (vault/retention/policy_change.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, cast

from dr_assets.estate import cadence
from dr_assets.estate.key_places import FileKeys
from dr_assets.estate.model import BucketDataset, Dataset, Estate, PostgresDataset, TopicsDataset, matches

Value = int | str | list[str] | None
Direction = Literal["longer", "shorter", "fewer", "narrower", "more", "appears", "rank", "neutral"]

_LEVELS: Final = ("quick", "standard", "deep")
_RANKS: Final[dict[str, tuple[str, ...]]] = {
    "lock": ("governance", "compliance"),
    "durability": ("asynchronous", "zero_loss"),
    "restore_test_level": _LEVELS,
    "kafka_protocol": ("PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL"),
}
# In which direction a promise gets weaker, by the last part of its name.
WEAKER: Final[dict[str, Direction]] = {
    "rpo_ms": "longer",
    "rto_ms": "longer",
    "linger_ms": "longer",
    "snapshot_every_ms": "longer",
    "incremental_every_ms": "longer",
    "restore_test_every_ms": "longer",
    "drill_every_ms": "longer",
    "drill_overdue_after_ms": "longer",
    "compacted_every_ms": "longer",
    "copy_every_ms": "longer",
    "full_every_ms": "longer",
    "proven_reconcile_every_ms": "longer",
    "proven_deep_every_ms": "longer",
    "proven_restart_every_ms": "longer",
    "sampling_every_ms": "longer",
    "sampling_whole_in_ms": "longer",
    "rotate_every_ms": "longer",
    "approval_valid_for_ms": "longer",
    "log_cosigned_within_ms": "longer",
    "degrade_after_ms": "shorter",
    "cold_after_ms": "shorter",
    "retention_days": "shorter",
    "lock_days": "shorter",
    "approvals_needed": "shorter",
    "log_quorum": "shorter",
    "regimes": "fewer",
    "replicas": "fewer",
    "reconciled_with": "fewer",
    "key_providers": "fewer",
    "log_witnesses": "fewer",
    "topics": "narrower",
    "groups": "narrower",
    "subject": "fewer",
    "datasets": "fewer",
    "vaults": "fewer",
    "exclude": "more",
    "approvers": "more",
    "open_key_providers": "more",
    "subjects_most_at_once": "longer",
    "subjects_most_a_day": "longer",
    "jurisdictions": "more",
    "exception": "appears",
    "lock": "rank",
    "durability": "rank",
    "restore_test_level": "rank",
    "kafka_protocol": "rank",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One promise that is another now. `is_weaker`: it protects less than before."""

    what: str
    was: Value
    now: Value
    is_weaker: bool

    def __str__(self) -> str:
        return f"{self.what}: from {_text(self.was)} to {_text(self.now)}"


def promises_of(estate: Estate) -> dict[str, Value]:
    """Every promise by its name: `ledger.rpo_ms`, `datasets`. Times in milliseconds, lists sorted."""
    found: dict[str, Value] = {
        "datasets": sorted(estate.datasets),
        "vaults": sorted(estate.vaults),
        "jurisdictions": sorted(estate.licence.jurisdictions),
        "key_providers": sorted(f"{one.place.kind}/{one.name}" for one in estate.key_providers),
        "open_key_providers": sorted(one.name for one in estate.key_providers if isinstance(one.place, FileKeys)),
        "rotate_every_ms": _ms(estate.rotate_every),
        "log_witnesses": sorted(one.name for one in estate.log.witnesses),
        "log_quorum": estate.log.quorum,
        "log_cosigned_within_ms": _ms(estate.log.cosigned_within),
        "approvals_needed": 0 if estate.approvals is None else estate.approvals.needed,
    }
    if estate.approvals is not None:
        found["approvers"] = sorted(f"{one.name} {one.public_key}" for one in estate.approvals.approvers)
        found["approval_valid_for_ms"] = _ms(estate.approvals.valid_for)
    if estate.subjects is not None:
        found["subjects_most_at_once"] = estate.subjects.most_at_once
        found["subjects_most_a_day"] = estate.subjects.most_a_day
    for vault in estate.vaults.values():
        found[f"{vault.name}.place"] = "/".join((*vault.location.failure_domain, vault.bucket))
    for dataset in estate.datasets.values():
        found |= {f"{dataset.name}.{name}": value for name, value in _of_dataset(dataset)}
    return found


def _of_dataset(dataset: Dataset) -> Iterator[tuple[str, Value]]:
    retention = dataset.retention
    yield "tier", dataset.tier.name
    yield "rpo_ms", _ms(dataset.rpo)
    yield "rto_ms", _ms(dataset.rto)
    yield "linger_ms", _ms(dataset.linger)
    yield "exception", dataset.exception
    yield "lock", retention.lock
    yield "retention_days", retention.days
    yield "lock_days", retention.lock_days
    yield "regimes", sorted(regime.name for regime in retention.regimes)
    yield "vault", dataset.vault
    yield "replicas", sorted(dataset.replicas)
    if dataset.key_providers is not None:
        yield "key_providers", sorted(dataset.key_providers)
    yield "restore_test_every_ms", _ms(cadence.longest_interval(dataset.restore_test.cron))
    yield "drill_every_ms", _ms(cadence.longest_interval(dataset.drill.cron))
    yield "drill_overdue_after_ms", _ms(dataset.drill.overdue_after)
    yield "sampling_every_ms", _ms(dataset.sampling.every)
    yield "sampling_whole_in_ms", _ms(dataset.sampling.whole_in)
    yield "cold_after_ms", None if dataset.cold is None else _ms(dataset.cold.after)
    match dataset:
        case PostgresDataset():
            yield from _of_postgres(dataset)
        case TopicsDataset():
            yield from _of_topics(dataset)
        case BucketDataset():
            yield from _of_bucket(dataset)


def _of_postgres(dataset: PostgresDataset) -> Iterator[tuple[str, Value]]:
    yield "snapshot_every_ms", _ms(dataset.snapshot.every)
    yield "incremental_every_ms", _ms(dataset.snapshot.incremental_every)
    yield "durability", "asynchronous" if dataset.zero_loss is None else "zero_loss"
    if dataset.zero_loss is not None:
        yield "degrade_after_ms", _ms(dataset.zero_loss.degrade_after)
    yield "restore_test_level", dataset.restore_test.level
    if dataset.prove is not None:
        yield "proven_reconcile_every_ms", _ms(dataset.prove.reconcile_every)
        yield "proven_deep_every_ms", _ms(dataset.prove.deep_every)
        yield "proven_restart_every_ms", _ms(dataset.prove.restart_every)
    if dataset.reconcile is not None:
        yield "reconciled_with", dataset.reconcile.named()


def _of_topics(dataset: TopicsDataset) -> Iterator[tuple[str, Value]]:
    yield "topics", sorted(dataset.topics)
    yield "exclude", sorted(dataset.exclude)
    yield "groups", sorted(dataset.groups)
    yield "compacted_every_ms", _ms(dataset.compacted_every)
    yield "kafka_protocol", dataset.security.protocol


def _of_bucket(dataset: BucketDataset) -> Iterator[tuple[str, Value]]:
    subject = dataset.subject
    yield "bucket", f"{dataset.bucket}/{dataset.prefix}"
    yield "subject", [] if subject.kind == "none" else [f"{subject.kind} {subject.pattern or subject.name}"]
    yield "copy_every_ms", _ms(dataset.copy_every)
    yield "full_every_ms", _ms(dataset.full_every)


def changes(was: Mapping[str, Value], now: Mapping[str, Value]) -> list[Change]:
    """What differs, by name. Of a dataset that came or went only that is told: its promises came or went with it."""
    told = []
    for what in sorted(was.keys() | now.keys()):
        before, after = was.get(what), now.get(what)
        if before == after or _is_of_another(what, was, now):
            continue
        told.append(Change(what, before, after, is_weaker(what, before, after)))
    return told


def is_weaker(what: str, before: Value, after: Value) -> bool:
    """Whether a promise protects less than before; what nobody knows a direction of is no weakening."""
    name = what.rpartition(".")[2]
    direction = WEAKER.get(name, "neutral")
    if direction == "rank":
        ranks = _RANKS[name]
        return ranks.index(str(after)) < ranks.index(str(before)) if {str(before), str(after)} <= set(ranks) else True
    if direction == "appears":
        return after is not None
    if direction == "narrower":  # patterns: what another of them covers is not gone
        return any(not matches(name, tuple(_names(after))) for name in _names(before))
    if direction in {"fewer", "more"}:
        gone, come = set(_names(before)) - set(_names(after)), set(_names(after)) - set(_names(before))
        return bool(gone) if direction == "fewer" else bool(come) and before is not None
    return _is_weaker_number(direction, before, after)


def _is_weaker_number(direction: Direction, before: Value, after: Value) -> bool:
    """None is the strongest of what is weaker when shorter (it never ends), the weakest of what is when longer."""
    if direction == "longer":
        return after is None or (before is not None and cast("int", after) > cast("int", before))
    if direction == "shorter":
        return after is not None and (before is None or cast("int", after) < cast("int", before))
    return False


def _is_of_another(what: str, was: Mapping[str, Value], now: Mapping[str, Value]) -> bool:
    """Whether this belongs to a dataset or a vault that is on one side only."""
    owner = what.rpartition(".")[0]
    both = [set(_names(side.get("datasets"))) | set(_names(side.get("vaults"))) for side in (was, now)]
    return bool(owner) and not (owner in both[0] and owner in both[1])


def _names(value: Value) -> list[str]:
    return value if isinstance(value, list) else []


def _ms(length: timedelta | None) -> int | None:
    return None if length is None else length // timedelta(milliseconds=1)


def _text(value: Value) -> str:
    return "nothing" if value in (None, []) else ", ".join(value) if isinstance(value, list) else str(value)
