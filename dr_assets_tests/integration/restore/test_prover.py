"""The resident prover over real servers and a vault in memory: what it follows and publishes, what turns it red."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_assets.casino import schema
from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.estate.prove import Prove
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.prover.ground import ground_of
from dr_assets.proving.prover.in_place import InPlaceWal
from dr_assets.proving.prover.judged import reconciled_trouble, replayed_trouble
from dr_assets.proving.prover.points import Proven, latest_proven
from dr_assets.proving.prover.prover import Prover, ProverOptions
from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.rollup_run import require_untroubled, roll_up
from dr_assets.vault.format.keys import WAL
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.storage import Version
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.vault import Vault
from dr_assets_tests.integration.restore.conftest import ESTATE, Source

pytestmark = pytest.mark.integration

DEADLINE_S = 180.0
RARELY = Prove(timedelta(hours=1), timedelta(hours=1), timedelta(hours=1), 1 << 34)


class SharedStore(MemoryStore):
    """What a prover sees of a source's store; it can be away for it alone."""

    away = False

    def list_versions(self, prefix: str, start_after: str = "") -> Iterator[Version]:
        """As the port says, unless it is away."""
        if self.away:
            raise VaultError("vault.unreachable", "the store does not answer", "wait")
        return super().list_versions(prefix, start_after)


@dataclass
class Running:
    """A prover under way, and the store as it sees it."""

    prover: Prover
    source: Source
    store: SharedStore
    thread: threading.Thread
    troubles: list[Proven] = field(default_factory=list)
    told: list[Proven] = field(default_factory=list)

    def until(self, what: Callable[[Proven], object]) -> Proven:
        """Its first standing from now on that is as asked."""
        deadline = time.monotonic() + DEADLINE_S
        while not what(proven := self.prover.proven):
            assert time.monotonic() < deadline, str(proven)
            assert self.thread.is_alive()
            time.sleep(0.05)
        return proven

    def replays(self, source: Source | None = None) -> Proven:
        """Feed what was written, with a heartbeat at its end, and wait until that is replayed."""
        source = source or self.source
        at = source.beat()
        source.feed()
        return self.until(lambda proven: proven.replayed is not None and proven.replayed.at == at)

    def fails(self, code: str) -> Proven:
        """Wait until it has said why it can't go on, and was red then, in words; who comes late misses nothing."""
        self.until(lambda _: any(one.trouble is not None and one.trouble.code == code for one in self.troubles))
        while (proven := self.troubles.pop(0)).trouble is None or proven.trouble.code != code:
            pass
        assert code in (replayed_trouble(self.source.dataset, proven, proven.now) or "")
        return proven


@contextmanager
def proving(source: Source, folder: Path, prove: Prove = RARELY, **options: float) -> Iterator[Running]:
    """A prover of `source` that runs beside the test; nothing is left of it on the disk. `RARELY`: it only follows.

    A machine that is short of time lets replay stand for a while: it counts as stalled late, where nobody waits for it.
    """
    folder.mkdir(exist_ok=True)
    # A machine that is short of time makes points old: nothing here is about how old.
    source.dataset = replace(source.dataset, prove=prove, rpo=timedelta(hours=1))
    store = SharedStore()
    store.rows, store._mutex = source.store.rows, source.store._mutex
    vault, own = source.vault, threading.Event()
    seen = Vault(
        store=store, estate=ESTATE, name="primary", keys=vault.keys, trust=vault.trust, signer=None,
        locks=vault.locks, clock=vault.clock,
    )  # fmt: skip
    usual = {"poll_s": 0.05, "look_every_s": 0.5, "stalled_after_s": DEADLINE_S, "again_after_s": 0.5}
    judged_after_s = 3600.0 if prove is RARELY else 0.0
    asked = ProverOptions(**{**usual, "judged_after_s": judged_after_s, **options})  # type: ignore[arg-type]
    with ground_of("ledger", {WORK_DIR_ENV: str(folder)}) as ground, ThreadPoolExecutor(1) as pool:
        prover = Prover(seen, vault, source.dataset, ground, pool, erasures=lambda: None, options=asked)
        running = Running(prover, source, store, threading.Thread(target=prover.run, args=(own,)))
        prover._listener = running.told.append
        _note_troubles(prover, running.troubles)
        running.thread.start()
        try:
            yield running
        finally:
            own.set()
            running.thread.join(DEADLINE_S)
    assert list(folder.iterdir()) == []


