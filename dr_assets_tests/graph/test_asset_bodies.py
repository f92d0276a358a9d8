from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from dr_assets.components import coverage, drill, postgres_assets
from dr_assets.components.evaluations import recorded_verdicts
from dr_assets.definitions import defs
from dr_assets.drills import drill as drills
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.estate.reconcile import Reconcile
from dr_assets.proving import restore_test
from dr_assets.stores.discover import Undeclared
from dr_assets.stores.postgres.discover import UndeclaredDatabase

RESTORED = {"recovery_duration_s": 12.5, "recovery_point_age_s": 0.8, "phases_s": {"fetch": 3.5}}
CHECKS = {"balance": {"breaks": 0}}
QUIET = {"checks": 3, "breaks": 0, "red": 0, "aged": 0, "not_run": []}
AREAS = {
    "ledger": QUIET,
    "balances": QUIET,
    "payments": {**QUIET, "breaks": 2, "aged": 1},
    "withdrawals": {**QUIET, "breaks": 3, "red": 1},
    "outbox": {**QUIET, "checks": 0, "not_run": ["nobody gives records"]},
    "queues": {**QUIET, "checks": 0, "not_run": ["nobody gives records"]},
    "read_models": QUIET,
    "crm": {**QUIET, "not_run": ["nobody gives contacts"]},
}
KINDS = [
    {
        "check": "withdrawals/payouts_agree",
        "reason": "paid_twice",
        "severity": "red",
        "currency": "EUR",
        "count": 1,
        "aged": 0,
        "amount_minor": "36893488147419103232",
        "net_minor": "-36893488147419103232",
        "oldest_s": None,
    }
]


@pytest.fixture
def run(instance: dg.DagsterInstance, filled: Any, estate: Estate) -> Callable[[dg.AssetsDefinition], bool]:
    """Materializes one asset (or step) with the vault in memory; tells whether the run succeeded."""
    filled.now = datetime.now(UTC)
    del estate

    def materialize(assets: dg.AssetsDefinition) -> bool:
        resources = {"vault_primary": filled}
        return dg.materialize([assets], instance=instance, resources=resources, raise_on_error=False).success

    return materialize


def graph_checks() -> set[dg.AssetCheckKey]:
    """Every check of the packaged estate."""
    return set(defs().get_repository_def().asset_graph.asset_check_keys)


def verdicts(instance: dg.DagsterInstance) -> dict[str, tuple[bool, str]]:
    """What the event log shows for every check that was judged."""
    keys = list(graph_checks())
    return {key.name: (shown.passed, shown.description) for key, shown in recorded_verdicts(instance, keys).items()}


def measures(instance: dg.DagsterInstance, *key: str) -> dict[str, Any]:
    """Metadata of an asset's newest materialization; empty if there is none."""
    event = instance.get_latest_materialization_event(dg.AssetKey(key))
    if event is None or event.asset_materialization is None:
        return {}
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def stand_in(filled: Any, *, outcome: str = "passed", breaks: int = 0, error: VaultError | None = None) -> Any:
    """Stands for the restore test: seals the facts that the real one seals, and raises what it raises."""

    def restore_test(*_: Any, **__: Any) -> None:
        if error is None:
            books = "failed" if breaks else "passed"
            told = {"breaks_total": breaks, "checks": CHECKS, "areas": AREAS, "kinds": KINDS}
            filled.seal("reconciliation", outcome=books, reason=f"{breaks} breaks", **told)
        filled.seal("restore_test", outcome=outcome, reason="as told", **RESTORED)
        if error is not None:
            raise error

    return restore_test


