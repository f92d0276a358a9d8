"""ISO 20022 camt.053: a bank's statements as `bank_lines`, any version from 001.02 on.

What belongs here: the statement's structure, its balances, its entries. What stays out: whose money it is.

A bank's file comes from outside: document types, entities and external references are refused, whatever they say. A
statement's opening balance and its booked entries must give its closing balance, and the next statement must open with
it; else nothing of the file is used.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Final
from xml.etree.ElementTree import Element, ParseError  # only the types: parsing is defusedxml's

import pyarrow as pa
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from dr_assets.reconciliation.providers.currencies import EXPONENTS
from dr_assets.reconciliation.providers.lines import BANK_LINES, Sent, broken

_NAMESPACE: Final = re.compile(r"\{urn:iso:std:iso:20022:tech:xsd:camt\.053\.001\.(?!01)\d\d\}Document")
_BATCH_ROWS: Final = 10_000
_DEEPEST: Final = 64
_SHALLOW: Final = (1, 2)  # within the document and its one message: nobody needs these once they are read
_LONGEST_TEXT_BYTES: Final = 1 << 20
_LARGEST_ENTRY_BYTES: Final = 64 << 20  # a batch of some 100,000 details
_NUMBER: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,5})?")
_MINOR_MAX: Final = 2**63 - 1
_OPENING: Final = ("OPBD", "PRCD")
_CLOSING: Final = "CLBD"
_BOOKED: Final = "BOOK"
_DETAIL_AMOUNTS: Final = ("Amt", "AmtDtls/TxAmt/Amt")
_NOTHING: Final = {"", "NOTPROVIDED", "NONREF", "NOTAVAIL"}
_Row = tuple[str, str, int, str, str, int, int, int, bool]


@dataclass
class _Statement:
    """A statement while it is read: everything but its entries is small. Balances by code and currency."""

    number: str = ""
    account: str = ""
    sequence: int = 0
    closed_on: str = ""
    balances: dict[tuple[str, str], int] = field(default_factory=dict)
    booked_minor: dict[str, int] = field(default_factory=dict)
    entries: int = 0


@dataclass(frozen=True, order=True)
class _Period:
    """What one statement opened and closed with, in the order that statements follow one another."""

    closed_on: str
    sequence: int
    order: int
    opening_minor: int
    closing_minor: int
    file: Sent


class _Bounded:
    """A file as the parser reads it. What an element or a text takes in memory is bounded by what was read of it."""

    def __init__(self, sent: Sent, file: BinaryIO) -> None:
        self._sent = sent
        self._file = file
        self.since_tag_bytes = 0
        self.kept_bytes = 0

    def read(self, size: int) -> bytes:
        """The next bytes. Raises SourceError where a text, or what can't be let go yet, is too long."""
        data = self._file.read(size)
        self.since_tag_bytes += len(data)
        self.kept_bytes += len(data)
        if self.since_tag_bytes > _LONGEST_TEXT_BYTES:
            raise broken(
                self._sent, f"it has more than {_LONGEST_TEXT_BYTES:,} bytes without a tag: hostile XML is not read"
            )
        if self.kept_bytes > _LARGEST_ENTRY_BYTES:
            raise broken(
                self._sent,
                f"one entry of it has more than {_LARGEST_ENTRY_BYTES:,} bytes: it is not read into memory",
                "ask the bank for the batch's details in a file of their own",
            )
        return data


