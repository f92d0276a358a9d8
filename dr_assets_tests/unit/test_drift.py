"""What is ordinary, and what is not: judged over made-up backups, with a rate of false ambers that is promised."""

from datetime import timedelta
from functools import cache

import numpy as np
import pytest
from scipy import stats

from benchmarks.drift import FALSE_PER_30_DAYS, judge_clean, judge_planted
from benchmarks.drift_world import PLANTED, live
from dr_assets.observability.anomalies.judge import Observed, Past, accept, observe
from dr_assets.observability.anomalies.ordinary import slopes
from dr_assets.observability.anomalies.series import series_of
from dr_assets.stores.postgres.statistics import Statistics, byte_features

DAY = timedelta(days=1)
WARM = 35


@cache
def lived() -> tuple[Statistics, ...]:
    """Five weeks and two days of one world, a backup a day."""
    return tuple(live(3, days=WARM + 2, every=DAY))


def past_of(backups: tuple[Statistics, ...]) -> Past:
    """Those as a past in which nothing was strange."""
    past = Past()
    for one in backups:
        past.add(Observed(one, series_of(one, past.observed[-1].statistics if past.observed else None)))
    return past


def test_all_slopes_at_once_are_scipys() -> None:
    """The same numbers as the library's, a column each; unevenly spaced days too."""
    rng = np.random.default_rng(7)
    days = np.cumsum(rng.integers(1, 4, 25)).astype(float)
    values = rng.normal(size=(25, 6)) + np.outer(days, rng.normal(size=6))
    wanted = [stats.theilslopes(column, days).slope for column in values.T]
    assert np.allclose(slopes(days, values), wanted)


def test_ninety_days_of_life_keep_the_promise() -> None:
    """Promotions, holidays, archiving, a migration: no more than one false amber in 30 days."""
    clean = judge_clean((4, DAY))
    assert FALSE_PER_30_DAYS.at_most is not None
    assert clean.ambers * 30 / 90 <= FALSE_PER_30_DAYS.at_most, clean.whats


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_damage_is_named(name: str) -> None:
    """Within a week of backups, by the relation that it hit."""
    nth = judge_planted((2, DAY, name))[1]
    assert nth is not None
    assert nth <= 7


def test_damage_that_stays_stays_amber_until_it_is_accepted() -> None:
    """Thirty days on it is still said; accepted, it is past, and the same again is quiet."""
    past, strange = Past(), []
    for number, one in enumerate(
        live(5, days=WARM + 30, every=DAY, planted_day=WARM, plant=PLANTED["a column encrypted"])
    ):
        observed, found = observe(one, past)
        past.add(observed)
        if number >= WARM - 1:  # the first backup is a day after the beginning
            strange.append("casino.crm_contacts.email entropy" in {each.series for each in found})
        elif found:
            past.accept(*(accept(each, one) for each in found))
    assert strange
    assert all(strange)
    past.accept(*(accept(each, one) for each in found))
    again = list(live(5, days=WARM + 31, every=DAY, planted_day=WARM, plant=PLANTED["a column encrypted"]))[-1]
    assert observe(again, past)[1] == []


def test_nothing_but_facts_is_judged_before_there_is_a_past() -> None:
    """The second backup can't be strange by its numbers; a relation that is gone is."""
    first, second = lived()[:2]
    past = past_of((first,))
    assert observe(second, past)[1] == []
    fewer = {name: one for name, one in second.relations.items() if name != "casino.rounds"}
    gone = observe(Statistics(second.at, second.next_xid, fewer), past)[1]
    assert [one.series for one in gone] == ["casino.rounds gone"]
    assert "it had 6,0" in str(gone[0])


def test_statistics_come_back_from_a_fact_as_they_went() -> None:
    """What a fact holds gives the same series, to its rounding."""
    before, now = lived()[-2:]
    back = Statistics.from_json(now.to_json())
    assert (back.at, back.next_xid) == (now.at, now.next_xid)
    wanted, found = series_of(now, before), series_of(back, Statistics.from_json(before.to_json()))
    assert found.keys() == wanted.keys()
    assert all(found[name] == pytest.approx(wanted[name], abs=1e-4) for name in wanted)


def test_bytes_tell_ciphertext_from_words() -> None:
    """Entropy, odd bytes and packing of what a key made and of what people write."""
    words = byte_features(b"the quick brown fox jumps over the lazy dog " * 50)
    noise = byte_features(np.random.default_rng(1).bytes(4000))
    assert (words["entropy"] < 4.5, noise["entropy"] > 7.5) == (True, True)
    assert (words["odd_share"], noise["odd_share"] > 0.4) == (0, True)
    assert (words["packed"] > 5, noise["packed"] < 1.1) == (True, True)
