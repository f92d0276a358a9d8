"""A casino's statistics over months, made up: ordinary life with its noise, and what may go wrong in it.

What belongs here: relations, their ordinary life (weekdays, hours, growth, promotions, holidays, an archive job, a
migration), planted damage. What stays out: judging.

No rows are made: each backup's statistics are drawn as a sandbox of that size would give them, with the noise of a
sample of 2,000 values. Damage changes what the same damage changes in a real database (dr_assets_tests/integration/
test_drift_postgres.py holds the gathering to that).
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.stores.postgres.statistics import SAMPLE_ROWS, RelationStatistics, Statistics

BEGIN: Final = datetime(2026, 3, 2, 3, tzinfo=UTC)  # a Monday
_WEEK: Final = (0.85, 0.85, 0.9, 1.0, 1.35, 1.6, 1.3)
# Rows that are there at first, rows a day at the beginning, bytes a row.
_RELATIONS: Final = {
    "casino.players": (60_000, 120, 90),
    "casino.accounts": (130_000, 260, 160),
    "casino.crm_contacts": (60_000, 120, 140),
    "casino.transfers": (9_000_000, 60_000, 210),
    "casino.postings": (19_000_000, 125_000, 130),
    "casino.rounds": (6_000_000, 45_000, 110),
    "casino.deposits": (700_000, 5_000, 95),
    "casino.withdrawals": (90_000, 700, 100),
    "casino.outbox": (9_000_000, 60_000, 260),
    "casino.wallets": (130_000, 260, 80),
    "casino.sessions": (400_000, 30_000, 180),
    "casino.audit": (2_000_000, 9_000, 300),
}
_WITHOUT_KEY: Final = {"casino.postings", "casino.outbox", "casino.wallets", "casino.sessions"}
_ARCHIVED: Final = "casino.sessions"
# Texts: length, entropy, odd share, packed. Numbers: median and sigma of a lognormal. Shares of NULL. Shares of true.
_TEXTS: Final = {
    "casino.players.country": (2.0, 3.0, 0.0, 8.0),
    "casino.crm_contacts.full_name": (14.0, 4.2, 0.01, 2.4),
    "casino.crm_contacts.email": (24.0, 4.3, 0.0, 2.6),
    "casino.crm_contacts.phone": (12.0, 3.4, 0.0, 2.3),
    "casino.transfers.idempotency_key": (36.0, 4.1, 0.0, 1.7),
    "casino.transfers.digest": (32.0, 7.99, 0.60, 1.0),
    "casino.outbox.payload": (180.0, 4.6, 0.0, 4.5),
    "casino.rounds.game": (9.0, 3.9, 0.0, 6.0),
    "casino.audit.message": (120.0, 4.5, 0.001, 3.8),
}
_NUMBERS: Final = {
    "casino.accounts.balance_minor": (4_000, 1.8),
    "casino.postings.amount_minor": (500, 1.2),
    "casino.deposits.amount_minor": (3_000, 0.9),
    "casino.withdrawals.amount_minor": (8_000, 1.0),
    "casino.rounds.stake_minor": (200, 1.1),
    "casino.wallets.balance_minor": (4_000, 1.8),
}
_NULLS: Final = {
    "casino.crm_contacts.phone": 0.33,
    "casino.rounds.win_minor": 0.62,
    "casino.transfers.reason": 0.998,
    "casino.players.closed_at": 0.97,
    "casino.outbox.published_at": 0.0004,
}
_FLAGS: Final = {"casino.crm_contacts.email_consent": 0.5, "casino.crm_contacts.sms_consent": 0.3}


@dataclass(slots=True)
class State:
    """How things stand; damage changes it."""

    rng: random.Random
    at: datetime
    rows: dict[str, float]
    keys: dict[str, float]
    written: dict[str, float] = field(default_factory=dict)
    mood: dict[str, float] = field(default_factory=dict)
    garbage: dict[str, float] = field(default_factory=dict)
    encrypted: set[str] = field(default_factory=set)
    zeroed: dict[str, float] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    extra_columns: dict[str, int] = field(default_factory=dict)
    xid: int = 1_000_000
    promotion: float = 1.0

    def delete(self, relation: str, share: float) -> None:
        """Rows go, their pages stay."""
        self.rows[relation] *= 1 - share

    def insert(self, relation: str, count: float) -> None:
        """Rows come."""
        self.rows[relation] += count
        self.keys[relation] += count * 1.002  # rolled-back transactions leave gaps
        self.written[relation] = self.written.get(relation, 0.0) + count


Plant = Callable[[State, int], None]


def live(
    seed: int, *, days: int, every: timedelta, planted_day: int = 0, plant: Plant | None = None
) -> Iterator[Statistics]:
    """The statistics of each backup, oldest first. `plant(state, nth)` runs at each backup from `planted_day` on."""
    rng = random.Random(seed)  # noqa: S311 - a world, no secrets
    state = State(
        rng, BEGIN, {name: float(one[0]) for name, one in _RELATIONS.items()},
        {name: one[0] * 1.01 for name, one in _RELATIONS.items()},
    )  # fmt: skip
    calendar = _calendar(rng, days)
    nth = 0
    while state.at < BEGIN + timedelta(days=days):
        _pass_time(state, every, calendar)
        if plant is not None and state.at >= BEGIN + timedelta(days=planted_day):
            nth += 1
            plant(state, nth)
        yield _drawn(state)


def _calendar(rng: random.Random, days: int) -> dict[int, float]:
    """How much busier each special day is: promotions of two to four days, holidays, an evening of outage."""
    special: dict[int, float] = {}
    for _ in range(days // 22):
        first, busier = rng.randrange(days), rng.uniform(1.5, 3.0)
        special |= dict.fromkeys(range(first, first + rng.randint(2, 4)), busier)
    for _ in range(days // 30):
        special[rng.randrange(days)] = rng.choice((0.5, 0.6, 1.7))
    return special


def _pass_time(state: State, every: timedelta, calendar: dict[int, float]) -> None:
    """What happens until the next backup."""
    state.at += every
    state.written = {}
    day = (state.at - BEGIN).days
    share = every / timedelta(days=1)
    state.promotion = calendar.get(day, 1.0)
    busy = _WEEK[state.at.weekday()] * 1.004**day * state.promotion
    if every < timedelta(days=1):
        busy *= 1 + 0.6 * math.cos(2 * math.pi * (state.at.hour - 22) / 24)
    busy *= math.exp(state.rng.gauss(0, 0.07))
    for name, (_, daily, _) in _RELATIONS.items():
        wanted = daily * share * busy * math.exp(state.rng.gauss(0, 0.05))
        state.insert(name, max(0.0, wanted + state.rng.gauss(0, math.sqrt(wanted))))
    for name, updates in (("casino.accounts", 50_000), ("casino.wallets", 50_000), ("casino.outbox", 60_000)):
        state.written[name] += min(state.rows[name], updates * share * busy)
    state.xid += int(60_000 * share * busy)
    for name in (*_TEXTS, *_NUMBERS, *_NULLS, *_FLAGS):
        # What players are like wanders a little from week to week.
        state.mood[name] = 0.97 * state.mood.get(name, 0.0) + state.rng.gauss(0, 0.25) * math.sqrt(share)
    # Once a month what is old of the sessions goes to an archive.
    if state.at.day == 1 and state.at.hour < 3 + every / timedelta(hours=1):
        state.delete(_ARCHIVED, 0.5)


def _drawn(state: State) -> Statistics:
    relations = {name: _relation(state, name) for name in _RELATIONS if name not in state.gone}
    if "casino.limits" in state.extra_columns:
        relations["casino.limits"] = RelationStatistics("limits", {"rows": 300.0, "row_bytes": 60.0}, {}, 300)
    return Statistics(state.at, state.xid, relations)


def _relation(state: State, name: str) -> RelationStatistics:
    rng, (first, _, row_bytes) = state.rng, _RELATIONS[name]
    zero = state.zeroed.get(name, 0.0)
    rows = round(state.rows[name] * (1 - zero))
    pages_bytes = max(state.rows[name], first if name != _ARCHIVED else 0) * row_bytes * 1.08
    values = {"rows": float(rows), "size_bytes": pages_bytes, "written": min(state.written.get(name, 0.0), rows)}
    if rows:
        values |= {
            "row_bytes": pages_bytes / rows * math.exp(rng.gauss(0, 0.004)),
            "page_entropy": 5.6 + rng.gauss(0, 0.02) - 4.5 * zero + 0.6 * _encrypted_share(state, name),
            "page_packed": 2.8 * math.exp(rng.gauss(0, 0.01)) * (1 + 3 * zero),
            "zero_pages": max(0.0, zero + (rng.gauss(0, 0.5) / 64 if zero else 0.0)),
        }
    columns: dict[str, dict[str, float]] = {}
    for each, features in _columns(state, name, rows):
        columns.setdefault(each.rpartition(".")[2], {}).update(features)
    key: int | None = None
    if name not in _WITHOUT_KEY:
        key = round(state.keys[name])
        values["gap_share"] = max(0.0, 1 - rows / max(1, key))
    return RelationStatistics(f"{name}-{state.extra_columns.get(name, 0)}", values, columns, key)


def _encrypted_share(state: State, name: str) -> float:
    return float(any(each.rpartition(".")[0] == name for each in state.encrypted))


def _columns(state: State, name: str, rows: int) -> Iterator[tuple[str, dict[str, float]]]:
    if not rows:
        return
    rng, sample = state.rng, min(rows, SAMPLE_ROWS)
    for each, text in _TEXTS.items():
        if each.rpartition(".")[0] == name:
            yield each, _text(state, each, text, sample)
    for each, (median, sigma) in _NUMBERS.items():
        if each.rpartition(".")[0] == name:
            yield each, _number(state, each, median, sigma, sample)
    for each, share in _NULLS.items():
        if each.rpartition(".")[0] == name:
            wandered = share + 0.02 * state.mood[each] * share * (1 - share)
            yield each, {"null_share": wandered + rng.gauss(0, math.sqrt(share * (1 - share) / rows))}
    for each, share in _FLAGS.items():
        if each.rpartition(".")[0] == name:
            wandered = share * (1 + 0.02 * state.mood[each])
            yield each, {"true_share": wandered + rng.gauss(0, math.sqrt(share * (1 - share) / sample))}


def _text(state: State, each: str, text: tuple[float, float, float, float], sample: int) -> dict[str, float]:
    rng, (length, entropy, odd, packed) = state.rng, text
    if each in state.encrypted:  # as a base64 of a block cipher's output is stored
        length, entropy, odd, packed = length * 1.4 + 24, 5.98, 0.0, 1.32
    bad = state.garbage.get(each, 0.0)
    bad = max(0.0, bad + rng.gauss(0, math.sqrt(bad * (1 - bad) / sample)))
    odd, entropy, packed = odd * (1 - bad) + 0.58 * bad, entropy + 3.0 * bad, packed / (1 + bad * (packed - 1))
    noise = 1 + 0.003 * state.mood[each]
    return {
        "length": length * noise * math.exp(rng.gauss(0, 0.006)),
        "entropy": entropy * (1 + 0.001 * state.mood[each]) + rng.gauss(0, 0.008),
        "odd_share": max(0.0, odd + rng.gauss(0, 0.0002 if odd else 0.0)),
        "packed": packed * math.exp(rng.gauss(0, 0.01)),
    }


def _number(state: State, each: str, median: float, sigma: float, sample: int) -> dict[str, float]:
    rng = state.rng
    moved = math.log(median) + 0.03 * state.mood[each] + 0.15 * math.log(state.promotion)
    bad = state.garbage.get(each, 0.0)
    found = {}
    for name, q, z, density in (("q01", 0.01, -2.33, 0.0267), ("q50", 0.5, 0.0, 0.399), ("q99", 0.99, 2.33, 0.0267)):
        error = math.sqrt(q * (1 - q) / sample) / density
        found[name] = math.exp(moved + sigma * (z + rng.gauss(0, error)))
    if bad > 0.01:  # noqa: PLR2004 - more than the last hundredth is garbage: the 99th percentile lies in it
        found["q99"] = 2.0**45
    return found


# -- what may go wrong -------------------------------------------------------------------------------------------------


def _once(change: Callable[[State], None]) -> Plant:
    def plant(state: State, nth: int) -> None:
        if nth == 1:
            change(state)

    return plant


def _encrypt(state: State) -> None:
    state.encrypted.add("casino.crm_contacts.email")


def _encrypt_slowly(state: State, nth: int) -> None:
    """Row by row, a twentieth of the column each backup: entropy and odd bytes move little each time."""
    state.garbage["casino.audit.message"] = min(1.0, 0.05 * nth)


def _garble(state: State, nth: int) -> None:
    """Every backup another 0.2 % of the names is garbage."""
    state.garbage["casino.crm_contacts.full_name"] = 0.002 * nth


def _lose_values(state: State, nth: int) -> None:
    """Every backup another 0.3 % of the balances is nonsense."""
    state.garbage["casino.accounts.balance_minor"] = 0.003 * nth


def _grow(state: State) -> None:
    state.insert("casino.audit", 9_000 * 40)


PLANTED: Final[dict[str, Plant]] = {
    "a column encrypted": _once(_encrypt),
    "a column encrypted slowly": _encrypt_slowly,
    "3 % of a table deleted": _once(lambda state: state.delete("casino.deposits", 0.03)),
    "30 % of a table deleted": _once(lambda state: state.delete("casino.rounds", 0.3)),
    "a relation's pages zeroed": _once(lambda state: state.zeroed.update({"casino.withdrawals": 1.0})),
    "a tenth of a relation's pages zeroed": _once(lambda state: state.zeroed.update({"casino.transfers": 0.1})),
    "slow corruption of a text": _garble,
    "slow corruption of a number": _lose_values,
    "a table truncated": _once(lambda state: state.delete("casino.withdrawals", 1.0)),
    "a table dropped": _once(lambda state: state.gone.add("casino.crm_contacts")),
    "sudden growth": _once(_grow),
    "a column added": _once(lambda state: state.extra_columns.update({"casino.players": 1})),
}
# What each damage is to be named by: the relation, or the column, that it hit.
HIT: Final = {
    "a column encrypted": "casino.crm_contacts.email",
    "a column encrypted slowly": "casino.audit",
    "3 % of a table deleted": "casino.deposits",
    "30 % of a table deleted": "casino.rounds",
    "a relation's pages zeroed": "casino.withdrawals",
    "a tenth of a relation's pages zeroed": "casino.transfers",
    "slow corruption of a text": "casino.crm_contacts.full_name",
    "slow corruption of a number": "casino.accounts.balance_minor",
    "a table truncated": "casino.withdrawals",
    "a table dropped": "casino.crm_contacts",
    "sudden growth": "casino.audit",
    "a column added": "casino.players",
}


def migrate(state: State, nth: int) -> None:
    """A legitimate release: a table more, a column more."""
    if nth == 1:
        state.extra_columns |= {"casino.limits": 1, "casino.accounts": 1}


def with_noise(statistics: Statistics, **changed: float) -> Statistics:
    """The same with other numbers of one relation: for tests."""
    name, one = next(iter(statistics.relations.items()))
    return replace(statistics, relations={**statistics.relations, name: replace(one, values={**one.values, **changed})})
