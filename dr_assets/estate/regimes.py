"""Retention regimes: what a law or a standard asks for, as data, and the strictest of several.

What belongs here: the table that ships (regimes.yaml), the estate's own beside it, the strictest, and whether it fits
under the cap. What stays out: judging declarations as a whole (rules.py), and locks (vault/retention/).

A regime is *unconfirmed* unless somebody put their name to it in the declaration: what we wrote down of a law is a
reading of it, not advice.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from dr_assets.estate.model import LockMode, Regime

SLACK: Final = timedelta(days=7)  # a base backup that failed for a week must not outlive the one before it
LOCK_CAP: Final = timedelta(days=4384)  # twelve years: AML asks for five to ten; more is a mistake nobody can undo
UNCONFIRMED: Final = "unconfirmed"

_SHIPPED: Final = Path(__file__).resolve().parent / "regimes.yaml"


@cache
def shipped_regimes() -> Mapping[str, Regime]:
    """The table that comes with the package, every one of them unconfirmed."""
    raw: dict[str, dict[str, Any]] = yaml.safe_load(_SHIPPED.read_text(encoding="utf-8"))
    return {
        name: Regime(name, row["days"], row["mode"], row["source"], opposes_erasure=row.get("opposes_erasure", False))
        for name, row in raw.items()
    }


def regimes_of(declared: Mapping[str, Regime]) -> dict[str, Regime]:
    """All that a dataset may name: what ships, and what the estate declares, which takes its name's place."""
    return {**shipped_regimes(), **declared}


def strictest(days: int, mode: LockMode, regimes: Iterable[Regime]) -> tuple[int, LockMode]:
    """The longest of all days and the stronger of all modes, what the dataset itself declares included."""
    regimes = tuple(regimes)
    modes = {mode, *(regime.mode for regime in regimes)}
    return max(days, *(regime.days for regime in regimes), days), "compliance" if "compliance" in modes else mode


def longest_days(snapshot_every: timedelta, *, followed: bool) -> int:
    """The most days of retention whose locks fit under the cap; `followed` by incrementals costs an interval more."""
    return (LOCK_CAP - (2 if followed else 1) * snapshot_every - SLACK).days
