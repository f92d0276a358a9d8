"""Statistics and suspicions as facts in the vault: the past that the next backup is held to, and what people accepted.

What belongs here: the facts `statistics` and `drift_accepted`, reading them as a past. What stays out: gathering, and
judging one backup (judge.py).

A suspicion stays until its value is ordinary again, or until somebody accepts it: what was suspicious never becomes
past by itself, so that damage that stays is not ordinary after two weeks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from dr_assets.estate.errors import PolicyError
from dr_assets.observability.anomalies.judge import Accepted, Observed, Past, Suspicion, accept, observe
from dr_assets.observability.anomalies.ordinary import PAST
from dr_assets.observability.anomalies.series import series_of
from dr_assets.stores.postgres.measured import measured
from dr_assets.stores.postgres.statistics import Statistics
from dr_assets.vault.facts import Fact, facts, latest_fact, record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.vault import Receipt, Vault

STATISTICS: Final = "statistics"
ACCEPTED: Final = "drift_accepted"
QUIET: Final = "quiet"
SUSPICIOUS: Final = "suspicious"
# Two of the windows that a slide is judged by, and what lies between backups.
_READ_BACK: Final = 2 * PAST + timedelta(days=7)
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Look:
    """One judged backup as it is on record."""

    at: datetime
    outcome: str
    suspicions: tuple[Suspicion, ...]
    backups: int
    fact: Fact | None = None


def look(vault: Vault, dataset: str, statistics: Statistics) -> Look:
    """Judge a backup's statistics against the past on record, and put both on record."""
    past = read_past(vault, dataset, statistics.at)
    _, found = observe(statistics, past)
    outcome = SUSPICIOUS if found else QUIET
    body: dict[str, Json] = {
        **statistics.to_json(),
        "outcome": outcome,
        "backups_before": len(past.observed),
        "suspicions": [suspicion_json(one) for one in found],
    }
    record_fact(vault, dataset, STATISTICS, body)
    return Look(statistics.at, outcome, tuple(found), len(past.observed))


def read_past(vault: Vault, dataset: str, until: datetime) -> Past:
    """The past on record before `until`, with what people accepted, in the order in which it happened."""
    begin = until - _READ_BACK
    seen = list(facts(vault, dataset, STATISTICS, begin))
    accepted = list(facts(vault, dataset, ACCEPTED, begin))
    past = Past()
    for fact in sorted((*seen, *accepted), key=lambda each: each.at):
        if fact.kind == ACCEPTED:
            past.accept(*(_accepted(one) for one in _rows(fact, "accepted")))
            continue
        statistics = Statistics.from_json(fact.body)
        before = past.observed[-1].statistics if past.observed else None
        if statistics.at < until and (before is None or statistics.at > before.at):
            suspicious = frozenset(str(one["series"]) for one in _rows(fact, "suspicions"))
            past.add(Observed(statistics, series_of(statistics, before), suspicious))
    return past


def newest_look(vault: Vault, dataset: str) -> Look | None:
    """The newest judged backup; what was accepted since is left out of its suspicions."""
    fact = latest_fact(vault, dataset, STATISTICS)
    return None if fact is None else _open(vault, dataset, fact)


def looks(vault: Vault, dataset: str, begin: datetime) -> list[Look]:
    """Every judged backup since, oldest first, as it was judged then."""
    return [_look(fact) for fact in facts(vault, dataset, STATISTICS, begin)]


def accept_suspicions(
    vault: Vault, dataset: str, wanted: Sequence[str], *, by: str, note: str
) -> tuple[Suspicion, ...]:
    """Put on record that somebody looked at the newest backup's suspicions and calls them ordinary.

    `wanted` are series, or relations for all that is said of them; nothing for all. Raises PolicyError
    `drift.nothing_open`, `drift.no_reason`.
    """
    if not by.strip() or not note.strip():
        raise PolicyError("drift.no_reason", "nobody says who looked, or at what", "give --by and --note")
    fact = latest_fact(vault, dataset, STATISTICS)
    opened = None if fact is None else _open(vault, dataset, fact)
    chosen = tuple(
        one
        for one in (opened.suspicions if opened else ())
        if not wanted or any(one.series == name or one.series.startswith((f"{name} ", f"{name}.")) for name in wanted)
    )
    if fact is None or not chosen:
        raise PolicyError(
            "drift.nothing_open",
            f"the newest backup of {dataset} has no open suspicion{' of that name' if wanted else ''}",
            "`dr-assets drift show` lists them",
        )
    statistics = Statistics.from_json(fact.body)
    given = [_accepted_json(accept(one, statistics)) for one in chosen]
    record_fact(vault, dataset, ACCEPTED, {"by": by, "note": note, "accepted": list[Json](given)})
    return chosen


def record_unseen(vault: Vault, dataset: str, why: str) -> Receipt:
    """Put on record that a backup's statistics could not be gathered: that is amber, too."""
    return record_fact(vault, dataset, f"{STATISTICS}_failed", {"why": why})


def suspicion_json(one: Suspicion) -> dict[str, Json]:
    """For facts and `--json`."""
    return {
        "kind": one.kind,
        "series": one.series,
        "seen": measured(one.seen, _DIGITS),
        "wanted": measured(one.wanted, _DIGITS),
        "spreads": measured(one.spreads, 1),
        "chance": f"{one.chance:.3g}",
        "why": one.why,
    }


def _open(vault: Vault, dataset: str, fact: Fact) -> Look:
    """A look without what somebody accepted after it."""
    found, statistics = _look(fact), Statistics.from_json(fact.body)
    later = [_accepted(one) for each in facts(vault, dataset, ACCEPTED, fact.at) for one in _rows(each, "accepted")]
    left = tuple(one for one in found.suspicions if accept(one, statistics) not in later)
    return Look(found.at, SUSPICIOUS if left else QUIET, left, found.backups, fact)


def _look(fact: Fact) -> Look:
    found = tuple(
        Suspicion(
            str(one["kind"]), str(one["series"]), float(one["seen"]), float(one["wanted"]), float(one["spreads"]),
            float(one["chance"]), str(one["why"]),
        )
        for one in _rows(fact, "suspicions")
    )  # fmt: skip
    before = fact.body.get("backups_before")
    at = Statistics.from_json({**fact.body, "relations": {}}).at
    return Look(at, str(fact.body["outcome"]), found, before if isinstance(before, int) else 0, fact)


def _rows(fact: Fact, name: str) -> list[Mapping[str, Any]]:
    found = fact.body.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _accepted(said: Mapping[str, Any]) -> Accepted:
    return Accepted(str(said["series"]), float(said["low"]), float(said["high"]), str(said["token"]))


def _accepted_json(one: Accepted) -> dict[str, Json]:
    low, high = (measured(value, _DIGITS) for value in (one.low, one.high))
    return {"series": one.series, "low": low, "high": high, "token": one.token}
