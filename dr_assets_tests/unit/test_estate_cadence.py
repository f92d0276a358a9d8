from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.estate.cadence import is_cron, last_fire, longest_interval, next_fire


@pytest.mark.parametrize(
    ("cron", "longest"),
    [
        ("* * * * *", timedelta(minutes=1)),
        ("0 3 * * *", timedelta(days=1)),
        ("0 4 1 * *", timedelta(days=31)),
        ("0 4 31 * *", timedelta(days=61)),
        ("0 4 1 1,4,7,10 *", timedelta(days=92)),
        ("*/5 9-17 * * 1-5", timedelta(days=2, hours=15, minutes=5)),
        ("* * 1-2 1 *", timedelta(days=364, minutes=1)),
        ("0 0 29 2 *", timedelta(days=4 * 365 + 1)),
        ("*/7 * * * *", timedelta(minutes=7)),
        ("40 5 * * 0", timedelta(days=7)),
        ("0 5 * * 1,3", timedelta(days=5)),
        ("0 5 1 * 1", timedelta(days=7)),
        ("0 5 * * 5#2", timedelta(days=35)),
        ("0 5 * * L5", timedelta(days=35)),
    ],
)
def test_the_longest_wait_is_counted_over_real_fires(cron: str, longest: timedelta) -> None:
    """Weekends, month lengths and leap days all show in the longest wait between two fires."""
    assert longest_interval(cron) == longest


@pytest.mark.parametrize(
    "text", ["", "daily", "@daily", "0 0 * * * *", "0 0 * *", "61 * * * *", "0 0 31 2 *", "0 0 30 2 *"]
)
def test_what_never_fires_is_no_cron(text: str) -> None:
    """Only five fields that fire at least once count as a cron line."""
    assert not is_cron(text)


def test_a_fire_counts_at_its_own_moment() -> None:
    """The newest fire at a fire's moment is that fire; the next one is strictly later."""
    at = datetime(2026, 3, 1, 4, tzinfo=UTC)
    assert last_fire("0 4 1 * *", at) == at
    assert last_fire("0 4 1 * *", at - timedelta(microseconds=1)) == datetime(2026, 2, 1, 4, tzinfo=UTC)
    assert next_fire("0 4 1 * *", at) == datetime(2026, 4, 1, 4, tzinfo=UTC)
