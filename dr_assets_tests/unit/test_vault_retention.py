"""How long each kind of object is locked (DESIGN §4)."""

from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.retention import LOCK_CAP, MICRO_LOCK, LockRules, check_skew, lock_for, lock_length
from dr_assets.vault.throwaway import ThrowawayRetention

DAY = timedelta(days=1)
NOW = datetime(2031, 5, 4, 3, 2, 1, 999, tzinfo=UTC)
RULE = ThrowawayRetention("compliance", 30, 30)


def test_a_base_backup_outlives_the_points_that_need_it() -> None:
    """Retention, plus the snapshot interval, plus a week: parts, manifests, WAL and facts alike."""
    for kind in ("part", "manifest", "wal", "fact"):
        assert lock_length(kind, RULE, DAY) == 38 * DAY  # type: ignore[arg-type]  # mypy widens the tuple's literals


def test_wal_is_never_locked_for_less_than_two_weeks() -> None:
    """However short the retention."""
    assert lock_length("wal", ThrowawayRetention(days=1), timedelta(hours=1)) == MICRO_LOCK
    assert lock_length("micro", RULE, DAY) == MICRO_LOCK


def test_a_longer_declared_lock_wins() -> None:
    """`lock_days` above the retention's days lengthens every lock."""
    assert lock_length("part", ThrowawayRetention("compliance", 30, 60), DAY) == 68 * DAY
    assert lock_length("part", ThrowawayRetention("compliance", 30, None), DAY) == 38 * DAY


def test_a_data_key_outlives_everything_sealed_under_it() -> None:
    """Even at half of its lock, when it is renewed, it holds longer than what is sealed at that moment."""
    assert lock_length("key", RULE, DAY) / 2 > lock_length("part", RULE, DAY)


def test_a_lock_of_decades_is_refused() -> None:
    """Nobody can undo a compliance lock, so a slip of a digit must not become one."""
    with pytest.raises(PolicyError, match="lock_too_long"):
        lock_length("part", ThrowawayRetention("compliance", LOCK_CAP.days, None), DAY)


def test_a_lock_is_whole_seconds_and_never_shorter_than_its_rule() -> None:
    """Stores keep whole seconds; rounding goes up."""
    lock = lock_for("part", RULE, DAY, NOW)
    assert (lock.mode, lock.retain_until.microsecond) == ("COMPLIANCE", 0)
    assert timedelta() <= lock.retain_until - (NOW + 38 * DAY) <= timedelta(seconds=1)
    assert lock_for("part", ThrowawayRetention("governance"), DAY, NOW).mode == "GOVERNANCE"


def test_what_no_dataset_declares_gets_the_longest_lock() -> None:
    """Facts about the whole estate stay as long as anything they speak of."""
    rules = LockRules({"short": (ThrowawayRetention(days=20), DAY), "long": (RULE, DAY)})
    assert rules.length("estate", "fact") == rules.length("long", "fact") > rules.length("short", "fact")
    with pytest.raises(PolicyError, match="no dataset"):
        LockRules({}).length("estate", "fact")


@pytest.mark.parametrize(("skew_s", "refused"), [(0, False), (5, False), (-5, False), (7, True), (-8, True)])
def test_a_clock_more_than_five_seconds_off_is_refused(skew_s: int, refused: bool) -> None:
    """Locks are set by the clock, so a wrong clock is a wrong lock."""
    before = NOW.replace(microsecond=0)
    store_now = before + timedelta(seconds=skew_s)
    if refused:
        with pytest.raises(VaultError, match="clock_skew"):
            check_skew(store_now, before, before)
    else:
        check_skew(store_now, before, before)


def test_a_slow_answer_is_no_skew() -> None:
    """The store's time lies between question and answer, however long that took."""
    check_skew(NOW + timedelta(seconds=30), NOW, NOW + timedelta(seconds=60))
