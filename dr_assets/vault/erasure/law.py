"""What speaks for an erasure and what against it, as data: grounds, duties to keep, holds.

What belongs here: weighing. What stays out: where relationships' ends come from (proving/relationships.py), and advice:
the duties are the estate's regimes (estate/regimes.yaml), which nobody but its own counsel confirms.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Dataset, Regime
from dr_assets.vault.format.canonical import Json, format_time

# Regulation (EU) 2016/679, article 17(1), by letter.
GROUNDS: Final[Mapping[str, str]] = {
    "art17_1_a": "the data are no longer necessary for what they were collected for",
    "art17_1_b": "consent was withdrawn, and there is no other legal ground",
    "art17_1_c": "the person objects (article 21), and nothing overrides it",
    "art17_1_d": "the data were processed unlawfully",
    "art17_1_e": "a law obliges the controller to erase them",
    "art17_1_f": "they were collected from a child in relation to information society services",
}


@dataclass(frozen=True, slots=True)
class Relationship:
    """The business relationship with a person: when it ended, None while it lasts, and who says so."""

    ended_at: datetime | None
    source: str

    def to_json(self) -> dict[str, Json]:
        """For facts."""
        return {"ended_at": None if self.ended_at is None else format_time(self.ended_at), "source": self.source}


@dataclass(frozen=True, slots=True)
class Opposition:
    """A rule that keeps a person's data, and until when; None: nobody can say yet. `source` is where it is written."""

    rule: str
    subject_id: str
    until: datetime | None
    why: str
    source: str = ""

    def to_json(self) -> dict[str, Json]:
        """For facts."""
        return {
            "rule": self.rule,
            "subject": self.subject_id,
            "until": None if self.until is None else format_time(self.until),
            "why": self.why,
            "source": self.source,
        }

    def describe(self) -> str:
        """One line for people."""
        until = "nobody can say until when" if self.until is None else f"until {self.until:%Y-%m-%d}"
        return f"{self.subject_id}: {self.rule}, {until}: {self.why}" + (f" ({self.source})" if self.source else "")


def require_ground(ground: str) -> str:
    """`ground` if the law knows it. Raises PolicyError `erasure.no_ground`."""
    if ground not in GROUNDS:
        known = "; ".join(f"{name}: {what}" for name, what in GROUNDS.items())
        raise PolicyError("erasure.no_ground", f"`{ground}` is no ground of GDPR, article 17(1)", known)
    return ground


def duties(datasets: Iterable[Dataset]) -> dict[str, Regime]:
    """The regimes of these datasets that go before an erasure, by name."""
    named = (regime for dataset in datasets for regime in dataset.retention.regimes)
    return {regime.name: regime for regime in named if regime.opposes_erasure}


def opposed_by_duty(
    duties: Mapping[str, Regime], people: Sequence[str], relationships: Mapping[str, Relationship], now: datetime
) -> list[Opposition]:
    """Every duty that keeps somebody's data: days are counted from the end of the relationship with them."""
    return [
        found
        for who in people
        for regime in duties.values()
        if (found := _opposed(regime, who, relationships.get(who), now)) is not None
    ]


def _opposed(regime: Regime, who: str, relationship: Relationship | None, now: datetime) -> Opposition | None:
    rule, days = f"retention duty {regime.name}", timedelta(days=regime.days)
    if relationship is None:
        why = f"{regime.days} days from the end of the relationship, and nobody says whether it has ended"
        return Opposition(rule, who, None, why, regime.source)
    if relationship.ended_at is None:
        why = f"{regime.days} days from the end of the relationship, which lasts ({relationship.source})"
        return Opposition(rule, who, None, why, regime.source)
    until = relationship.ended_at + days
    if until <= now:
        return None
    why = f"{regime.days} days from {relationship.ended_at:%Y-%m-%d}, when the relationship ended"
    return Opposition(rule, who, until, f"{why} ({relationship.source})", regime.source)


def require_unopposed(oppositions: Sequence[Opposition]) -> None:
    """Raise PolicyError `erasure.opposed`, which names every rule and until when it holds."""
    if not oppositions:
        return
    raise PolicyError(
        "erasure.opposed",
        "; ".join(one.describe() for one in oppositions),
        "GDPR, article 17(3): answer the person with this; ask again when it is over (docs/erasure.md)",
    )
