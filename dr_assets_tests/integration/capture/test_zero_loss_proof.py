import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.estate.model import ZeroLoss
from dr_assets.stores.postgres.session import connect
from dr_assets.stores.postgres.sync_guard import CAPTURE, SyncGuard
from dr_assets.stores.postgres.sync_probe import APPLICATION_NAME, why_unproven
from dr_assets.stores.postgres.sync_standby import DEGRADED, SYNCHRONOUS, Change, Rule, Sealed, change_to

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("patient")]


@pytest.fixture
def source(postgres_server: Any) -> Any:
    """A server of the test's own, since the setting is the whole server's."""
    server = postgres_server(settings={"fsync": False, "wal_level": "replica", "max_wal_senders": 5})
    with connect(server.dsn(), application_name="test") as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS dr_assets")
    return server


@contextmanager
def busy_checkpointer(dsn: str) -> Iterator[None]:
    """As in the midst of a checkpoint: the checkpointer takes over no setting."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CHECKPOINT")  # a server that has only just started lets sessions decide for themselves
        row = connection.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'").fetchone()
    assert row is not None
    os.kill(row[0], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(row[0], signal.SIGCONT)


def test_commits_count_as_synchronous_only_once_one_was_seen_to_wait(source: Any) -> None:
    """Not by the setting alone. A vault that is away then doesn't hold up the proof, and no session is left."""
    with connect(source.dsn(), application_name="test") as watching:
        with busy_checkpointer(source.dsn()):
            change_to(watching, "ours", SYNCHRONOUS)
            why = why_unproven(source.dsn(), watching, "ours", alone=True, within_s=0.3)
            assert "no commit was seen to wait" in str(why)
        deadline_s = time.monotonic() + 180
        while why_unproven(source.dsn(), watching, "ours", alone=True, within_s=0.3) is not None:
            assert time.monotonic() < deadline_s
        assert "as well" in str(why_unproven(source.dsn(), watching, "ours", alone=False, within_s=0.3))
        left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        while watching.execute(left, (APPLICATION_NAME,)).fetchone() != (0,):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        change_to(watching, "ours", DEGRADED)


def test_a_capture_that_arms_during_a_checkpoint_stays_degraded_until_commits_wait(
    rig: ModuleType, source: Any, memory_vault: Any
) -> None:
    """The report says degraded and why, though the setting is there; synchronous once the checkpointer has it."""
    dataset, dsn = replace(rig.make_dataset(), zero_loss=ZeroLoss(timedelta(seconds=30))), source.dsn()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn, rearm_after_s=0.1) as capture:
        with busy_checkpointer(dsn):
            report = capture.wait(lambda report: "synchronous yet" in str(report.trouble), "a word that it is unproven")
            assert report.durability == "degraded"
            with psycopg.connect(dsn, autocommit=True) as connection:
                assert connection.execute("SHOW synchronous_standby_names").fetchone() != ("",)
        capture.wait(lambda report: report.durability == "synchronous" and not report.trouble, "synchronous")
        with connect(dsn, application_name="test") as connection:
            change_to(connection, dataset.slot, DEGRADED)


def test_what_is_sealed_otherwise_is_logged_again_once(rig: ModuleType, source: Any) -> None:
    """After a failover the log may lack the row that was sealed last: what is found now is logged, and sealed, anew."""
    dataset = replace(rig.make_dataset(), zero_loss=ZeroLoss(None))
    given = list[Change]()
    look(SyncGuard(source.dsn(), dataset, told_by=CAPTURE, seal=given.extend))
    assert [(row.seq, row.mode) for row in given] == [(1, "degraded")]
    replicated = given[0].since
    for clock_behind_s, seq in ((0, 2), (60, 3)):
        given.clear()
        sealed = Sealed(7, replicated + timedelta(seconds=clock_behind_s), "synchronous")
        guard = SyncGuard(source.dsn(), dataset, told_by=CAPTURE, seal=given.extend, sealed=partial(replace, sealed))
        look(guard)
        look(guard)
        assert [(row.seq, row.mode) for row in given] == [(seq, "degraded")] * 2


def test_a_guard_that_finds_itself_let_go_by_another_is_as_patient_as_after_its_own(
    rig: ModuleType, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a vault that comes and goes makes commits wait again and again, whenever the outside guard was first."""
    dataset = replace(rig.make_dataset(), zero_loss=ZeroLoss(timedelta(seconds=30)))
    degraded: list[float] = []
    monkeypatch.setattr(Rule, "degraded", lambda _, now_s: degraded.append(now_s))
    guard = SyncGuard(source.dsn(), dataset, told_by=CAPTURE)
    with connect(source.dsn(), application_name="test") as connection:
        look(guard)
        change_to(connection, dataset.slot, SYNCHRONOUS)
        look(guard)
        assert degraded == []
        change_to(connection, dataset.slot, DEGRADED)
        look(guard)
        look(guard)
    assert len(degraded) == 1


def look(guard: SyncGuard) -> None:
    """One look of a guard in this thread."""
    stop = threading.Event()
    guard.run(stop, lambda _: stop.set())
    assert "yet" in str(guard.newest.trouble or "yet")
