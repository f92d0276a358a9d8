"""`estate/recovery_point` in the graph: followed without runs, red when nobody can look, by facts alone."""

from typing import Any

import dagster as dg

from dr_assets.components.recovery_point import CONSISTENT, KEY, ORPHANS, judge_orphans, recovery_point_parts
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.recovery.estate_restore import ESTATE_RESTORE
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets_tests.graph.conftest import FilledVault


def ticked(estate: Estate, filled: FilledVault, instance: dg.DagsterInstance, cursor: str | None) -> Any:
    """One look of the sensor."""
    (sensor,) = recovery_point_parts(estate).sensors
    resources = {resource_key(dataset.vault): filled for dataset in estate.datasets.values()}
    context = dg.build_sensor_context(instance=instance, resources=resources, cursor=cursor)
    return sensor.evaluate_tick(context)


def verdicts(tick: Any) -> dict[str, tuple[bool, str]]:
    """What it says of each check."""
    events = [one for one in tick.asset_events if isinstance(one, dg.AssetCheckEvaluation)]
    return {one.check_name: (one.passed, one.severity.value) for one in events}


def test_the_sensor_follows_the_moment_and_tells_what_it_can_not_see(
    filled: FilledVault, estate: Estate, ledger: PostgresDataset, instance: dg.DagsterInstance
) -> None:
    """A new heartbeat gives a materialization with a row for each store; the same again none; no vault is red."""
    filled.store_wal()
    first = ticked(estate, filled, instance, None)
    (made,) = [one for one in first.asset_events if isinstance(one, dg.AssetMaterialization)]
    assert made.asset_key == KEY
    (row,) = made.metadata["stores"].records
    assert (row.data["dataset"], row.data["skew_ms"], row.data["holds_back"]) == (ledger.name, 0, False)
    assert verdicts(first) == {CONSISTENT.name: (True, "ERROR"), ORPHANS.name: (False, "WARN")}
    again = ticked(estate, filled, instance, first.cursor)
    assert [one for one in again.asset_events if isinstance(one, dg.AssetMaterialization)] == []
    filled.later(seconds=30)
    filled.store_wal()
    later = ticked(estate, filled, instance, first.cursor)
    assert later.cursor > first.cursor
    filled.away = True
    away = ticked(estate, filled, instance, later.cursor)
    assert away.cursor == later.cursor
    assert verdicts(away) == {CONSISTENT.name: (False, "ERROR"), ORPHANS.name: (False, "ERROR")}


def test_orphans_are_judged_by_the_newest_sealed_restore(filled: FilledVault) -> None:
    """None is green; those a replay mends are yellow; any other is red, with its kind and number."""

    def sealed(**counts: int) -> Any:
        filled.later(seconds=1)
        record_fact(filled.vault, "vault", ESTATE_RESTORE, {"orphans": {"counts": dict(counts)}})
        return judge_orphans(latest_fact(filled.vault, "vault", ESTATE_RESTORE))

    assert sealed(event_without_posting=0, outbox_without_event=0).passed
    waits = sealed(event_without_posting=0, outbox_without_event=36)
    assert (waits.passed, waits.is_warning) == (False, True)
    lost = sealed(event_without_posting=2, outbox_without_event=36)
    assert (lost.passed, lost.is_warning) == (False, False)
    assert "2 event without posting" in lost.reason
