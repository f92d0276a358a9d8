"""Throwaway Postgres servers, for real."""

from collections.abc import Callable
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from dr_assets.engines.errors import EngineError
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import Programs
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import PolicyError

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("major", [15, 17, 18])
def test_a_killed_server_starts_again_with_every_commit(
    postgres_server: Callable[..., PostgresServer], major: int
) -> None:
    """A crash of all its processes at once leaves a server that recovers by itself, on the same port, nothing lost."""
    server = postgres_server(major)
    assert server.programs.major == major
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    address = server.dsn()

    server.kill()
    assert not server.running
    server.start()

    assert server.dsn() == address
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    assert "was not properly shut down" in server.log_tail(50)


def test_a_crash_leaves_nothing_in_shared_memory(postgres_server: Callable[..., PostgresServer]) -> None:
    """Crashing servers by the hundred doesn't use up the machine's shared memory segments."""
    server = postgres_server(17)
    assert list((server.data_dir / "pg_dynshmem").iterdir()), "dynamic segments must lie in the data directory"

    def segments_made_by(pid: int) -> list[str]:
        rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        return [row for row in rows if row.split()[4] == str(pid)]

    pid = server.pid
    assert segments_made_by(pid)
    server.kill()
    assert not segments_made_by(pid)


def test_two_servers_run_at_once(postgres_server: Callable[..., PostgresServer]) -> None:
    """Two servers of different versions share the machine, each with its own port and password."""
    one, other = postgres_server(17), postgres_server(18)
    assert one.port != other.port
    for server in (one, other):
        with psycopg.connect(server.dsn()) as connection:
            assert connection.info.server_version // 10000 == server.programs.major
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(one.dsn().replace(str(one.password), str(other.password)))


def test_a_failed_start_shows_the_logs_end(postgres_server: Callable[..., PostgresServer]) -> None:
    """The error of a server that doesn't come up holds what the server itself said, and no password."""
    server = postgres_server(17, {"shared_preload_libraries": "no_such_library"}, start=False)
    with pytest.raises(EngineError, match="no_such_library") as caught:
        server.start()
    assert caught.value.code == "engine.did_not_start"
    assert str(server.password) not in str(caught.value)
    assert not server.running


def test_a_taken_port_is_replaced(postgres_server: Callable[..., PostgresServer]) -> None:
    """A port that another process bound between picking and starting is picked anew, until a first start fixed it."""
    taken, late = postgres_server(17), postgres_server(17, start=False)
    late.port = taken.port
    late.start()
    assert late.port != taken.port

    late.stop()
    late.port = taken.port
    with pytest.raises(EngineError, match="could not bind"):
        late.start()


