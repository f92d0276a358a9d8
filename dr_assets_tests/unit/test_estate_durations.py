from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_assets.estate.durations import format_duration, parse_duration
from dr_assets.estate.errors import PolicyError


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("30s", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("24h", timedelta(days=1)),
        ("35d", timedelta(days=35)),
    ],
)
def test_every_unit_reads_as_itself(text: str, duration: timedelta) -> None:
    """Each of the five units means what it says."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["30", "0s", "-5s", "1.5h", "30 s", "1w", "30S", "", "s", "٣s", "30s\n", "9999999999d"]
)
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    """A bare number, zero, a fraction, another unit or other digits raise and are never guessed at."""
    with pytest.raises(PolicyError) as refused:
        parse_duration(text)
    assert refused.value.code == "policy.duration"


@given(st.integers(1, 10**9 - 1), st.sampled_from(["ms", "s", "m", "h"]))
def test_what_is_written_reads_back_equal(amount: int, unit: str) -> None:
    """format_duration and parse_duration are inverse for every duration of whole milliseconds."""
    duration = parse_duration(f"{amount}{unit}")
    assert parse_duration(format_duration(duration)) == duration
