"""Any other provider's CSV, by a mapping that says what its columns mean.

What belongs here: reading the mapping and applying it. What stays out: reading CSV (delimited.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from dr_assets.reconciliation.providers.amounts import minor_units
from dr_assets.reconciliation.providers.currencies import EXPONENTS, exponents_of
from dr_assets.reconciliation.providers.delimited import Dialect, or_null, plain, text_batches
from dr_assets.reconciliation.providers.kinds import kinds_of
from dr_assets.reconciliation.providers.lines import KINDS, Place, Sent, line_batch
from dr_assets.reconciliation.providers.options import invalid, read_yaml
from dr_assets.reconciliation.providers.times import known_zone, microseconds

_COLUMNS: Final = (
    "reference", "kind", "gross", "fee", "net", "currency", "booked", "settled", "batch", "original_reference",
)  # fmt: skip
_NEEDED: Final = ("reference", "gross", "booked")
_KEYS: Final = {
    "columns", "delimiter", "encoding", "decimal", "amounts", "currency", "dates", "sign", "fees", "kinds", "kind",
}  # fmt: skip
_IGNORE: Final = "ignore"
_OUT: Final = pa.array(["refund", "chargeback", "payout", "fee", "batch"])
_ENCODINGS: Final = ("utf-8", "latin-1", "cp1252", "iso-8859-15")


@dataclass(frozen=True)
class Mapping:
    """`sign`: `as_is` (money in is positive), `inverted`, or `by_kind` (amounts without signs, the kind says it).

    `fees`: `positive` or `negative`, how a cost is written. `amounts`: `major` or `minor` units.
    """

    columns: dict[str, str]
    kinds: dict[str, str]
    dialect: Dialect = field(default_factory=Dialect)
    decimal: str = "."
    amounts: str = "major"
    currency: str | None = None
    kind: str | None = None
    form: str = "iso"
    zone: str = "UTC"
    sign: str = "as_is"
    fees: str = "positive"


def load_mapping(path: Path) -> Mapping:
    """Read and judge a mapping. Raises PolicyError (`reconciliation.mapping`, `reconciliation.zone`)."""
    content = read_yaml(path)
    _refuse_unknown(path, "key", content, _KEYS)
    columns = _texts(path, content, "columns")
    _refuse_unknown(path, "column", columns, set(_COLUMNS))
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise invalid(path, f"columns lacks {', '.join(missing)}")
    kinds = _texts(path, content, "kinds")
    kind = content.get("kind")
    _refuse_unknown(path, "kind", {*kinds.values(), *([kind] if kind else [])}, {*KINDS, _IGNORE})
    if ("kind" in columns) == (kind is not None) or ("kind" in columns) != bool(kinds):
        raise invalid(
            path, "give either columns.kind with kinds (what each of its values is), or one kind for all lines"
        )
    currency = content.get("currency")
    if ("currency" in columns) == (currency is not None) or (currency is not None and currency not in EXPONENTS):
        raise invalid(path, "give either columns.currency or one currency of ISO 4217 for all lines")
    dates = _texts(path, content, "dates")
    _refuse_unknown(path, "key of dates", dates, {"format", "zone"})
    return Mapping(
        columns=columns,
        kinds=kinds,
        dialect=Dialect(
            _one_of(path, content, "delimiter", (",", ";", "\t", "|")), _one_of(path, content, "encoding", _ENCODINGS)
        ),
        decimal=_one_of(path, content, "decimal", (".", ",")),
        amounts=_one_of(path, content, "amounts", ("major", "minor")),
        currency=currency,
        kind=kind,
        form=dates.get("format", "iso"),
        zone=known_zone(dates.get("zone", "UTC")),
        sign=_one_of(path, content, "sign", ("as_is", "inverted", "by_kind")),
        fees=_one_of(path, content, "fees", ("positive", "negative")),
    )


def _texts(path: Path, content: dict[str, Any], key: str) -> dict[str, str]:
    value = content.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise invalid(path, f"{key} must give a text for each name (quote what YAML takes for a number or a truth)")
    return value


def _one_of(path: Path, content: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = content.get(key, allowed[0])
    if value not in allowed:
        raise invalid(path, f"{key} is {value!r}, expected one of {', '.join(repr(each) for each in allowed)}")
    return str(value)


def _refuse_unknown(path: Path, what: str, given: Any, known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise invalid(path, f"there is no {what} {', '.join(map(str, unknown))} (there are {', '.join(sorted(known))})")


def mapped_lines(provider: str, sent: Sent, mapping: Mapping) -> Iterator[pa.RecordBatch]:
    """A file's lines by its mapping. Raises SourceError (`reconciliation.file`)."""
    for place, found in text_batches(sent, mapping.dialect, list(dict.fromkeys(mapping.columns.values()))):
        text = {meaning: found[column] for meaning, column in mapping.columns.items()}
        batch = line_batch(provider, place, _columns(place, text, mapping))
        yield batch.filter(pc.not_equal(batch.column("kind"), _IGNORE)) if _IGNORE in mapping.kinds.values() else batch


