"""What people read of the benchmark is drawn from its rows."""

from dataclasses import asdict
from xml.etree import ElementTree as ET

from benchmarks.postgres.page import BEGIN, END, bars, between_marks, summary, table
from benchmarks.postgres.rows import Floor, row

ROWS = [
    asdict(row("base backup", "s", [4.0], against="pgBackRest", theirs=[8.0], floor=Floor("ratio", at_most=1.0))),
    asdict(row("base backup", "s", [4.0], against="barman & co", theirs=[3.0])),
    asdict(row("lag p99", "s", [1.5], floor=Floor("ours", at_most=1.0))),
]


def test_a_missed_floor_is_as_visible_as_a_held_one() -> None:
    """The table holds every row; the summary those with a floor; neither hides a miss."""
    assert "| base backup | s | 4 | 8 | pgBackRest | 0.50 | ≤ 1 x | held |" in table(ROWS)
    assert "| lag p99 | s | 1.5 |  |  |  | ≤ 1 | **missed** |" in table(ROWS)
    assert table(ROWS).endswith("Floors missed: lag p99 (1.5, floor ≤ 1).")
    assert table(ROWS[:2]).endswith("Every floor is held.")
    assert "missed" in summary(ROWS)
    assert "barman" not in summary(ROWS)


def test_drawing_again_changes_nothing_else() -> None:
    """What stands before and behind the marks stays, and so does the page when it is drawn twice."""
    once = between_marks(f"before\n{BEGIN}\nold\n{END}\nbehind\n", table(ROWS))
    assert once.startswith(f"before\n{BEGIN}\n| what ")
    assert once.endswith(f".\n{END}\nbehind\n")
    assert between_marks(once, table(ROWS)) == once


def test_the_picture_is_well_formed() -> None:
    """One pair of bars for each compared row, names escaped."""
    picture = ET.fromstring(bars(ROWS))  # noqa: S314 - drawn right here
    assert len(picture.findall("{http://www.w3.org/2000/svg}rect")) == 1 + 2 * 2
