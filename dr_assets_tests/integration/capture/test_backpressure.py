import stat
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
from dr_assets.stores.postgres.pieces import PIECE_CAP_BYTES
from dr_assets.vault.facts import facts
from dr_assets.vault.storage.refusals import unreachable

pytestmark = pytest.mark.integration

MIB = 1 << 20


class Gate:
    """A store's `put` that can be shut: then puts fail as they do when the store is away."""

    def __init__(self, vault: Any) -> None:
        self.is_open = True
        self.sizes: list[int] = []
        self._put = vault.store.put
        vault.store.put = self.put

    def put(self, key: str, data: bytes, *args: Any) -> Any:
        """Through, or not."""
        if not self.is_open:
            raise unreachable("http://store", "the test shut it")
        self.sizes.append(len(data))
        return self._put(key, data, *args)


@pytest.fixture
def spooled(rig: ModuleType) -> Callable[..., Any]:
    """`spooled(max_mib)`: a dataset with a spool of that size."""
    return lambda max_mib=256: replace(rig.make_dataset(), spool=Spool("SPOOL_DIR", max_mib * MIB))


def files_of(folder: Path) -> list[Path]:
    """The spool's pieces, in order."""
    return sorted(folder.glob("*.sealed"))


def wait_on_disk(capture: Any, folder: Path, target: int) -> Any:
    """Until a piece that reaches `target` lies on the spool."""

    def reached(_: object) -> bool:
        files = files_of(folder)
        return bool(files) and int(files[-1].name.split("-")[-2], 16) >= target

    return capture.wait(reached, "the target on the spool")


def test_an_outage_is_spooled_and_the_same_bytes_are_put_when_it_is_over(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any, spooled: Any, tmp_path: Path
) -> None:
    """More than memory may hold goes to the disk, readable by nobody else; the source is told nothing of it."""
    dsn, dataset = fresh_database(), spooled()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    gate = Gate(vault)
    with rig.CaptureThread(vault, dataset, dsn, tmp_path, in_flight_cap_bytes=2 * PIECE_CAP_BYTES) as capture:
        capture.wait_stored(rig.flushed(dsn))
        gate.is_open = False
        stored = capture.report.stored_lsn
        target = rig.write_rows(dsn, 60_000)
        assert target - stored > 2 * PIECE_CAP_BYTES
        wait_on_disk(capture, tmp_path / dataset.name, target)
        capture.wait(lambda report: report.trouble, "trouble")
        files = files_of(tmp_path / dataset.name)
        on_disk = sum(file.stat().st_size for file in files)
        capture.wait(lambda report: report.spooled_bytes >= on_disk > 0, "what is spooled in the report")
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE((tmp_path / dataset.name).stat().st_mode) == 0o700
        kept = {file.name.removesuffix(".sealed").replace(",", "/") for file in files}
        with psycopg.connect(dsn) as connection:
            row = connection.execute(
                "SELECT (restart_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s", (dataset.slot,)
            ).fetchone()
        assert row is not None
        assert row[0] <= capture.report.stored_lsn < target
        gate.is_open = True
        capture.wait_stored(target)
        capture.wait(lambda report: not report.spooled_bytes, "an empty spool")
    assert kept <= set(vault.store.rows)
    assert files_of(tmp_path / dataset.name) == []
    rig.assert_same_wal(vault, dataset, postgres_17.data_dir)


def test_a_full_spool_stops_the_reading_and_says_so(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any, spooled: Any, tmp_path: Path
) -> None:
    """Disk and memory have an end: beyond it the source's slot keeps the WAL, with a warning, and nothing is lost."""
    dsn, dataset = fresh_database(), spooled(12)
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    gate = Gate(vault)
    with rig.CaptureThread(vault, dataset, dsn, tmp_path, in_flight_cap_bytes=2 * PIECE_CAP_BYTES) as capture:
        capture.wait_stored(rig.flushed(dsn))
        gate.is_open = False
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE noise (bytes bytea)")
            connection.execute("ALTER TABLE noise ALTER bytes SET STORAGE EXTERNAL")
            for _ in range(40):
                connection.execute(
                    "INSERT INTO noise SELECT string_agg(sha512(n::text::bytea), '') FROM generate_series(1, 16384) n"
                )
        target = rig.flushed(dsn)
        capture.wait(lambda report: any("spool is full" in said for said in report.warnings), "a full spool")
        assert capture.report.received_lsn < target
        assert capture.report.spooled_bytes <= 12 * MIB
        gate.is_open = True
        capture.wait_stored(target)
    rig.assert_same_wal(vault, dataset, postgres_17.data_dir)


