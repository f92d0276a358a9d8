"""Rows of results: medians, ratios, floors, verdicts, and joining new rows to those of earlier runs. Pure.

What belongs here: arithmetic over measured numbers. What stays out: measuring, files, and how a row is shown.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["held", "missed", "no floor"]
Of = Literal["ratio", "ours"]


@dataclass(frozen=True, slots=True)
class Floor:
    """What a row must show: the ratio ours/theirs, or our own median, at most or at least `bound`."""

    of: Of
    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        """Whether `value` is within the bound."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def __str__(self) -> str:
        word, bound = ("≤", self.at_most) if self.at_most is not None else ("≥", self.at_least)
        return f"{word} {bound:g}{' x' if self.of == 'ratio' else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside another tool's. `ours` and `theirs` are medians of the runs, in `unit`.

    `against` names theirs, None where there is nothing to compare with. `ratio` is ours / theirs.
    """

    what: str
    unit: str
    against: str | None
    ours: float
    theirs: float | None
    ratio: float | None
    runs_ours: tuple[float, ...]
    runs_theirs: tuple[float, ...]
    floor: str | None
    verdict: Verdict
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def key(self) -> tuple[str, str | None]:
        """What makes two rows the same figure."""
        return self.what, self.against


def row(
    what: str,
    unit: str,
    ours: Sequence[float],
    *,
    against: str | None = None,
    theirs: Sequence[float] = (),
    floor: Floor | None = None,
    versions: Mapping[str, str] | None = None,
    note: str = "",
) -> Row:
    """A row of measured runs; both sides' medians are compared. Raises ValueError without any run of ours."""
    if not ours:
        raise ValueError(f"{what}: there is no run of ours")
    mine = statistics.median(ours)
    other = statistics.median(theirs) if theirs else None
    ratio = mine / other if other else None
    return Row(
        what=what,
        unit=unit,
        against=against,
        ours=_rounded(mine),
        theirs=None if other is None else _rounded(other),
        ratio=None if ratio is None else round(ratio, 3),
        runs_ours=tuple(map(_rounded, ours)),
        runs_theirs=tuple(map(_rounded, theirs)),
        floor=None if floor is None else str(floor),
        verdict=_verdict(floor, mine, ratio),
        versions=dict(versions or {}),
        note=note,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0..1) of the values don't exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("there is no value")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def merged(old: Iterable[Mapping[str, Any]], new: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as stored: each new one in its predecessor's place, or at the end; others stay as they were measured."""
    rows = {(each["what"], each["against"]): dict(each) for each in old}
    for fresh in new:
        rows[fresh.key] = asdict(fresh)
    return list(rows.values())


def _verdict(floor: Floor | None, ours: float, ratio: float | None) -> Verdict:
    value = ours if floor is not None and floor.of == "ours" else ratio
    if floor is None or value is None:
        return "no floor"
    return "held" if floor.holds(value) else "missed"


def _rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")
