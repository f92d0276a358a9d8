"""Rows of both sides for the tests of payments and withdrawals: a small clean world, changed by each test."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from dr_assets.reconciliation.checks import all_checks, run_check
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.engine.port import Engine
from dr_assets.reconciliation.externals import ARROW_TYPES
from dr_assets.reconciliation.relations import RELATIONS
from dr_assets.reconciliation.shared import stand_in
from dr_assets.reconciliation.tolerances import Tolerances

AS_OF = datetime(2026, 3, 31, 12, tzinfo=UTC)
DAY_US = 86_400_000_000


def days_ago(days: float) -> int:
    """Microseconds since the epoch of so many days before the books are judged."""
    return round((AS_OF - timedelta(days=days)).timestamp() * 1_000_000)


@dataclass
class World:
    """Rows by relation; a relation that nobody gives is absent."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tolerances: Tolerances = field(default_factory=Tolerances)

    def payment(self, reference: str, amount_minor: int, **other: Any) -> "World":
        """A payment of the ledger, money in unless told otherwise."""
        number = len(self.rows.setdefault("payments", [])) + 1
        row = {
            "payment_id": number, "reference": reference, "direction": "in", "currency": "EUR",
            "amount_minor": amount_minor, "created_us": days_ago(10), "transfer_id": 1000 + number, "account_id": 7,
            "state": "posted",
        }  # fmt: skip
        self.rows["payments"].append(row | other)
        return self

    def line(self, reference: str, gross_minor: int, kind: str = "payment", **other: Any) -> "World":
        """A line of a provider's file."""
        number = len(self.rows.setdefault("provider_lines", [])) + 2
        fee = other.pop("fee_minor", 0)
        row = {
            "provider": "stripe", "file": "march.csv", "line": number, "reference": reference, "kind": kind,
            "batch": None, "currency": "EUR", "gross_minor": gross_minor, "fee_minor": fee,
            "net_minor": gross_minor - fee, "booked_us": days_ago(10), "settled_us": None, "original_reference": None,
        }  # fmt: skip
        self.rows["provider_lines"].append(row | other)
        return self

    def bank_line(self, reference: str, amount_minor: int, **other: Any) -> "World":
        """An entry of the bank's statement."""
        number = len(self.rows.setdefault("bank_lines", [])) + 1
        row = {
            "account": "MT00", "statement": "2026-03", "line": number, "reference": reference, "currency": "EUR",
            "amount_minor": amount_minor, "booked_us": days_ago(8), "value_us": days_ago(8), "reversal": False,
        }  # fmt: skip
        self.rows["bank_lines"].append(row | other)
        return self

    def withdrawal(self, number: int, state: str, amount_minor: int, **other: Any) -> "World":
        """A withdrawal, with the reference `po-<number>` once it is approved."""
        reference = f"po-{number}" if state in ("approved", "paid") else None
        row = {
            "withdrawal_id": number, "account_id": 7, "currency": "EUR", "amount_minor": amount_minor, "state": state,
            "payout_reference": reference, "requested_us": days_ago(10), "state_us": days_ago(9),
        }  # fmt: skip
        self.rows.setdefault("withdrawals", []).append(row | other)
        return self

    def hold(self, number: int, amount_minor: int, **other: Any) -> "World":
        """Money reserved for a withdrawal."""
        row = {"hold_id": number, "account_id": 7, "currency": "EUR", "amount_minor": amount_minor}
        self.rows.setdefault("holds", []).append(row | other)
        return self

    def load(self, engine: Engine) -> dict[str, int]:
        """Every relation into an engine; how many rows each has."""
        counts = {name: engine.load(name, self.table(name)) for name in self.rows}
        settings = {name: pa.array([value]) for name, value in self.tolerances.settings(AS_OF).items()}
        engine.load("settings", pa.table(settings))
        if "accounts" not in counts:
            engine.load("accounts", pa.table({"account_id": pa.array([7], pa.int64())}))
        return counts

    def table(self, relation: str) -> pa.Table:
        """A relation's rows as the engine takes them."""
        columns = {
            column.name: pa.array(
                [row[column.name] for row in self.rows[relation]],
                pa.int64() if column.kind == "id" else ARROW_TYPES[column.kind],
            )
            for column in RELATIONS[relation]
        }
        return pa.table(columns)

    def breaks(self, area: str, folder: Path) -> list[tuple[str, str | None, int | None]]:
        """Reason, reference and amount of every break of an area, sorted."""
        with duckdb_engine(folder, "512MB", 1) as engine:
            return breaks_of(engine, self, area)


def breaks_of(engine: Engine, world: World, area: str) -> list[tuple[str, str | None, int | None]]:
    """What the checks of an area find, with any engine."""
    counts = world.load(engine)
    checks = [check for check in all_checks() if check.area == area and set(check.reads) <= set(counts)]
    stand_in(engine, checks, frozenset(counts))
    found = [row for check in checks for row in run_check(engine, check, counts, max_breaks=1000).breaks.to_pylist()]
    return sorted(
        (row["reason"], row["reference"], None if row["amount_minor"] is None else int(row["amount_minor"]))
        for row in found
    )
