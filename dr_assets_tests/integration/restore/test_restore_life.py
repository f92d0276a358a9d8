import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from dr_assets.engines.placement import give
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import Programs
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres import recovery
from dr_assets.stores.postgres import restore as restore_module
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import RestorePlan, plan_restore
from dr_assets.stores.postgres.restore import Restored, restore
from dr_assets.stores.postgres.site import MARK
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.vault import Vault

if TYPE_CHECKING:
    from conftest import History, Source

pytestmark = pytest.mark.integration


def attempt(plan: RestorePlan, vault: Vault, into: Path, **options: Any) -> None:
    """A restore that must not come to its end."""
    with restore(plan, vault, into, **options):
        pytest.fail("it was restored")


def test_a_kept_restore_is_a_cluster_that_starts_on_its_own(
    history: "History", engine_dir: Path, postgres_programs: Callable[[int], Programs]
) -> None:
    """It stopped cleanly, is promoted, has its own settings and none of its source's; no mark is left."""
    into = engine_dir / "kept"
    plan = plan_restore(history.source.vault, "ledger", Target.parse("latest"))
    with restore(plan, history.source.vault, into, keep_cluster=True) as restored:
        assert (into / MARK).exists()
        # Nobody may plant a drill's damage into what is to be kept.
        assert not restored.server.name.startswith("dr_assets-sandbox")
        # By hand: nobody may start a server on it before it is proven.
        result = restored.server.run_tool("postgres", ["-C", "port", "-D", restored.data_dir], check=False)
        assert result.returncode != 0
        assert "contains errors" in result.stderr
    assert sorted(path.name for path in into.iterdir()) == ["data", "source_settings", "tablespaces"]
    assert (into / "source_settings" / "postgresql.conf").exists()
    assert not (into / "data" / "standby.signal").exists()
    assert all(link.resolve().is_relative_to(into) for link in (into / "data" / "pg_tblspc").iterdir())
    with PostgresServer(into / "data", postgres_programs(17)) as server:
        checked = server.run_tool("postgres", ["-C", "listen_addresses", "-D", into / "data"])
        assert checked.stdout.strip() == "localhost"
        server.adopt(plan.base.superuser)
        server.start()
        with psycopg.connect(server.dsn()) as session:
            assert session.execute("SELECT count(*), pg_is_in_recovery() FROM t").fetchone() == (106, False)
            assert session.execute("SELECT rolname FROM pg_roles WHERE rolname ~ 'dr_assets'").fetchall() == []
            assert session.execute("SELECT datacl FROM pg_database WHERE datname = 'postgres'").fetchone() == (None,)


