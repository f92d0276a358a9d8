"""Whether a stored recovery point is young enough, dated and locked: the same for every kind of source.

What belongs here: pure rules over its age. What stays out: what leads to it, which each kind knows
(postgres/objective.py), and how a verdict is shown.
"""

from datetime import datetime, timedelta
from typing import Final, Protocol

from dr_assets.estate.durations import format_duration
from dr_assets.estate.model import Dataset
from dr_assets.vault.retention import CLOCK_SKEW_LIMIT

NOTHING_STORED: Final = "nothing is stored yet"


class StoredPoint(Protocol):
    """What of a recovery point matters here."""

    @property
    def at(self) -> datetime | None:
        """Everything that the source acknowledged before this moment is stored; None while nobody knows."""
        ...

    @property
    def retain_until(self) -> datetime | None:
        """The end of its newest object's lock; None where the store shows none."""
        ...


def age_trouble(dataset: Dataset, point: StoredPoint | None, now: datetime) -> str | None:
    """Why the recovery point is too old, undated or unprotected, whatever leads to it; None if it is not."""
    if point is None:
        return NOTHING_STORED
    if point.at is None:
        return "what is stored holds no heartbeat yet, so it has no age"
    ahead = ahead_of(now, point.at)
    if ahead is not None:
        return f"the recovery point is {ahead}"
    if point.retain_until is None:
        return "the newest stored segment shows no lock"
    if now - point.at > dataset.rpo:
        return f"{age_text(now, point.at)}, over the RPO of {format_duration(dataset.rpo)}"
    return None


def age_text(now: datetime, at: datetime) -> str:
    """How old a stored recovery point is; what lies in the future by less than the skew is as new as can be."""
    return f"the recovery point is {max((now - at).total_seconds(), 0.0):.1f} s old"


def ahead_of(now: datetime, at: datetime) -> str | None:
    """Why `at` cannot be believed: it is dated after `now` by more than clocks may differ. None otherwise."""
    if at - now <= CLOCK_SKEW_LIMIT:
        return None
    return f"dated {(at - now) / timedelta(seconds=1):.1f} s in the future: the clocks disagree"
