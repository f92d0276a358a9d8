import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.estate.model import ZeroLoss
from dr_assets.stores.postgres.sync_guard import OUTSIDE, SyncGuard
from dr_assets.vault.facts import facts
from dr_assets.vault.storage.refusals import unreachable

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("patient")]

DEGRADE_AFTER_S = 15.0  # longer than a busy machine keeps a vault in memory waiting


class Gate:
    """A store's `put` that can be shut: then puts fail as they do when the store is away."""

    def __init__(self, vault: Any) -> None:
        self.is_open = True
        self._put = vault.store.put
        vault.store.put = self.put

    def put(self, *args: Any) -> Any:
        """Through, or not."""
        if not self.is_open:
            raise unreachable("http://store", "the test shut it")
        return self._put(*args)


@contextmanager
def writer(dsn: str) -> Iterator[Callable[[float], list[str] | None]]:
    """`commit(timeout_s)`: commits in a thread; what the server warned of, None while the commit still waits."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        warnings: list[str] = []
        connection.add_notice_handler(lambda said: warnings.append(said.message_primary or ""))
        threads: list[threading.Thread] = []

        def commit(timeout_s: float) -> list[str] | None:
            if not (threads and threads[-1].is_alive()):
                warnings.clear()
                threads.append(
                    threading.Thread(target=connection.execute, args=("INSERT INTO kept (at) VALUES (now())",))
                )
                threads[-1].start()
            threads[-1].join(timeout_s)
            return None if threads[-1].is_alive() else list(warnings)

        yield commit
        for thread in threads:
            thread.join(180)
            assert not thread.is_alive()


def ask_for(dsn: str, names: str) -> None:
    """Set synchronous_standby_names and wait until it holds."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(names))
        connection.execute("SELECT pg_reload_conf()")
        deadline_s = time.monotonic() + 180
        while connection.execute("SHOW synchronous_standby_names").fetchone() != (names,):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def asked(dsn: str) -> str:
    """The setting now."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SHOW synchronous_standby_names").fetchone()
    assert row is not None
    return str(row[0])


@pytest.fixture
def source(postgres_server: Any) -> Any:
    """A server of the test's own, since the setting is the whole server's."""
    server = postgres_server(settings={"fsync": False, "wal_level": "replica", "max_wal_senders": 5})
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id bigserial PRIMARY KEY, at timestamptz)")
    return server


def zero_loss(rig: ModuleType, degrade_after_s: float | None) -> Any:
    """A dataset that is declared so."""
    after = None if degrade_after_s is None else timedelta(seconds=degrade_after_s)
    return replace(rig.make_dataset(linger_ms=500), zero_loss=ZeroLoss(after))


def test_where_commits_block_they_wait_for_a_dead_vault_and_go_on_when_it_is_back(
    rig: ModuleType, source: Any, memory_vault: Any
) -> None:
    """`block`: while no put succeeds no commit is acknowledged; afterwards it is, without a warning, and is vaulted."""
    dataset, dsn = zero_loss(rig, None), source.dsn()
    vault = memory_vault(dataset)
    gate = Gate(vault)
    with rig.CaptureThread(vault, dataset, dsn) as capture, writer(dsn) as commit:
        capture.wait_stored(rig.flushed(dsn))
        ask_for(dsn, dataset.slot)
        assert commit(180) == []
        capture.wait(lambda report: report.durability == "synchronous", "synchronous")
        gate.is_open = False
        assert commit(2) is None
        assert capture.wait(lambda report: report.trouble, "trouble").durability == "synchronous"
        gate.is_open = True
        assert commit(180) == []
        assert capture.report.stored_lsn >= 0
        ask_for(dsn, "")


def test_where_commits_may_go_on_they_do_and_wait_again_when_the_vault_has_caught_up(
    rig: ModuleType, source: Any, memory_vault: Any
) -> None:
    """`degrade_after`: armed by the capture, let go while the vault is dead, armed again; each change a sealed fact."""
    dataset, dsn = zero_loss(rig, DEGRADE_AFTER_S), source.dsn()
    vault = memory_vault(dataset)
    gate = Gate(vault)
    with rig.CaptureThread(vault, dataset, dsn, rearm_after_s=0.5) as capture, writer(dsn) as commit:
        capture.wait(lambda report: report.durability == "synchronous", "armed")
        assert asked(dsn) == f'FIRST 1 ("{dataset.slot}")'
        assert commit(180) == []
        gate.is_open = False
        assert commit(180) == []
        report = capture.wait(lambda report: report.durability == "degraded", "degraded")
        assert report.durability_since is not None
        assert "the vault did not take" in str(report.durability_reason)
        assert asked(dsn) == ""
        assert commit(180) == []
        gate.is_open = True
        capture.wait(lambda report: report.durability == "synchronous", "armed again")
        assert commit(180) == []
        target = rig.flushed(dsn)
        capture.wait_stored(target)
        modes = ["degraded", "synchronous"] * 2
        deadline_s = time.monotonic() + 180
        while [fact.body["mode"] for fact in facts(vault, dataset.name, "durability")] != modes:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        ask_for(dsn, "")


def test_a_guard_outside_lets_commits_go_on_when_the_capture_is_gone(
    rig: ModuleType, source: Any, memory_vault: Any
) -> None:
    """With no capture at all a commit waits at first; the guard ends that, logs it, and the next capture seals it."""
    dataset, dsn = zero_loss(rig, DEGRADE_AFTER_S), source.dsn()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn, rearm_after_s=0.1) as capture:
        capture.wait(lambda report: report.durability == "synchronous", "armed")
        capture.wait(
            lambda report: any("sync-guard" in said for said in report.warnings), "a word that no guard is there"
        )
    stop = threading.Event()
    guard = SyncGuard(dsn, dataset, told_by=OUTSIDE)
    watching = threading.Thread(target=guard.run, args=(stop, lambda _: None))
    assert asked(dsn) == f'FIRST 1 ("{dataset.slot}")'
    with writer(dsn) as commit:
        assert commit(1) is None
        watching.start()
        assert commit(180) == []
    deadline_s = time.monotonic() + 180
    while "for the vault: no capture" not in guard.newest.reason:  # the change is logged a moment after it was made
        assert time.monotonic() < deadline_s, guard.newest
        time.sleep(0.02)
    assert asked(dsn) == ""
    with rig.CaptureThread(vault, dataset, dsn, rearm_after_s=0.1) as capture:
        capture.wait(lambda report: report.durability == "synchronous", "armed by the next capture")
        capture.wait(lambda report: not report.warnings, "the guard is seen")
        deadline_s = time.monotonic() + 180
        while len(said := list(facts(vault, dataset.name, "durability"))) < 4:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    stop.set()
    watching.join(180)
    ask_for(dsn, "")
    assert [fact.body["mode"] for fact in said] == ["degraded", "synchronous"] * 2
    assert said[2].body["told_by"] == "sync-guard"
    assert "no capture" in str(said[2].body["reason"])


def test_by_default_a_dead_vault_stalls_no_commit(rig: ModuleType, source: Any, memory_vault: Any) -> None:
    """Asynchronous: with every put failing, commits go on at once, the capture says why, the slot keeps all."""
    dataset, dsn = rig.make_dataset(), source.dsn()
    vault = memory_vault(dataset)
    gate = Gate(vault)
    with rig.CaptureThread(vault, dataset, dsn) as capture, writer(dsn) as commit:
        capture.wait_stored(rig.flushed(dsn))
        gate.is_open = False
        for _ in range(20):
            assert commit(180) == []
        target = rig.flushed(dsn)
        report = capture.wait(lambda report: report.trouble, "trouble")
        assert report.durability == "asynchronous"
        assert report.stored_lsn < target
        gate.is_open = True
        capture.wait_stored(target)
    rig.assert_same_wal(vault, dataset, source.data_dir)
