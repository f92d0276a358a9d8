"""The checks: one SQL file each under `checks/`, run over the loaded relations, every row of its result a break.

What belongs here: finding, running and bounding them. What stays out: the rules themselves (the SQL files) and where
the rows came from (extract.py).

A file opens with its promise; `-- reads:` lists the relations it examines, `-- needs:` the optional part of a contract
without which it is skipped. It gives the columns reason, account, transfer, currency, amount_minor, detail.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

import duckdb
import pyarrow as pa

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.contract import Contract

# Exact up to 38 digits: the sum of a billion 64-bit amounts fits.
BREAKS = pa.schema(
    [
        ("check", pa.string()),
        ("reason", pa.string()),
        ("account", pa.string()),
        ("transfer", pa.string()),
        ("currency", pa.string()),
        ("amount_minor", pa.decimal128(38, 0)),
        ("detail", pa.string()),
    ]
)


@dataclass(frozen=True)
class Check:
    """A check as its file says. `name` is folder/file, such as `ledger/transfers_balance`."""

    name: str
    sql: str
    reads: tuple[str, ...]
    needs: str | None


@dataclass(frozen=True)
class CheckResult:
    """What one check found. `breaks` holds the first of them (BREAKS), `breaks_total` counts all."""

    name: str
    breaks: pa.Table
    breaks_total: int
    breaks_by_reason: dict[str, int]
    rows_examined: int
    duration_s: float

    @property
    def ok(self) -> bool:
        """No break."""
        return self.breaks_total == 0


def all_checks() -> list[Check]:
    """Every check there is, by name."""
    root = files("dr_assets.reconciliation") / "checks"
    found = [
        _parse(f"{folder.name}/{file.name.removesuffix('.sql')}", file.read_text(encoding="utf-8"))
        for folder in root.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda check: check.name)


def _parse(name: str, sql: str) -> Check:
    notes = dict(_notes(sql))
    return Check(name, sql, tuple(notes["reads"].split(", ")), notes.get("needs"))


def _notes(sql: str) -> Iterator[tuple[str, str]]:
    for line in sql.splitlines():
        key, colon, value = line.removeprefix("-- ").partition(": ")
        if line.startswith("-- ") and colon and key in ("reads", "needs"):
            yield key, value.strip()


def prepare(database: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Give the checks what several of them share: each posting beside the one before it, and the contract's texts.

    Raises PolicyError (`reconciliation.contract_unmet`) for a text that is no expression over its relation.
    """
    try:
        for statement in _shared_views(contract):
            database.execute(statement)
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
        raise PolicyError(
            "reconciliation.contract_unmet",
            f"contract {contract.name}: the text of chain or transfer_digest: {str(error).splitlines()[0]}",
            "write a DuckDB expression over the columns that the relation's query gives",
        ) from None


def _shared_views(contract: Contract) -> Iterator[str]:
    """The contract's expressions are code, as its queries are; everything else in these statements is ours."""
    hashed = ", hash, lag(hash) OVER earlier AS previous_hash" if contract.chain_text else ""
    text = f", {contract.chain_text} AS chain_text" if contract.chain_text else ""
    yield (
        f"CREATE VIEW posting_steps AS SELECT account_id, sequence, transfer_id, currency, amount_minor,"  # noqa: S608 - see docstring
        f" balance_after_minor{text}{hashed}, coalesce(lag(sequence) OVER earlier, 0) AS previous_sequence,"
        f" lag(balance_after_minor) OVER earlier AS previous_balance_minor"
        f" FROM postings WINDOW earlier AS (PARTITION BY account_id ORDER BY sequence)"
    )
    if contract.digest_text:
        yield (
            f"CREATE VIEW transfer_digests AS"  # noqa: S608 - see docstring
            f" SELECT transfer_id, digest, {contract.digest_text} AS digest_text FROM transfers"
        )


def run_check(
    database: duckdb.DuckDBPyConnection, check: Check, rows: dict[str, int], *, max_breaks: int
) -> CheckResult:
    """Run one check. Keeps at most `max_breaks` break rows, ordered by account and transfer; counts them all."""
    begin_s = time.monotonic()
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE breaks AS
            SELECT $name AS "check", reason, account::VARCHAR AS account, transfer::VARCHAR AS transfer, currency,
                   amount_minor::DECIMAL(38, 0) AS amount_minor, detail
            FROM ({check.sql})""",  # noqa: S608 - our own file
        {"name": check.name},
    )
    by_reason = dict(database.execute("SELECT reason, count(*) FROM breaks GROUP BY reason ORDER BY reason").fetchall())
    found = database.sql(
        "SELECT * FROM breaks ORDER BY account, transfer, reason LIMIT $limit", params={"limit": max_breaks}
    )
    return CheckResult(
        name=check.name,
        breaks=found.to_arrow_table().cast(BREAKS),
        breaks_total=sum(by_reason.values()),
        breaks_by_reason=by_reason,
        rows_examined=sum(rows[relation] for relation in check.reads),
        duration_s=round(time.monotonic() - begin_s, 3),
    )
