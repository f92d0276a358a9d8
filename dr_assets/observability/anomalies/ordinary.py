"""What is ordinary for series of numbers: robust statistics of their own past, per weekday and hour.

What belongs here: expectation, spread, and how strange a value is. What stays out: which series, and the decision.

Median and MAD, so that a promotion or a bad day in the past moves neither; Theil-Sen for what grows; Student's t with
few degrees of freedom for tails, because a casino's days have heavy ones. Series that share their times are computed
at once: a column each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy  # its `stats` come when first used: they take a second, and most who import us only read verdicts

# As much past as an expectation rests on; before `POINTS_MIN` nothing is judged.
PAST: Final = timedelta(days=28)
POINTS_MIN: Final = 10
SPAN_MIN: Final = timedelta(days=7)
TAIL_DEGREES: Final = 4.0
_SLOT_MIN: Final = 3
_HOUR_MIN: Final = 7
# A slow slide is held to the past before this, since the past itself slides.
SLIDE_GAP: Final = timedelta(days=7)
SLIDE_POINTS: Final = 3

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Expected:
    """What each series should be now: the middle and the spread of what is ordinary (on its feature's scale)."""

    middle: Floats
    spread: Floats
    points: int

    def strangeness(self, values: Floats) -> Floats:
        """Distance in spreads."""
        return np.abs(values - self.middle) / self.spread

    def chance(self, values: Floats) -> Floats:
        """How likely a value at least as far away is, on a day like any other."""
        return np.asarray(2 * scipy.stats.t.sf(self.strangeness(values), TAIL_DEGREES), dtype=np.float64)


def expected(
    times: Sequence[datetime], values: Floats, at: datetime, resolution: Floats, trends: Flags
) -> Expected | None:
    """What `at` should bring, from the past given (a row a time, oldest first); None where that is too little."""
    # From the last ordinary time back: damage that stays must not outlive the past that shows it.
    first = _first_since(times, times[-1] - PAST) if times else 0
    kept, numbers = times[first:], values[first:]
    if len(kept) < POINTS_MIN or kept[-1] - kept[0] < SPAN_MIN:
        return None
    days = np.array([(when - at) / timedelta(days=1) for when in kept])
    steady = np.where(trends, _daily_slopes(days, numbers), 0.0)
    level = numbers - steady * days[:, None]
    slots = np.array([_slot(when) for when in kept])
    middle, count = _middle(level, slots, np.array(_slot(at)))
    rest, groups = np.empty_like(level), np.unique(slots, axis=0)
    for slot in groups:
        chosen = (slots == slot).all(axis=1)
        rest[chosen] = level[chosen] - _middle(level, slots, slot)[0]
    # The spread around medians of few points is too small by what those points were fitted.
    inflated = np.sqrt((1 + 1.57 / count) * len(kept) / max(1, len(kept) - len(groups)))
    spread = np.asarray(scipy.stats.median_abs_deviation(rest, axis=0, scale="normal")) * inflated
    return Expected(middle, np.maximum(spread, resolution), len(kept))


def slid(times: Sequence[datetime], values: Floats, at: datetime, resolution: Floats) -> tuple[Expected, Floats] | None:
    """How far the last `SLIDE_POINTS` (the newest is of `at`) stand from the past before `SLIDE_GAP`.

    Gives what was expected of their median, and that median; None where there is too little past.
    """
    first, last = _first_since(times, at - 2 * PAST), _first_since(times, at - SLIDE_GAP)
    old = values[first:last]
    if len(old) < POINTS_MIN or len(values) < SLIDE_POINTS:
        return None
    spread = np.asarray(scipy.stats.median_abs_deviation(old, axis=0, scale="normal"))
    found = Expected(np.median(old, axis=0), np.maximum(spread, resolution), len(old))
    return found, np.median(values[-SLIDE_POINTS:], axis=0)


def _daily_slopes(days: Floats, numbers: Floats) -> Floats:
    """Theil-Sen over one median a day: a day's hours are no trend, and pairs are many."""
    whole = np.floor(days)
    each = np.unique(whole)
    if len(each) < POINTS_MIN // 2:
        return np.zeros(numbers.shape[1])
    medians = np.array([np.median(numbers[whole == day], axis=0) for day in each])
    return slopes(each, medians)


def slopes(days: Floats, values: Floats) -> Floats:
    """The Theil-Sen slope of each column, as `scipy.stats.theilslopes` gives of one: hundreds at once, in a tenth."""
    later, earlier = np.tril_indices(len(days), -1)
    steps = (values[later] - values[earlier]) / (days[later] - days[earlier])[:, None]
    return np.asarray(np.median(steps, axis=0), dtype=np.float64)


def _slot(at: datetime) -> tuple[int, int]:
    return at.weekday(), at.hour // 3


def _middle(level: Floats, slots: npt.NDArray[np.int_], slot: npt.NDArray[np.int_]) -> tuple[Floats, int]:
    """The median of the same weekday and hour; of the same hour, or of all, where those are too few."""
    same_hour = slots[:, 1] == slot[1]
    same_slot = same_hour & (slots[:, 0] == slot[0])
    for least, chosen in ((_SLOT_MIN, same_slot), (_HOUR_MIN, same_hour)):
        if chosen.sum() >= least:
            return np.median(level[chosen], axis=0), int(chosen.sum())
    return np.median(level, axis=0), len(level)


def _first_since(times: Sequence[datetime], begin: datetime) -> int:
    """The index of the first time that is not before `begin`."""
    return next((at for at, when in enumerate(times) if when >= begin), len(times))
