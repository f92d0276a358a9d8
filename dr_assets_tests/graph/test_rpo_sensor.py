from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from dr_assets.cli.status import status_of
from dr_assets.components.evaluations import REPEAT, worth_writing
from dr_assets.components.judgements import Judgement
from dr_assets.components.postgres_checks import judge_chain
from dr_assets.components.proofs import money_key, restorable_key
from dr_assets.components.rpo_sensor import judge_from_vault, rpo_key, rpo_sensor
from dr_assets.estate.model import PostgresDataset


def evaluate(instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset) -> dict[str, bool]:
    """One tick of the sensor; what it writes goes to the instance as the daemon would write it."""
    context = dg.build_sensor_context(instance=instance, resources={"vault_primary": filled})
    result = rpo_sensor(ledger).evaluate_tick(context)
    assert not result.run_requests
    events: list[Any] = list(result.asset_events)
    for event in events:
        instance.report_runless_asset_event(event)
    return {event.check_name: event.passed for event in events}


@pytest.mark.parametrize(("age_s", "passed"), [(0.0, True), (30.0, True), (30.001, False), (-5.0, True), (-5.1, False)])
def test_the_rpo_is_met_up_to_its_last_millisecond(
    filled: Any, ledger: PostgresDataset, age_s: float, passed: bool
) -> None:
    """The age is the distance to the stored heartbeat's source time; a future one means clocks disagree, and is red."""
    filled.seal_snapshot()
    filled.store_wal()
    filled.later(seconds=age_s)
    verdict = judge_from_vault(filled, ledger)[rpo_key(ledger)]
    assert verdict.passed is passed, verdict.reason
    assert verdict.values["recovery_point_age_s"] == age_s
    assert verdict.values["rpo_s"] == 30


def test_nothing_stored_is_red(filled: Any, ledger: PostgresDataset) -> None:
    """An empty vault protects nothing, whatever the event log may say."""
    assert {key.name: verdict.passed for key, verdict in judge_from_vault(filled, ledger).items()} == {
        "rpo": False,
        "restorable": False,
        "money_adds_up": False,
    }


def rpo_of(filled: Any, ledger: PostgresDataset) -> Judgement:
    """The verdict on the RPO; `dr-assets status` must say the same of the same vault."""
    verdict = judge_from_vault(filled, ledger)[rpo_key(ledger)]
    shown = status_of(filled.vault, ledger)
    assert (shown.within_rpo, shown.trouble) == (verdict.passed, None if verdict.passed else verdict.reason)
    return verdict


def test_wal_without_a_base_backup_is_red(filled: Any, ledger: PostgresDataset) -> None:
    """At the very start nothing of what is captured can be restored; the first base backup within it makes it green."""
    filled.store_wal()
    verdict = rpo_of(filled, ledger)
    assert not verdict.passed
    assert "no base backup follows" in verdict.reason
    assert verdict.values["recovery_point_age_s"] == 0.0
    filled.seal_snapshot()
    filled.store_wal()
    assert rpo_of(filled, ledger).passed


@pytest.mark.parametrize(
    "change", [{"timeline": 2, "skip": -4096}, {"system_id": "7300000000000000002", "skip": -4096}, {"skip": 8192}]
)
def test_a_chain_that_no_base_backup_leads_to_is_red(
    filled: Any, ledger: PostgresDataset, change: dict[str, Any]
) -> None:
    """A failover, a new server, an accepted gap: fresh WAL alone recovers nothing, even where positions would fit."""
    filled.seal_snapshot()
    filled.store_wal()
    assert rpo_of(filled, ledger).passed
    assert judge_chain(filled.vault, ledger).passed
    filled.later(seconds=1)
    filled.begin_anew(**change)
    filled.store_wal()
    for verdict in (rpo_of(filled, ledger), judge_chain(filled.vault, ledger)):
        assert not verdict.passed
        assert "no base backup follows" in verdict.reason
    filled.later(seconds=1)
    filled.seal_snapshot()
    filled.store_wal()
    assert rpo_of(filled, ledger).passed
    assert judge_chain(filled.vault, ledger).passed


