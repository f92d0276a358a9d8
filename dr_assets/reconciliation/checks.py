"""The checks: one SQL file each under `checks/`, run over the loaded relations, every row of its result a break.

What belongs here: finding, running and bounding them. What stays out: the rules themselves (the SQL files) and where
the rows came from (extract.py, externals.py).

A file opens with its promise. Its notes: `-- reads:` the relations without which it is skipped, `-- uses:` relations
that are empty where nobody gives them, `-- needs:` the optional part of a contract without which it is skipped,
`-- severity:` the reasons that are amber (`reason=amber, …`; the others are red). It gives the columns reason, account,
transfer, currency, amount_minor, detail, and may give reference and at_us (when it happened, for its age). A sibling
`<check>.matched.sql` counts what agrees: outcome, currency, count, amount_minor; a sibling `<check>.kept.sql` is run
once before both, and they read its rows as the relation `kept`.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final, Literal

import pyarrow as pa

from dr_assets.reconciliation.engine.dialect import columns_of
from dr_assets.reconciliation.engine.port import Engine
from dr_assets.reconciliation.relations import RELATIONS

Severity = Literal["red", "amber"]

# Amounts exact up to 38 digits: the sum of a billion 64-bit amounts fits.
BREAKS: Final = pa.schema(
    [
        ("check", pa.string()),
        ("reason", pa.string()),
        ("severity", pa.string()),
        ("account", pa.string()),
        ("transfer", pa.string()),
        ("reference", pa.string()),
        ("currency", pa.string()),
        ("amount_minor", pa.decimal128(38, 0)),
        ("at_us", pa.int64()),
        ("aged", pa.bool_()),
        ("detail", pa.string()),
    ]
)
# Whose check says that a relation's rows are complete.
_AREA_OF: Final = {
    "pendings": "ledger",
    "periods": "balances",
    "payments": "payments",
    "provider_lines": "payments",
    "bank_lines": "payments",
    "withdrawals": "withdrawals",
    "outbox": "outbox",
    "records": "queues",
    "partitions": "queues",
    "group_offsets": "queues",
    "read_models": "read_models",
    "players": "crm",
    "contacts": "crm",
}
_WORST = 20


@dataclass(frozen=True)
class Check:
    """A check as its file says. `name` is folder/file, such as `ledger/transfers_balance`; the folder is its area."""

    name: str
    sql: str
    reads: tuple[str, ...]
    needs: str | None = None
    uses: tuple[str, ...] = ()
    amber: frozenset[str] = frozenset()
    matched_sql: str | None = None
    kept_sql: str | None = None
    is_of_values: bool = False  # whether rows are complete, whatever they say: that alone judges no area

    @property
    def area(self) -> str:
        """Which of the reconciliations it belongs to."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Kind:
    """The breaks of one reason, currency and severity. `amount_minor` adds up their sizes, `net_minor` with signs."""

    reason: str
    currency: str | None
    severity: Severity
    count: int
    aged: int
    amount_minor: int
    net_minor: int
    oldest_us: int | None


@dataclass(frozen=True)
class Worst:
    """What one check's breaks come to on one account."""

    account: str
    currency: str | None
    count: int
    amount_minor: int


@dataclass(frozen=True)
class Matched:
    """What agrees in one currency, by outcome: `matched`, `tolerated`, `in_flight` and others."""

    outcome: str
    currency: str | None
    count: int
    amount_minor: int


@dataclass(frozen=True)
class CheckResult:
    """What one check found. `breaks` holds the first of them (BREAKS), `kinds` counts all."""

    name: str
    breaks: pa.Table
    kinds: tuple[Kind, ...]
    rows_examined: int
    duration_s: float
    worst: tuple[Worst, ...] = ()
    matched: tuple[Matched, ...] = field(default=())
    is_of_values: bool = False

    @property
    def area(self) -> str:
        """Which of the reconciliations it belongs to."""
        return self.name.partition("/")[0]

    @property
    def breaks_total(self) -> int:
        """All breaks, red and amber."""
        return sum(kind.count for kind in self.kinds)

    @property
    def red_total(self) -> int:
        """The breaks that are no suspicion."""
        return sum(kind.count for kind in self.kinds if kind.severity == "red")

    @property
    def breaks_by_reason(self) -> dict[str, int]:
        """How many of each, whatever the currency."""
        reasons = sorted({kind.reason for kind in self.kinds})
        return {reason: sum(kind.count for kind in self.kinds if kind.reason == reason) for reason in reasons}

    @property
    def ok(self) -> bool:
        """No red break."""
        return self.red_total == 0