def test_a_restart_puts_the_spool_first_and_passes_over_a_torn_file(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any, spooled: Any, tmp_path: Path
) -> None:
    """What an earlier life left continues the chain under its own names; what a torn file held is read anew."""
    dsn, dataset = fresh_database(), spooled()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    gate = Gate(vault)
    with rig.CaptureThread(vault, dataset, dsn, tmp_path, stop_within_s=0.5) as capture:
        capture.wait_stored(rig.flushed(dsn))
        gate.is_open = False
        target = rig.write_rows(dsn, 60_000)
        wait_on_disk(capture, tmp_path / dataset.name, target)
        capture.stop_event.set()
        assert isinstance(capture.ended_with(), VaultError)
    files = files_of(tmp_path / dataset.name)
    assert len(files) > 2
    names = [file.name.removesuffix(".sealed").replace(",", "/") for file in files]
    whole = files[-1].read_bytes()
    files[-1].write_bytes(whole[: len(whole) // 2])
    (tmp_path / dataset.name / "half.unfinished").write_bytes(b"x")
    gate.is_open = True
    with rig.CaptureThread(vault, dataset, dsn, tmp_path) as capture:
        capture.wait_stored(target)
    assert set(names[:-1]) <= set(vault.store.rows)
    assert names[-1] not in vault.store.rows
    assert [(fact.body["reason"], fact.body["pieces"]) for fact in facts(vault, dataset.name, "spool")] == [
        ("the file was not whole", 1)
    ]
    assert {path.name for path in (tmp_path / dataset.name).iterdir()} == {"lock"}
    rig.assert_same_wal(vault, dataset, postgres_17.data_dir)


def test_when_the_primary_died_the_spool_still_reaches_the_vault(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, spooled: Any, tmp_path: Path
) -> None:
    """Nobody answers at the source's address: the pieces that may be the only copy are put, and the error says so."""
    server = postgres_server(settings={"fsync": False})
    dsn, dataset = server.dsn(), spooled()
    vault = memory_vault(dataset)
    gate = Gate(vault)
    with rig.CaptureThread(vault, dataset, dsn, tmp_path, stop_within_s=0.5) as capture:
        capture.wait_stored(rig.flushed(dsn))
        gate.is_open = False
        target = rig.write_rows(dsn, 20_000)
        report = wait_on_disk(capture, tmp_path / dataset.name, target)
        server.kill()
        assert report.stored_lsn < target
        capture.stop_event.set()
        assert isinstance(capture.ended_with(), VaultError)
    gate.is_open = True
    with rig.CaptureThread(vault, dataset, dsn, tmp_path) as capture:
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert "in the vault now" in "".join(error.__notes__)
    assert rig.chain_of(vault, dataset).end >= target
    assert files_of(tmp_path / dataset.name) == []


def test_a_backlog_is_drained_in_larger_pieces_while_the_load_goes_on(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any
) -> None:
    """Behind, pieces grow towards their cap, so the capture gains on a load that never stops, and lag ends."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    gate = Gate(vault)
    done = threading.Event()

    def load() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not done.wait(0.05):
                connection.execute("INSERT INTO load (filler) SELECT repeat('x', 500) FROM generate_series(1, 200)")

    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
        gate.is_open = False
        loading = threading.Thread(target=load)
        loading.start()
        try:
            target = rig.write_rows(dsn, 60_000)
            capture.wait(
                lambda report: report.received_lsn >= min(target, report.stored_lsn + PIECE_CAP_BYTES), "behind"
            )
            gate.is_open = True
            capture.wait(lambda report: report.stored_lsn >= target, "what was missed is stored")
            capture.wait(lambda report: report.server_lsn - report.stored_lsn < MIB, "caught up under load")
        finally:
            done.set()
            loading.join()
    chain = rig.assert_same_wal(vault, dataset, postgres_17.data_dir)
    assert max(obj.key.last - obj.key.first for obj in chain.segments) > 4 * MIB
