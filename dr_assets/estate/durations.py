"""Durations as people write them: a whole number and a unit.

What belongs here: text to `timedelta` and back. What stays out: what a duration is for (rules.py) and any clock.
"""

import re
from datetime import timedelta
from typing import Final

from dr_assets.estate.errors import PolicyError

DURATION_PATTERN: Final = r"^[1-9][0-9]{0,8}(ms|s|m|h|d)$"

_UNITS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_DURATION: Final = re.compile(DURATION_PATTERN)


def parse_duration(text: str) -> timedelta:
    """Read `500ms`, `30s`, `15m`, `24h` or `35d`. A bare number, zero or any other unit raises `PolicyError`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise PolicyError(
            "policy.duration",
            f"{text!r} is not a duration",
            "write a positive whole number and a unit: 500ms, 30s, 15m, 24h or 35d",
        )
    unit = match.group(1)
    try:
        return int(text.removesuffix(unit)) * _UNITS[unit]
    except OverflowError as error:
        raise PolicyError("policy.duration", f"{text!r} is longer than time can be", "use a shorter one") from error


def format_duration(duration: timedelta) -> str:
    """Write a duration in the largest unit that divides it, so that it reads back equal; under 1 ms is cut off."""
    for unit, size in _UNITS.items():
        if duration >= size and duration % size == timedelta(0):
            return f"{duration // size}{unit}"
    return f"{duration // _UNITS['ms']}ms"