class Statements:
    """Reads the statements of several files of one bank; remembers what each account closed with."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()
        self._periods: dict[tuple[str, str], list[_Period]] = {}

    def lines(self, sent: Sent) -> Iterator[pa.RecordBatch]:
        """A file's booked entries, one row each, or one for each of their details. Raises SourceError."""
        rows: list[_Row] = []
        statements = 0
        try:
            for row in self._rows(sent):
                if row is None:
                    statements += 1
                    continue
                rows.append(row)
                if len(rows) >= _BATCH_ROWS:
                    yield _batch(rows)
                    rows = []
        except ParseError as error:
            raise broken(sent, f"it is no whole XML: {error}") from None
        except DefusedXmlException as error:
            raise broken(
                sent,
                f"it declares what a statement never does ({type(error).__name__}): hostile XML is not read",
                "ask who put this file here",
            ) from None
        except (ValueError, LookupError) as error:  # what the parser makes of an encoding that it lacks
            raise broken(sent, f"its encoding is none that is read here ({type(error).__name__})") from None
        if not statements:
            raise broken(sent, "there is no statement in it")
        if rows:
            yield _batch(rows)

    def connect(self) -> None:
        """Each statement of an account opens with what the one before it closed with. Raises SourceError."""
        for (account, currency), periods in self._periods.items():
            ordered = sorted(periods)
            for before, after in itertools.pairwise(ordered):
                if after.opening_minor != before.closing_minor:
                    raise broken(
                        after.file,
                        f"a statement of account {account} opens with {after.opening_minor} minor units of {currency},"
                        f" the one before it ({before.file.name}) closed with {before.closing_minor}: one is missing",
                        "put the missing statement beside the others",
                    )

    def _rows(self, sent: Sent) -> Iterator[_Row | None]:
        """Every row, and None after each statement that adds up. Elements are let go as soon as they are read."""
        stack: list[Element] = []
        statement = _Statement()
        with sent.path.open("rb") as file:
            bounded = _Bounded(sent, file)
            for event, element in iterparse(bounded, events=("start", "end"), forbid_dtd=True):
                bounded.since_tag_bytes = 0
                if event == "start":
                    _enter(sent, stack, element)
                    continue
                stack.pop()
                parent = _name(stack[-1]) if stack else ""
                if parent == "Stmt" and _name(element) == "Ntry":
                    yield from _entry(sent, statement, element)
                elif parent == "Stmt":
                    _describe(sent, statement, element)
                elif _name(element) == "Stmt":
                    self._close(sent, statement)
                    statement = _Statement()
                    yield None
                if parent == "Stmt" or len(stack) in _SHALLOW:
                    stack[-1].remove(element)
                    bounded.kept_bytes = 0

    def _close(self, sent: Sent, statement: _Statement) -> None:
        """The statement is new, and adds up."""
        if (statement.account, statement.number) in self._seen:
            raise broken(sent, f"statement {statement.number} of account {statement.account} is there twice")
        self._seen.add((statement.account, statement.number))
        for currency in sorted({currency for _, currency in statement.balances} | set(statement.booked_minor)):
            opening = next((statement.balances.get((code, currency)) for code in _OPENING
                            if (code, currency) in statement.balances), None)  # fmt: skip
            closing = statement.balances.get((_CLOSING, currency))
            where = f"statement {statement.number}"
            if opening is None or closing is None:
                raise broken(
                    sent, f"{where} has no opening or no closing balance in {currency}: nobody can tell its end"
                )
            booked = statement.booked_minor.get(currency, 0)
            if opening + booked != closing:
                raise broken(
                    sent,
                    f"{where} opens with {opening} minor units of {currency}, has entries of {booked} and closes with"
                    f" {closing}: {closing - opening - booked} of it is missing",
                )
            periods = self._periods.setdefault((statement.account, currency), [])
            order = len(periods)
            periods.append(_Period(statement.closed_on, statement.sequence, order, opening, closing, sent))


def _enter(sent: Sent, stack: list[Element], element: Element) -> None:
    if not stack and not _NAMESPACE.match(element.tag):
        raise broken(sent, f"it is no camt.053 statement ({element.tag[:80]})", "is it another message?")
    stack.append(element)
    if len(stack) > _DEEPEST:
        raise broken(sent, "its elements lie too deep within one another: hostile XML is not read")


def _describe(sent: Sent, statement: _Statement, element: Element) -> None:
    """What the statement says of itself."""
    match _name(element):
        case "Id":
            statement.number = element.text or ""
        case "ElctrncSeqNb":
            statement.sequence = int(number) if (number := (element.text or "").strip()).isdecimal() else 0
        case "Acct":
            statement.account = _text(element, "Id/IBAN") or _text(element, "Id/Othr/Id")
        case "Bal":
            code = _text(element, "Tp/CdOrPrtry/Cd")
            currency, minor = _amount(sent, element, f"a balance {code}")
            statement.balances[code, currency] = minor
            if code == _CLOSING:
                statement.closed_on = _text(element, "Dt/Dt") or _text(element, "Dt/DtTm")


