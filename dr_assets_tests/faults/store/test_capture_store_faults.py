import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from dr_assets.engines.postgres import PostgresServer
from dr_assets.stores.postgres.capture import Capture, CaptureOptions, CaptureReport
from dr_assets.stores.postgres.capture_facts import GAP, latest_anchor
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.sealing import putters
from dr_assets.vault.chain import Chain, resolve
from dr_assets.vault.facts import facts
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.store.faulty_store import Call, Fault
from dr_assets_tests.faults.store.sweep import assert_all_held, methods_of, sweep
from dr_assets_tests.integration.capture.rig import make_dataset, server_wal

pytestmark = pytest.mark.integration

STEPS = 3
COPIES = 40  # of one captured world; each case adds to the WAL that the next one streams
# What a capture that was cut short may leave, each named: pieces that lead nowhere, a fact after the inventory.
UNFINISHED = {"orphan", "fork", "unvouched", "changed"}
QUIET_BYTES = 256 << 10
OPTIONS = CaptureOptions(
    heartbeat_every_s=3600, report_every_s=0.0, position_fact_every_s=3600, give_up_s=2, stop_within_s=10
)


@pytest.fixture(scope="module")
def lab(engines_dir: Path, postgres_programs: Callable[[int], Any]) -> Iterator["Lab"]:
    """A server whose WAL nobody else writes, so that a run makes the same calls each time."""
    settings = {"fsync": False, "autovacuum": False, "wal_keep_size": "512MB", "wal_init_zero": False}
    with PostgresServer(engines_dir / "store-faults", postgres_programs(17), settings=settings) as server:
        server.init()
        server.start()
        lab = Lab(server)
        lab.log_in_fast()
        yield lab
        lab.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put is tried again at once."""
    monkeypatch.setattr(putters, "_BACKOFF_BEGIN_S", 0.01)


class Lab:
    """The server of all cases, a session for each thread that runs them, and a captured world to copy."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.dsn = server.dsn()
        self._local = threading.local()
        self._open: list[psycopg.Connection[Any]] = []
        self._mutex = threading.Lock()
        self._captured: CaptureCase | None = None
        self._copies = 0

    def one(self, query: LiteralString, *arguments: object) -> tuple[Any, ...]:
        """The first row of a query, on this thread's session."""
        if not hasattr(self._local, "session"):
            self._local.session = psycopg.connect(self.dsn, autocommit=True)
            self._open.append(self._local.session)
        row = self._local.session.execute(query, arguments or None).fetchone()
        assert row is not None
        return tuple(row)

    def captured(self) -> "CaptureCase":
        """A world that a capture has run in and left in order; a new one now and then, for WAL to stay short."""
        with self._mutex:
            if self._captured is None or self._copies == COPIES:
                if self._captured is not None:
                    self._captured.close()
                self._captured, self._copies = CaptureCase(self), 0
                self._captured.run(self._captured.store)
            self._copies += 1
            return self._captured

    def begin_a_segment(self) -> None:
        """A new slot begins near the head of a WAL segment, so there is little to capture before the test's own."""
        (written,) = self.one("SELECT (pg_current_wal_lsn() - '0/0')::bigint % (16 << 20)")
        if written > QUIET_BYTES:
            self.one("SELECT pg_switch_wal()")
            self._local.session.execute("CHECKPOINT")

    def log_in_fast(self) -> None:
        """A sweep logs in thousands of times: derive the same password's secret in one step instead of 4096."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("SET scram_iterations = 1")
            secret = sql.Literal(self.server.password)
            connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(secret))

    def close(self) -> None:
        """Close all sessions."""
        for session in self._open:
            session.close()


class CaptureCase:
    """A capture over an empty vault, or over a copy of what an earlier one has left in order (`of`)."""

    def __init__(self, lab: Lab, of: "CaptureCase | None" = None, options: CaptureOptions = OPTIONS) -> None:
        self._lab = lab
        self._options = options
        self._dataset = make_dataset(linger_ms=0, slot=f"dr_{secrets.token_hex(4)}")
        self._written = 0
        if of is None:
            self.store: ObjectStore = MemoryStore()
            self._signer, self._provider = Signer.generate(), MemoryKeyProvider()
            lab.begin_a_segment()
            lab.one("SELECT pg_create_physical_replication_slot(%s, true)", self._dataset.slot)
        else:
            assert isinstance(of.store, MemoryStore)
            self.store, self._signer, self._provider = of.store.copy(), of._signer, of._provider
            lab.one("SELECT pg_copy_physical_replication_slot(%s, %s)", of._dataset.slot, self._dataset.slot)

    def run(self, store: ObjectStore) -> None:
        """Capture three commits, each once the one before is stored, then stop in order."""
        stop, reports = threading.Event(), list[CaptureReport]()
        vault = self._vault(store)
        capture = Capture(vault, self._dataset, self._lab.dsn, listener=reports.append, options=self._options)
        ended: list[BaseException | None] = []

        def run() -> None:
            try:
                capture.run(stop)
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that is looked at
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        for _ in range(STEPS):
            lsn = self._commit()
            deadline = time.monotonic() + 180
            while thread.is_alive() and not (reports and reports[-1].stored_lsn >= lsn):
                assert time.monotonic() < deadline, reports[-1:]
                time.sleep(0.002)
        stop.set()
        thread.join(180)
        assert not thread.is_alive()
        if ended and ended[0] is not None:
            raise ended[0]

    def check_after_fault(self, fault: Fault) -> None:
        """No damage, nothing but late or unfinished objects named, and the source was told of nothing that isn't."""
        assert fault
        report = verify(self._vault(self.store))
        assert not report.errors, report.errors
        assert {finding.kind for finding in report.notices} <= UNFINISHED, report.notices
        self._assert_told_no_more_than_stored()

    def check_complete(self) -> None:
        """Green without a notice; one chain, byte for byte the server's WAL; no gap; the end is on record."""
        vault = self._vault(self.store)
        report = verify(vault)
        assert not report.errors, report.errors
        assert not list(facts(vault, self._dataset.name, GAP))
        chain = self._assert_told_no_more_than_stored()
        assert chain.end >= self._written
        stored = b"".join(vault.open(segment).plaintext for segment in chain.segments)
        assert stored == server_wal(self._lab.server.data_dir, 1, chain.begin, chain.end)
        anchor = latest_anchor(vault, self._dataset.name)
        assert anchor is not None
        assert anchor.stored <= chain.end  # the fact of a moment before may have come in last

    def close(self) -> None:
        """Drop the slot once its last consumer is gone."""
        self._confirmed()
        self._lab.one("SELECT pg_drop_replication_slot(%s)", self._dataset.slot)

    def _vault(self, store: ObjectStore) -> Vault:
        return throwaway_vault(store=store, provider=self._provider, signer=self._signer)

    def _commit(self) -> int:
        self._lab.one("SELECT pg_logical_emit_message(true, 'test', repeat('x', 500))")
        (self._written,) = self._lab.one("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")
        return self._written

    def _assert_told_no_more_than_stored(self) -> Chain:
        vault, confirmed = self._vault(self.store), self._confirmed()
        pieces = list(vault.objects(self._dataset.name, "wal"))
        begin = pieces[0].key.first if pieces else confirmed
        chain = resolve(pieces, vault.header, begin, strict=True)
        assert confirmed <= chain.end
        return chain

    def _confirmed(self) -> int:
        """What the source was told is stored, once nobody is connected that could still tell it more."""
        while True:
            lsn, active = self._lab.one(
                "SELECT restart_lsn::text, active FROM pg_replication_slots WHERE slot_name = %s", self._dataset.slot
            )
            if not active:
                return parse_lsn(lsn)
            time.sleep(0.002)