@dataclass(frozen=True)
class Skipped:
    """A check that was not run, and what it would have needed."""

    name: str
    why: str


def all_checks() -> list[Check]:
    """Every check there is, by name: the files', and one for each relation beyond the ledger's (`_complete`)."""
    root = files("dr_assets.reconciliation") / "checks"
    texts = {
        f"{folder.name}/{file.name.removesuffix('.sql')}": file.read_text(encoding="utf-8")
        for folder in root.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }
    found = [
        _parse(name, sql, texts.get(f"{name}.matched"), texts.get(f"{name}.kept"))
        for name, sql in texts.items()
        if not name.endswith((".matched", ".kept"))
    ]
    complete = [_complete(relation) for relation in _AREA_OF]
    return sorted([*found, *complete], key=lambda check: check.name)


def _parse(name: str, sql: str, matched_sql: str | None, kept_sql: str | None) -> Check:
    notes = dict(_notes(sql))
    severities = dict(_pair(one) for one in _listed(notes.get("severity")))
    return Check(
        name=name,
        sql=sql,
        reads=_listed(notes["reads"]),
        needs=notes.get("needs"),
        uses=_listed(notes.get("uses")),
        amber=frozenset(reason for reason, severity in severities.items() if severity == "amber"),
        matched_sql=matched_sql,
        kept_sql=kept_sql,
    )


def _notes(sql: str) -> Iterator[tuple[str, str]]:
    for line in sql.splitlines():
        key, colon, value = line.removeprefix("-- ").partition(": ")
        if line.startswith("-- ") and colon and key in ("reads", "uses", "needs", "severity"):
            yield key, value.strip()


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(",")) if text else ()


def _pair(text: str) -> tuple[str, str]:
    reason, _, severity = text.partition("=")
    return reason.strip(), severity.strip()


def _complete(relation: str) -> Check:
    """A NULL where none may be would slip through every comparison: one break for each such row."""
    columns = RELATIONS[relation]
    names = {column.name for column in columns}
    missing = [column.name for column in columns if not column.nullable and column.only_with is None]
    account = "CAST(account_id AS VARCHAR)" if "account_id" in names else "NULL"
    transfer = "CAST(transfer_id AS VARCHAR)" if "transfer_id" in names else "NULL"
    currency = "currency" if "currency" in names else "NULL"
    reference = "reference" if "reference" in names else "NULL"
    sql = (
        f"SELECT 'value_missing' AS reason, {account} AS account, {transfer} AS transfer, {currency} AS currency,"  # noqa: S608 - names of ours
        f" NULL AS amount_minor, 'in {relation}' AS detail, {reference} AS reference"
        f" FROM {relation} WHERE {' OR '.join(f'{name} IS NULL' for name in missing)}"
    )
    return Check(f"{_AREA_OF[relation]}/{relation}_complete", sql, (relation,), is_of_values=True)


def why_skipped(check: Check, given: frozenset[str], parts: frozenset[str], areas: frozenset[str] | None) -> str | None:
    """What a check would need and isn't there; None for one that can be run."""
    if areas is not None and check.area not in areas:
        return f"area {check.area} was not asked for"
    if check.needs is not None and check.needs not in parts:
        return f"the contract has no {check.needs}"
    missing = [relation for relation in check.reads if relation not in given]
    return f"nobody gives {', '.join(missing)}" if missing else None


