"""What a reconciliation found, in the shapes that a fact, an asset and a person read.

What belongs here: the result and its summaries. What stays out: how it came about (run.py) and sealing it (sealed.py).
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from dr_assets.reconciliation.checks import BREAKS, CheckResult, Kind, Matched, Skipped, Worst
from dr_assets.reconciliation.extract import Snapshot

# The eight, in the order in which they build on one another: the folders of checks/.
AREAS: Final = ("ledger", "balances", "payments", "withdrawals", "outbox", "queues", "read_models", "crm")
_EXAMPLES: Final = 5
_WORST: Final = 10


@dataclass(frozen=True)
class Reconciliation:
    """What one run found. `not_run` are the checks that were skipped, each with why.

    `as_of` is the moment of judgement. `rows` counts each relation that was read, `extract_s` is how long that took for
    those of the database.
    """

    contract: str
    snapshot: Snapshot
    checks: tuple[CheckResult, ...]
    not_run: tuple[Skipped, ...]
    rows: dict[str, int]
    begin_at: datetime
    end_at: datetime
    extract_s: dict[str, float]
    duration_s: float
    as_of: datetime
    engine: str = "duckdb"
    meanings: dict[str, str] = field(default_factory=dict)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The names of the checks that were not run."""
        return tuple(one.name for one in self.not_run)

    @property
    def breaks_total(self) -> int:
        """All breaks of all checks, red and amber; one damaged row may break several."""
        return sum(check.breaks_total for check in self.checks)

    @property
    def red_total(self) -> int:
        """The red ones of them."""
        return sum(check.red_total for check in self.checks)

    @property
    def aged_total(self) -> int:
        """Those of them, red and amber, that are older than the contract's `aged_after`."""
        return sum(kind.aged for check in self.checks for kind in check.kinds)

    @property
    def rows_examined(self) -> int:
        """Rows read, each counted once."""
        return sum(self.rows.values())

    @property
    def ok(self) -> bool:
        """The money adds up: there was money to examine, and no check found a red break.

        An empty ledger is not green: a restore that came back without its rows must not pass.
        """
        return self.red_total == 0 and self.rows["postings"] > 0

    @property
    def severity(self) -> str:
        """`none`, `amber` for breaks that are all within what the rules call a suspicion, or `critical`."""
        return "critical" if not self.ok else "amber" if self.breaks_total else "none"

    def verdict(self) -> str:
        """One line: whether the money adds up, and what was found all the same."""
        if self.ok:
            shown = f", with {self.breaks_total} amber breaks" if self.breaks_total else ""
            return f"the money adds up{shown}"
        if not self.red_total:
            return "there is not a single posting"
        aged = f", {self.aged_total} of all aged" if self.aged_total else ""
        amber = self.breaks_total - self.red_total
        return f"{self.red_total} breaks{f' and {amber} amber ones' if amber else ''}{aged}"

    @property
    def breaks(self) -> pa.Table:
        """The breaks of all checks as one table (see checks.BREAKS)."""
        return pa.concat_tables([BREAKS.empty_table(), *(check.breaks for check in self.checks)])

    def of_area(self, area: str) -> tuple[CheckResult, ...]:
        """The checks of one area that were run."""
        return tuple(check for check in self.checks if check.area == area)

    @property
    def areas(self) -> tuple[str, ...]:
        """The areas of which at least one check was run."""
        return tuple(area for area in AREAS if self.of_area(area))

    def kinds(self) -> list[dict[str, Any]]:
        """One row per check, reason, currency and severity: count, aged, amounts as text, age of the oldest."""
        return [self._kind(check.name, kind) for check in self.checks for kind in check.kinds]

    def _kind(self, check: str, kind: Kind) -> dict[str, Any]:
        return {
            "check": check,
            "reason": kind.reason,
            "currency": kind.currency,
            "severity": kind.severity,
            "count": kind.count,
            "aged": kind.aged,
            "amount_minor": str(kind.amount_minor),
            "net_minor": str(kind.net_minor),
            "oldest_s": self._age_s(kind.oldest_us),
        }

    def _age_s(self, at_us: int | None) -> int | None:
        if at_us is None:
            return None
        return int(self.as_of.timestamp()) - at_us // 1_000_000

    def worst_accounts(self) -> list[dict[str, Any]]:
        """The accounts with the most at stake, each with the largest amount that any one check gives.

        Never a sum over checks: one damage may break several rules.
        """
        largest: dict[tuple[str, str | None], tuple[Worst, str]] = {}
        for check in self.checks:
            for worst in check.worst:
                key = worst.account, worst.currency
                if key not in largest or worst.amount_minor > largest[key][0].amount_minor:
                    largest[key] = worst, check.name
        ordered = sorted(largest.values(), key=lambda one: (-one[0].amount_minor, one[0].account))
        return [
            {
                "account": worst.account,
                "currency": worst.currency,
                "amount_minor": str(worst.amount_minor),
                "count": worst.count,
                "check": check,
            }
            for worst, check in ordered[:_WORST]
        ]

    def matched(self) -> dict[str, list[dict[str, Any]]]:
        """What agrees, by check that counts it."""
        return {check.name: [_matched(one) for one in check.matched] for check in self.checks if check.matched}

    def summary(self) -> dict[str, Any]:
        """What a fact, an asset or a log line carries: JSON, no personal data beyond account and transfer ids.

        Amounts are whole minor units, written as text: a JSON reader may turn a large number into a float.
        """
        return {
            "contract": self.contract,
            "ok": self.ok,
            "severity": self.severity,
            "engine": self.engine,
            "as_of": self.as_of.isoformat(),
            "breaks_total": self.breaks_total,
            "red_total": self.red_total,
            "aged_total": self.aged_total,
            "kinds": self.kinds(),
            "worst_accounts": self.worst_accounts(),
            "matched": self.matched(),
            "areas": {area: self._area(area) for area in AREAS},
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
            "skipped_why": {one.name: one.why for one in self.not_run},
        }

    def _area(self, area: str) -> dict[str, Any]:
        """How one of the eight stands: its breaks, or why nothing of it was checked."""
        checks = self.of_area(area)
        why = sorted({one.why for one in self.not_run if one.name.startswith(f"{area}/")})
        return {
            "checks": sum(not check.is_of_values for check in checks),
            "breaks": sum(check.breaks_total for check in checks),
            "red": sum(check.red_total for check in checks),
            "aged": sum(kind.aged for check in checks for kind in check.kinds),
            "not_run": why,
        }


def _matched(one: Matched) -> dict[str, Any]:
    return {
        "outcome": one.outcome,
        "currency": one.currency,
        "count": one.count,
        "amount_minor": str(one.amount_minor),
    }


def _summary_of(check: CheckResult) -> dict[str, Any]:
    examples = check.breaks.slice(0, _EXAMPLES).to_pylist()
    for example in examples:
        amount = example["amount_minor"]
        example["amount_minor"] = None if amount is None else str(amount)
    return {
        "breaks": check.breaks_total,
        "red": check.red_total,
        "reasons": check.breaks_by_reason,
        "rows_examined": check.rows_examined,
        "duration_s": check.duration_s,
        "examples": examples,
    }
