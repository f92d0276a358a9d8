"""How often a cron line really fires, counted over its fires and never guessed from its fields.

What belongs here: whether a cron line is one, its fires around a given moment, the longest wait between two. What
stays out: which cadence is allowed (rules.py) and the wall clock (callers hand in `now`). All times are UTC.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from croniter import croniter
from croniter.croniter import CroniterError

FIELDS: Final = 5
# Nine years hold two leap days, whatever the rule; any fixed start makes a verdict repeatable.
_BEGIN: Final = datetime(2024, 1, 1, tzinfo=UTC)
_END: Final = _BEGIN + timedelta(days=9 * 366)
# Weekdays that come each week, unlike a month's second Friday (`5#2`) or its last (`L5`).
_PLAIN_WEEKDAYS: Final = frozenset("0123456789,-*/")


def is_cron(text: str) -> bool:
    """Whether this is a five-field cron line that fires at all (`0 0 31 2 *` never does)."""
    if len(text.split()) != FIELDS or not croniter.is_valid(text):
        return False
    try:
        next_fire(text, _BEGIN)
    except CroniterError:
        return False
    return True


def next_fire(cron: str, after: datetime) -> datetime:
    """First fire strictly after a moment."""
    fire: datetime = croniter(cron, after).get_next(datetime)
    return fire


def last_fire(cron: str, at: datetime) -> datetime:
    """Newest fire at or before a moment."""
    fire: datetime = croniter(cron, at + timedelta(microseconds=1)).get_prev(datetime)
    return fire


def with_grace(interval: timedelta) -> timedelta:
    """How old the result of something done at this interval may get: an eighth more, at least an hour."""
    return interval + max(interval / 8, timedelta(hours=1))


@lru_cache(maxsize=256)
def longest_interval(cron: str) -> timedelta:
    """Longest wait between two fires. Raises croniter's error when the line never fires."""
    days = _longest_over(cron, timedelta(days=1), _repeated(cron))
    if days > timedelta(days=1):
        return days
    # It fires every day, and cron knows no times of day that differ between days: two days tell all.
    return _longest_over(cron, timedelta(minutes=1), _BEGIN + timedelta(days=2))


def _repeated(cron: str) -> datetime:
    """The end of what has to be looked at: where no field names days or months, a few weeks tell all."""
    _, _, day, month, weekday = cron.split()
    if (day, month) == ("*", "*") and set(weekday) <= _PLAIN_WEEKDAYS:
        return _BEGIN + timedelta(weeks=3)
    return _END


def _longest_over(cron: str, floor: timedelta, end: datetime) -> timedelta:
    """Longest wait, or `floor` if none is longer.

    Leaps by the longest wait known so far: whatever fires lie within the leap cannot be further apart than that.
    """
    fires = croniter(cron, _BEGIN)  # read once: reading the line takes longer than a fire
    longest, fire = floor, fires.get_next(datetime)
    while fire < end:
        leap = fires.get_prev(datetime, start_time=fire + longest + timedelta(microseconds=1))
        if leap > fire:
            fire = leap
        else:
            following = fires.get_next(datetime, start_time=fire)
            longest, fire = following - fire, following
    return longest
