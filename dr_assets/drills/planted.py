"""How much of the planted damage was caught.

What belongs here: the count. What stays out: what is planted (controls.py, kafka_controls.py, bucket_controls.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Controls:
    """How many kinds of damage were planted and caught, and the names of those that went unnoticed."""

    planted: int
    caught: int
    missed: tuple[str, ...]


def plant_each(plants: Mapping[str, Callable[[], bool]], count: Callable[[], int]) -> Controls:
    """Plant one kind after the other; caught is what adds to `count`. False: there was nothing to plant it in."""
    known, missed, planted = count(), [], 0
    for kind, plant in plants.items():
        if not plant():
            continue
        planted += 1
        found = count()
        if found <= known:
            missed.append(kind)
        known = found
    return Controls(planted, planted - len(missed), tuple(missed))
