import os
import signal
import time
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.stores.postgres import source_stream
from dr_assets.stores.postgres.session import connect

pytestmark = pytest.mark.integration


def _sender_pid(dsn: str, slot: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone()
    assert row is not None
    return int(row[0])


def test_a_server_that_says_nothing_is_given_up_and_one_with_nothing_to_say_is_not(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked, an idle walsender answers and keeps its connection; one that stands still is lost, and gone on from."""
    assert source_stream.ASK_AFTER_S <= 10 < source_stream.SILENCE_LIMIT_S <= 30
    monkeypatch.setattr(source_stream, "ASK_AFTER_S", 0.4)
    monkeypatch.setattr(source_stream, "SILENCE_LIMIT_S", 12.0)
    server = postgres_server(settings={"fsync": False, "autovacuum": False})
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn, heartbeat_every_s=3600) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
        pid = _sender_pid(dsn, dataset.slot)
        time.sleep(13)  # longer than the limit, and nothing is written
        assert _sender_pid(dsn, dataset.slot) == pid
        assert all(report.state == "streaming" for report in capture.reports)
        os.kill(pid, signal.SIGSTOP)
        try:
            monkeypatch.setattr(source_stream, "SILENCE_LIMIT_S", 1.0)
            report = capture.wait(lambda report: report.state == "reconnecting", "the silence noticed")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert report.trouble is not None
        monkeypatch.setattr(source_stream, "SILENCE_LIMIT_S", 12.0)
        capture.wait_stored(rig.write_rows(dsn, 10))
    rig.assert_same_wal(vault, dataset, server.data_dir)


def test_an_ordinary_session_notices_a_vanished_host_too(fresh_database: Any) -> None:
    """What is sent and not acknowledged for 20 s ends the session; the kernel alone would try for a quarter hour."""
    with connect(fresh_database(), application_name="test") as connection:
        assert connection.info.get_parameters()["tcp_user_timeout"] == "20000"
