"""The contiguous prefix: what may be acknowledged upstream while puts finish in any order."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_assets.vault.prefix import ContiguousPrefix


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.randoms())
def test_acknowledges_exactly_what_has_no_gap_before_it(lengths: list[int], random: object) -> None:
    """After each finish, in any order, the acknowledged position is where the first unfinished range begins."""
    prefix, ranges, position = ContiguousPrefix(7), [], 7
    for length in lengths:
        prefix.begin(position, position + length)
        ranges.append((position, position + length))
        position += length
    waiting = list(ranges)
    random.shuffle(waiting)  # type: ignore[attr-defined]  # hypothesis's own Random
    unfinished = set(ranges)
    for first, last in waiting:
        unfinished.remove((first, last))
        expected = min((begin for begin, _ in unfinished), default=position)
        assert prefix.done(first) == prefix.acknowledged == expected
    assert prefix.in_flight == 0


def test_refuses_gaps_overlaps_and_lies() -> None:
    """A range that doesn't continue, is empty, was never announced or is finished twice is a bug, told at once."""
    prefix = ContiguousPrefix(10)
    prefix.begin(10, 20)
    prefix.begin(20, 30)
    for first, last in ((31, 40), (29, 40), (30, 30), (30, 20)):
        with pytest.raises(ValueError, match="does not continue"):
            prefix.begin(first, last)
    with pytest.raises(ValueError, match="no range"):
        prefix.done(30)
    prefix.done(20)
    with pytest.raises(ValueError, match="no range"):
        prefix.done(20)
    assert (prefix.acknowledged, prefix.announced, prefix.in_flight) == (10, 30, 2)


def test_threads_may_share_it() -> None:
    """Many threads finish ranges at once; none is lost and the position ends at the end."""
    prefix = ContiguousPrefix(0)
    for first in range(2000):
        prefix.begin(first, first + 1)
    threads = [
        threading.Thread(target=lambda part=part: [prefix.done(first) for first in range(part, 2000, 4)])  # type: ignore[misc]
        for part in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (prefix.acknowledged, prefix.in_flight) == (2000, 0)
