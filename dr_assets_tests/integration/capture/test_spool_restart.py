"""A start that finds pieces on the spool, while the source goes away or has removed what they hold."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.estate.model import Spool
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.vault.facts import facts
from dr_assets.vault.storage.refusals import unreachable

pytestmark = pytest.mark.integration

# As small as a server allows: what a slot keeps beyond it is removed at a checkpoint.
SHORT = {
    "fsync": False, "max_slot_wal_keep_size": "32MB", "min_wal_size": "32MB", "max_wal_size": "32MB",
    "autovacuum": False,
}  # fmt: skip


class Door:
    """A store's `put` that is away while `shut`, and lets WAL wait while `held`."""

    def __init__(self, vault: Any) -> None:
        self.shut = False
        self.free = threading.Event()
        self.free.set()
        self.waiting = threading.Event()
        self._put = vault.store.put
        vault.store.put = self.put

    def put(self, key: str, *args: Any) -> Any:
        """Through, some time, or not."""
        if self.shut:
            raise unreachable("http://store", "the test shut it")
        if "/wal/" in key and not self.free.is_set():
            self.waiting.set()
            assert self.free.wait(180)
        return self._put(key, *args)


def spool_something(rig: ModuleType, vault: Any, dataset: Any, server: Any, folder: Path, door: Door) -> int:
    """A capture that ends while the vault is away, its pieces on the spool; up to where they reach."""
    with rig.CaptureThread(vault, dataset, server.dsn(), folder, stop_within_s=0.5) as capture:
        capture.wait_stored(rig.write_rows(server.dsn(), 20))
        door.shut = True
        target = rig.write_rows(server.dsn(), 20_000)

        def reached(_: object) -> bool:
            names = [path.name for path in sorted((folder / dataset.name).glob("*.sealed"))]
            return bool(names) and int(names[-1].split("-")[-2], 16) >= target

        capture.wait(reached, "the target on the spool")
        capture.stop_event.set()
        assert isinstance(capture.ended_with(), VaultError)
    door.shut = False
    return int(target)


def outrun(server: Any, has_ended: Callable[[str], bool]) -> None:
    """Write WAL until a checkpoint has removed what the slot needs."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for _ in range(30):
            connection.execute("INSERT INTO load (filler) SELECT repeat('x', 900) FROM generate_series(1, 15000)")
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")
            row = connection.execute("SELECT wal_status FROM pg_replication_slots").fetchone()
            if row is not None and has_ended(str(row[0])):
                return
    pytest.fail("the slot kept everything")


def test_a_spool_that_is_being_put_does_not_hold_up_a_shutdown(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, tmp_path: Path
) -> None:
    """However slow the vault: no stream runs that the server would have to wait for."""
    server = postgres_server(settings={"fsync": False, "wal_sender_timeout": 0})
    dataset = replace(rig.make_dataset(), spool=Spool("SPOOL_DIR", 256 << 20))
    vault = memory_vault(dataset)
    door = Door(vault)
    target = spool_something(rig, vault, dataset, server, tmp_path, door)
    door.free.clear()
    rig.write_rows(server.dsn(), 100)
    with rig.CaptureThread(vault, dataset, server.dsn(), tmp_path) as capture:
        try:
            assert door.waiting.wait(180)
            server.stop()
            assert "database system is shut down" in server.log_tail()  # else it had to be killed
        finally:
            door.free.set()
        assert isinstance(capture.ended_with(), SourceError)
    assert rig.chain_of(vault, dataset).end >= target


def test_a_lost_slot_leaves_nothing_on_the_spool(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, tmp_path: Path
) -> None:
    """The only copy reaches the vault before the gap is on record, which begins behind it."""
    server = postgres_server(settings=SHORT)
    dataset = replace(rig.make_dataset(), spool=Spool("SPOOL_DIR", 256 << 20))
    vault = memory_vault(dataset)
    target = spool_something(rig, vault, dataset, server, tmp_path, Door(vault))
    outrun(server, lambda status: status == "lost")
    with rig.CaptureThread(vault, dataset, server.dsn(), tmp_path) as capture:
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert error.code == "source.slot_lost"
    assert "in the vault now" in "".join(error.__notes__)
    assert list((tmp_path / dataset.name).glob("*.sealed")) == []
    end = rig.chain_of(vault, dataset).end
    assert end >= target
    assert [parse_lsn(str(fact.body["chain_end"])) for fact in facts(vault, dataset.name, "gap")] == [end]


def test_a_gap_begins_behind_what_was_spooled(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, tmp_path: Path
) -> None:
    """The slot was dropped meanwhile: a new one keeps less than the spool holds, and the gap is what neither has."""
    server = postgres_server(settings=SHORT)
    dataset = replace(rig.make_dataset(), spool=Spool("SPOOL_DIR", 256 << 20))
    vault = memory_vault(dataset)
    target = spool_something(rig, vault, dataset, server, tmp_path, Door(vault))
    outrun(server, lambda status: status == "lost")
    rig.drop_slot(server.dsn(), dataset.slot)
    with rig.CaptureThread(vault, dataset, server.dsn(), tmp_path) as capture:
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert error.code == "source.gap"
    assert list((tmp_path / dataset.name).glob("*.sealed")) == []
    end = rig.chain_of(vault, dataset).end
    assert end >= target
    assert [parse_lsn(str(fact.body["chain_end"])) for fact in facts(vault, dataset.name, "gap")] == [end]
