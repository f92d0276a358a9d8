import contextlib
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres import source_stream
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.heartbeat import Heartbeat, read_heartbeat, verify_heartbeat
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.vault.facts import facts, latest_fact
from dr_assets.vault.verify import verify

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("major", [15, 17, 18])
def test_the_vault_holds_the_servers_wal_byte_for_byte(
    rig: ModuleType, session_postgres: Any, fresh_database: Any, memory_vault: Any, slots: Any, major: int
) -> None:
    """Under load, on every supported version: no hole, every link right, the same bytes as the server's own files."""
    server, dsn, dataset = session_postgres(major), fresh_database(major), rig.make_dataset()
    slots(server, dataset.slot)
    vault = memory_vault(dataset)
    dbname = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    server.run_tool("pgbench", ["--initialize", "--quiet", "--scale=1", str(dbname)])
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        server.run_tool("pgbench", ["--time=2", "--client=4", "--jobs=2", "--no-vacuum", str(dbname)])
        capture.wait_stored(rig.flushed(dsn))
    chain = rig.assert_same_wal(vault, dataset, server.data_dir)
    assert len(chain.segments) > 10
    assert all(store.lock is not None for rows in vault.store.rows.values() for store in rows)


def test_a_capture_goes_on_where_the_last_one_stopped(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any
) -> None:
    """Stop and start: one chain, a higher writer epoch, started and stopped on record, the stop's position true."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    for run in (1, 2, 3):
        with rig.CaptureThread(vault, dataset, dsn) as capture:
            report = capture.wait_stored(rig.write_rows(dsn, 500))
        assert report.writer_epoch == run
        anchor = latest_anchor(vault, dataset.name)
        assert anchor is not None
        assert anchor.stored == rig.chain_of(vault, dataset).end == capture.report.stored_lsn
    rig.assert_same_wal(vault, dataset, postgres_17.data_dir)
    assert [fact.body["event"] for fact in facts(vault, dataset.name, "capture")] == ["started", "stopped"] * 3
    inventory = latest_fact(vault, dataset.name, "inventory")
    assert inventory is not None
    newest = str(rig.chain_of(vault, dataset).segments[-1].key)
    assert newest in {shelf["last"] for shelf in inventory.body["places"].values()}
    assert verify(vault).findings == ()


def test_a_new_stream_begins_with_the_slots_whole_wal_segment(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any
) -> None:
    """A restore lays whole WAL segments, so the chain begins at the start of the one the slot keeps."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT (lsn - '0/0')::bigint FROM pg_create_physical_replication_slot(%s, true)", (dataset.slot,)
        ).fetchone()
    assert row is not None
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    assert rig.chain_of(vault, dataset).begin == int(row[0]) // rig.SEGMENT_BYTES * rig.SEGMENT_BYTES
    rig.assert_same_wal(vault, dataset, postgres_17.data_dir)


def test_a_second_capture_of_a_dataset_refuses_and_writes_nothing(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any
) -> None:
    """One slot, one consumer: the second ends with a clear word before anything of it is in the vault."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)
    vault, other = memory_vault(dataset), memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn) as first:
        first.wait_stored(rig.write_rows(dsn, 10))
        other.keys.for_writing(dataset.name)
        before = set(other.store.rows)
        with rig.CaptureThread(other, dataset, dsn, patience_s=0.3) as second:
            error = second.ended_with()
        assert set(other.store.rows) == before
        first.wait_stored(rig.write_rows(dsn, 10))
    assert isinstance(error, SourceError)
    assert error.code == "source.slot_in_use"
    assert "active for PID" in error.found


def test_the_source_is_told_only_what_the_vault_has_read_back(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any
) -> None:
    """Received is not stored: while no put ends, neither write nor flush position moves on."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    hold = rig.threading.Event()
    hold.set()
    put = vault.store.put

    def held(key: str, *args: Any) -> Any:
        assert hold.wait(180)
        return put(key, *args)

    vault.store.put = held
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
        hold.clear()
        stored, target = capture.report.stored_lsn, rig.write_rows(dsn, 200)
        capture.wait(lambda report: report.received_lsn >= target, "all received")
        _eventually(lambda: _sender(dsn, dataset.slot), lambda told: told[1] >= stored, "what was stored before")
        time.sleep(1.5)  # several status messages
        written, told, restart = _sender(dsn, dataset.slot)
        assert written == told < target
        assert restart <= told
        assert rig.chain_of(vault, dataset).end >= told >= stored
        hold.set()
        capture.wait_stored(target)
        _eventually(lambda: _sender(dsn, dataset.slot), lambda told: told[1] >= target, "the flush position")


