"""The capture's slots on the standbys: made, moved on, and what stands in their way."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dr_assets.stores.postgres import standbys
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.standbys import StandbySlots

pytestmark = pytest.mark.integration

SLOT = "dr_ledger_kept"


@contextmanager
def looked_after(cluster: Any, stored: Callable[[], int], *, zero_loss: bool = False) -> Iterator[StandbySlots]:
    """Slots that are looked after ten times a second."""
    system_id = cluster.execute(cluster.servers[0], "SELECT system_identifier::text FROM pg_control_system()")[0][0]
    slots = StandbySlots(
        Nodes(cluster.dsn()), slot=SLOT, system_id=system_id, timeline=1, zero_loss=zero_loss, interval_s=0.1
    )
    slots.start(stored)
    yield slots
    slots.stop()
    assert slots.error is None


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standbys are looked at five times a second."""
    monkeypatch.setattr(standbys, "INTERVAL_S", 0.2)


def until(holds: Callable[[], object]) -> None:
    """Within three minutes."""
    deadline = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_slot_on_a_standby_follows_what_is_stored_and_never_runs_ahead(rig: Any, cluster: Any) -> None:
    """It keeps everything behind the vault's end, lets go of what is stored, stops at what the standby has replayed.

    The primary's slots are nobody's business here.
    """
    primary = cluster.servers[0]
    standby = cluster.standby(primary)
    stored = [0]

    def kept_from() -> int:
        rows = cluster.execute(standby, "SELECT restart_lsn::text FROM pg_replication_slots")
        return parse_lsn(rows[0][0]) if rows and rows[0][0] else -1

    with looked_after(cluster, lambda: stored[0]) as slots:
        until(lambda: kept_from() > 0)
        first = kept_from()
        stored[0] = rig.write_rows(primary.dsn(), 100)
        assert first < stored[0]
        cluster.caught_up(primary, standby)
        until(lambda: kept_from() == stored[0])
        beyond = rig.write_rows(primary.dsn(), 100)
        cluster.caught_up(primary, standby)
        assert kept_from() == stored[0]
        stored[0] = beyond + (1 << 30)
        until(lambda: kept_from() >= beyond)
        assert kept_from() < stored[0]
        until(lambda: slots.warnings == ())
    assert cluster.execute(primary, "SELECT count(*) FROM pg_replication_slots")[0][0] == 0


def test_a_standby_that_would_lose_something_is_named(rig: Any, cluster: Any) -> None:
    """No room for a slot; one that begins behind the vault's end; zero loss that the standby knows nothing of."""
    primary = cluster.servers[0]
    full = cluster.standby(primary)
    full.settings["max_replication_slots"] = 0
    full.restart()
    with looked_after(cluster, lambda: 1) as slots:
        until(lambda: len(slots.warnings) == 1)
        assert f":{full.port}/" in slots.warnings[0]
        assert "can't be looked after" in slots.warnings[0]
    full.settings["max_replication_slots"] = 5
    full.restart()
    with looked_after(cluster, lambda: 1) as slots:
        until(lambda: slots.warnings and "may leave a gap" in slots.warnings[0])
    stored = rig.write_rows(primary.dsn(), 10)
    with looked_after(cluster, lambda: stored, zero_loss=True) as slots:
        until(lambda: slots.warnings and "synchronous_standby_names" in slots.warnings[0])
        cluster.execute(full, f"ALTER SYSTEM SET synchronous_standby_names = '{SLOT}'", "SELECT pg_reload_conf()")
        until(lambda: slots.warnings == ())
    full.stop()
    with looked_after(cluster, lambda: stored) as slots:
        until(lambda: slots.warnings)
        assert str(full.password) not in slots.warnings[0]


@pytest.mark.usefixtures("eager")
def test_a_primary_that_was_promoted_past_is_left_though_it_lives(rig: Any, cluster: Any, memory_vault: Any) -> None:
    """Nothing breaks when a network splits: the old primary streams on. The capture goes to the new one, and says so.

    What the old one commits from then on is confirmed by nobody.
    """
    old = cluster.servers[0]
    new = cluster.standby(old)
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, cluster.dsn()) as capture:
        capture.wait_stored(rig.write_rows(old.dsn(), 100))
        cluster.wait_streaming(old)
        new.promote()
        target = rig.write_rows(new.dsn(), 1000)
        capture.wait(lambda report: report.timeline == 2 and report.stored_lsn >= target, "the new primary's commits")
        assert any("was promoted to timeline 2" in f"{report.trouble}{report.warnings}" for report in capture.reports)
        confirmed = "SELECT restart_lsn::text, active FROM pg_replication_slots"
        until(lambda: cluster.execute(old, confirmed)[0][1] is False)
        before = cluster.execute(old, confirmed)
        rig.write_rows(old.dsn(), 1000)
        capture.wait(lambda report: any(f":{old.port}/" in said for said in report.warnings), "the old one named")
        assert cluster.execute(old, confirmed) == before
    cluster.assert_joined(vault, dataset, {1: None, 2: new})
