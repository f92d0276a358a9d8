from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.vault.facts import facts
from dr_assets.vault.storage.refusals import unreachable

pytestmark = pytest.mark.integration


def _execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def _gaps(vault: Any, dataset: Any) -> list[dict[str, Any]]:
    return [fact.body for fact in facts(vault, dataset.name, "gap")]


def test_a_lost_slot_is_an_error_on_record_and_never_skipped(
    rig: ModuleType, postgres_server: Any, memory_vault: Any
) -> None:
    """max_slot_wal_keep_size took WAL we had not read: refused each time, one gap fact, a new chain only on demand."""
    server = postgres_server(
        settings={"fsync": False, "max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    )
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    chain = rig.chain_of(vault, dataset)
    for _ in range(5):
        rig.write_rows(dsn, 20)
        _execute(dsn, "SELECT pg_switch_wal()")
    _execute(dsn, "CHECKPOINT")
    for _ in range(2):
        with rig.CaptureThread(vault, dataset, dsn) as capture:
            error = capture.ended_with()
        assert isinstance(error, SourceError)
        assert error.code == "source.slot_lost"
    assert [gap["available"] for gap in _gaps(vault, dataset)] == [None]
    assert rig.chain_of(vault, dataset).end == chain.end
    with rig.CaptureThread(vault, dataset, dsn, accept_gap=True) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    anchor = latest_anchor(vault, dataset.name)
    assert anchor is not None
    assert anchor.begin > chain.end
    rig.assert_same_wal(vault, dataset, server.data_dir)
    assert [gap["available"] is None for gap in _gaps(vault, dataset)] == [True, False]


def test_a_slot_lost_under_a_running_capture_is_on_record_behind_a_slow_vault(
    rig: ModuleType, postgres_server: Any, memory_vault: Any
) -> None:
    """What was received is stored first, for longer than a stop may take; then the gap begins where the chain ends."""
    server = postgres_server(
        settings={"fsync": False, "max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    )
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault, hold = memory_vault(dataset), rig.threading.Event()
    hold.set()
    put = vault.store.put

    def held(key: str, *args: Any) -> Any:
        assert hold.wait(300)
        return put(key, *args)

    vault.store.put = held
    with rig.CaptureThread(vault, dataset, dsn, stop_within_s=0.2) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
        hold.clear()
        for _ in range(6):
            rig.write_rows(dsn, 20)
            _execute(dsn, "SELECT pg_switch_wal()")
        _execute(dsn, "CHECKPOINT")
        rig.time.sleep(2)  # the server ended the stream, the capture came back and found its slot lost
        assert capture.error is None
        hold.set()
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert error.code == "source.slot_lost"
    assert [gap["chain_end"] for gap in _gaps(vault, dataset)] == [format_lsn(rig.chain_of(vault, dataset).end)]
    assert rig.chain_of(vault, dataset).end == capture.report.received_lsn


def test_a_slot_that_was_dropped_leaves_a_gap_and_the_capture_says_so(
    rig: ModuleType, postgres_server: Any, memory_vault: Any
) -> None:
    """A new slot keeps WAL from now on only: what lies before is a gap, not a place to go on from."""
    server = postgres_server(settings={"fsync": False, "wal_keep_size": 0})
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    rig.drop_slot(dsn, dataset.slot)
    for _ in range(2):
        rig.write_rows(dsn, 10)
        _execute(dsn, "SELECT pg_switch_wal()")
    _execute(dsn, "CHECKPOINT")  # a new slot keeps WAL from the last checkpoint's redo point on
    before = len(vault.store.rows)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert error.code == "source.gap"
    assert len(_gaps(vault, dataset)) == 1
    assert len(vault.store.rows) == before + 1


def test_a_slot_dropped_within_its_segment_leaves_no_gap(
    rig: ModuleType, postgres_server: Any, memory_vault: Any
) -> None:
    """The source keeps whole WAL segments, so a chain that ends in the slot's own segment goes on without a hole."""
    server = postgres_server(settings={"fsync": False})
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    rig.drop_slot(dsn, dataset.slot)
    rig.write_rows(dsn, 10)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    rig.assert_same_wal(vault, dataset, server.data_dir)
    assert _gaps(vault, dataset) == []


def test_a_source_that_lies_behind_the_vault_is_refused(
    rig: ModuleType, postgres_server: Any, memory_vault: Any
) -> None:
    """A source whose WAL ends before what is stored lost data or is an old copy: nothing is written over it."""
    server = postgres_server(settings={"fsync": False})
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault = memory_vault(dataset)
    rig.write_rows(dsn, 10)
    server.stop()
    copy = server.data_dir.with_name("older")
    rig.copy_tree(server.data_dir, copy)
    server.start()
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 5000))
    server.stop()
    rig.copy_tree(copy, server.data_dir)
    server.start()
    with rig.CaptureThread(vault, dataset, dsn, accept_gap=True) as capture:
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert error.code == "source.rewound"


def test_a_vault_that_takes_nothing_ends_the_capture_and_nothing_is_acknowledged(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any
) -> None:
    """After its patience the capture raises the vault's own error; the slot stays at or before the chain's end."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    put = vault.store.put

    def refuse(*_: Any) -> Any:
        raise unreachable("the store", "no answer")

    with rig.CaptureThread(vault, dataset, dsn, give_up_s=1.5) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
        vault.store.put = refuse
        rig.write_rows(dsn, 100)
        error = capture.ended_with()
    assert isinstance(error, VaultError)
    assert error.code == "vault.unreachable"
    assert capture.report.upload_errors > 1
    assert capture.report.trouble is not None
    vault.store.put = put
    end = rig.chain_of(vault, dataset).end
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT (restart_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s", (dataset.slot,)
        ).fetchone()
    assert row is not None
    assert row[0] <= end
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.flushed(dsn))
    rig.assert_same_wal(vault, dataset, postgres_17.data_dir)


def test_pieces_behind_a_hole_are_never_gone_on_from(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any
) -> None:
    """One put never ends, later ones do: nothing behind it is acknowledged, and the next run starts before the hole."""
    dsn, dataset = fresh_database(), rig.make_dataset(linger_ms=20)
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    put, lost = vault.store.put, []

    def lose_one(key: str, *args: Any) -> Any:
        if "/wal/" in key and (not lost or lost[0] == key):
            lost[:] = [key]
            raise unreachable("the store", "no answer")
        return put(key, *args)

    with rig.CaptureThread(vault, dataset, dsn, give_up_s=8) as capture:
        capture.wait(lambda report: report.stored_lsn, "streaming")
        vault.store.put = lose_one
        for _ in range(20):
            rig.write_rows(dsn, 5)
        error = capture.ended_with()
    assert isinstance(error, VaultError)
    vault.store.put = put
    chain = rig.chain_of(vault, dataset)
    assert chain.orphans
    assert chain.holes
    point = stored_recovery_point(vault, dataset)
    assert (chain.begin if point is None else point.lsn) == chain.end == capture.report.stored_lsn
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.flushed(dsn))
    rig.assert_same_wal(vault, dataset, postgres_17.data_dir)


def test_a_vault_without_its_signing_key_captures_nothing(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any
) -> None:
    """A vault opened for reading is refused before the source sees us."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    vault.keys.for_writing(dataset.name)
    vault.signer = None
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        error = capture.ended_with()
    assert "vault.read_only" in str(error)
    with psycopg.connect(dsn) as connection:
        assert (
            connection.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (dataset.slot,)).fetchone()
            is None
        )


def test_the_recovery_point_is_found_from_where_it_was_last_seen(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any
) -> None:
    """`since` gives the same answer as a fresh look, opens one header, and lists only what is new."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    assert stored_recovery_point(vault, dataset) is None
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 100))
        first = stored_recovery_point(vault, dataset)
        assert first is not None
        capture.wait_stored(rig.write_rows(dsn, 100))
    listed: list[str] = []
    list_versions = vault.store.list_versions
    vault.store.list_versions = lambda prefix, start_after="": (
        listed.append(start_after) or list_versions(prefix, start_after)
    )
    second = stored_recovery_point(vault, dataset, first)
    assert second == stored_recovery_point(vault, dataset)
    assert second is not None
    assert second.lsn == rig.chain_of(vault, dataset).end > first.lsn
    assert second.retain_until is not None
    assert second.retain_until > second.sealed_at
    assert stored_recovery_point(vault, dataset, second) == second