def test_memory_is_bounded_and_a_slow_vault_never_costs_the_connection(
    rig: ModuleType, postgres_server: Any, memory_vault: Any
) -> None:
    """With puts that stand still, in-flight bytes stop at the cap and the server still gets its replies."""
    server = postgres_server(settings={"wal_sender_timeout": "15s", "fsync": False})
    dsn, dataset, cap = server.dsn(), rig.make_dataset(), 3 << 20
    vault = memory_vault(dataset)
    hold = rig.threading.Event()
    hold.set()
    put = vault.store.put

    def held(key: str, *args: Any) -> Any:
        assert hold.wait(180)
        return put(key, *args)

    vault.store.put = held
    with rig.CaptureThread(vault, dataset, dsn, in_flight_cap_bytes=cap, putters=1) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
        hold.clear()
        pid, target = _sender_pid(dsn, dataset.slot), rig.write_rows(dsn, 60_000)
        capture.wait(lambda report: report.received_lsn - report.stored_lsn >= cap, "the cap reached")
        time.sleep(16)  # longer than wal_sender_timeout: silence would have cost the connection by now
        most = max(report.received_lsn - report.stored_lsn for report in capture.reports)
        assert most <= cap + (2 << 20)
        assert most < target - capture.report.stored_lsn
        hold.set()
        capture.wait_stored(target)
        assert _sender_pid(dsn, dataset.slot) == pid
    chain = rig.assert_same_wal(vault, dataset, server.data_dir)
    assert max(segment.key.last - segment.key.first for segment in chain.segments) > 1 << 20


