"""A contract's `extract:` section: the queries that give everything a database holds of one person.

What belongs here: reading that section, running its queries, values as an extract holds them. What stays out: who may
ask, restoring, the signed file (proving/extract.py).

Each query takes the person's identifier as `%(person)s`, a text, and names its columns; `docs/clones.md` says how.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib.resources.abc import Traversable
from typing import Final
from uuid import UUID

import psycopg
from psycopg.types.string import TextLoader

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.contract import load_section
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.format.keys import is_name

AMOUNT: Final = "_minor"
_BATCH: Final = 5_000


@dataclass(frozen=True, slots=True)
class ExtractRules:
    """The section: SQL by the name of what it gives, in the contract's order."""

    contract: str
    queries: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of names and texts: which questions were asked."""
        return hashlib.sha256(canonical.encode(dict(self.queries))).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """What one query gave: its columns and rows, of values that JSON holds; amounts are texts."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Json, ...], ...]

    def sums(self) -> dict[str, dict[str, str]]:
        """Per column of amounts the sum by currency; by nothing where there is no such column."""
        by = self.columns.index("currency") if "currency" in self.columns else None
        found: dict[str, dict[str, int]] = {}
        for at, column in enumerate(self.columns):
            if not column.endswith(AMOUNT):
                continue
            sums = found.setdefault(column, {})
            for row in self.rows:
                if row[at] is not None:
                    currency = "" if by is None else str(row[by])
                    sums[currency] = sums.get(currency, 0) + int(str(row[at]))
        return {column: {key: str(total) for key, total in sorted(sums.items())} for column, sums in found.items()}


def load_extract(contract: str) -> ExtractRules:
    """The section of a contract. Raises PolicyError `extract.undeclared`, `reconciliation.contract_invalid`."""
    found = load_section(contract, "extract")
    name, folder, section = found.contract.name, found.folder, found.value
    if section is None:
        raise PolicyError(
            "extract.undeclared",
            f"contract {name} doesn't say what the database holds of a person",
            "declare `extract: {name: file.sql, …}` in its contract.yaml (docs/clones.md)",
        )
    if not isinstance(section, dict) or not section:
        raise _invalid(name, "extract must be a mapping of names to files")
    return ExtractRules(name, {str(key): _query(name, folder, str(key), str(file)) for key, file in section.items()})


def ask(dsn: str, rules: ExtractRules, person: str) -> list[Answer]:
    """Every query's answer, of one snapshot of the database. Raises PolicyError `extract.failed`."""
    with psycopg.connect(dsn) as session:
        session.isolation_level, session.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
        for kind in ("json", "jsonb"):  # as the database wrote them: no number of theirs becomes a float
            session.adapters.register_loader(kind, TextLoader)
        return [_answer(session, name, query, person) for name, query in rules.queries.items()]


def _answer(session: psycopg.Connection[tuple[object, ...]], name: str, query: str, person: str) -> Answer:
    try:
        with session.cursor(name=f"extract_{name}") as cursor:
            cursor.itersize = _BATCH
            cursor.execute(query.encode(), {"person": person})
            columns = tuple(column.name for column in cursor.description or ())
            return Answer(name, columns, tuple(_row(columns, row) for row in cursor))
    except psycopg.Error as error:
        # Not its text: that may hold whom it is about.
        raise PolicyError(
            "extract.failed",
            f"query {name} of the contract failed: SQLSTATE {error.sqlstate or 'unknown'}",
            "run it by hand against a clone; nothing was written",
        ) from None


def _row(columns: Sequence[str], row: Sequence[object]) -> tuple[Json, ...]:
    return tuple(_value(column, value) for column, value in zip(columns, row, strict=True))


def _value(column: str, value: object) -> Json:
    if value is None or isinstance(value, bool | str):
        return value
    if column.endswith(AMOUNT):
        return str(_whole(column, value))
    if isinstance(value, int):
        return value
    if isinstance(value, datetime):
        return format_time(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, date | time | timedelta | Decimal | UUID):
        return str(value)
    raise PolicyError(
        "extract.bad_type",
        f"column {column} is of a type that an extract doesn't hold ({type(value).__name__})",
        "cast it to text in the contract's query",
    )


def _whole(column: str, value: object) -> int:
    if isinstance(value, int) or (isinstance(value, Decimal) and value == value.to_integral_value()):
        return int(value)
    raise PolicyError(
        "extract.bad_type", f"column {column} holds something else than whole minor units", "cast it to bigint"
    )


def _query(contract: str, folder: Traversable, name: str, file: str) -> str:
    entry = folder / file
    if not is_name(name):
        raise _invalid(contract, f"extract: {name!r} is no name (a-z, 0-9, _)")
    if "/" in file or not entry.is_file():
        raise _invalid(contract, f"extract: {file!r} is no file in the contract's folder")
    text = entry.read_text(encoding="utf-8").strip().rstrip(";")
    if "%(person)s" not in text:
        raise _invalid(contract, f"extract: {file} doesn't ask for %(person)s, so it would give everybody's rows")
    return text + "\n"


def _invalid(contract: str, found: str) -> PolicyError:
    return PolicyError(
        "reconciliation.contract_invalid", f"contract {contract}: {found}", "docs/clones.md describes the section"
    )


def rows_of(answer: Answer) -> Iterator[dict[str, Json]]:
    """The rows as objects."""
    for row in answer.rows:
        yield dict(zip(answer.columns, row, strict=True))
