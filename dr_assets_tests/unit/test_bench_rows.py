"""The benchmark's arithmetic: what a row says of measured runs."""

import pytest

from benchmarks.postgres.primary import segment_end, segment_name
from benchmarks.postgres.rows import Floor, merged, percentile, row
from benchmarks.postgres.watching import Positions, lags_s


def test_a_row_compares_medians_and_judges_by_its_floor() -> None:
    """One slow run moves nothing; the ratio of medians is held to the bound, in both directions."""
    ours, theirs = [4.0, 2.0, 90.0], [8.0, 8.5, 1.0]
    held = row("backup", "s", ours, against="other", theirs=theirs, floor=Floor("ratio", at_most=1.0))
    assert (held.ours, held.theirs, held.ratio, held.verdict) == (4.0, 8.0, 0.5, "held")
    missed = row("archiving", "MB/s", ours, against="other", theirs=theirs, floor=Floor("ratio", at_least=2.0))
    assert missed.verdict == "missed"
    assert missed.floor == "≥ 2 x"


def test_a_bound_on_our_own_figure_needs_no_other() -> None:
    """An absolute floor is judged by our median alone; without a floor there is no verdict, without runs no row."""
    assert row("lag p99", "s", [0.9, 1.2, 0.8], floor=Floor("ours", at_most=1.0)).verdict == "held"
    assert row("lag p99", "s", [1.1], floor=Floor("ours", at_most=1.0)).verdict == "missed"
    assert row("lag", "s", [1.1]).verdict == "no floor"
    assert row("lag", "s", [1.1], against="x", floor=Floor("ratio", at_most=1)).verdict == "no floor"
    with pytest.raises(ValueError, match="no run"):
        row("lag", "s", [])


def test_percentiles_are_values_that_occurred() -> None:
    """p99 of a hundred is the 99th, p50 the 50th; a single value is every percentile."""
    values = [float(n) for n in range(100, 0, -1)]
    assert (percentile(values, 0.99), percentile(values, 0.5), percentile(values, 1.0)) == (99.0, 50.0, 100.0)
    assert percentile([7.0], 0.01) == 7.0


def test_a_rerun_replaces_its_own_rows_and_leaves_the_others() -> None:
    """Pieces can be measured anew by themselves: the same figure against the same tool is one row."""
    first = merged([], [row("backup", "s", [4.0], against="a"), row("backup", "s", [4.0], against="b")])
    again = merged(first, [row("backup", "s", [2.0], against="a"), row("lag", "s", [0.3])])
    assert [(each["what"], each["against"], each["ours"]) for each in again] == [
        ("backup", "a", 2.0),
        ("backup", "b", 4.0),
        ("lag", None, 0.3),
    ]


def test_the_lag_of_a_commit_ends_when_its_position_is_safe() -> None:
    """Positions that jump by segments make old commits wait longest; what never became safe is left out."""
    positions = Positions()
    for second in range(10):
        positions.add(float(second), second * 10, 0 if second < 4 else 35)
    assert lags_s(positions, 0.0, 9.0) == [0.0, 3.0, 2.0, 1.0]
    assert lags_s(positions, 2.0, 3.0) == [2.0, 1.0]


def test_a_wal_files_name_says_where_it_begins_and_ends() -> None:
    """Names count in 16 MiB from the start of the WAL, 256 files to a log number."""
    assert segment_name(0x1_FF00_0000) == "0000000100000001000000FF"
    assert segment_end("0000000100000001000000FF") == 0x2_0000_0000
