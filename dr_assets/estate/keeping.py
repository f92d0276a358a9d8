"""How long a dataset is kept, and where: retention, regimes, sampling, cold classes, judged and made of declarations.

What belongs here: these parts of a declaration, refused or accepted. What stays out: the regimes themselves
(regimes.py) and all other rules (rules.py).
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from dr_assets.estate.documents import Document
from dr_assets.estate.durations import format_duration, parse_duration
from dr_assets.estate.findings import Finding
from dr_assets.estate.model import TIERS, Cold, Regime, Retention, Sampling
from dr_assets.estate.prove import prove_findings
from dr_assets.estate.regimes import LOCK_CAP, SLACK, longest_days, regimes_of, shipped_regimes, strictest
from dr_assets.estate.schema import DatasetDeclaration, EstateDeclaration, PostgresDeclaration

# How long the store may take to bring an object back: the most that AWS names for each class and tier. Its user guide,
# "Archive retrieval options"; other stores may differ, and none promises it.
THAW: Final[dict[tuple[str, str], timedelta]] = {
    ("GLACIER", "Expedited"): timedelta(minutes=5),
    ("GLACIER", "Standard"): timedelta(hours=5),
    ("GLACIER", "Bulk"): timedelta(hours=12),
    ("DEEP_ARCHIVE", "Standard"): timedelta(hours=12),
    ("DEEP_ARCHIVE", "Bulk"): timedelta(hours=48),
}
SHORTEST_SAMPLING: Final = timedelta(minutes=10)


def declared_regimes(estate: EstateDeclaration) -> dict[str, Regime]:
    """All that a dataset of this estate may name."""
    return regimes_of({regime.name: regime for regime in own_regimes(estate)})


def own_regimes(estate: EstateDeclaration) -> tuple[Regime, ...]:
    """Those that the estate itself declares."""
    rows = estate.regimes.items()
    return tuple(Regime(name, row.days, row.mode, row.source, row.confirmed, row.opposes_erasure) for name, row in rows)


def retention_of(declared: DatasetDeclaration, regimes: Mapping[str, Regime]) -> Retention:
    """What holds: the strictest of the declared and of the named regimes. Unknown names were refused before."""
    own = declared.retention
    named = tuple(regimes[name] for name in own.regimes)
    days, mode = strictest(own.days, own.lock, named)
    return Retention(mode, days, max(days, own.lock_days or days), named)


def sampling_of(declared: DatasetDeclaration) -> Sampling:
    """How often, and how long until all was read."""
    return Sampling(parse_duration(declared.sampling.every), parse_duration(declared.sampling.whole_in))


def cold_of(declared: PostgresDeclaration) -> Cold | None:
    """The cold class, if there is one."""
    cold = declared.cold
    return None if cold is None else Cold(cold.storage_class, parse_duration(cold.after), cold.thaw)


def thaw_time(storage_class: str, tier: str) -> timedelta:
    """The most that bringing an object back may take; the longest known for what isn't known."""
    return THAW.get((storage_class, tier), max(THAW.values()))


# --- refusals -----------------------------------------------------------------------------------------------------


def estate_keeping(document: Document, declared: EstateDeclaration) -> Iterator[Finding]:
    """A shipped regime may be corrected downwards only by somebody who puts their name to it."""
    for name, row in declared.regimes.items():
        known = shipped_regimes().get(name)
        if known is None or row.confirmed:
            continue
        if row.days < known.days or (known.mode, row.mode) == ("compliance", "governance"):
            reason = (
                f"regime {name} ships with {known.days} days in {known.mode} mode ({known.source}); {row.days} days in"
                f' {row.mode} mode is weaker: add `confirmed: "who, when"`, or give it a name of its own'
            )
            yield document.finding("policy.regime", reason, "regimes", name)


def dataset_keeping(
    document: Document, declared: DatasetDeclaration, regimes: Mapping[str, Regime]
) -> Iterator[Finding]:
    """Everything about keeping that a dataset may not ask for."""
    unknown = [name for name in declared.retention.regimes if name not in regimes]
    for name in unknown:
        at = ("retention", "regimes", declared.retention.regimes.index(name))
        reason = f"no regime `{name}`; there are {', '.join(sorted(regimes))}"
        yield document.finding("policy.regime", reason, *at)
    if not unknown:
        yield from _retention(document, declared, retention_of(declared, regimes))
    sampling = sampling_of(declared)
    if not SHORTEST_SAMPLING <= sampling.every <= sampling.whole_in:
        reason = (
            f"sampling every {format_duration(sampling.every)} with all read in {format_duration(sampling.whole_in)}:"
            f" `every` is at least {format_duration(SHORTEST_SAMPLING)} and at most `whole_in`"
        )
        yield document.finding("policy.sampling", reason, "sampling")
    if isinstance(declared, PostgresDeclaration):
        yield from _cold(document, declared)
        yield from prove_findings(document, declared.prove)


def _retention(document: Document, declared: DatasetDeclaration, retention: Retention) -> Iterator[Finding]:
    lock_days = declared.retention.lock_days
    askers = [regime.name for regime in retention.regimes if regime.days == retention.days]
    asked = f" (regime {', '.join(askers)})" if askers else ""
    if lock_days is not None and lock_days < retention.days:
        reason = f"a lock of {lock_days} days is shorter than the retention of {retention.days} days{asked}"
        yield document.finding("policy.lock", reason, "retention", "lock_days")
    every = parse_duration(declared.base_every)
    most = longest_days(every, followed=declared.is_followed)
    if retention.lock_days > most:
        reason = (
            f"{retention.lock_days} days{asked} with {declared.base} every {format_duration(every)}"
            f" make locks over the cap of {LOCK_CAP.days} days: at most {most} days fit"
        )
        yield document.finding("policy.lock_cap", reason, "retention")


def needed_warm(snapshot_every: timedelta, *, followed: bool) -> timedelta:
    """How old a base backup can be that the newest recovery point needs: its interval and a week of failed ones.

    With incrementals the full below the newest of them is an interval older.
    """
    return (2 if followed else 1) * snapshot_every + SLACK


def _cold(document: Document, declared: PostgresDeclaration) -> Iterator[Finding]:
    cold = cold_of(declared)
    if cold is None:
        return
    if (cold.storage_class, cold.thaw) not in THAW:
        yield document.finding("policy.cold", f"{cold.storage_class} has no {cold.thaw} retrieval", "cold", "thaw")
        return
    tier = TIERS.get(declared.tier)
    rto = parse_duration(declared.rto) if declared.rto else None if tier is None else tier.rto
    thaw = thaw_time(cold.storage_class, cold.thaw)
    followed = declared.snapshot.incremental_every is not None
    warm = needed_warm(parse_duration(declared.snapshot.every), followed=followed)
    if rto is not None and cold.after <= warm and thaw > rto:
        hours = thaw.total_seconds() / 3600
        reason = (
            f"base backups in {cold.storage_class} from {format_duration(cold.after)} on: the newest recovery point may"
            f" need one of {format_duration(warm)}, and a {cold.thaw} thaw takes up to {hours:g} h, over the rto of"
            f" {format_duration(rto)}"
        )
        yield document.finding("policy.cold", reason, "cold", "after")