def _note_troubles(prover: Prover, troubles: list[Proven]) -> None:
    """Each trouble once, as it was told when it came."""
    stands = prover._stands

    def noted(state: Any, error: DrError | None) -> None:
        was = prover.proven.trouble
        stands(state, error)
        if error is not None and (was is None or was.code != error.code):
            troubles.append(prover.proven)

    prover._stands = noted  # type: ignore[method-assign]


@pytest.fixture
def ledger(make_source: Callable[..., Source]) -> Source:
    """A casino's ledger with money in it, a base backup and a heartbeat."""
    source = make_source(wal_keep_size="256MB")
    schema.create(source.dsn, players=20)
    source.snapshot()
    source.beat()
    source.feed()
    return source


def test_what_is_replayed_and_what_adds_up_are_two_points_and_each_moves(
    ledger: Source, engine_dir: Path, promoted: Callable[[Source, PostgresServer], tuple[Source, int]]
) -> None:
    """Follows the vault alone, over a switch of timeline too; money that doesn't add up turns red what is reconciled.

    The deep pass looks at every page and index entry of a clone. All of it is sealed as a fact that can be read back.
    """
    often = Prove(timedelta(seconds=1), timedelta(hours=1), timedelta(hours=1), 1 << 34)
    with proving(ledger, engine_dir / "work", often) as running:
        running.until(lambda proven: proven.books is not None and proven.books.place == "standby")
        proven = running.until(lambda proven: proven.deep and proven.reconciled)
        assert proven.deep is not None
        assert proven.deep.ok, proven.deep.reason
        assert {"pg_checksums", "pg_amcheck"} <= set(proven.deep.checks)

        ledger.sql("CREATE TABLE noise AS SELECT n, repeat('z', 900) AS filler FROM generate_series(1, 20000) n")
        running.replays()
        # The server writes on behind the heartbeat, when it vacuums say: that is replayed as well, in a moment.
        proven = running.until(lambda proven: proven.replayed is not None and proven.end_lsn <= proven.replayed.lsn)
        assert proven.replayed is not None
        reached = proven.replayed.lsn
        proven = running.until(lambda proven: proven.reconciled is not None and proven.reconciled.lsn >= reached)
        assert replayed_trouble(ledger.dataset, proven, proven.now) is None
        assert reconciled_trouble(ledger.dataset, proven, proven.now) is None

        with PostgresServer.standby_of(ledger.server, engine_dir / "standby", name="second") as standby:
            standby.start()
            second, switch = promoted(ledger, standby)
            ledger.feed(switch)
            past_the_guards = "SET session_replication_role = replica; UPDATE casino.accounts"
            second.sql(f"{past_the_guards} SET balance_minor = balance_minor + 1 WHERE account_id = 1")
            proven = running.replays(second)
            assert proven.replayed is not None
            assert (proven.replayed.timeline, proven.restarts, proven.failures) == (2, 1, 0)
            proven = running.until(lambda proven: proven.books is not None and not proven.books.ok)
        assert proven.books is not None
        assert proven.books.breaks_total > 0
        assert proven.reconciled is not None
        assert proven.replayed is not None
        assert proven.replayed.lsn > proven.reconciled.lsn
        assert "does not add up" in (reconciled_trouble(ledger.dataset, proven, proven.now) or "")
    sealed = latest_proven(ledger.vault, "ledger")
    assert sealed is not None
    assert (sealed.state, sealed.reconciled) == ("stopped", proven.reconciled)
    assert sealed.deep is not None
    assert sealed.deep.ok
    assert "stopped" in (replayed_trouble(ledger.dataset, sealed, sealed.now) or "")


@pytest.fixture
def plain(make_source: Callable[..., Source]) -> Source:
    """A database without a ledger: what is followed, and not what is in it."""
    source = make_source(wal_keep_size="256MB")
    source.sql("CREATE TABLE t (n int, filler text)")
    source.snapshot()
    source.beat()
    source.feed()
    return source


def write_some(source: Source) -> None:
    """Some pieces of WAL, with a heartbeat behind them."""
    source.sql("INSERT INTO t SELECT n, repeat('x', 900) FROM generate_series(1, 2000) n")
    source.beat()
    source.feed()


