"""Dagster's storage as this code location opens it: from several processes at once, and while it is away."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import dagster_postgres.utils
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dr_assets.components.instance_health import daemon_health
from dr_assets.components.resident import reporting_to_dagster
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import PolicyError
from dr_assets_tests.graph.test_reporting import AT, REPORT

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PROCESSES = 2
# Everything slow is imported before the word is given, so that all of them find the database empty.
OPEN = """
import sys
import dagster, dagster_postgres, dr_assets.definitions
print("ready", flush=True)
sys.stdin.readline()
with dagster.DagsterInstance.get() as instance:
    assert instance.get_run_records() == []
"""


def home_at(folder: Path, dsn: str) -> dict[str, str]:
    """The environment of a DAGSTER_HOME whose storage is that database."""
    shutil.copy(ROOT / "dagster.yaml", folder)
    target = conninfo_to_dict(dsn)
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "DB": "dbname"}
    return {f"DAGSTER_PG_{name}": str(target[key]) for name, key in names.items()} | {"DAGSTER_HOME": str(folder)}


def test_processes_that_start_at_once_make_the_tables_once(
    fresh_database: Callable[[], str], postgres_17: PostgresServer, tmp_path: Path
) -> None:
    """On an empty database every one of them comes up, and Postgres refused none of their statements."""
    env = home_at(tmp_path, fresh_database())
    opening = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN],
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for process in opening:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    logged = postgres_17.log_path.stat().st_size
    for process in opening:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in opening:
        process.communicate()
    assert [process.returncode for process in opening] == [0] * PROCESSES
    said = postgres_17.log_path.read_text()[logged:]
    # A server that cancels its own autovacuum in somebody's favour refuses nobody.
    assert [line for line in said.splitlines() if "ERROR" in line and "autovacuum" not in line] == []


def test_a_capture_reports_once_its_storage_is_there_and_again_after_an_outage(
    postgres_server: Callable[..., PostgresServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Away at the start, back, away, back: the listener lives, and the newest point arrives each time."""
    monkeypatch.setattr(dagster_postgres.utils, "calculate_delay", lambda **_: 0.01)
    server = postgres_server(settings={"fsync": False})
    for name, value in home_at(tmp_path, server.dsn()).items():
        monkeypatch.setenv(name, value)
    server.stop()
    with pytest.raises(PolicyError, match="unreachable"):
        daemon_health()
    with reporting_to_dagster() as reporter:
        reporter._interval_s = 0.05
        for number in (1, 2):
            reporter(replace(REPORT, recovery_point_at=AT, stored_lsn=number))
            wait_until(lambda: len(caplog.records) > 0, timeout_s=180, what="a report that was refused")
            server.start()
            wait_until(partial(_has_report_of, server, number), timeout_s=180, what="the report")
            server.stop("immediate")
            caplog.clear()


def test_a_capture_without_an_instance_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for reports and names no DAGSTER_HOME is told so, before anything starts."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(PolicyError, match="no_instance"):
        reporting_to_dagster()
    with pytest.raises(PolicyError, match="no_instance"):
        daemon_health()


def _has_report_of(server: PostgresServer, stored_lsn: int) -> bool:
    """Whether the storage holds a materialization that tells this position."""
    asked = "SELECT 1 FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND event LIKE %s"
    with psycopg.connect(server.dsn(), autocommit=True) as session:
        try:
            return session.execute(asked, (f"%0/{stored_lsn:X}%",)).fetchone() is not None
        except psycopg.errors.UndefinedTable:
            return False
