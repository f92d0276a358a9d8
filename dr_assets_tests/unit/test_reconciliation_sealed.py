"""Breaks in the vault: the Parquet file comes back row by row, in parts where it is large, and never half."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.reconciliation import sealed
from dr_assets.reconciliation.checks import BREAKS, CheckResult, Kind, Skipped, Worst
from dr_assets.reconciliation.extract import Snapshot
from dr_assets.reconciliation.result import Reconciliation
from dr_assets.reconciliation.sealed import breaks_file, read_breaks, seal_breaks
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.verify.run import verify
from dr_assets_tests.faults.vault.sample import DATASET, StepClock

_AT = datetime(2026, 1, 31, tzinfo=UTC)
_AT_US = int(_AT.timestamp()) * 1_000_000


def _breaks(rows: int, severity: str = "red") -> pa.Table:
    """Amounts beyond 64 bits, references that don't compress."""
    return pa.Table.from_pylist(
        [
            {
                "check": "ledger/transfers_balance",
                "reason": "transfer_out_of_balance",
                "severity": severity,
                "account": str(number),
                "reference": hashlib.sha256(str(number).encode()).hexdigest(),
                "currency": "EUR",
                "amount_minor": Decimal(2**65 + number),
                "at_us": _AT_US - 10 * 86_400 * 1_000_000,
                "aged": True,
            }
            for number in range(rows)
        ],
        schema=BREAKS,
    )


def _result(*checks: CheckResult, postings: int = 1) -> Reconciliation:
    return Reconciliation(
        contract="mine",
        snapshot=Snapshot(_AT, "17.10", True, "0/0"),
        checks=checks,
        not_run=(Skipped("crm/contacts", "nobody gives contacts"),),
        rows={"postings": postings},
        begin_at=_AT,
        end_at=_AT,
        extract_s={},
        duration_s=1.0,
        as_of=_AT,
    )


def _check(rows: int, severity: str = "red", name: str = "ledger/transfers_balance") -> CheckResult:
    kind = Kind("transfer_out_of_balance", "EUR", severity, rows, rows, 7, -7, _AT_US - 10**7)  # type: ignore[arg-type]
    worst = (Worst("4", "EUR", rows, 10**20), Worst("5", "EUR", 1, 3))
    return CheckResult(name, _breaks(rows, severity), (kind,) if rows else (), 10, 0.1, worst if rows else ())


def test_the_sealed_file_is_the_breaks_row_by_row() -> None:
    """Sealed, read back and equal, amounts exact; the whole vault verifies."""
    vault = throwaway_vault(clock=StepClock())
    stored = seal_breaks(vault, DATASET, _result(_check(3)))
    assert stored is not None
    assert (stored.rows, len(stored.keys)) == (3, 1)
    assert read_breaks(vault, DATASET, stored.sha256).to_pylist() == _breaks(3).to_pylist()
    assert verify(vault).errors == ()


def test_a_large_file_lies_in_parts_and_half_of_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part says how many there are: a file that lacks one is no file."""
    monkeypatch.setattr(sealed, "PART_BYTES", 4096)
    vault = throwaway_vault(clock=StepClock())
    stored = seal_breaks(vault, DATASET, _result(_check(500)))
    assert stored is not None
    assert len(stored.keys) == -(-len(breaks_file(_breaks(500))) // 4096) > 2
    assert read_breaks(vault, DATASET, stored.sha256).num_rows == 500
    with pytest.raises(VaultError) as caught:
        read_breaks(vault, DATASET, "0" * 64)
    assert caught.value.code == "vault.missing"


def test_nothing_is_sealed_where_nothing_broke() -> None:
    """No break, no file."""
    vault = throwaway_vault(clock=StepClock())
    assert seal_breaks(vault, DATASET, _result(_check(0))) is None
    assert list(vault.objects(DATASET)) == []


def test_only_red_breaks_make_it_red() -> None:
    """Amber ones are told and pass; one red one, or no posting at all, does not."""
    amber = _result(_check(2, "amber"))
    assert (amber.ok, amber.severity, amber.red_total, amber.breaks_total) == (True, "amber", 0, 2)
    assert amber.verdict() == "the money adds up, with 2 amber breaks"
    red = _result(_check(2, "amber"), _check(1, name="ledger/other"))
    assert (red.ok, red.severity, red.verdict()) == (False, "critical", "1 breaks and 2 amber ones, 3 of all aged")
    assert not _result(_check(0), postings=0).ok
    assert _result(_check(0)).severity == "none"


def test_the_summary_tells_kinds_ages_and_worst_accounts_without_adding_checks_up() -> None:
    """One damage seen by two checks is not two damages: an account's amount is the largest, as text."""
    summary = _result(_check(2), _check(3, name="balances/other")).summary()
    assert [(kind["count"], kind["amount_minor"], kind["oldest_s"]) for kind in summary["kinds"]] == [
        (2, "7", 10),
        (3, "7", 10),
    ]
    assert [(one["account"], one["amount_minor"]) for one in summary["worst_accounts"]] == [
        ("4", str(10**20)),
        ("5", "3"),
    ]
    assert summary["areas"]["ledger"] == {"checks": 1, "breaks": 2, "red": 2, "aged": 2, "not_run": []}
    assert summary["areas"]["crm"]["not_run"] == ["nobody gives contacts"]
