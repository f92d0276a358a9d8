"""From the decimal text of a file to whole minor units, exactly: no float anywhere.

What belongs here: judging and converting whole columns at once. What stays out: which column means what.

A text is refused unless it is digits, one sign in front at most, and at most one decimal separator with digits on both
sides: a separator of thousands cannot be told from a decimal one in every file, and more digits than the currency has
are either that or money that does not exist.
"""

import functools
import re
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dr_assets.reconciliation.providers.lines import Place, bytes_and_ends, bytes_of

_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_LONGEST: Final = 24
_MINOR_MAX: Final = 2**63 - 1
_ALLOWED: Final = np.isin(np.arange(256), list(b"0123456789.-"))


def minor_units(text: pa.Array, exponents: pa.Array, place: Place, decimal: str = ".") -> pa.Array:
    """Int64 minor units. Raises SourceError (`reconciliation.file`) with the first text that is no such amount."""
    if not len(text):
        return pa.array([], pa.int64())
    if (minor := _of_all_digits(text, exponents, decimal)) is not None:
        return minor
    dotted = text
    if decimal == ",":
        _refuse_any(
            text, pc.match_substring(text, "."), place, "has a point in it, the decimal separator being a comma"
        )
        dotted = pc.replace_substring(text, ",", ".")
    try:
        if not _only_allowed(dotted):
            raise pa.ArrowInvalid  # noqa: TRY301 - found below, where the row is
        return _converted(dotted, exponents)
    except pa.ArrowInvalid:
        raise _first_bad(text, dotted, exponents, place) from None


def _of_all_digits(text: pa.Array, exponents: pa.Array, decimal: str) -> pa.Array | None:
    """Minor units where each text has exactly its currency's digits, as most files do: the texts without their points.

    None for any other column: that one is converted, or refused, with more care.
    """
    if text.null_count or exponents.null_count:
        return None
    content, ends = bytes_and_ends(text)
    digits = exponents.to_numpy()
    has_point = digits > 0
    is_point = content == ord(decimal)
    points = np.flatnonzero(is_point)
    if not np.array_equal(points, (ends[1:] - 1 - digits)[has_point]) or (points <= ends[:-1][has_point]).any():
        return None
    # A digit stands before each point. No letter anywhere: Arrow would take 0x1F for a number. The rest it judges.
    if (content[points - 1] < ord("0")).any() or content.max(initial=0) > ord("9") or np.diff(ends).max() >= _LONGEST:
        return None
    ends[1:] -= np.cumsum(has_point, dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(content.compress(~is_point))]
    try:
        return pa.Array.from_buffers(pa.string(), len(text), buffers).cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def _converted(text: pa.Array, exponents: pa.Array) -> pa.Array:
    digits = _decimals(text)
    if pc.any(pc.greater(digits, exponents)).as_py() or not pc.all(_complete(text)).as_py():
        raise pa.ArrowInvalid
    distinct = pc.unique(exponents).to_pylist()
    most = max(distinct)
    try:
        scaled = _scaled(text, most)
    except pa.ArrowInvalid:  # too large at the finest currency's scale, perhaps not at its own
        return _one_by_one(text, exponents, distinct)
    if len(distinct) == 1:
        return scaled
    # Nothing is lost: the digits beyond a row's own exponent are known to be none, so the division has no remainder.
    return pa.array(scaled.to_numpy() // 10 ** (most - exponents.to_numpy().astype(np.int64)))


def _one_by_one(text: pa.Array, exponents: pa.Array, distinct: list[int]) -> pa.Array:
    parts = [_scaled(pc.if_else(pc.equal(exponents, each), text, "0"), each) for each in distinct]
    return functools.reduce(pc.add, parts)


def _scaled(text: pa.Array, exponent: int) -> pa.Array:
    """The decimals' own 128-bit integers, taken as they lie: the low word where the high one is only its sign."""
    decimals = text.cast(pa.decimal128(38, exponent))
    words = np.frombuffer(decimals.buffers()[1], np.int64).reshape(-1, 2)[decimals.offset : decimals.offset + len(text)]
    if ((words[:, 0] >> 63) != words[:, 1]).any():
        raise pa.ArrowInvalid
    return pa.array(words[:, 0])


def _only_allowed(text: pa.Array) -> bool:
    """Whether the bytes of all texts together are digits, points and signs."""
    return bool(_ALLOWED[bytes_of(text)].all())


def _decimals(text: pa.Array) -> pa.Array:
    """How many digits follow the point, 0 where there is none."""
    point = pc.find_substring(text, ".")
    after = pc.subtract(pc.subtract(pc.binary_length(text), point), 1)
    return pc.if_else(pc.less(point, 0), 0, after)


def _complete(text: pa.Array) -> pa.Array:
    """Neither empty nor ending in the middle of a number, such as `5.` or `.5`; the rest Arrow's parser judges."""
    ends = pc.or_(pc.ends_with(text, "."), pc.or_(pc.starts_with(text, "."), pc.starts_with(text, "-.")))
    return pc.and_(pc.invert(ends), pc.less(pc.binary_length(text), _LONGEST))


def _first_bad(text: pa.Array, dotted: pa.Array, exponents: pa.Array, place: Place) -> Exception:
    for row, (given, value, exponent) in enumerate(
        zip(text.to_pylist(), dotted.to_pylist(), exponents.to_pylist(), strict=True)
    ):
        if _NUMBER.fullmatch(value) is None:
            return place.refused(row, given, "is no plain decimal number")
        whole, _, decimals = value.partition(".")
        if len(decimals) > exponent:
            return place.refused(row, given, f"has {len(decimals)} decimals, its currency has {exponent}")
        if abs(int(whole + decimals.ljust(exponent, "0"))) > _MINOR_MAX:
            return place.refused(row, given, "does not fit 64 bits of minor units")
    return place.refused(0, "", "could not be converted")


def _refuse_any(text: pa.Array, bad: pa.Array, place: Place, why: str) -> None:
    row = pc.index(bad, True).as_py()
    if row >= 0:
        raise place.refused(row, text[row], why)
