"""CSV as text, column by column, in pieces: the file is checked to be whole first, then streamed.

What belongs here: bytes to columns of text, and every way in which a file can be broken before its values are looked
at. What stays out: what a column means.

Arrow's parser ends a value at the end of the file when its quote was never closed, and joins two lines when a quote
stands inside a value: both would lose lines without a word, so the quotes are judged here.
"""

import csv
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv

from dr_assets.estate.errors import SourceError
from dr_assets.reconciliation.providers.lines import Place, Sent, broken, bytes_of

_BLOCK_BYTES: Final = 4 << 20
_CHUNK_BYTES: Final = 16 << 20
_HEADER_BYTES: Final = 1 << 20
_UTF8_BOM: Final = b"\xef\xbb\xbf"
# What is no CSV although it has the name of one.
_OTHER_BEGINNINGS: Final = (
    ((b"\xff\xfe", b"\xfe\xff"), "is UTF-16", "save it as UTF-8"),
    ((b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"), "is compressed", "unpack it first"),
    ((b"<", b"{", b"["), "is no CSV, but XML, HTML or JSON: an error page of a download looks so", "fetch it again"),
)
_PARSE_ERROR: Final = re.compile(r"Expected (\d+) columns, got (\d+)")


@dataclass(frozen=True)
class Dialect:
    """How a file is written."""

    delimiter: str = ","
    encoding: str = "utf-8"


def text_batches(
    sent: Sent, dialect: Dialect, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[Place, dict[str, pa.Array]]]:
    """The named columns as text, a piece at a time, with the line that the piece begins on.

    A column of `optional` that the file lacks is left out. Raises SourceError (`reconciliation.file`).
    """
    quoted = _whole(sent, dialect)
    names = _header(sent, dialect)
    missing = [column for column in required if column not in names]
    if missing:
        raise broken(sent, f"no column {', '.join(missing)} (it has {', '.join(names)[:400]})", "is it another report?")
    wanted = [*required, *(column for column in optional if column in names)]
    line = 2
    try:
        reader = pc_csv.open_csv(
            sent.path,
            read_options=pc_csv.ReadOptions(block_size=_BLOCK_BYTES, encoding=dialect.encoding),
            parse_options=pc_csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=quoted),
            convert_options=pc_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=list(dict.fromkeys(wanted)),
                strings_can_be_null=False,
            ),
        )
        for batch in reader:
            if batch.num_rows:
                yield Place(sent.name, line), {name: batch.column(name) for name in wanted}
            line += batch.num_rows
    except (pa.ArrowInvalid, UnicodeDecodeError, LookupError) as error:
        raise _unreadable(sent, dialect, line, error) from None


def _whole(sent: Sent, dialect: Dialect) -> bool:
    """Refuse a file that is empty, cut short or no CSV; whether quotes are used in it."""
    if sent.path.stat().st_size == 0:
        raise broken(sent, "it is empty")
    with sent.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for beginnings, found, hint in _OTHER_BEGINNINGS:
            if content[: len(_UTF8_BOM) + 1].removeprefix(_UTF8_BOM).startswith(beginnings):
                raise broken(sent, found, hint)
        if content[-1:] not in (b"\n", b"\r"):
            raise broken(
                sent,
                "its last line does not end: it cannot be told from a file that was cut short",
                "fetch it again; if the provider writes it so, end it with a line break",
            )
        return _quotes_close(sent, content, dialect)


def _quotes_close(sent: Sent, content: mmap.mmap, dialect: Dialect) -> bool:
    """Every quote opens a value or closes one, or stands doubled within one, and each that opens is closed."""
    if content.find(b"\0") >= 0:
        raise broken(sent, "it has zero bytes: a part of it was never written")
    if content.find(b'"') < 0:
        return False
    view = np.frombuffer(content, np.uint8)
    try:
        around = np.frombuffer(f"{dialect.delimiter}\r\n".encode(), np.uint8)
        seen = 0
        for begin in range(0, len(view), _CHUNK_BYTES):
            chunk = view[begin : begin + _CHUNK_BYTES]
            quotes = np.flatnonzero(chunk == ord('"')) + begin
            opens = (np.arange(seen, seen + len(quotes)) % 2) == 0
            neighbours = np.where(opens, view[quotes - 1], view[np.minimum(quotes + 1, len(view) - 1)])
            fits = np.isin(neighbours, around) | (neighbours == ord('"'))
            fits |= opens & ((quotes == 0) | (quotes == len(_UTF8_BOM)))
            if not fits.all():
                where = int(quotes[np.argmin(fits)])
                line = int(np.count_nonzero(view[:where] == ord("\n"))) + 1
                raise broken(
                    sent, f"line {line} has a quote in the middle of a value", "quote the value, double the quote"
                )
            seen += len(quotes)
        if seen % 2:
            raise broken(sent, "a quote that was opened is never closed: the rest of the file would be one value")
        return seen > 0
    finally:
        del view, chunk


def _header(sent: Sent, dialect: Dialect) -> list[str]:
    with sent.path.open("rb") as file:
        text = file.read(_HEADER_BYTES).removeprefix(_UTF8_BOM).decode(dialect.encoding, "replace")
    try:
        names = next(csv.reader(text.splitlines(), delimiter=dialect.delimiter), [])
    except csv.Error:
        raise broken(sent, "its first line is no line of names", "is it another report?") from None
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise broken(sent, f"column {', '.join(twice)} is there twice", "nobody can tell which of them is meant")
    return names


def _unreadable(sent: Sent, dialect: Dialect, line: int, error: Exception) -> SourceError:
    """Arrow's words without the line's content."""
    found = _PARSE_ERROR.search(str(error))
    if found:
        line = _uneven_line(sent, dialect, int(found[1]))
        return broken(sent, f"line {line} has {found[2]} values where the header has {found[1]}")
    if "UTF8" in str(error) or isinstance(error, UnicodeDecodeError):
        return broken(sent, f"at line {line} or later: it is not UTF-8", "name its encoding in the mapping")
    return broken(sent, f"at line {line} or later: {' '.join(str(error).split())[:120]}")


def _uneven_line(sent: Sent, dialect: Dialect, columns: int) -> int:
    """The first line that has another number of values: looked for only once it is known that there is one."""
    with sent.path.open(encoding=dialect.encoding, errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=dialect.delimiter)
        try:
            return next((rows.line_num for row in rows if row and len(row) != columns), 0)
        except csv.Error:
            return rows.line_num


def plain(text: pa.Array, place: Place) -> pa.Array:
    """The texts, if none has a line break or another control character in it: a reference has none."""
    if (bytes_of(text) < ord(" ")).any():
        row = pc.index(pc.match_substring_regex(text, "[\\x00-\\x1f]"), True).as_py()
        raise place.refused(row, text[row], "has a line break or a control character in it")
    return text


def or_null(text: pa.Array) -> pa.Array:
    """NULL for an empty text."""
    if pc.all(pc.greater(pc.binary_length(text), 0)).as_py():
        return text
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
