"""Which of a backup's numbers are suspicious, with the evidence; held to a rate of false alarms set beforehand.

What belongs here: the decision over all series of a backup at once. What stays out: one series' past (ordinary.py),
facts (record.py), and showing it.

A backup has hundreds of series, so some are always strange. A value is suspicious only when its chance is below the
whole dataset's allowance shared among all of them (Bonferroni), and it is far enough from what was expected to matter.
What cannot be chance (a relation that is empty or gone, other columns) needs no statistics.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

import numpy as np

from dr_assets.observability.anomalies.ordinary import PAST, POINTS_MIN, Expected, Floats, expected, slid
from dr_assets.observability.anomalies.series import FEATURES, ROWS_MIN, Feature, feature_of, series_of
from dr_assets.stores.postgres.statistics import Statistics

# The promise: no more than so many backups of a dataset are called strange for nothing.
FALSE_AMBERS: Final = 1.0
PER: Final = timedelta(days=30)
# The allowance for chance alone; the rest is for days that are no chance and no damage either.
SHARE_OF_CHANCE: Final = 0.2
# A slide is judged where it is this many spreads away; its points depend on one another, so no chance is computed.
SLIDE_SPREADS: Final = 8.0
# Of the change that matters at once, the part that matters when it stays.
SLIDE_LEAST: Final = 0.5
# What was accepted holds for as much again by this part of how far it was from what had been expected.
ALIKE: Final = 0.25
_SMALLEST_CHANCE: Final = 1e-300


@dataclass(frozen=True, slots=True)
class Suspicion:
    """One strange number: where, what was seen, what was expected, and how far that is from ordinary.

    `seen`, `wanted` and `spreads` are on the feature's own scale of values, in units of ordinary spread. `kind` is
    `value`, `slide`, `emptied`, `gone` or `schema`; the last three have no chance, they are facts.
    """

    kind: str
    series: str
    seen: float
    wanted: float
    spreads: float
    chance: float
    why: str

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True)
class Observed:
    """One backup's numbers, and which of them were suspicious then: those are no past until somebody accepts them."""

    statistics: Statistics
    series: Mapping[str, float]
    suspicious: frozenset[str] = frozenset()

    @property
    def at(self) -> datetime:
        """When, by the source's clock."""
        return self.statistics.at


@dataclass(frozen=True, slots=True)
class Accepted:
    """What somebody looked at and called ordinary: values of a series between `low` and `high`, from `at` on.

    For facts (`schema`, `emptied`, `gone`) `token` is the columns' digest that was accepted, or nothing.
    """

    series: str
    low: float
    high: float
    token: str = ""

    def covers(self, value: float, least: float) -> bool:
        """Whether `value` is this again; `least` is the difference that matters."""
        more = max(least, ALIKE * (self.high - self.low))
        return self.low - more <= value <= self.high + more