def _entry(sent: Sent, statement: _Statement, entry: Element) -> Iterator[_Row]:
    """A booked entry's rows: its details where they make up its amount, else one."""
    statement.entries += 1
    where = f"entry {statement.entries} of statement {statement.number}"
    if (_text(entry, "Sts/Cd") or _text(entry, "Sts")) != _BOOKED:
        return
    currency, minor = _amount(sent, entry, where)
    statement.booked_minor[currency] = statement.booked_minor.get(currency, 0) + minor
    booked_us = _moment(sent, entry, "BookgDt", where) or _moment(sent, entry, "ValDt", where)
    if booked_us is None:
        raise broken(sent, f"{where} has no date")
    value_us = _moment(sent, entry, "ValDt", where)
    reversal = _text(entry, "RvslInd") in {"true", "1"}
    details = entry.findall("{*}NtryDtls/{*}TxDtls")
    own = _first(entry, ("AcctSvcrRef", "NtryRef", "NtryDtls/Btch/PmtInfId", "NtryDtls/Btch/MsgId"))
    parts = _parts(sent, entry, details, (currency, minor), where)
    for reference, part in parts or [(_reference(details[0]) if len(details) == 1 else "", minor)]:
        yield (
            statement.account, statement.number, statement.entries, reference or own, currency, part, booked_us,
            booked_us if value_us is None else value_us, reversal,
        )  # fmt: skip


def _parts(
    sent: Sent, entry: Element, details: list[Element], whole: tuple[str, int], where: str
) -> list[tuple[str, int]]:
    """Reference and amount of each detail of a batch booked as one entry; none where they don't tell their amounts."""
    if len(details) < 2:  # noqa: PLR2004 - one detail is the entry itself
        return []
    currency, minor = whole
    parts = []
    for detail in details:
        amount = next((found for way in _DETAIL_AMOUNTS if (found := _find(detail, way)) is not None), None)
        if amount is None or amount.get("Ccy") != currency:
            return []
        size = _minor(sent, amount, where)
        credit = _text(detail, "CdtDbtInd") or _text(entry, "CdtDbtInd")
        parts.append((_reference(detail), size if credit == "CRDT" else -size))
    if sum(part for _, part in parts) != minor:
        if entry.find(".//{*}Chrgs") is not None:
            return []
        raise broken(sent, f"the details of {where} come to {sum(part for _, part in parts)}, it is of {minor}")
    return parts


def _reference(detail: Element) -> str:
    return _first(
        detail, [f"Refs/{name}" for name in ("EndToEndId", "TxId", "InstrId", "AcctSvcrRef", "PmtInfId", "MsgId")]
    )


def _first(element: Element, ways: Iterable[str]) -> str:
    """The first of these texts that says something."""
    return next((text for way in ways if (text := _text(element, way)) not in _NOTHING), "")


def _amount(sent: Sent, element: Element, where: str) -> tuple[str, int]:
    """Currency and signed minor units. A reversal has the sign of what it books, so the indicator alone decides."""
    amount = _find(element, "Amt")
    sign = {"CRDT": 1, "DBIT": -1}.get(_text(element, "CdtDbtInd"))
    if amount is None or sign is None:
        raise broken(sent, f"{where} has no amount or doesn't say whether it is a credit")
    return amount.get("Ccy", ""), sign * _minor(sent, amount, where)


def _minor(sent: Sent, amount: Element, where: str) -> int:
    currency, text = amount.get("Ccy", ""), (amount.text or "").strip()
    if currency not in EXPONENTS:
        raise broken(sent, f"{where} is in {currency!r}, no currency of ISO 4217")
    whole, _, decimals = text.partition(".")
    if not _NUMBER.fullmatch(text) or len(decimals) > EXPONENTS[currency]:
        raise broken(sent, f"{where} is of {text[:40]!r}: no amount in {currency}")
    minor = int(whole + decimals.ljust(EXPONENTS[currency], "0"))
    if minor > _MINOR_MAX:
        raise broken(sent, f"{where} does not fit 64 bits of minor units")
    return minor


def _moment(sent: Sent, element: Element, name: str, where: str) -> int | None:
    """A date, or a date and time; the day's begin for a date, UTC where no offset is said."""
    text = _text(element, f"{name}/Dt")[:10] or _text(element, f"{name}/DtTm")
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise broken(sent, f"{where} is of {text[:40]!r}: no date") from None
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _find(element: Element, way: str) -> Element | None:
    return element.find("/".join(f"{{*}}{name}" for name in way.split("/")))


def _text(element: Element, way: str) -> str:
    found = _find(element, way)
    return ((found.text if found is not None else None) or "").strip()


def _name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _batch(rows: list[_Row]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, kind.type) for values, kind in zip(columns, BANK_LINES, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=BANK_LINES)
