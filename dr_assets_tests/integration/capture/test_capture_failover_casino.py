"""A switch-over and a fail-over under the casino's load: what clients were told comes back in one restore."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dr_assets.casino import schema
from dr_assets.casino.loss import measure_loss
from dr_assets.casino.workload import Workload
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.stores.postgres.target import Target

pytestmark = pytest.mark.integration


def _until(workload: Workload, more: int, rig: ModuleType) -> None:
    """Until the casino's clients were told of so many commits more."""
    wanted, deadline_s = workload.stats().acknowledged + more, rig.time.monotonic() + 240
    while workload.stats().acknowledged < wanted:
        assert rig.time.monotonic() < deadline_s, workload.stats()
        rig.time.sleep(0.02)


def test_no_acknowledged_commit_is_lost_over_a_switch_over_and_a_fail_over(
    rig: ModuleType, cluster: Any, memory_vault: Any, tmp_path: Path, engine_dir: Path
) -> None:
    """One base backup of timeline 1 and the WAL of three timelines bring back every commit that a client was told of.

    The standby confirms commits, as a casino's would, so that nothing acknowledged is left behind by the fail-over.
    """
    one = cluster.servers[0]
    schema.create(one.dsn())
    two = cluster.standby(one)
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    ask = f"{cluster.dsn()}?target_session_attrs=read-write"
    with rig.CaptureThread(vault, dataset, cluster.dsn()) as capture:
        capture.wait_stored(rig.flushed(one.dsn()))
        cluster.slots_on(capture, two)
        take_snapshot(vault, dataset, one.dsn())
        workload = Workload(ask, tmp_path / "acks", rate_per_s=150, workers=4, reconnect=True)
        workload.start()
        _until(workload, 100, rig)
        one.stop()
        two.promote()
        one.follow(two)
        one.start()
        _until(workload, 100, rig)
        capture.wait(lambda report: report.timeline == 2, "timeline 2")
        cluster.wait_streaming(two)
        waits_for = f"""ALTER SYSTEM SET synchronous_standby_names = '"{one.name}"'"""
        cluster.execute(two, waits_for, "SELECT pg_reload_conf()")
        cluster.wait_synchronous(two)
        _until(workload, 100, rig)
        two.kill()
        one.promote()
        _until(workload, 100, rig)
        workload.stop()
        capture.wait(lambda report: report.timeline == 3, "timeline 3")
        capture.wait_stored(rig.flushed(one.dsn()))
    cluster.assert_joined(vault, dataset, {1: None, 2: None, 3: one})
    plan = plan_restore(vault, dataset.name, Target.parse("latest"))
    with restore(plan, vault, engine_dir / "into") as restored:
        loss = measure_loss(tmp_path / "acks", restored.dsn())
    assert loss.acknowledged >= 400
    assert (loss.lost, loss.torn_lines) == (0, 0)
