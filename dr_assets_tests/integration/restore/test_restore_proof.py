from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dr_assets.casino.incident import DAMAGES, has_transfer, plant_damage
from dr_assets.drills import controls
from dr_assets.drills.drill import run_drill
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.proving import restore_test
from dr_assets.proving.attempt import DUE, WORK_DIR_ENV
from dr_assets.proving.restore_test import run_restore_test
from dr_assets.reconciliation.run import Reconciliation
from dr_assets.stores.postgres.restore import Restored, restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.verify import verify

if TYPE_CHECKING:
    from conftest import LivedCasino, Source

pytestmark = pytest.mark.integration


@pytest.fixture
def source(lived_casino: "LivedCasino") -> "Source":
    """The casino's vault in a copy of its own, so that facts are this test's."""
    return lived_casino.source.clone()


def newest(source: "Source", kind: str) -> Fact:
    """The newest fact of a kind."""
    fact = latest_fact(source.vault, "ledger", kind)
    assert fact is not None
    return fact


def test_a_restore_test_leaves_signed_facts_and_no_files(source: "Source", engine_dir: Path) -> None:
    """What was restored to where, how long it took against the RTO, and that the money adds up; the sandbox is gone."""
    result = run_restore_test(source.vault, source.dataset, Target.parse("latest"), env={WORK_DIR_ENV: str(engine_dir)})
    assert result.ok
    body = newest(source, "restore_test").body
    assert body["outcome"] == "passed"
    assert body["breaks_total"] == 0
    assert body["rto_s"] == 900
    assert body["level"] == "standard"
    assert body["replayed_lsn"] == body["end_lsn"]
    assert isinstance(body["phases_s"], dict)
    assert set(body["phases_s"]) >= {"plan", "fetch_base", "lay_wal", "verify", "replay", "promote", "reconcile"}
    assert str(body["engine"]).startswith("PostgreSQL 17.")
    assert body["base_backup"] == newest(source, "snapshot").body["manifest_key"]
    assert isinstance(body["recovery_point_age_s"], float)
    assert newest(source, "reconciliation").body["ok"] is True
    assert newest(source, DUE).body["begin_at"] == body["begin_at"]
    assert list(engine_dir.iterdir()) == []
    assert verify(source.vault).findings == ()


def test_a_restore_to_before_the_bad_transaction_is_without_it(
    lived_casino: "LivedCasino", source: "Source", engine_dir: Path
) -> None:
    """By time, by position and by transaction: the good transfer is there, the bad one is not (or is the last)."""
    planted = lived_casino.planted
    seen: dict[str, tuple[bool, bool]] = {}

    def look(restored: Restored, _: Reconciliation) -> None:
        bad = has_transfer(restored.dsn(), planted.transfer_id)
        seen[str(restored.plan.target)] = (has_transfer(restored.dsn(), planted.good_transfer_id), bad)

    targets = [planted.good_at.isoformat(), f"lsn:{planted.lsn_before}", f"xid:{planted.xid}"]
    for text in targets:
        target, env = Target.parse(text), {WORK_DIR_ENV: str(engine_dir)}
        assert run_restore_test(source.vault, source.dataset, target, level="quick", env=env, inspect=look).ok
    assert list(seen.values()) == [(True, False), (True, False), (True, True)]