@dataclass(slots=True)
class Past:
    """The observations before, oldest first, and what of them is ordinary.

    `known` is each relation as it last was without suspicion: its rows, its columns' digest.
    """

    observed: list[Observed] = field(default_factory=list)
    known: dict[str, tuple[float, str]] = field(default_factory=dict)
    accepted: dict[str, list[Accepted]] = field(default_factory=dict)

    def add(self, one: Observed) -> None:
        """The next one. What was suspicious in it is left out of its series' past."""
        self.observed.append(one)
        for name, relation in one.statistics.relations.items():
            rows, schema = self.known.get(name, (0.0, ""))
            if f"{name} emptied" not in one.suspicious:
                rows = relation.values.get("rows", 0.0)
            if f"{name} schema" not in one.suspicious:
                schema = relation.schema
            if schema:  # a new relation is known once somebody accepted it
                self.known[name] = (rows, schema)
        for name in [name for name in self.known if name not in one.statistics.relations]:
            if f"{name} gone" not in one.suspicious:
                del self.known[name]

    def accept(self, *given: Accepted) -> None:
        """From now on these values are known; what was left out for them becomes past."""
        for each in given:
            relation, _, kind = each.series.rpartition(" ")
            if kind in FEATURES:
                self.accepted.setdefault(each.series, []).append(each)
            else:
                self._accept_fact(relation, kind, each.token)

    def is_accepted(self, series: str, value: float) -> bool:
        """Whether somebody called such a value ordinary: the same again, or a little more of it."""
        return any(one.covers(value, feature_of(series).least) for one in self.accepted.get(series, ()))

    def ordinary(self, series: str) -> Iterator[float]:
        """A value for each observation; NaN where there was none, or none that is ordinary."""
        for one in self.observed:
            value = one.series.get(series, math.nan)
            yield math.nan if series in one.suspicious and not self.is_accepted(series, value) else value

    def _accept_fact(self, relation: str, kind: str, token: str) -> None:
        rows, schema = self.known.get(relation, (0.0, ""))
        if kind == "schema":
            self.known[relation] = (rows, token)
        elif kind == "emptied":
            self.known[relation] = (0.0, schema)
        else:
            self.known.pop(relation, None)


def observe(now: Statistics, past: Past) -> tuple[Observed, list[Suspicion]]:
    """Judge a backup against those before it; the strangest first. The observation is the caller's to add."""
    before = past.observed[-1].statistics if past.observed else None
    series = series_of(now, before)
    found = [*_facts(now, past), *_strange(now.at, series, past)]
    suspicious = frozenset(each.series for each in found)
    return Observed(now, series, suspicious), sorted(found, key=lambda each: (each.chance, -each.spreads))


def _facts(now: Statistics, past: Past) -> Iterator[Suspicion]:
    """A relation that lost all its rows, went away, is new, or has other columns than the last time they were known."""
    if not past.observed:
        return
    for name, (rows, schema) in past.known.items():
        one = now.relations.get(name)
        if one is None:
            if rows >= ROWS_MIN:
                yield _fact("gone", name, rows, f"{name} is gone; it had {rows:,.0f} rows")
            continue
        if rows >= ROWS_MIN and one.values.get("rows", 0) == 0:
            yield _fact("emptied", name, rows, f"{name} has no row; it had {rows:,.0f}")
        if one.schema != schema:
            yield _fact("schema", name, 0, f"{name} has other columns than before: {', '.join(one.columns)}")
    for name, one in now.relations.items():
        if name not in past.known:
            yield _fact("schema", name, 0, f"{name} is new, with {one.values.get('rows', 0):,.0f} rows")


def _fact(kind: str, relation: str, rows: float, why: str) -> Suspicion:
    return Suspicion(kind, f"{relation} {kind}", 0.0, rows, 0.0, 0.0, why)


@dataclass(frozen=True, slots=True)
class _Together:
    """Series with a past of the same times: their names, that past (a column each), their values now."""

    names: list[str]
    times: list[datetime]
    past: Floats
    values: Floats

    def each(self, pick: Callable[[Feature], float]) -> Floats:
        """One number of each series' feature."""
        return np.array([pick(feature_of(name)) for name in self.names], dtype=np.float64)


def _strange(at: datetime, series: Mapping[str, float], past: Past) -> Iterator[Suspicion]:
    """Values that are far from what was expected, then slides of those that are not."""
    found = []
    for one in _together(at, series, past):
        trends = one.each(lambda feature: float(not feature.is_steady)) > 0
        ordinary = expected(one.times, one.past, at, one.each(lambda feature: feature.resolution), trends)
        if ordinary is not None:
            found.append((one, ordinary))
    judged = sum(len(one.names) for one, _ in found)
    limit = _allowance(past.observed) / max(1, judged)
    for one, ordinary in found:
        is_far = np.abs(one.values - ordinary.middle) >= one.each(lambda feature: feature.least)
        chances = ordinary.chance(one.values)
        for at_index in np.flatnonzero(is_far & (chances < limit)):
            yield _value(one, ordinary, chances, int(at_index))
        yield from _slides(at, one, set(np.flatnonzero(is_far & (chances < limit))))