def run_check(engine: Engine, check: Check, rows: Mapping[str, int], *, max_breaks: int) -> CheckResult:
    """Run one check. Keeps at most `max_breaks` break rows, ordered by account and transfer; counts them all."""
    begin_s = time.monotonic()
    if check.kept_sql:
        engine.keep("kept", check.kept_sql)
    engine.keep("breaks", _breaks_of(check))
    kinds = engine.rows(
        """SELECT reason, currency, severity, count(*) AS count, sum(CASE WHEN aged THEN 1 ELSE 0 END) AS aged,
                  coalesce(sum(abs(amount_minor)), 0) AS amount_minor, coalesce(sum(amount_minor), 0) AS net_minor,
                  min(at_us) AS oldest_us
           FROM breaks GROUP BY reason, currency, severity ORDER BY reason, currency, severity"""
    )
    breaks = worst = None
    if kinds.num_rows:
        breaks = engine.rows(
            f"""SELECT * FROM breaks
                ORDER BY account, transfer, reason, currency, amount_minor, reference, at_us, detail
                LIMIT {max_breaks:d}"""  # noqa: S608 - a number
        )
        worst = engine.rows(
            f"""SELECT account, currency, count(*) AS count, coalesce(sum(abs(amount_minor)), 0) AS amount_minor
                FROM breaks WHERE account IS NOT NULL GROUP BY account, currency
                ORDER BY amount_minor DESC, count DESC, account, currency LIMIT {_WORST}"""  # noqa: S608 - a number
        )
    matched = engine.rows(_matched_of(check.matched_sql)) if check.matched_sql else None
    return CheckResult(
        name=check.name,
        breaks=(BREAKS.empty_table() if breaks is None else breaks).select(BREAKS.names).cast(BREAKS),
        kinds=tuple(Kind(**_whole(row)) for row in kinds.to_pylist()),
        rows_examined=sum(rows[relation] for relation in check.reads),
        duration_s=round(time.monotonic() - begin_s, 3),
        worst=tuple(Worst(**_whole(row)) for row in worst.to_pylist()) if worst else (),
        matched=tuple(Matched(**_whole(row)) for row in matched.to_pylist()) if matched else (),
        is_of_values=check.is_of_values,
    )


def _breaks_of(check: Check) -> str:
    """What a check gives, in the shape of BREAKS."""
    given = columns_of(check.sql)
    reference = "CAST(found.reference AS VARCHAR)" if "reference" in given else "CAST(NULL AS VARCHAR)"
    at_us = "CAST(found.at_us AS BIGINT)" if "at_us" in given else "CAST(NULL AS BIGINT)"
    amber = ", ".join(f"'{reason}'" for reason in sorted(check.amber))
    severity = f"CASE WHEN found.reason IN ({amber}) THEN 'amber' ELSE 'red' END" if amber else "'red'"
    return f"""
        SELECT '{check.name}' AS "check", found.reason, {severity} AS severity,
               CAST(found.account AS VARCHAR) AS account, CAST(found.transfer AS VARCHAR) AS transfer,
               {reference} AS reference, CAST(found.currency AS VARCHAR) AS currency,
               CAST(found.amount_minor AS DECIMAL(38, 0)) AS amount_minor, {at_us} AS at_us,
               coalesce({at_us} < settings.as_of_us - settings.aged_after_us, FALSE) AS aged,
               CAST(found.detail AS VARCHAR) AS detail
        FROM ({check.sql}
        ) AS found CROSS JOIN settings"""  # noqa: S608 - our own file


def _matched_of(sql: str) -> str:
    return f"""
        SELECT outcome, CAST(currency AS VARCHAR) AS currency, CAST("count" AS BIGINT) AS count,
               coalesce(CAST(amount_minor AS DECIMAL(38, 0)), 0) AS amount_minor
        FROM ({sql}
        ) AS found ORDER BY outcome, currency"""  # noqa: S608 - our own file


_NUMBERS: Final = ("count", "aged", "amount_minor", "net_minor")


def _whole(row: dict[str, Any]) -> dict[str, Any]:
    """Sums come as decimals, of whichever width the engine took: whole numbers here."""
    return {name: int(value) if name in _NUMBERS else value for name, value in row.items()}
