import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres import taking as taking_module
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.overlap import DivergedError, Tail
from dr_assets.stores.postgres.protocol import WalData
from dr_assets.stores.postgres.source_stream import Place, SourceStream, open_source, start_held_to
from dr_assets.vault.facts import facts
from dr_assets.vault.verify import verify

pytestmark = pytest.mark.integration


def _gaps(vault: Any, dataset: Any) -> list[dict[str, Any]]:
    return [fact.body for fact in facts(vault, dataset.name, "gap")]


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _set_back(rig: ModuleType, server: Any, copy: Any) -> None:
    """The server as it was when `copy` was made."""
    server.stop("immediate")
    rig.copy_tree(copy, server.data_dir)
    server.start()


@pytest.fixture
def server(postgres_server: Any) -> Any:
    """A server whose data directory may be exchanged."""
    return postgres_server(settings={"fsync": False})


def test_a_source_set_back_that_went_on_past_the_vaults_end_is_refused_until_accepted(
    rig: ModuleType, server: Any, memory_vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same system, same timeline, more WAL than we have, another history: no byte of it is joined to ours.

    Once that was seen it is refused even if the source can't show those bytes any more.
    """
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    server.stop()
    copy = server.data_dir.with_name("older")
    rig.copy_tree(server.data_dir, copy)
    server.start()
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 2000))
    end = rig.chain_of(vault, dataset).end
    _set_back(rig, server, copy)
    assert rig.write_rows(dsn, 6000) > end
    for _ in range(2):
        with rig.CaptureThread(vault, dataset, dsn) as capture:
            error = capture.ended_with()
        assert isinstance(error, SourceError)
        assert error.code == "source.rewound"
    with monkeypatch.context() as patched, rig.CaptureThread(vault, dataset, dsn) as capture:
        patched.setattr(taking_module, "start_held_to", lambda *_, **__: False)
        assert "source.rewound" in str(capture.ended_with())
    assert [gap["available"] for gap in _gaps(vault, dataset)] == [None]
    assert "rewound" in _gaps(vault, dataset)[0]["why"]
    assert rig.chain_of(vault, dataset).end == end
    with rig.CaptureThread(vault, dataset, dsn, accept_gap=True) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    anchor = latest_anchor(vault, dataset.name)
    assert anchor is not None
    assert anchor.begin > end
    rig.assert_same_wal(vault, dataset, server.data_dir)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
    rig.assert_same_wal(vault, dataset, server.data_dir)
    assert [gap["available"] is None for gap in _gaps(vault, dataset)] == [True, False]
    assert verify(vault).ok


def test_a_source_set_back_behind_a_running_capture_is_refused_when_it_returns(
    rig: ModuleType, server: Any, memory_vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was received is stored, nothing of the other history is, and the gap is on record."""
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault, again = memory_vault(dataset), threading.Event()
    again.set()
    try_again = SourceStream.try_again

    def held_back(stream: SourceStream, position: int) -> bool:
        if again.is_set():
            return try_again(stream, position)
        stream.lost("the test holds it back", 0.05)
        return False

    monkeypatch.setattr(SourceStream, "try_again", held_back)
    with rig.CaptureThread(vault, dataset, dsn) as capture:
        capture.wait_stored(rig.write_rows(dsn, 10))
        again.clear()
        server.stop("immediate")
        copy = server.data_dir.with_name("older")
        rig.copy_tree(server.data_dir, copy)
        server.start()
        again.set()
        capture.wait_stored(rig.write_rows(dsn, 2000))
        again.clear()
        _set_back(rig, server, copy)
        end = capture.wait(lambda report: report.state == "reconnecting", "all that was sent").received_lsn
        assert rig.write_rows(dsn, 6000) > end
        again.set()
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert error.code == "source.rewound"
    assert "differs" in error.found
    assert rig.chain_of(vault, dataset).end == end
    assert [gap["available"] for gap in _gaps(vault, dataset)] == [None]


def test_a_source_is_held_to_what_it_still_has_and_the_rest_is_said(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Older files may be gone: then from the segment's beginning on; when nothing is left to compare, a warning."""
    server = postgres_server(settings={"fsync": False, "wal_keep_size": 0})
    dsn, dataset = server.dsn(), rig.make_dataset()
    with rig.CaptureThread(memory_vault(dataset), dataset, dsn) as capture:
        for _ in range(3):
            rig.write_rows(dsn, 100)
            _execute(dsn, "SELECT pg_switch_wal()")
        capture.wait_stored(rig.write_rows(dsn, 500))
    end = capture.report.stored_lsn
    segment = end - end % rig.SEGMENT_BYTES
    _until_kept_from(dsn, segment)
    _execute(dsn, "CHECKPOINT", "CHECKPOINT")
    gone = b"?" * 8192  # bytes of the file before: whoever compared them would complain
    own = rig.server_wal(server.data_dir, 1, segment, segment + 4096)
    with open_source(Nodes(dsn), "test") as connection:
        place = Place(dsn, dataset.slot, connection.identify_system(), rig.SEGMENT_BYTES)
        assert start_held_to(connection, place, Tail(segment + 4096, gone + own), patience_s=180)
        first = next(message for message in _received(connection) if isinstance(message, WalData))
        assert first.begin == segment + 4096
        connection.end_stream()
        other = own[:3000] + bytes([own[3000] ^ 1]) + own[3001:]
        with pytest.raises(DivergedError) as caught:
            start_held_to(connection, place, Tail(segment + 4096, gone + other), patience_s=180)
        assert caught.value.position == segment + 3000
        connection.end_stream()
        assert not caplog.records
        assert not start_held_to(connection, place, Tail(segment, gone), patience_s=180)
        assert "nothing shows" in caplog.text


def _until_kept_from(dsn: str, lsn: int) -> None:
    """Until the server has taken in what the capture told it last: its slots need nothing from before."""
    kept = "SELECT min(restart_lsn) - '0/0' >= %s FROM pg_replication_slots"
    with psycopg.connect(dsn, autocommit=True) as connection:
        wait_until(
            lambda: connection.execute(kept, (lsn,)).fetchone() == (True,), timeout_s=180, what="the slots' move"
        )


def _received(connection: Any) -> Iterator[Any]:
    while True:
        yield from connection.receive(limit_bytes=1)
        connection.wait(1)
        connection.read_socket()


@pytest.mark.parametrize("major", [15, 17, 18])
def test_a_source_that_goes_on_is_held_to_what_is_stored_and_passes(
    rig: ModuleType, postgres_server: Any, memory_vault: Any, monkeypatch: pytest.MonkeyPatch, major: int
) -> None:
    """After a stop, a crash, a WAL switch (zeros to the segment's end) and checkpoints that recycle older files."""
    server = postgres_server(major, settings={"fsync": False, "wal_keep_size": 0})
    dsn, dataset = server.dsn(), rig.make_dataset()
    vault = memory_vault(dataset)
    held: list[bool] = []

    def spied(*args: Any, **options: Any) -> bool:
        held.append(start_held_to(*args, **options))
        return held[-1]

    monkeypatch.setattr(taking_module, "start_held_to", spied)
    for between in ("nothing", "switch", "checkpoints", "crash", "nothing"):
        with rig.CaptureThread(vault, dataset, dsn) as capture:
            rig.write_rows(dsn, 100)
            if between == "switch":
                _execute(dsn, "SELECT pg_switch_wal()")
            if between == "checkpoints":
                _execute(dsn, "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT", "CHECKPOINT")
            capture.wait_stored(rig.flushed(dsn))
        if between == "crash":
            server.stop("immediate")
            server.start()
    assert held == [False, True, True, True, True]  # at the first start nothing was stored yet
    chain = rig.chain_of(vault, dataset)
    rig.check_links(vault, chain)
    assert not chain.holes
    assert _gaps(vault, dataset) == []