def test_a_base_backup_that_names_no_position_leads_nowhere(filled: Any, ledger: PostgresDataset) -> None:
    """A fact that says less than a base backup's is red, not a crash."""
    filled.store_wal()
    filled.seal("snapshot", size_bytes=1)
    assert "names no position" in rpo_of(filled, ledger).reason


def test_a_stale_chain_without_a_base_backup_tells_both(filled: Any, ledger: PostgresDataset) -> None:
    """One reason does not hide the other."""
    filled.store_wal()
    filled.later(seconds=31)
    reason = rpo_of(filled, ledger).reason
    assert "no base backup follows" in reason
    assert "31.0 s old, over the RPO of 30s" in reason


def test_a_vault_that_cannot_be_read_is_red(filled: Any, ledger: PostgresDataset) -> None:
    """When the store is away every verdict is red and says why, instead of staying at what it was."""
    filled.store_wal()
    filled.away = True
    verdicts = judge_from_vault(filled, ledger)
    assert len(verdicts) == 3
    assert not any(verdict.passed for verdict in verdicts.values())
    assert all("vault.unreachable" in verdict.reason for verdict in verdicts.values())


def test_a_segment_without_lock_is_red(filled: Any, ledger: PostgresDataset) -> None:
    """A recovery point that anybody may delete is none."""
    filled.seal_snapshot()
    filled.store_wal()
    for rows in filled.vault.store.rows.values():
        rows[-1].lock = None
    assert "no lock" in judge_from_vault(filled, ledger)[rpo_key(ledger)].reason


def test_lost_wal_shows_at_the_next_tick(instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset) -> None:
    """A gap that the capture put on record makes `contiguous` red without waiting for a run."""
    filled.seal_snapshot()
    filled.store_wal()
    assert "contiguous" not in evaluate(instance, filled, ledger)
    filled.later(seconds=1)
    filled.seal_gap()
    assert evaluate(instance, filled, ledger) == {"contiguous": False}


def test_it_writes_on_change_and_not_in_between(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset
) -> None:
    """The event log keeps everything, so an unchanged verdict is not repeated at every tick."""
    filled.seal_snapshot()
    filled.store_wal()
    assert evaluate(instance, filled, ledger)["rpo"] is True
    assert evaluate(instance, filled, ledger) == {}
    filled.later(seconds=31)
    assert evaluate(instance, filled, ledger) == {"rpo": False}
    filled.store_wal()
    assert evaluate(instance, filled, ledger) == {"rpo": True}


def test_an_unchanged_verdict_is_repeated_once_a_minute(instance: dg.DagsterInstance, ledger: PostgresDataset) -> None:
    """The recorded verdict never gets older than a minute, so that an old green can't be taken for a new one."""
    verdict = {rpo_key(ledger): Judgement(passed=True, reason="fine")}
    for key, judgement in worth_writing(instance, verdict, datetime.now(UTC)).items():
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=judgement.passed, metadata={})
        )
    assert worth_writing(instance, verdict, datetime.now(UTC)) == {}
    assert worth_writing(instance, verdict, datetime.now(UTC) + REPEAT) == verdict


def test_a_green_that_somebody_posted_is_overwritten_at_the_next_tick(
    instance: dg.DagsterInstance, filled: Any, ledger: PostgresDataset
) -> None:
    """The web server has no login: a forged verdict meets the vault's own within one tick."""
    assert evaluate(instance, filled, ledger)["restorable"] is False
    for key in (rpo_key(ledger), restorable_key(ledger), money_key(ledger)):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=True, metadata={})
        )
    assert evaluate(instance, filled, ledger) == {"rpo": False, "restorable": False, "money_adds_up": False}
