"""From statistics of a backup to series of comparable numbers: levels, and flows since the backup before.

What belongs here: which features there are, on what scale each is judged, and the least change of each that matters.
What stays out: what is ordinary (ordinary.py), and where statistics come from.

A series is named `relation` or `relation.column`, a space, the feature: `casino.accounts.balance_minor q50`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dr_assets.stores.postgres.statistics import Statistics

# Relations with fewer rows say little: a handful of rows is a large share of them.
ROWS_MIN: Final = 200
# How long statistics may lie apart for flows between them to mean anything.
_HOURS_MIN: Final = 0.01


@dataclass(frozen=True, slots=True)
class Feature:
    """How a feature is judged: on a logarithmic scale or as it is, and the least distance on it that matters.

    `resolution` is what is ordinary noise even where history shows none. `is_steady`: in a healthy system it stays
    where it is for weeks, so that a slow slide of it is strange, too.
    """

    least: float
    resolution: float
    is_log: bool = False
    is_steady: bool = False

    def scaled(self, value: float) -> float:
        """The number on the feature's scale: asinh is a logarithm that knows zero and signs."""
        return math.asinh(value) if self.is_log else value

    def unscaled(self, value: float) -> float:
        """Back."""
        return math.sinh(value) if self.is_log else value


# The limits, set beforehand: 0.69 is a factor of 2 on the logarithmic scale, 1.39 of 4, 0.22 a quarter more.
FEATURES: Final[Mapping[str, Feature]] = {
    # flows, per hour
    "inserted": Feature(1.39, 0.10, is_log=True),
    "updated": Feature(1.61, 0.15, is_log=True),
    "deleted": Feature(2.30, 0.15, is_log=True),
    # share of the relation's rows that went since the last time, whatever came
    "lost_share": Feature(0.01, 0.0005),
    # levels
    "row_bytes": Feature(0.18, 0.01, is_log=True),
    "gap_share": Feature(0.02, 0.001, is_steady=True),
    "page_entropy": Feature(0.50, 0.03, is_steady=True),
    "page_packed": Feature(0.30, 0.02, is_log=True),
    "zero_pages": Feature(0.03, 0.002, is_steady=True),
    "null_share": Feature(0.02, 0.001, is_steady=True),
    "true_share": Feature(0.10, 0.005),
    "length": Feature(0.22, 0.01, is_log=True),
    "entropy": Feature(0.35, 0.02, is_steady=True),
    "odd_share": Feature(0.004, 0.0002, is_steady=True),
    "packed": Feature(0.40, 0.03, is_log=True),
    "q01": Feature(1.0, 0.05, is_log=True),
    "q50": Feature(0.60, 0.04, is_log=True),
    "q99": Feature(0.90, 0.05, is_log=True),
}


def feature_of(series: str) -> Feature:
    """The feature that a series is of."""
    return FEATURES[series.rpartition(" ")[2]]


def series_of(now: Statistics, before: Statistics | None) -> dict[str, float]:
    """Every number of a backup that can be judged, on its feature's scale."""
    found = {}
    for name, value in (*_levels(now), *_flows(now, before)):
        found[name] = feature_of(name).scaled(value)
    return found


def _levels(now: Statistics) -> Iterator[tuple[str, float]]:
    for relation, one in now.relations.items():
        if one.values.get("rows", 0) < ROWS_MIN:
            continue
        for feature, value in one.values.items():
            if feature in FEATURES:
                yield f"{relation} {feature}", value
        for column, values in one.columns.items():
            for feature, value in values.items():
                # A key's quantiles grow with it, and say nothing else.
                if feature in FEATURES and not (feature.startswith("q") and _is_counter(column)):
                    yield f"{relation}.{column} {feature}", value


def _flows(now: Statistics, before: Statistics | None) -> Iterator[tuple[str, float]]:
    if before is None:
        return
    hours = (now.at - before.at).total_seconds() / 3600
    if hours < _HOURS_MIN:
        return
    for relation, one in now.relations.items():
        then = before.relations.get(relation)
        if then is None or max(then.values.get("rows", 0), one.values.get("rows", 0)) < ROWS_MIN:
            continue
        rows, rows_before = one.values.get("rows", 0.0), then.values.get("rows", 0.0)
        grown = rows - rows_before
        yield f"{relation} lost_share", max(0.0, -grown) / max(rows_before, 1.0)
        if one.key_max is not None and then.key_max is not None:
            inserted = max(0.0, float(one.key_max - then.key_max), grown)
            yield f"{relation} inserted", inserted / hours
            yield f"{relation} deleted", (inserted - grown) / hours
            if "written" in one.values:
                yield f"{relation} updated", max(0.0, one.values["written"] - inserted) / hours
        elif grown >= 0:  # without a key nobody knows what came while more went
            yield f"{relation} inserted", grown / hours


def _is_counter(column: str) -> bool:
    return column.endswith(("_id", "sequence", "_us")) or column in {"id", "position"}
