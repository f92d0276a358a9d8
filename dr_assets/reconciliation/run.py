"""Reconciling: read one snapshot of a restored ledger through its contract, run every check, say what broke.

What belongs here: the order of things, and the result. What stays out: the steps themselves (extract.py, checks.py).
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.checks import BREAKS, CheckResult, all_checks, prepare, run_check
from dr_assets.reconciliation.contract import load_contract
from dr_assets.reconciliation.extract import Snapshot, compare_with_source, load, reading

_EXAMPLES = 5


@dataclass(frozen=True)
class Reconciliation:
    """What one run found. `skipped` names checks whose optional part the contract does not have."""

    contract: str
    snapshot: Snapshot
    checks: tuple[CheckResult, ...]
    skipped: tuple[str, ...]
    rows: dict[str, int]
    begin_at: datetime
    end_at: datetime
    extract_s: dict[str, float]
    duration_s: float

    @property
    def breaks_total(self) -> int:
        """All breaks of all checks; one damaged row may break several."""
        return sum(check.breaks_total for check in self.checks)

    @property
    def rows_examined(self) -> int:
        """Rows read from the ledger, each counted once."""
        return sum(self.rows.values())

    @property
    def ok(self) -> bool:
        """The money adds up: there was money to examine, and no check broke.

        An empty ledger is not green: a restore that came back without its rows must not pass.
        """
        return self.breaks_total == 0 and self.rows["postings"] > 0

    @property
    def severity(self) -> str:
        """`none`, or `critical`: about money there is no lesser break."""
        return "none" if self.ok else "critical"

    @property
    def breaks(self) -> pa.Table:
        """The breaks of all checks as one table (see checks.BREAKS)."""
        return pa.concat_tables([BREAKS.empty_table(), *(check.breaks for check in self.checks)])

    def summary(self) -> dict[str, Any]:
        """What a fact, an asset or a log line carries: JSON, no personal data beyond account and transfer ids.

        Amounts are whole minor units, written as text: a JSON reader may turn a large number into a float.
        """
        return {
            "contract": self.contract,
            "ok": self.ok,
            "severity": self.severity,
            "breaks_total": self.breaks_total,
            "rows": self.rows,
            "rows_examined": self.rows_examined,
            "duration_s": self.duration_s,
            "extract_s": self.extract_s,
            "begin_at": self.begin_at.isoformat(),
            "end_at": self.end_at.isoformat(),
            "snapshot_at": self.snapshot.at.isoformat(),
            "snapshot_lsn": self.snapshot.lsn,
            "server_version": self.snapshot.server_version,
            "checks": {check.name: _summary_of(check) for check in self.checks},
            "skipped": list(self.skipped),
        }


def _summary_of(check: CheckResult) -> dict[str, Any]:
    examples = check.breaks.slice(0, _EXAMPLES).to_pylist()
    for example in examples:
        amount = example["amount_minor"]
        example["amount_minor"] = None if amount is None else str(amount)
    return {
        "breaks": check.breaks_total,
        "reasons": check.breaks_by_reason,
        "rows_examined": check.rows_examined,
        "duration_s": check.duration_s,
        "examples": examples,
    }


def reconcile(
    dsn: str,
    contract: str = "casino_ledger",
    *,
    workdir: Path | None = None,
    memory_limit: str = "512MB",
    threads: int = 2,
    max_breaks: int = 10_000,
) -> Reconciliation:
    """Run every check over one consistent snapshot of the ledger at `dsn`; read-only, a hot standby will do.

    What does not fit `memory_limit` spills to a folder under `workdir` that is gone afterwards; `max_breaks` bounds
    the break rows kept per check (all are counted). Raises PolicyError for a contract that is unknown, invalid or not
    fulfilled by this database, SourceError for a database that cannot be read.
    """
    begin_at, begin_s = datetime.now(UTC), time.monotonic()
    agreed = load_contract(contract)
    with _database(workdir, memory_limit, threads) as database:
        with reading(dsn) as (cursor, snapshot):
            compare_with_source(cursor, agreed)
            rows, extract_s = load(cursor, agreed, database)
        prepare(database, agreed)
        checks = all_checks()
        applicable = [check for check in checks if check.needs in (None, *agreed.parts)]
        results = tuple(run_check(database, check, rows, max_breaks=max_breaks) for check in applicable)
    return Reconciliation(
        contract=agreed.name,
        snapshot=snapshot,
        checks=results,
        skipped=tuple(check.name for check in checks if check not in applicable),
        rows=rows,
        begin_at=begin_at,
        end_at=datetime.now(UTC),
        extract_s=extract_s,
        duration_s=round(time.monotonic() - begin_s, 3),
    )


def check_contract(dsn: str, contract: str) -> None:
    """Say early whether a database fulfils a contract, without reading its rows. Raises like `reconcile`."""
    agreed = load_contract(contract)
    with reading(dsn) as (cursor, _):
        compare_with_source(cursor, agreed)


@contextmanager
def _database(workdir: Path | None, memory_limit: str, threads: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """In memory, spilling under `workdir`: a database file took a fifth longer for a million postings."""
    with tempfile.TemporaryDirectory(prefix="reconcile-", dir=workdir) as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": threads,
            "temp_directory": folder,
            "preserve_insertion_order": False,
        }
        try:
            with duckdb.connect(config=settings) as database:
                yield database
        except duckdb.OutOfMemoryException:
            raise PolicyError(
                "reconciliation.memory",
                f"the ledger's checks do not fit {memory_limit} of memory and the disk of the working folder",
                "raise memory_limit, or name a workdir with more room to spill",
            ) from None