@pytest.mark.parametrize("part", [0, 1])
def test_a_capture_survives_a_fault_at_every_store_call(lab: Lab, part: int) -> None:
    """Killed before or after any call, refused, busy or lied to, a capture loses nothing that it acknowledged.

    It takes its place in a vault that an earlier one filled. After each fault verification finds no damage, the source
    was told of nothing that the vault lacks, and the next run leaves one whole chain.
    """
    done = sweep(lambda: CaptureCase(lab, lab.captured()), threads=4, only=_half(part))
    assert_all_held(done)
    assert {"put", "head", "get", "list_versions", "recent_now"} <= methods_of(done.points)


def test_the_first_capture_of_a_vault_survives_a_fault_at_every_call_about_keys(lab: Lab) -> None:
    """The same of what only a first capture does: it makes the data key that everything else hangs on."""
    done = sweep(lambda: CaptureCase(lab), threads=4, only=lambda call, _: call.stream == "keys")
    assert_all_held(done)
    assert {"put", "head", "get", "list_name", "list_level"} <= methods_of(done.points)


def test_the_anchors_on_the_way_survive_faults_at_every_put(lab: Lab) -> None:
    """The same of the facts that a capture leaves beside its stream every few minutes, here every few pieces."""
    often = dataclasses.replace(OPTIONS, position_fact_every_s=0.02)
    done = sweep(
        lambda: CaptureCase(lab, options=often),
        threads=4,
        only=lambda call, _: (call.method, call.stream) == ("put", "facts-capture") and call.number <= 3,
    )
    assert_all_held(done)


def _half(part: int) -> Callable[[Call, Fault], bool]:
    """Two tests share the points, so that two cores share the time."""
    return lambda call, fault: (call.number + len(fault)) % 2 == part
