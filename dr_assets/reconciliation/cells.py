"""Text in a CSV that people open in a spreadsheet: what would begin a formula there begins with an apostrophe instead.

What belongs here: that one rule and its way back. What stays out: the files (extract, work-list, orphans, outbox plan).

Whoever sends us money chooses its reference, and `=HYPERLINK(…)` is one. The rule is reversible: a text that begins
with an apostrophe gets another one, so whoever takes one leading apostrophe off each cell has every text as it was.
"""

import re
from typing import Final

# As spreadsheets take them, full-width signs included; an apostrophe, so that the way back is one.
_MARKED: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")  # noqa: RUF001 - those are meant
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def harmless(text: str) -> str:
    """The cell for a text; a plain number, as an amount is, stays as it is."""
    return f"'{text}" if text.startswith(_MARKED) and not _NUMBER.fullmatch(text) else text


def as_it_was(cell: str) -> str:
    """The text of a cell."""
    return cell.removeprefix("'")
