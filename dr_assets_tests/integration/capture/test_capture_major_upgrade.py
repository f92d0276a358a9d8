"""The primary's major version changes by pg_upgrade: another system id, another stream, the old one kept."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.components.lineage_sensor import base_backup_needed
from dr_assets.engines.placement import give
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import Programs
from dr_assets.engines.supervise import run_child
from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.expire import plan_expiry
from dr_assets.stores.postgres.followed import left_on_the_way
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.objective import rpo_trouble, stream_of
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import latest_fact

pytestmark = pytest.mark.integration

SETTINGS = {"fsync": False, "wal_level": "replica", "track_commit_timestamp": True}


def pg_upgrade(old: PostgresServer, programs: Programs, data_dir: Path) -> PostgresServer:
    """A server of the new major version with everything of `old`, which is stopped."""
    new = PostgresServer(data_dir, programs, settings=SETTINGS, password=old.password)
    new.init()
    # It writes into its working directory, so it runs where the engine's user may; the password is the same on both.
    work = data_dir.with_name("upgrade")
    work.mkdir(mode=0o700)
    give(work, new.user)
    done = run_child(
        [
            programs.path("pg_upgrade"), f"--old-bindir={old.programs.bin_dir}", f"--new-bindir={new.programs.bin_dir}",
            f"--old-datadir={old.data_dir}", f"--new-datadir={new.data_dir}", f"--socketdir={work}",
            "--username=postgres", "--no-sync",
        ],
        cwd=work, env={"PGPASSWORD": str(old.password), "PATH": "/usr/bin:/bin"}, user=new.user, timeout_s=480,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return new


def restored_rows(vault: Any, dataset: Any, target: Target, into: Path) -> tuple[int, int]:
    """Major version and rows of what a restore brings back."""
    plan = plan_restore(vault, dataset.name, target)
    with restore(plan, vault, into, level="quick") as restored, psycopg.connect(restored.reader_dsn()) as connection:
        counted = "SELECT current_setting('server_version_num')::int / 10000, count(*) FROM public.load"
        row = connection.execute(counted).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def test_an_upgraded_primary_begins_a_stream_of_its_own_and_leaves_the_old_one_restorable(
    rig: ModuleType, engine_dir: Path, postgres_programs: Callable[[int], Programs], memory_vault: Any
) -> None:
    """The new system is captured at once, is red until it has a base backup; both are kept and can be restored."""
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with PostgresServer(engine_dir / "old", postgres_programs(15), settings=SETTINGS) as old:
        old.init()
        old.start()
        with rig.CaptureThread(vault, dataset, old.dsn()) as capture:
            take_snapshot(vault, dataset, old.dsn())
            capture.wait_stored(rig.write_rows(old.dsn(), 20))
        before = latest_anchor(vault, dataset.name)
        assert before is not None
        old_pieces = [str(obj.key) for obj in vault.objects(dataset.name, "wal")]
        old.stop()
        with pg_upgrade(old, postgres_programs(17), engine_dir / "new") as new:
            new.start()
            with rig.CaptureThread(vault, dataset, new.dsn()) as capture:
                capture.wait(lambda report: report.recovery_point_at, "a heartbeat")
                assert "no base backup follows" in str(trouble_of(vault, dataset))
                with pytest.raises(PolicyError, match=r"restore\.other_system"):
                    plan_restore(vault, dataset.name, Target("latest"))
                assert base_backup_needed(vault, dataset) is not None
                take_snapshot(vault, dataset, new.dsn())
                capture.wait_stored(rig.write_rows(new.dsn(), 5))
                assert trouble_of(vault, dataset) is None
                assert base_backup_needed(vault, dataset) is None
    after = latest_anchor(vault, dataset.name)
    assert after is not None
    assert after.system_id != before.system_id
    assert set(old_pieces) < {str(obj.key) for obj in vault.objects(dataset.name, "wal")}
    told = latest_fact(vault, dataset.name, "timeline")
    assert told is not None
    assert (told.body["system_id"], told.body["parent"]) == (after.system_id, None)
    plan = plan_expiry(vault, dataset.name)
    assert (len(plan.kept), plan.rows, plan.troubles) == (2, [], [])
    assert restored_rows(vault, dataset, Target("latest"), engine_dir / "newest") == (17, 25)
    old_end = Target.parse(f"lsn:{format_lsn(before.stored)}")
    assert restored_rows(vault, dataset, old_end, engine_dir / "oldest") == (15, 20)


def trouble_of(vault: Any, dataset: Any) -> str | None:
    """Why the RPO isn't met."""
    point, base = stored_recovery_point(vault, dataset), latest_fact(vault, dataset.name, "snapshot")
    assert point is not None
    left = left_on_the_way(vault, dataset.name, stream_of(point), base)
    return rpo_trouble(dataset, point, base, left, vault.clock())