def test_the_recovery_point_is_dated_by_the_sources_clock(
    rig: ModuleType, postgres_17: Any, fresh_database: Any, memory_vault: Any, slots: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Heartbeats of the source date what is stored: header, report, and the row itself, signed, tell one story."""
    dsn, dataset = fresh_database(), rig.make_dataset()
    slots(postgres_17, dataset.slot)
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        with psycopg.connect(dsn, autocommit=True) as connection:
            asked = connection.execute("SELECT clock_timestamp()").fetchone()
        assert asked is not None
        capture.wait(
            lambda report: report.recovery_point_at and report.recovery_point_at > asked[0] and report.age_s < 10,
            "a later heartbeat",
        )
        # One that is written while the capture stops may be known too late for the last header, though not for the row.
        monkeypatch.setattr(Heartbeat, "write", _held_back)
        capture.wait(lambda report: "held back" in str(report.trouble), "the last heartbeat written")
        capture.wait_stored(rig.write_rows(dsn, 1))
    point = stored_recovery_point(vault, dataset)
    assert point is not None
    assert (point.lsn, point.at) == (rig.chain_of(vault, dataset).end, capture.report.recovery_point_at)
    with psycopg.connect(dsn) as connection:
        row = read_heartbeat(connection, dataset.name)
    assert row is not None
    verify_heartbeat(row, vault.trust)
    assert row.at == point.at
    assert row.epoch == 1


def test_an_idle_source_costs_a_segment_a_heartbeat_and_no_more(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written but heartbeats, and each fits in one piece."""
    server = postgres_server(settings={"fsync": False, "autovacuum": False})
    dsn, dataset = server.dsn(), rig.make_dataset(linger_ms=50)
    vault = memory_vault(dataset)
    beats, write = list[int](), Heartbeat.write

    def noted(heartbeat: Heartbeat, connection: Any) -> Any:
        beat = write(heartbeat, connection)
        beats.append(beat.lsn)
        return beat

    monkeypatch.setattr(Heartbeat, "write", noted)
    with rig.CaptureThread(vault, dataset, dsn, heartbeat_every_s=0.5) as capture:
        capture.wait_stored(rig.flushed(dsn))
        begun = len(beats)
        _eventually(lambda: len(beats), lambda counted: counted > begun + 5, "five heartbeats more")
        begin, end = beats[begun], beats[begun + 5]
        capture.wait_stored(end)
    ends = [segment.key.last for segment in rig.chain_of(vault, dataset).segments]
    assert 1 <= sum(begin < last <= end for last in ends) <= 5 + 2


def test_an_orderly_shutdown_loses_nothing_and_is_not_held_up(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server waits for what it sent to be stored, its shutdown checkpoint too; then it is left alone a while."""
    assert source_stream.DONE_BACKOFF_S >= 10
    monkeypatch.setattr(source_stream, "DONE_BACKOFF_S", 3.0)
    server = postgres_server(settings={"fsync": False})
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 500))
        rig.write_rows(dsn, 500)
        server.stop("fast")
        # Left alone for a while only, so the word is looked for in all reports: the newest may be of the next attempt.
        capture.wait(
            lambda _: any("the server ended the stream" in str(report.trouble) for report in capture.reports),
            "the stream ended",
        )
        checkpoint = server.pg_controldata()["Latest checkpoint location"]
        capture.wait(lambda report: report.stored_lsn == report.received_lsn, "all stored")
        assert capture.report.stored_lsn > parse_lsn(checkpoint)
        server.start()
        capture.wait_stored(rig.write_rows(dsn, 10))
    rig.assert_same_wal(vault, dataset, server.data_dir)


def test_a_source_that_is_not_there_is_one_clear_line(rig: ModuleType, memory_vault: Any) -> None:
    """Unreachable at the start: SourceError, not a traceback of psycopg's, and no password in it."""
    dataset = rig.make_dataset()
    dsn = "postgresql://u:topsecret@127.0.0.1:1/db"
    with rig.CaptureThread(memory_vault(dataset), dataset, dsn) as capture:
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert error.code == "source.unreachable"
    assert "topsecret" not in str(error)


def test_heartbeats_don_t_wait_for_synchronous_standbys(
    rig: ModuleType, postgres_server: Any, memory_vault: Any
) -> None:
    """Where commits wait for a standby that is away, the heartbeat does not: else the vault would wait for itself."""
    server = postgres_server(settings={"fsync": False, "synchronous_standby_names": "nobody"})
    dataset = rig.make_dataset()
    with rig.CaptureThread(memory_vault(dataset), dataset, server.dsn()) as capture:
        capture.wait(lambda report: report.recovery_point_at is not None, "a heartbeat")


def _held_back(*_: Any) -> Any:
    raise psycopg.OperationalError("held back by the test")


def _sender(dsn: str, slot: str) -> tuple[int, int, int]:
    """Write and flush position of the slot's walsender, and the slot's restart LSN, as the server knows them."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT (coalesce(write_lsn, '0/0') - '0/0')::bigint, (coalesce(flush_lsn, '0/0') - '0/0')::bigint, "
            "(restart_lsn - '0/0')::bigint "
            "FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = %s",
            (slot,),
        ).fetchone()
    assert row is not None
    return row


def _sender_pid(dsn: str, slot: str) -> int:
    with contextlib.closing(psycopg.connect(dsn, autocommit=True)) as connection:
        row = connection.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone()
    assert row is not None
    return int(row[0])


def _eventually(ask: Callable[[], Any], wanted: Callable[[Any], bool], what: str) -> Any:
    deadline = time.monotonic() + 180
    while not wanted(answer := ask()):
        assert time.monotonic() < deadline, f"{what}: {answer}"
        time.sleep(0.05)
    return answer
