from datetime import timedelta
from typing import Any

import pytest

from dr_assets.components import judgements
from dr_assets.components.postgres_checks import judge_chain
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.verify import Finding, VerifyReport, verify


def test_an_unbroken_chain_is_contiguous(filled: Any, ledger: PostgresDataset) -> None:
    """From the newest base backup to the end of what is stored, without a hole."""
    assert not judge_chain(filled.vault, ledger).passed
    filled.seal_snapshot()
    for _ in range(3):
        filled.store_wal()
    verdict = judge_chain(filled.vault, ledger)
    assert verdict.passed, verdict.reason
    assert verdict.values["segments"] == 3


def test_a_hole_in_the_chain_is_red(filled: Any, ledger: PostgresDataset) -> None:
    """A missing piece shows with its position, though pieces beyond it are stored."""
    filled.seal_snapshot()
    filled.store_wal()
    filled.store_wal(hole=True)
    verdict = judge_chain(filled.vault, ledger)
    assert not verdict.passed
    assert "[0/1001000, 0/1002000)" in verdict.reason


def test_a_lost_slot_is_red_until_a_new_base_backup(filled: Any, ledger: PostgresDataset) -> None:
    """A gap that the capture put on record stays red, and a base backup that begins behind it heals it."""
    filled.seal_snapshot()
    filled.store_wal()
    filled.later(minutes=1)
    filled.seal_gap()
    assert "take a new base backup" in judge_chain(filled.vault, ledger).reason
    filled.later(minutes=1)
    filled.position += 0x1000000
    filled.seal_snapshot()
    filled.store_wal()
    assert judge_chain(filled.vault, ledger).passed


def test_a_base_backup_that_was_under_way_does_not_heal_a_gap(filled: Any, ledger: PostgresDataset) -> None:
    """It ended after the gap and began before it: the WAL it needs is what was lost."""
    filled.store_wal()
    filled.seal_gap()
    filled.later(minutes=1)
    filled.position -= 4096
    filled.seal_snapshot()
    assert "take a new base backup" in judge_chain(filled.vault, ledger).reason


def test_verified_and_locked_are_told_apart(filled: Any) -> None:
    """Damage makes `verified` red and leaves `locked` alone; a missing lock does the opposite."""
    filled.store_wal()
    report = verify(filled.vault, "ledger")
    assert judgements.judge_verified(report).passed, report
    assert judgements.judge_locked(report).passed, report
    damaged = VerifyReport((Finding("flipped", "casino/ledger/x"),), 3, 3, 100, 0.1)
    assert (judgements.judge_verified(damaged).passed, judgements.judge_locked(damaged).passed) == (False, True)
    unlocked = VerifyReport((Finding("unlocked", "casino/ledger/x"),), 3, 2, 100, 0.1)
    assert (judgements.judge_verified(unlocked).passed, judgements.judge_locked(unlocked).passed) == (True, False)
    noticed = VerifyReport((Finding("overlay", "casino/ledger/x"),), 3, 3, 100, 0.1)
    assert judgements.judge_verified(noticed).passed


def test_an_empty_vault_is_not_verified() -> None:
    """Nothing wrong with nothing is no proof."""
    assert not judgements.judge_verified(VerifyReport((), 0, 0, 0, 0.1)).passed
    assert not judgements.judge_locked(VerifyReport((), 0, 0, 0, 0.1)).passed


@pytest.mark.parametrize("measure", ["recovery_duration_s", "recovery_point_age_s"])
def test_a_drill_over_its_objective_is_red(filled: Any, estate: Estate, measure: str) -> None:
    """A drill that worked but took longer, or lost more, than promised is a failed promise."""
    limits = {"recovery_duration_s": 900.0, "recovery_point_age_s": 30.0}
    filled.seal("drill", outcome="passed", **limits)
    newest = {"ledger": latest_fact(filled.vault, "ledger", "drill")}
    assert judgements.judge_drills(estate, newest, filled.now).passed
    filled.later(seconds=1)
    filled.seal("drill", outcome="passed", **{**limits, measure: limits[measure] + 0.1})
    newest = {"ledger": latest_fact(filled.vault, "ledger", "drill")}
    verdict = judgements.judge_drills(estate, newest, filled.now)
    assert not verdict.passed
    assert measure in verdict.reason


def test_an_overdue_drill_is_red(filled: Any, estate: Estate) -> None:
    """A drill that was never held, or longer ago than overdue_after, is red without anybody running anything."""
    assert "never drilled" in judgements.judge_drills(estate, {"ledger": None}, filled.now).reason
    filled.seal("drill", outcome="passed", recovery_duration_s=1.0, recovery_point_age_s=1.0)
    newest = {"ledger": latest_fact(filled.vault, "ledger", "drill")}
    assert judgements.judge_drills(estate, newest, filled.now + timedelta(days=35)).passed
    assert "overdue" in judgements.judge_drills(estate, newest, filled.now + timedelta(days=36)).reason


def test_a_drill_dated_in_the_future_is_red(filled: Any, estate: Estate) -> None:
    """It would count as fresh until that day, and longer: clocks that differ by more than 5 s prove nothing."""
    filled.seal("drill", outcome="passed", recovery_duration_s=1.0, recovery_point_age_s=1.0)
    newest = {"ledger": latest_fact(filled.vault, "ledger", "drill")}
    assert judgements.judge_drills(estate, newest, filled.now - timedelta(seconds=5)).passed
    verdict = judgements.judge_drills(estate, newest, filled.now - timedelta(seconds=5.1))
    assert not verdict.passed
    assert "in the future" in verdict.reason


@pytest.mark.parametrize(
    ("kind", "judge"),
    [
        ("restore_test", judgements.judge_restorable),
        ("reconciliation", judgements.judge_money),
    ],
)
def test_a_proof_dated_in_the_future_is_red(filled: Any, ledger: PostgresDataset, kind: str, judge: Any) -> None:
    """A `passed` sealed by a clock that ran ahead must not count as fresh for as long as it ran ahead."""
    filled.seal(kind, outcome="passed")
    fact = latest_fact(filled.vault, "ledger", kind)
    assert judge(ledger, fact, filled.now - timedelta(seconds=5)).passed
    verdict = judge(ledger, fact, filled.now - timedelta(days=300))
    assert not verdict.passed
    assert "in the future" in verdict.reason


def test_a_base_backup_that_nothing_was_captured_behind_is_not_contiguous(filled: Any, ledger: PostgresDataset) -> None:
    """No hole in nothing is no chain."""
    filled.seal_snapshot()
    assert "no capture" in judge_chain(filled.vault, ledger).reason
