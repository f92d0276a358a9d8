"""Sizes as people write them: a whole number and a binary unit.

What belongs here: text to bytes and back. What stays out: what a size is for.
"""

import re
from typing import Final

from dr_assets.estate.errors import PolicyError

SIZE_PATTERN: Final = r"^[1-9][0-9]{0,6}(MiB|GiB|TiB)$"

_UNITS: Final = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20}
_SIZE: Final = re.compile(SIZE_PATTERN)


def parse_size(text: str) -> int:
    """Bytes in `512MiB`, `20GiB` or `1TiB`. A bare number, zero or any other unit raises `PolicyError`."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise PolicyError(
            "policy.size", f"{text!r} is not a size", "write a positive whole number and a unit: 512MiB, 20GiB or 1TiB"
        )
    unit = match.group(1)
    return int(text.removesuffix(unit)) * _UNITS[unit]


def format_size(size_bytes: int) -> str:
    """Write a size in the largest unit that divides it, so that it reads back equal; below 1 MiB is cut off."""
    for unit, unit_bytes in _UNITS.items():
        if size_bytes >= unit_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes}{unit}"
    return f"{size_bytes >> 20}MiB"
