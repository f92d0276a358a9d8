"""As of a moment only what the log vouches for counts; a vault whose log is behind a known checkpoint is refused."""

from datetime import timedelta
from pathlib import Path

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log.checkpoint import Checkpoint
from dr_assets.vault.log.trust import is_vouched_for, trusted
from dr_assets.vault.verify import verify
from dr_assets.vault.witness import Witness, check_witness
from dr_assets_tests.unit.log.conftest import Logged


def test_what_was_slipped_in_beneath_a_turned_clock_is_left_out(logged: Logged) -> None:
    """Signed by a stolen key, dated before the log last compared everything: not in the log, so it came later."""
    for _ in range(4):
        logged.piece()
    logged.later(minutes=30)
    logged.piece()
    logged.sequence()
    then = logged.now
    logged.later(days=2)
    forged = logged.piece(at=1020)
    logged.store.rows[str(forged.key)][0].modified_at = then - timedelta(minutes=31)
    plain = {str(obj.key) for obj in logged.vault.objects("ledger", "wal", as_of=then)}
    assert str(forged.key) in plain, "the store says that it was there"
    seen = trusted(logged.vault, then)
    assert {str(obj.key) for obj in seen.vault.objects("ledger", "wal", as_of=then)} == plain - {str(forged.key)}
    assert seen.left_out == {str(forged.key)}


def test_the_tail_behind_the_log_counts_by_signature_and_chain(logged: Logged) -> None:
    """What the log could not know yet is not left out; nor is anything where there is no log."""
    logged.piece()
    assert not trusted(logged.vault, logged.now).left_out
    logged.sequence()
    late = logged.piece()
    seen = trusted(logged.vault, logged.now)
    assert str(late.key) in {str(obj.key) for obj in seen.vault.objects("ledger", "wal", as_of=logged.now)}
    assert not seen.left_out
    assert not is_vouched_for(logged.vault, str(late.key), late.stored_at)
    logged.sequence()
    assert is_vouched_for(logged.vault, str(late.key), late.stored_at)


def test_a_witness_remembers_the_logs_checkpoint(logged: Logged, tmp_path: Path) -> None:
    """Verification takes it down; whoever sets the log back, or rewrites it, is refused by restore and by verify."""
    logged.piece()
    logged.sequence()
    earlier = logged.twin()
    logged.piece()
    logged.sequence()
    report = verify(logged.vault)
    file = tmp_path / "witness.json"
    report.witness.save(file)
    known = Witness.load(file)
    assert list(known.checkpoints.values()) == [logged.reader().checkpoint]
    check_witness(logged.vault, known)
    logged.fact()
    logged.sequence()
    check_witness(logged.vault, known)
    assert known.moved_on(verify(logged.vault).witness, "casino", None).checkpoints != known.checkpoints
    alone = Witness.of([], known.checkpoints.values())
    with pytest.raises(VaultError, match=r"vault\.older_than_witness"):
        check_witness(earlier.vault, alone)
    assert "missing" in {finding.kind for finding in verify(earlier.vault, witness=alone).errors}
    other = Logged(signer=logged.signer)
    for _ in range(9):
        other.fact()
    other.sequence()
    with pytest.raises(VaultError, match=r"log\.forked"):
        check_witness(other.vault, alone)
    assert "forked_log" in {finding.kind for finding in verify(other.vault, witness=alone).errors}


def test_the_larger_checkpoint_of_a_log_is_kept_and_other_logs_are_left_alone(logged: Logged, tmp_path: Path) -> None:
    """One file may witness several estates; a file that holds no checkpoint where one should be is refused."""
    small, large = (Checkpoint("dr-assets/casino/throwaway", size, bytes([size] * 32)) for size in (3, 5))
    elsewhere = Checkpoint("dr-assets/bank/primary", 9, b"\x09" * 32)
    known = Witness.of([], [large, small]).merged(Witness.of([], [small, elsewhere]))
    assert set(known.checkpoints.values()) == {large, elsewhere}
    check_witness(logged.vault, Witness.of([], [elsewhere]))
    file = tmp_path / "witness.json"
    file.write_text('{"newest": [], "checkpoints": ["dr-assets/casino/primary"]}')
    with pytest.raises(PolicyError, match=r"vault\.bad_witness"):
        Witness.load(file)
