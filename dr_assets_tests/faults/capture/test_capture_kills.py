import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.engines.seaweed import SeaweedRegion

pytestmark = pytest.mark.integration

CHILD = Path(__file__).with_name("capture_child.py")


class Child:
    """A capture process; `kill` is SIGKILL, leaving the context asks it to stop and wants exit 0."""

    def __init__(self, place: Any, dsn: str, folder: Path) -> None:
        self.status = folder / "status.json"
        self.status.unlink(missing_ok=True)
        self.process = subprocess.Popen([sys.executable, str(CHILD)], stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(place.to_json(dsn, self.status).encode())
        self.process.stdin.close()

    def __enter__(self) -> "Child":  # noqa: PYI034 - never subclassed
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.process.terminate()
        code = self.process.wait(180)
        assert kind is not None or code in (0, -9)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(180)

    def wait_stored(self, lsn: int) -> None:
        """Until its report says that the vault holds everything up to `lsn`."""
        deadline = time.monotonic() + 180
        while not (self.status.exists() and int(json.loads(self.status.read_text())["stored_lsn"]) >= lsn):
            assert self.process.poll() is None, "the capture ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextlib.contextmanager
def _load(server: Any, dbname: str) -> Iterator[None]:
    """Pgbench beside the test, however long that takes; it ends when its sessions do, or its server is killed."""
    args = ["--time=3600", "--client=4", "--jobs=2", "--no-vacuum", "--rate=400", dbname]
    thread = threading.Thread(target=server.run_tool, args=("pgbench", args), kwargs={"check": False})
    thread.start()
    try:
        yield
    finally:
        deadline = time.monotonic() + 180
        while thread.is_alive():
            assert time.monotonic() < deadline, "pgbench goes on"
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(server.dsn(), autocommit=True) as own:
                own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'")
            thread.join(0.2)


def _prepare(server: Any, dbname: str) -> None:
    server.run_tool("pgbench", ["--initialize", "--quiet", "--scale=1", dbname])


def _restart_lsn(dsn: str, slot: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT (restart_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s", (slot,)
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_capture_killed_under_load_leaves_no_hole(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, place: Any, slots: Any, tmp_path: Path
) -> None:
    """SIGKILL in the middle of puts, again and again: the source was told of nothing that the vault lacks."""
    dsn = fresh_database()
    dbname = str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
    slots(postgres_17, place.slot)
    _prepare(postgres_17, dbname)
    with _load(postgres_17, dbname):
        for pause_s in (0.9, 0.4, 0.6):
            with Child(place, dsn, tmp_path) as child:
                child.wait_stored(rig.write_rows(dsn, 10))  # which no child before it can have stored
                time.sleep(pause_s)
                child.kill()
            told = _restart_lsn(dsn, place.slot)
            assert rig.chain_of(place.vault(), place.dataset()).end >= told
    with Child(place, dsn, tmp_path) as child:
        child.wait_stored(rig.write_rows(dsn, 10))
    chain = rig.assert_same_wal(place.vault(), place.dataset(), postgres_17.data_dir)
    assert {place.vault().header(segment).writer_epoch for segment in chain.segments} == {1, 2, 3, 4}


def test_a_source_killed_under_load_is_gone_on_from(rig: ModuleType, postgres_server: Any, memory_vault: Any) -> None:
    """SIGKILL of the whole server: the running capture waits, comes back, and what it held fits what recovery kept."""
    server = postgres_server(settings={"fsync": False})
    dataset = rig.make_dataset()
    vault, dsn = memory_vault(dataset), server.dsn()
    _prepare(server, "postgres")
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        for _ in range(2):
            with _load(server, "postgres"):
                capture.wait_stored(rig.flushed(dsn))
                time.sleep(0.7)
                server.kill()
            capture.wait(lambda report: report.state == "reconnecting", "the source away")
            server.start()
            capture.wait(lambda report: report.state == "streaming", "the source back")
        capture.wait_stored(rig.write_rows(dsn, 100))
    rig.assert_same_wal(vault, dataset, server.data_dir)
    assert {vault.header(segment).writer_epoch for segment in rig.chain_of(vault, dataset).segments} == {1}


def test_source_and_capture_killed_at_the_same_instant(
    rig: ModuleType, postgres_server: Any, place: Any, tmp_path: Path
) -> None:
    """Nobody is left to finish anything, and still the next run finds one chain that fits the recovered server."""
    server = postgres_server(settings={"fsync": False})
    dsn = server.dsn()
    _prepare(server, "postgres")
    for pause_s in (0.5, 0.8):
        with _load(server, "postgres"), Child(place, dsn, tmp_path) as child:
            child.wait_stored(rig.flushed(dsn))
            time.sleep(pause_s)
            child.process.kill()
            server.kill()
            child.process.wait(180)
        server.start()
    with Child(place, dsn, tmp_path) as child:
        child.wait_stored(rig.write_rows(dsn, 100))
    rig.assert_same_wal(place.vault(), place.dataset(), server.data_dir)


def test_an_object_store_killed_under_load_costs_time_and_nothing_else(
    rig: ModuleType,
    engine_dir: Path,
    weed_programs: Any,
    postgres_17: Any,
    fresh_database: Any,
    slots: Any,
    keys_dir: Path,
) -> None:
    """SIGKILL of the store: puts are tried again with the same bytes, the backlog is caught up, commits never wait."""
    dsn = fresh_database()
    dbname = str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
    _prepare(postgres_17, dbname)
    with SeaweedRegion(engine_dir / "region", "killed", weed_programs) as region:
        region.start()
        region.create_bucket("vault")
        place = rig.Place(region.endpoint, region.access_key, region.secret_key, "vault", keys_dir, f"dr_{dbname}")
        slots(postgres_17, place.slot)
        vault, dataset = place.vault(attempts=1), place.dataset()
        with rig.CaptureThread(vault, dataset, dsn) as capture:
            capture.wait_stored(rig.flushed(dsn))
            with _load(postgres_17, dbname):
                time.sleep(0.5)
                region.kill()
                told = _restart_lsn(dsn, place.slot)
                capture.wait(lambda report: report.upload_errors > 2, "failed puts")
                assert rig.write_rows(dsn, 100) > told
                region.start()
                assert rig.chain_of(place.vault(), dataset).end >= told
            capture.wait_stored(rig.flushed(dsn))
            capture.wait(lambda report: report.trouble is None, "an end of the trouble")
        rig.assert_same_wal(vault, dataset, postgres_17.data_dir)