def test_a_restored_directory_runs_none_of_its_sources_settings(
    postgres_server: Callable[..., PostgresServer],
) -> None:
    """An adopted directory's own configuration, ALTER SYSTEM's included, is never read, and no TCP port is opened."""
    source = postgres_server(17)
    with psycopg.connect(source.dsn(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET work_mem = '7MB'")
    source.stop()
    with (source.data_dir / "postgresql.conf").open("a") as configuration:
        configuration.write("maintenance_work_mem = '7MB'\n")
    (source.data_dir / "pg_hba.conf").write_text("host all all 0.0.0.0/0 trust\n")

    with PostgresServer(source.data_dir, source.programs) as restored:
        restored.adopt()
        restored.start()
        with psycopg.connect(restored.dsn()) as connection:
            for setting in ("work_mem", "maintenance_work_mem"):
                assert connection.execute("SELECT current_setting(%s)", [setting]).fetchone() != ("7MB",)
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert restored.run_tool("psql", ["-Atc", "SELECT 6 * 7"]).stdout == "42\n"
        assert restored.pg_controldata()["pg_control version number"]
    assert "work_mem" in (restored.run_dir / "postgresql.auto.conf.source").read_text()


def test_a_standby_is_ready_only_when_it_accepts_connections(postgres_server: Callable[..., PostgresServer]) -> None:
    """A server in recovery without hot standby counts as up with wait=False, and as ready never."""
    server = postgres_server(17)
    server.stop()
    (server.data_dir / "standby.signal").touch()
    server.settings["hot_standby"] = False
    server.start(wait=False)
    assert server.running
    with pytest.raises(EngineError, match="within"):
        server.wait_ready(timeout_s=0.2)


def test_a_standby_takes_over_and_the_old_primary_follows(
    postgres_server: Callable[..., PostgresServer], engine_dir: Path
) -> None:
    """A standby holds what its primary commits, writes once it is promoted, and the stopped primary can follow it."""
    old = postgres_server(17)
    with PostgresServer.standby_of(old, engine_dir / "standby", slot="standby_slot") as new:
        new.start()
        with psycopg.connect(old.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            _until(connection, "SELECT bool_and(active) FROM pg_replication_slots", (True,))
        old.stop()
        new.promote()
        with psycopg.connect(new.dsn(), autocommit=True) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
            connection.execute("CREATE TABLE newer AS SELECT 43 AS answer")
        old.follow(new)
        old.start()
        with psycopg.connect(new.dsn(), autocommit=True) as connection:
            connection.execute("SET synchronous_commit = remote_apply")
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            # A reload is asked for, not done, when that call returns: until then no commit waits for anybody.
            _until(connection, "SHOW synchronous_standby_names", ("*",))
            _until(connection, "SELECT sync_state FROM pg_stat_replication", ("sync",))
            # Nor do commits follow what sessions show: the checkpointer tells them, which reads it before it begins.
            connection.execute("CHECKPOINT")
            connection.execute("CHECKPOINT")
            connection.execute("INSERT INTO newer VALUES (44)")
        with psycopg.connect(old.dsn(), autocommit=True) as connection:
            assert connection.execute("SELECT max(answer), pg_is_in_recovery() FROM newer").fetchone() == (44, True)


def test_a_failing_tool_says_why(postgres_17: PostgresServer) -> None:
    """A program of Postgres's that fails raises what it printed; with check=False its result is the caller's."""
    with pytest.raises(EngineError, match="no_such_database"):
        postgres_17.run_tool("psql", ["-d", "no_such_database", "-c", "SELECT 1"])
    assert postgres_17.run_tool("psql", ["-d", "no_such_database", "-c", "SELECT 1"], check=False).returncode != 0


def test_a_directory_of_another_major_version_is_refused(
    postgres_server: Callable[..., PostgresServer], postgres_programs: Callable[[int], Programs], engine_dir: Path
) -> None:
    """Adopting needs the directory's own major version, and something to adopt."""
    server = postgres_server(17)
    server.stop()
    with pytest.raises(PolicyError, match=r"is of PostgreSQL 17[\s\S]*HINT: find programs of major version 17"):
        PostgresServer(server.data_dir, postgres_programs(18)).adopt()
    with pytest.raises(PolicyError, match="PG_VERSION"):
        PostgresServer(engine_dir / "nothing", postgres_programs(18)).adopt()


def test_databases_are_fresh(fresh_database: Callable[..., str]) -> None:
    """Every call gives another, empty database."""
    first, second = fresh_database(), fresh_database()
    assert first != second
    with psycopg.connect(first) as connection:
        assert connection.execute("SELECT count(*) FROM pg_stat_user_tables").fetchone() == (0,)


def test_two_servers_of_a_test_are_two_systems(postgres_server: Callable[..., PostgresServer]) -> None:
    """Their clusters are copies of one, yet no capture can take one for the other; each starts, and stops whole."""
    servers = [postgres_server(), postgres_server()]
    for server in servers:
        server.stop()
    told = [server.pg_controldata() for server in servers]
    assert len({said["Database system identifier"] for said in told}) == 2
    assert {said["Database cluster state"] for said in told} == {"shut down"}


def _until(
    connection: psycopg.Connection[tuple[object, ...]], statement: LiteralString, wanted: tuple[object, ...]
) -> None:
    """Wait until the statement's first row is the wanted one."""
    wait_until(lambda: connection.execute(statement).fetchone() == wanted, timeout_s=180, what=f"{statement}: {wanted}")