def _together(at: datetime, series: Mapping[str, float], past: Past) -> Iterator[_Together]:
    """The series to be judged, those with the same times together; what is accepted as it is isn't judged."""
    begin = at - 2 * PAST
    skipped = sum(1 for one in past.observed if one.at < begin)
    times = [one.at for one in past.observed[skipped:]]
    alike: dict[bytes, list[tuple[str, Floats]]] = {}
    for name in series:
        if not past.is_accepted(name, series[name]):
            values = np.array(list(islice(past.ordinary(name), skipped, None)), dtype=np.float64)
            alike.setdefault(np.isfinite(values).tobytes(), []).append((name, values))
    for there, columns in alike.items():
        mask = np.frombuffer(there, dtype=np.bool_)
        if mask.sum() >= POINTS_MIN:
            names = [name for name, _ in columns]
            rows = np.column_stack([values[mask] for _, values in columns])
            kept = [when for when, here in zip(times, mask, strict=True) if here]
            yield _Together(names, kept, rows, np.array([series[name] for name in names]))


def _value(one: _Together, ordinary: Expected, chances: Floats, at: int) -> Suspicion:
    name, value, middle = one.names[at], float(one.values[at]), float(ordinary.middle[at])
    feature, spreads = feature_of(name), float(ordinary.strangeness(one.values)[at])
    said = f"{name} is {_shown(feature, value)}, {_shown(feature, middle)} was expected"
    why = f"{said} ({spreads:.0f} times the ordinary spread, of {ordinary.points} backups)"
    return Suspicion("value", name, value, middle, spreads, max(float(chances[at]), _SMALLEST_CHANCE), why)


def _slides(at: datetime, one: _Together, named: set[int]) -> Iterator[Suspicion]:
    """What should stay where it is and left that place slowly."""
    slide = slid([*one.times, at], np.vstack([one.past, one.values]), at, one.each(lambda feature: feature.resolution))
    if slide is None:
        return
    old, recent = slide
    spreads = old.strangeness(recent)
    is_far = np.abs(recent - old.middle) >= SLIDE_LEAST * one.each(lambda feature: feature.least)
    is_steady = one.each(lambda feature: float(feature.is_steady)) > 0
    for index in np.flatnonzero(is_far & is_steady & (spreads >= SLIDE_SPREADS)):
        if index in named:
            continue
        name, seen, middle = one.names[index], float(recent[index]), float(old.middle[index])
        feature = feature_of(name)
        why = f"{name} slid from {_shown(feature, middle)} to {_shown(feature, seen)} over weeks"
        yield Suspicion("slide", name, seen, middle, float(spreads[index]), _SMALLEST_CHANCE, why)


def _allowance(observed: Sequence[Observed]) -> float:
    """How much chance one backup may have of being called strange for nothing, by how many there are in 30 days."""
    recent = observed[-POINTS_MIN:]
    if len(recent) < 2:  # noqa: PLR2004 - an interval has two ends
        return SHARE_OF_CHANCE * FALSE_AMBERS / PER.days
    every = (recent[-1].at - recent[0].at) / (len(recent) - 1)
    return SHARE_OF_CHANCE * FALSE_AMBERS * (every / PER)


def _shown(feature: Feature, value: float) -> str:
    return f"{feature.unscaled(value):,.4g}"


def accept(suspicion: Suspicion, statistics: Statistics) -> Accepted:
    """What accepting a suspicion says."""
    relation, _, kind = suspicion.series.rpartition(" ")
    if kind in FEATURES:
        low, high = sorted((suspicion.seen, suspicion.wanted))
        return Accepted(suspicion.series, low, high)
    one = statistics.relations.get(relation)
    return Accepted(suspicion.series, 0, 0, one.schema if kind == "schema" and one is not None else "")