def test_a_restore_test_shows_what_was_sealed(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both assets carry the measured values of the sealed facts, phases and breaks included; both checks are green."""
    monkeypatch.setattr(restore_test, "run_restore_test", stand_in(filled))
    assert run(postgres_assets.restore_test_assets(ledger))
    restored = measures(instance, "ledger", "restore_test")
    assert (restored["recovery_duration_s"], restored["phase_fetch_s"]) == (12.5, 3.5)
    assert measures(instance, "ledger", "reconciliation")["breaks_balance"] == 0
    shown = {name: passed for name, (passed, _) in verdicts(instance).items()}
    assert (shown["restorable"], shown["money_adds_up"]) == (True, True)


def test_each_of_the_eight_reconciliations_has_its_own_check_and_table(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red breaks are red, amber ones yellow, what nobody asked for says so; amounts in the table are exact."""
    monkeypatch.setattr(restore_test, "run_restore_test", stand_in(filled))
    run(postgres_assets.restore_test_assets(ledger))
    shown = {key.name: one for key, one in recorded_verdicts(instance, list(graph_checks())).items()}
    assert {name.removeprefix("reconciled_"): one.passed for name, one in shown.items() if "reconciled_" in name} == {
        "ledger": True,
        "balances": True,
        "payments": False,
        "withdrawals": False,
        "outbox": True,
        "queues": True,
        "read_models": True,
        "crm": True,
    }
    assert (shown["reconciled_payments"].is_warning, shown["reconciled_withdrawals"].is_warning) == (True, False)
    assert "nobody asked" in shown["reconciled_outbox"].description
    assert "nobody gives contacts" in shown["reconciled_crm"].description
    (row,) = measures(instance, "ledger", "reconciliation")["breaks"].records
    assert (row.data["amount_minor"], row.data["oldest_s"]) == ("36893488147419103232", "")


def test_what_a_declaration_asks_for_and_nobody_checked_is_red(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A declared cluster whose topics were not read is no green outbox."""
    monkeypatch.setattr(restore_test, "run_restore_test", stand_in(filled))
    declared = replace(ledger, reconcile=Reconcile(topics="game_events"))
    run(postgres_assets.restore_test_assets(declared))
    passed, reason = verdicts(instance)["reconciled_outbox"]
    assert not passed
    assert "not checked: nobody gives records" in reason


def test_money_that_does_not_add_up_fails_the_run(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is red, not only its check: whatever rests on this proof must not start."""
    monkeypatch.setattr(restore_test, "run_restore_test", stand_in(filled, outcome="failed", breaks=3))
    assert not run(postgres_assets.restore_test_assets(ledger))
    passed, reason = verdicts(instance)["money_adds_up"]
    assert not passed
    assert "3 breaks" in reason


def test_a_restore_that_fails_is_judged_and_not_materialized(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`restorable` turns red with the sealed reason, the run fails with the hint, nothing counts as restored."""
    hole = VaultError("restore.hole", "a hole in the WAL", "restore from another vault")
    monkeypatch.setattr(restore_test, "run_restore_test", stand_in(filled, outcome="failed", error=hole))
    assert not run(postgres_assets.restore_test_assets(ledger))
    assert verdicts(instance)["restorable"] == (False, "the newest restore test failed: as told")
    assert measures(instance, "ledger", "restore_test") == {}
    failure = next(iter(instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))))
    texts = [str(entry.dagster_event) for entry in instance.all_logs(failure.dagster_run.run_id)]
    assert any("HINT: restore from another vault" in text for text in texts)


def test_a_drill_is_judged_dataset_by_dataset(
    instance: dg.DagsterInstance, filled: Any, estate: Estate, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drill that missed its RTO is materialized, since it was held, and red, since it failed."""
    slow = {**RESTORED, "recovery_duration_s": 901.0}
    monkeypatch.setattr(drills, "run_drill", lambda *_, **__: filled.seal("drill", outcome="passed", **slow))
    assert run(drill.drill_asset(estate))
    assert measures(instance, "estate", "drill")["ledger_recovery_duration_s"] == 901.0
    passed, reason = verdicts(instance)["within_objectives"]
    assert not passed
    assert "recovery_duration_s 901.0 against 900" in reason


def test_a_drill_that_could_not_be_held_fails(
    instance: dg.DagsterInstance, filled: Any, estate: Estate, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on the way is red on the check and fails the run."""

    def broken(*_: Any, **__: Any) -> None:
        filled.seal("drill", outcome="failed", reason="no base backup")
        raise VaultError("restore.hole", "a hole in the WAL", "restore from another vault")

    monkeypatch.setattr(drills, "run_drill", broken)
    assert not run(drill.drill_asset(estate))
    assert verdicts(instance)["within_objectives"][0] is False
    assert measures(instance, "estate", "drill") == {}


def test_an_undeclared_database_is_named(
    instance: dg.DagsterInstance, estate: Estate, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody declared is a failed check that names it; the look itself succeeded."""
    found = UndeclaredDatabase("127.0.0.1:5432", "1", "sportsbook", "owner", 4096, "ledger")
    monkeypatch.setattr(coverage, "undeclared", lambda *_: Undeclared([found], [], []))
    assert run(coverage.coverage_asset(estate))
    assert verdicts(instance)["coverage"] == (False, "declared by no dataset: 127.0.0.1:5432/sportsbook")
    assert measures(instance, "estate", "coverage")["undeclared_databases"] == 1
