"""Dagster's storage as this code location opens it, from several processes on one empty database."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from dr_assets.engines.postgres import PostgresServer

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


def test_processes_that_start_at_once_make_the_tables_once(
    fresh_database: Callable[[], str], postgres_17: PostgresServer, tmp_path: Path
) -> None:
    """On an empty database every one of them comes up, and Postgres refused none of their statements."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    target = conninfo_to_dict(fresh_database())
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "DB": "dbname"}
    env = {f"DAGSTER_PG_{name}": str(target[key]) for name, key in names.items()}
    opening = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN],
            cwd=ROOT,
            env={**os.environ, **env, "DAGSTER_HOME": str(tmp_path)},
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
    assert [line for line in said.splitlines() if "ERROR" in line] == []