def _columns(place: Place, text: dict[str, pa.Array], mapping: Mapping) -> dict[str, pa.Array]:
    count = len(text["reference"])

    def at(meaning: str) -> Place:
        return place.of(mapping.columns.get(meaning, meaning))

    kind = (
        kinds_of(text["kind"], mapping.kinds, at("kind"))
        if "kind" in text
        else pa.repeat(pa.scalar(mapping.kind), count)
    )
    currency = text["currency"] if "currency" in text else pa.repeat(pa.scalar(mapping.currency), count)
    ignored = pc.equal(kind, _IGNORE)
    amounts = _Amounts(
        place, text, mapping, ignored, exponents_of(pc.if_else(ignored, "EUR", currency), at("currency"))
    )
    gross, fee = amounts.of("gross"), amounts.of("fee")
    if mapping.fees == "negative":
        fee = pc.negate(fee)
    gross = _signed(gross, kind, mapping.sign)
    net = _signed(amounts.of("net"), kind, mapping.sign) if "net" in text else pc.subtract_checked(gross, fee)
    nothing = pa.nulls(count, pa.string())
    return {
        "reference": plain(text["reference"], at("reference")),
        "kind": kind,
        "batch": or_null(text["batch"]) if "batch" in text else nothing,
        "currency": currency,
        "gross_minor": gross,
        "fee_minor": fee,
        "net_minor": net,
        "booked_us": _moment(place, text, mapping, "booked", count),
        "settled_us": _moment(place, text, mapping, "settled", count),
        "original_reference": or_null(text["original_reference"]) if "original_reference" in text else nothing,
    }


def _moment(place: Place, text: dict[str, pa.Array], mapping: Mapping, name: str, count: int) -> pa.Array:
    if name not in text:
        return pa.nulls(count, pa.int64())
    return microseconds(text[name], place.of(mapping.columns[name]), zone=mapping.zone, form=mapping.form)


@dataclass(frozen=True)
class _Amounts:
    """The amounts of one piece: an empty one is 0 in a column that may be left out, and wherever a line is ignored."""

    place: Place
    text: dict[str, pa.Array]
    mapping: Mapping
    ignored: pa.Array
    exponents: pa.Array

    def of(self, name: str) -> pa.Array:
        """Minor units of one column."""
        if name not in self.text:
            return pa.array([0] * len(self.ignored), pa.int64())
        text = self.text[name]
        nothing = pc.or_(self.ignored, pc.and_(pc.equal(text, ""), name == "fee"))
        digits = pc.multiply(self.exponents, pa.scalar(self.mapping.amounts == "major").cast(pa.int8()))
        given = pc.if_else(nothing, "0", text)
        return minor_units(given, digits, self.place.of(self.mapping.columns[name]), self.mapping.decimal)


def _signed(minor: pa.Array, kind: pa.Array, sign: str) -> pa.Array:
    if sign == "inverted":
        return pc.negate(minor)
    if sign == "by_kind":
        return pc.if_else(pc.is_in(kind, value_set=_OUT), pc.negate(minor), minor)
    return minor
