"""From the dates of a file to microseconds since the epoch.

What belongs here: ISO dates and declared ones, with a zone for all or an abbreviation in each row. What stays out:
which column means what.

An hour that a clock has twice is taken as its first, one that it skips as the moment of the jump.
"""

from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import pyarrow.compute as pc

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.providers.delimited import or_null
from dr_assets.reconciliation.providers.lines import Place

# What Adyen's TimeZone column holds, as offsets: an abbreviation says summer or winter time itself.
_HOURS: Final[dict[str, float]] = {
    "UTC": 0, "GMT": 0, "WET": 0, "BST": 1, "IST": 1, "WEST": 1, "CET": 1, "MET": 1, "CEST": 2, "MEST": 2, "EET": 2,
    "SAST": 2, "EEST": 3, "MSK": 3, "TRT": 3, "GST": 4, "SGT": 8, "HKT": 8, "AWST": 8, "JST": 9, "KST": 9, "AEST": 10,
    "ACST": 9.5, "AEDT": 11, "NZST": 12, "NZDT": 13, "BRT": -3, "ART": -3, "AST": -4, "EDT": -4, "EST": -5, "CDT": -5,
    "CST": -6, "MDT": -6, "MST": -7, "PDT": -7, "PST": -8, "AKST": -9, "HST": -10,
}  # fmt: skip
_ZONES: Final = pa.array(list(_HOURS))
_OFFSETS_US: Final = pa.array([round(hours * 3_600_000_000) for hours in _HOURS.values()], pa.int64())
_ISO: Final = "iso"


def known_zone(zone: str) -> str:
    """The zone, if this machine has it. Raises PolicyError (`reconciliation.zone`)."""
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise PolicyError(
            "reconciliation.zone", f"there is no time zone {zone!r}", "name one as Europe/Malta or UTC"
        ) from None
    return zone


def microseconds(text: pa.Array, place: Place, *, zone: str = "UTC", form: str = _ISO) -> pa.Array:
    """Int64 microseconds; an empty text is NULL. ISO texts with an offset of their own ignore `zone`.

    `form` is `iso` or a strptime form. Raises SourceError (`reconciliation.file`) with the first text that is no date.
    """
    given = or_null(text)
    try:
        return _moments(given, zone, form).cast(pa.int64())
    except pa.ArrowInvalid:
        raise _first_bad(given, place, zone, form) from None


def in_row_zones(local_us: pa.Array, zones: pa.Array, place: Place) -> pa.Array:
    """Local microseconds less the offset that each row's abbreviation stands for."""
    found = pc.index_in(zones, value_set=_ZONES)
    unknown = pc.and_(pc.is_null(found), pc.is_valid(local_us))
    row = pc.index(unknown, True).as_py()
    if row >= 0:
        raise place.refused(row, zones[row], f"is no time zone that is known here ({', '.join(_HOURS)})")
    return pc.subtract(local_us, _OFFSETS_US.take(found))


def _moments(text: pa.Array, zone: str, form: str) -> pa.Array:
    if form == _ISO and _with_offset(text):
        return text.cast(pa.timestamp("us", "UTC"))
    local = (
        text.cast(pa.timestamp("us"))
        if form == _ISO
        else pc.strptime(text, format=form, unit="us", error_is_null=False)
    )
    if zone == "UTC":
        return local
    return pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="earliest")


def _with_offset(text: pa.Array) -> bool:
    """Whether the first date there says its offset; if others don't, converting fails and names them."""
    first = next((value.as_py() for value in text if value.is_valid), "")
    return first.endswith("Z") or (":" in first and (first[-6:-5] in ("+", "-") or first[-5:-4] in ("+", "-")))


def _first_bad(text: pa.Array, place: Place, zone: str, form: str) -> Exception:
    with_offset = _with_offset(text)
    for row, value in enumerate(text):
        try:
            one = pa.array([value.as_py()], pa.string())
            _moments(one, zone, form)
        except pa.ArrowInvalid:
            wanted = "ISO date" if form == _ISO else f"date of the form {form}"
            return place.refused(row, value, f"is no {wanted}")
        if value.is_valid and form == _ISO and _with_offset(one) != with_offset:
            return place.refused(row, value, "says its offset from UTC where others don't, or the other way round")
    return place.refused(0, "", "is no date")