def test_a_disk_without_room_is_refused_at_once(
    history: "History", engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is fetched, with what is needed and what is free; the folder is not left behind."""
    plan = plan_restore(history.source.vault, "ledger", Target.parse("latest"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=plan.base.size_bytes))
    with pytest.raises(PolicyError) as caught:
        attempt(plan, history.source.vault, engine_dir / "into")
    assert caught.value.code == "restore.no_room"
    assert not (engine_dir / "into").exists()


def test_the_caller_s_own_failure_leaves_nothing_either(history: "History", engine_dir: Path) -> None:
    """What a caller's check refuses is not kept, even if it was to be."""
    plan = plan_restore(history.source.vault, "ledger", Target.parse("latest"))
    (engine_dir / "kept").mkdir()
    with pytest.raises(ZeroDivisionError), restore(plan, history.source.vault, engine_dir / "kept", keep_cluster=True):
        1 / 0  # noqa: B018 - the failure
    assert list((engine_dir / "kept").iterdir()) == []


@pytest.mark.parametrize("level", ["standard", "deep"])
def test_levels_run_their_programs(history: "History", recover: Callable[..., Restored], level: str) -> None:
    """Which programs checked the data is on record."""
    restored = recover(history.source, level=level)
    expected = {"standard": {"pg_checksums"}, "deep": {"pg_checksums", "pg_amcheck"}}[level]
    assert set(restored.checks) == {"pg_verifybackup", "pg_waldump"} | expected
    assert set(restored.phases_s) == {"plan", "fetch_base", "lay_wal", "verify", "replay", "promote", "check"}
    assert restored.server.running


def test_damage_that_came_with_the_source_is_found_by_level(
    history: "History", engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that was already bad when it was backed up passes `quick` and not `standard`."""
    plan = plan_restore(history.source.vault, "ledger", Target.parse("latest"))

    def spoiled(server: PostgresServer) -> int:
        timeline = original(server)
        with psycopg.connect(server.dsn(), autocommit=True) as session:
            row = session.execute("CHECKPOINT").connection.execute("SELECT pg_relation_filepath('in_one')").fetchone()
        assert row is not None
        with (server.data_dir / row[0]).open("r+b") as file:
            file.seek(8192 + 4000)
            file.write(b"\xde\xad\xbe\xef")
        return timeline

    from dr_assets.stores.postgres.recovery import promote as original  # noqa: PLC0415 - the one that is wrapped

    monkeypatch.setattr("dr_assets.stores.postgres.restore.promote", spoiled)
    with restore(plan, history.source.vault, engine_dir / "quick", level="quick"):
        pass
    with pytest.raises(VaultError, match="pg_checksums") as caught:
        attempt(plan, history.source.vault, engine_dir / "standard", level="standard")
    assert caught.value.code == "restore.data_damaged"


def test_a_source_that_raised_its_limits_in_the_wal_is_followed(
    make_source: "Callable[..., Source]", recover: Callable[..., Restored]
) -> None:
    """A standby with the base backup's limits pauses at such a record; it is started again with what the WAL says."""
    source = make_source(17, max_connections=110)
    source.sql("CREATE TABLE t AS SELECT 1 AS id")
    source.snapshot()
    source.server.stop()
    source.server.settings["max_connections"] = 140
    source.server.start()
    source.sql("INSERT INTO t VALUES (2)")
    source.feed()
    restored = recover(source)
    with psycopg.connect(restored.dsn()) as session:
        assert session.execute("SELECT count(*) FROM t").fetchone() == (2,)
        assert session.execute("SHOW max_connections").fetchone() == ("140",)


def test_a_tablespace_created_in_the_wal_never_touches_its_source(
    make_source: "Callable[..., Source]", engine_dir: Path
) -> None:
    """Replaying CREATE TABLESPACE empties the folder it names, which on the same host is the source's own."""
    source = make_source(17)
    source.snapshot()
    source.feed()
    before, at = source.position, source.clock()
    source.pause()
    # The record that creates lies before its transaction's commit: a time between the two would still replay it.
    source.sql("CREATE TABLE between_the_two ()")
    space = engine_dir / "space"
    space.mkdir()
    give(space, source.server.user)
    source.sql(f"CREATE TABLESPACE later LOCATION '{space}'")
    source.sql("CREATE TABLE precious TABLESPACE later AS SELECT generate_series(1, 1000) AS id")
    source.sql("CHECKPOINT")
    source.beat()
    source.feed()
    plan = plan_restore(source.vault, "ledger", Target.parse("latest"))
    with pytest.raises(PolicyError, match=str(space)) as caught:
        attempt(plan, source.vault, engine_dir / "into")
    assert caught.value.code == "restore.tablespace_created"
    source.server.restart()
    assert source.sql("SELECT count(*) FROM precious") == [(1000,)]
    assert before is not None
    for target in (f"lsn:{format_lsn(before)}", at.isoformat()):
        plan = plan_restore(source.vault, "ledger", Target.parse(target))
        with restore(plan, source.vault, engine_dir / "before"):
            assert source.sql("SELECT count(*) FROM precious") == [(1000,)]


def test_the_source_s_settings_are_never_executed(
    make_source: "Callable[..., Source]", recover: Callable[..., Restored], engine_dir: Path
) -> None:
    """Neither its configuration file nor ALTER SYSTEM reaches the restored server: no commands, no libraries."""
    source = make_source(17)
    trace = engine_dir / "ran"
    source.sql(f"ALTER SYSTEM SET archive_command = 'touch {trace}'")
    source.sql(f"ALTER SYSTEM SET recovery_end_command = 'touch {trace}'")
    source.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    source.sql("ALTER SYSTEM SET shared_preload_libraries = 'no_such_library'")
    with (source.server.data_dir / "postgresql.conf").open("a") as conf:
        conf.write(f"\narchive_mode = on\nrecovery_end_command = 'touch {trace}'\n")
    source.snapshot()
    source.feed()
    restored = recover(source)
    with psycopg.connect(restored.dsn(), autocommit=True) as session:
        session.execute("CREATE TABLE written ()")
        for name in ("archive_command", "recovery_end_command", "shared_preload_libraries"):
            assert session.execute("SELECT current_setting(%s)", (name,)).fetchone() in [("",), ("(disabled)",)]
        row = session.execute("SHOW cluster_name").fetchone()
    assert row is not None
    assert row[0].startswith("dr_assets-sandbox-ledger-")
    assert not trace.exists()


def test_programs_of_another_major_version_are_refused(
    history: "History", engine_dir: Path, postgres_programs: Callable[[int], Programs]
) -> None:
    """Before anything is written."""
    plan = plan_restore(history.source.vault, "ledger", Target.parse("latest"))
    with pytest.raises(PolicyError, match="PostgreSQL 17") as caught:
        attempt(plan, history.source.vault, engine_dir / "into", programs=postgres_programs(18))
    assert caught.value.code == "restore.wrong_major"
    assert not (engine_dir / "into").exists()


def killed_at(moment: str, history: "History", into: Path) -> None:
    """Restore in a child of ours and SIGKILL it when it has come to `moment`."""
    there, tell = os.pipe()
    child = os.fork()
    if child == 0:

        def stand(*_: object, **__: object) -> None:
            os.write(tell, b"x")
            signal.pause()

        owner, name = {
            "laying": (restore_module._Restore, "_lay_wal"),
            "replaying": (recovery.Replay, "_follow"),
            "promoted": (restore_module, "check_data"),
        }[moment]
        setattr(owner, name, stand)
        try:
            plan = plan_restore(history.source.vault, "ledger", Target.parse("latest"))
            with restore(plan, history.source.vault, into):
                pass
        finally:
            os._exit(1)  # or a second process would go on with the tests
    os.close(tell)
    assert os.read(there, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(there)


@pytest.mark.parametrize("moment", ["laying", "replaying", "promoted"])
def test_a_killed_restore_leaves_nothing_that_a_server_starts_on(
    history: "History", engine_dir: Path, recover: Callable[..., Restored], moment: str
) -> None:
    """Whenever the kill comes: the mark is there, no server runs on or starts from it, another folder works."""
    into = engine_dir / "killed"
    killed_at(moment, history, into)
    wait_until(
        lambda: (
            not any(
                str(into) in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
            )
        ),
        timeout_s=180,
        what="the server of the killed restore ending",
    )
    assert (into / MARK).exists()
    restored = recover(history.source)
    result = restored.server.run_tool("postgres", ["-C", "port", "-D", into / "data"], check=False)
    assert result.returncode != 0
    if moment == "laying":
        assert not (into / "data" / "PG_VERSION").exists()
        assert not (into / "data" / "global" / "pg_control").exists()
    plan = plan_restore(history.source.vault, "ledger", Target.parse("latest"))
    with pytest.raises(PolicyError) as caught:
        attempt(plan, history.source.vault, into)
    assert caught.value.code == "restore.unfinished"