def test_money_that_does_not_add_up_is_a_failed_test_on_record(
    source: "Source", engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres restored perfectly, and still nothing is green."""

    @contextmanager
    def forged(*args: Any, **options: Any) -> Iterator[Restored]:
        with restore(*args, **options) as restored:
            plant_damage(restored.dsn(), DAMAGES[0], 1)
            yield restored

    monkeypatch.setattr(restore_test, "restore", forged)
    result = run_restore_test(
        source.vault, source.dataset, Target("latest"), level="quick", env={WORK_DIR_ENV: str(engine_dir)}
    )
    assert not result.ok
    assert newest(source, "restore_test").body["outcome"] == "failed"
    assert "does not add up" in str(newest(source, "restore_test").body["reason"])
    assert newest(source, "reconciliation").body["ok"] is False
    assert newest(source, "reconciliation").body["breaks_total"] != 0


def with_a_clock_ahead(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Let the newest heartbeat be that much later than now."""

    @contextmanager
    def ahead(*args: Any, **options: Any) -> Iterator[Restored]:
        recovered_at = datetime.now(UTC) + by
        with restore(*args, **options) as restored:
            restored.recovered_at = recovered_at
            yield restored

    monkeypatch.setattr(restore_test, "restore", ahead)


@pytest.mark.parametrize("by_s", [600, 1])
def test_a_heartbeat_from_the_future_is_no_proof_of_freshness(
    source: "Source", engine_dir: Path, monkeypatch: pytest.MonkeyPatch, by_s: int
) -> None:
    """Clocks that disagree fail the test with that reason, no age is claimed; a moment's difference is nothing."""
    with_a_clock_ahead(monkeypatch, timedelta(seconds=by_s))
    result = run_restore_test(
        source.vault, source.dataset, Target("latest"), level="quick", env={WORK_DIR_ENV: str(engine_dir)}
    )
    body = newest(source, "restore_test").body
    assert result.ok == (by_s == 1)
    if by_s == 1:
        assert body["recovery_point_age_s"] == 0
    else:
        assert body["recovery_point_age_s"] is None
        assert "disagree" in str(body["reason"])


def test_a_vault_that_cannot_be_restored_is_on_record_with_the_reason(source: "Source", engine_dir: Path) -> None:
    """Failed, why, and raised; the reconciliation has nothing new to say."""
    wal = sorted(key for key in source.store.rows if "/wal/" in key)
    del source.store.rows[wal[len(wal) // 2]]
    with pytest.raises(VaultError) as caught:
        run_restore_test(source.vault, source.dataset, Target("latest"), env={WORK_DIR_ENV: str(engine_dir)})
    body = newest(source, "restore_test").body
    assert body["outcome"] == "failed"
    assert str(body["reason"]).startswith(caught.value.code)
    assert latest_fact(source.vault, "ledger", "reconciliation") is None
    assert list(engine_dir.iterdir()) == []


def test_an_interrupted_test_is_aborted_on_record(
    source: "Source", engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's Ctrl-C is neither a pass nor silence."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restore_test, "reconcile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_restore_test(source.vault, source.dataset, Target("latest"), env={WORK_DIR_ENV: str(engine_dir)})
    assert newest(source, "restore_test").body["outcome"] == "aborted"
    assert list(engine_dir.iterdir()) == []


def test_a_drill_measures_both_recoveries_and_catches_every_planted_damage(source: "Source", engine_dir: Path) -> None:
    """Latest and an earlier moment, against RPO and RTO; the catch rate of the negative controls is sealed."""
    result = run_drill(source.vault, source.dataset, env={WORK_DIR_ENV: str(engine_dir)})
    assert result.controls.planted == len(DAMAGES)
    assert result.controls.missed == ()
    assert result.latest.ok
    assert result.pitr is not None
    assert result.pitr.ok
    body = newest(source, "drill").body
    assert body["catch_rate"] == 1
    assert body["pitr_target"] == result.pitr.target
    assert body["outcome"] == ("passed" if not result.reason.startswith("the recovered point") else "failed")
    assert list(engine_dir.iterdir()) == []


def test_an_interrupted_drill_is_aborted_on_record(
    source: "Source", engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drill that somebody stopped was neither passed nor never begun."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restore_test, "reconcile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_drill(source.vault, source.dataset, env={WORK_DIR_ENV: str(engine_dir)})
    body = newest(source, "drill").body
    assert body["outcome"] == "aborted"
    assert "KeyboardInterrupt" in str(body["reason"])
    assert list(engine_dir.iterdir()) == []


def test_a_control_that_goes_unnoticed_fails_the_drill(
    source: "Source", engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reconciliation that sees nothing is worse than none: its drill is red and names what it missed."""
    planted: list[str] = []
    monkeypatch.setattr(controls, "plant_damage", lambda dsn, kind, seed: planted.append(f"{dsn}{kind}{seed}"))
    monkeypatch.setattr(controls, "DAMAGES", DAMAGES[:2])
    result = run_drill(source.vault, source.dataset, env={WORK_DIR_ENV: str(engine_dir)})
    assert len(planted) == 2
    assert result.outcome == "failed"
    assert result.controls.missed == tuple(DAMAGES[:2])
    assert newest(source, "drill").body["catch_rate"] == 0


def test_a_drill_without_a_base_backup_is_on_record_as_failed(source: "Source", engine_dir: Path) -> None:
    """What stands in the way is sealed and raised."""
    for key in [key for key in source.store.rows if "/base/" in key]:
        del source.store.rows[key]
    with pytest.raises(PolicyError):
        run_drill(source.vault, source.dataset, env={WORK_DIR_ENV: str(engine_dir)})
    body = newest(source, "drill").body
    assert body["outcome"] == "failed"
    assert str(body["reason"]).startswith("restore.no_base_backup")
