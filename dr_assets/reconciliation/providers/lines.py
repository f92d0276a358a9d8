"""The shape that every reader gives, and the words for a file that cannot be read.

What belongs here: the two schemas, the kinds of lines, where something stands in a file, refusing. What stays out:
any one format.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dr_assets.estate.errors import SourceError
from dr_assets.reconciliation.externals import external_schema

PROVIDER_LINES: Final = external_schema("provider_lines")
BANK_LINES: Final = external_schema("bank_lines")
# payment: a customer's money in. refund, chargeback: back to the customer. payout: money out to one customer. reversal:
# an earlier line undone. fee: what the provider charges by itself. batch: what it settled to our bank. transfer: what
# else moves our balance there.
KINDS: Final = ("payment", "refund", "chargeback", "payout", "reversal", "fee", "transfer", "batch")
_SHOWN: Final = 40


@dataclass(frozen=True)
class Place:
    """Where a batch of values stands: `first_line` is the line of its first row, the header being line 1."""

    file: str
    first_line: int
    column: str = ""

    def of(self, column: str) -> "Place":
        """The same rows, another column."""
        return Place(self.file, self.first_line, column)

    def refused(self, row: int, value: Any, why: str) -> SourceError:
        """A value that is not what it has to be; `row` counts from 0 within the batch."""
        shown = str(value)[:_SHOWN]
        return SourceError(
            "reconciliation.file",
            f"{self.file}, line {self.first_line + row}, column {self.column}: {shown!r} {why}",
            "nothing of this file was used; fetch it again, or mend the mapping that says what its columns mean",
        )


@dataclass(frozen=True, order=True)
class Sent:
    """A file that a provider sent; `name` is its place below the feed's folder, as people are told it."""

    path: Path
    name: str


def broken(sent: Sent, why: str, hint: str = "nothing of it was used; fetch it from the provider again") -> SourceError:
    """A file that is not whole or not what it is said to be."""
    return SourceError("reconciliation.file", f"{sent.name}: {why}", hint)


def bytes_of(text: pa.Array) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The bytes of all texts, one after the other."""
    return bytes_and_ends(text)[0]


def bytes_and_ends(text: pa.Array) -> "tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int32]]]":
    """The bytes of all texts, one after the other; 0, and where in them each text ends."""
    compact = pa.concat_arrays([text]) if text.offset else text
    _, offsets, data = compact.buffers()
    if data is None or not len(text):
        return np.empty(0, np.uint8), np.zeros(len(text) + 1, np.int32)
    ends = np.frombuffer(offsets, np.int32)[: len(text) + 1]
    return np.frombuffer(data, np.uint8)[ends[0] : ends[-1]], ends - ends[0]


def line_batch(provider: str, place: Place, columns: Mapping[str, Any]) -> pa.RecordBatch:
    """Rows of PROVIDER_LINES: what is given, NULL in what isn't, and the number of each line."""
    count = len(columns["reference"])
    constant = {"provider": provider, "file": place.file}
    arrays = []
    for field in PROVIDER_LINES:
        if field.name in constant:
            arrays.append(pa.repeat(pa.scalar(constant[field.name]), count))
        elif field.name == "line":
            arrays.append(pa.array(np.arange(place.first_line, place.first_line + count)))
        elif field.name in columns:
            arrays.append(columns[field.name].cast(field.type))
        else:
            arrays.append(pa.nulls(count, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=PROVIDER_LINES)