def test_whatever_ends_a_sandbox_is_on_record_and_another_one_begins(
    plain: Source, engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is killed, a disk that keeps other bytes than were written: red, then green by a new sandbox."""
    with proving(plain, engine_dir / "work") as running:
        running.replays()
        sandbox = running.prover._current
        assert sandbox is not None
        sandbox.server.kill()
        running.fails("prover.sandbox_died")
        assert running.until(lambda proven: proven.restarts == 2 and proven.trouble is None).failures == 1
        running.replays()

        lay = InPlaceWal._lay

        def lying(self: InPlaceWal, view: memoryview) -> None:
            monkeypatch.setattr(InPlaceWal, "_lay", lay)  # once: the next sandbox lies on a disk that keeps its word
            lay(self, memoryview(bytes(byte ^ 0xFF for byte in view)))

        monkeypatch.setattr(InPlaceWal, "_lay", lying)
        usual = running.prover._options
        running.prover._options = replace(usual, stalled_after_s=5.0)
        write_some(plain)
        running.until(lambda proven: proven.failures == 2)
        running.prover._options = usual
        told = [one.trouble.code for one in running.troubles if one.trouble is not None]
        assert told, "red by the replay that stands, or by the next piece that finds other bytes there"
        assert set(told) <= {"prover.stalled", "prover.sandbox_died", "wal.diverged"}, told
        running.until(lambda proven: proven.restarts == 3 and proven.trouble is None)
        running.replays()


def test_a_vault_that_is_away_is_waited_for_and_a_hole_in_it_is_left_by_the_next_base_backup(
    plain: Source, engine_dir: Path
) -> None:
    """Away: said so, and nothing is lost; it says how far it is while it catches up.

    A piece that is gone, or damaged: red, until a restore leads around it.
    """
    with proving(plain, engine_dir / "work") as running:
        running.replays()
        running.store.away = True
        running.fails("vault.unreachable")
        begin, usual, plain.piece_bytes = plain.position or 0, plain.piece_bytes, 4 << 10
        write_some(plain)
        end, plain.piece_bytes = plain.position or 0, usual
        running.store.away = False
        proven = running.replays()
        assert (proven.restarts, proven.failures) == (1, 0)
        told = {proven.end_lsn for proven in running.told if begin < proven.end_lsn < end}
        assert len(told) > 1, "some 480 pieces are more than are written at once"

        running.store.away = True
        running.fails("vault.unreachable")
        known = set(plain.store.rows)
        write_some(plain)
        fresh = sorted(key for key in set(plain.store.rows) - known if "/wal/" in key)
        assert len(fresh) > 2
        del plain.store.rows[fresh[1]]
        running.store.away = False
        running.fails("restore.hole")

        plain.snapshot()
        plain.beat()
        plain.feed()
        running.until(lambda proven: proven.restarts == 2 and proven.trouble is None)
        running.replays()

        running.store.away = True
        running.fails("vault.unreachable")
        known = set(plain.store.rows)
        write_some(plain)
        damaged = next(key for key in sorted(set(plain.store.rows) - known) if "/wal/" in key)
        row = plain.store.rows[damaged][0]
        assert row.data is not None
        row.data = row.data[:200] + bytes([row.data[200] ^ 1]) + row.data[201:]
        running.store.away = False
        running.fails("restore.hole")


def test_a_source_that_left_what_was_replayed_is_followed_by_a_new_sandbox(
    plain: Source, engine_dir: Path, promoted: Callable[[Source, PostgresServer], tuple[Source, int]]
) -> None:
    """What the old primary wrote after the switch was replayed already: that is said, and never called proven again."""
    with (
        PostgresServer.standby_of(plain.server, engine_dir / "standby", name="second") as standby,
        proving(plain, engine_dir / "work") as running,
    ):
        running.replays()
        standby.start()
        running.store.away = True
        running.fails("vault.unreachable")
        second, switch = promoted(plain, standby)
        plain.sql("INSERT INTO t VALUES (1, 'lost')")
        plain.beat()
        assert plain.feed() > switch
        second.sql("INSERT INTO t VALUES (1, 'new')")
        second.beat()
        second.feed()
        running.store.away = False
        running.until(lambda proven: proven.failures == 1 and proven.restarts == 2)
        proven = running.replays(second)
        assert proven.replayed is not None
        assert proven.replayed.timeline == 2


def test_a_chain_that_is_rolled_up_while_it_is_followed_is_followed_on(plain: Source, engine_dir: Path) -> None:
    """Micro-segments give way to full ones, of what was replayed and of what was not: no failure, no new beginning."""
    with proving(plain, engine_dir / "work") as running:
        running.replays()
        running.store.away = True
        running.fails("vault.unreachable")
        for _ in range(2):
            write_some(plain)
        require_untroubled(roll_up(plain.vault, "ledger", limits=Limits(size_bytes=1 << 20)))
        fulls = [obj.key for obj in plain.vault.objects("ledger", FULL)]
        replayed = running.prover.proven.replayed
        assert replayed is not None
        assert any(full.first <= replayed.lsn < full.last for full in fulls), "one goes over from what was replayed"
        assert sum(full.first > replayed.lsn for full in fulls) > 1
        for obj in list(plain.vault.objects("ledger", WAL)):
            if any(full.first <= obj.key.first and obj.key.last <= full.last for full in fulls):
                del plain.store.rows[str(obj.key)]
        running.store.away = False
        proven = running.replays()
        assert (proven.restarts, proven.failures) == (1, 0)


def test_a_prover_takes_no_more_disk_than_it_may(plain: Source, engine_dir: Path) -> None:
    """A clone that doesn't fit is not begun, and said; a sandbox that grows over the bound goes, and that is red.

    None is laid again until what the vault holds fits: then it goes on by itself.
    """
    work = engine_dir / "work"
    with proving(plain, work, restartpoint_every_s=0.2) as running:
        size_bytes = running.until(lambda proven: proven.size_bytes and proven.replayed).size_bytes
    bound = size_bytes + size_bytes // 2
    hourly = replace(RARELY, max_bytes=bound)
    with proving(plain, work, hourly, restartpoint_every_s=0.2) as running:
        proven = running.until(lambda proven: proven.deep)
        assert proven.deep is not None
        assert proven.deep.reason.startswith("prover.no_room")
        assert running.replays().failures == 0

        plain.sql(f"INSERT INTO t SELECT n, repeat('x', 900) FROM generate_series(1, {bound // 900}) n")  # noqa: S608 - a number
        plain.feed()
        running.fails("prover.no_room")
        running.until(lambda _: not running.prover._current)
        running.until(lambda proven: proven.unbegun and proven.unbegun.code == "prover.no_room")
        assert [path.name for path in (work / "dr_assets-prover-ledger").iterdir()] == ["lock"]

        plain.sql("TRUNCATE t")
        plain.snapshot()
        plain.beat()
        plain.feed()
        running.until(lambda proven: proven.restarts == 2 and proven.trouble is None)
        running.replays()


def test_a_disk_that_is_full_is_red_and_left_by_a_new_sandbox_once_there_is_room(
    plain: Source, engine_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece of which only half could be written is never called replayed; with room again, it begins anew."""
    with proving(plain, engine_dir / "work") as running:
        proven = running.replays()
        assert proven.replayed is not None
        reached = proven.replayed.lsn
        lay = InPlaceWal._lay

        def full(self: InPlaceWal, view: memoryview) -> None:
            lay(self, view[: len(view) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(InPlaceWal, "_lay", full)
        write_some(plain)
        told = running.fails("prover.disk")
        assert told.trouble is not None
        assert "No space left" in told.trouble.found
        assert told.replayed is not None
        assert told.replayed.lsn <= plain.lsn() - (1 << 20), "2 MB were written, of which no piece was laid whole"
        assert told.replayed.lsn >= reached
        monkeypatch.setattr(InPlaceWal, "_lay", lay)
        running.until(lambda proven: proven.restarts >= 2 and proven.trouble is None)
        running.replays()


@pytest.mark.parametrize("major", [15, 18])
def test_every_version_is_followed_and_looked_at(
    make_source: Callable[..., Source], engine_dir: Path, major: int
) -> None:
    """As 17 is: WAL written in place is replayed, the books are read from the standby, the pages from a clone."""
    source = make_source(major)
    schema.create(source.dsn, players=5)
    source.snapshot()
    source.beat()
    source.feed()
    with proving(source, engine_dir / "work", replace(RARELY)) as running:
        running.replays()
        running.replays()
        proven = running.until(lambda proven: proven.deep and proven.reconciled)
        assert proven.deep is not None
        assert proven.deep.ok, proven.deep.reason
        assert {"pg_checksums", "pg_amcheck"} <= set(proven.deep.checks)
        assert proven.failures == 0


def test_a_prover_that_was_killed_leaves_nothing_to_the_next_and_two_never_share_a_folder(tmp_path: Path) -> None:
    """A half-written sandbox is cleared away, never gone on with; a second prover of the dataset is refused."""
    env = {WORK_DIR_ENV: str(tmp_path)}
    torn = tmp_path / "dr_assets-prover-ledger" / "sandbox-1" / "data"
    torn.mkdir(parents=True)
    (torn / "PG_VERSION").write_text("17")
    with ground_of("ledger", env) as ground:
        assert not torn.exists()
        with pytest.raises(PolicyError) as caught, ground_of("ledger", env):
            pass
        assert caught.value.code == "prover.runs_already"
        assert ground.new("sandbox") != ground.new("sandbox")
    assert list(tmp_path.iterdir()) == []
