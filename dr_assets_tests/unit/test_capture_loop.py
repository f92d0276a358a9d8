import contextlib
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.estate.model import TIERS, Drill, Location, PostgresDataset, RestoreTest, Retention, Snapshot
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.capture_loop import CaptureLoop, CaptureOptions, LoopParts
from dr_assets.stores.postgres.clip import require_whole
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.pieces import Arrival, Piece
from dr_assets.stores.postgres.protocol import StreamMessage, SystemIdentity, WalData
from dr_assets.stores.postgres.report import CaptureReport
from dr_assets.stores.postgres.resume import StoredEnd
from dr_assets.stores.postgres.standbys import StandbySlots
from dr_assets.stores.sealing.aside import Aside
from dr_assets.stores.sealing.linked import Body
from dr_assets.stores.sealing.metrics import NoMetrics
from dr_assets.stores.sealing.putters import Putters
from dr_assets.vault.chain import resolve
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.storage.refusals import unreachable
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify

BEGIN, SIZE = 0x1000000, 64
HERE = SystemIdentity("7", 1, 1 << 40)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


class PulledPlugError(BaseException):
    """The capture's end without any order, as kill -9 would be."""


class ScriptedStream:
    """Stands in for SourceStream: `count` messages, each once the one before is stored, then `then`."""

    def __init__(self, count: int, then: BaseException | None = None) -> None:
        self.connection: object | None = object()
        self.trouble: str | None = None
        self.count, self.sent, self.then = count, 0, then
        self.told: list[int] = []
        self.before_message: Callable[[int], None] = lambda _: None
        self.at_once = False

    def receive(self) -> list[StreamMessage]:
        """The next message, or the end of the story."""
        if self.sent == self.count:
            if self.then is not None:
                self.connection = None
                raise self.then
            return []
        position = BEGIN + self.sent * SIZE
        if self.sent and not self.at_once and self.told[-1] < position:
            return []
        self.before_message(self.sent)
        self.sent += 1
        return [WalData(position, position + SIZE, AT, bytes([self.sent % 251]) * SIZE)]

    def send_status(self, *, vaulted: int, **_: object) -> None:
        """What the source would be told."""
        self.told.append(vaulted)

    def wait(self, timeout_s: float, *, also_read: Sequence[int]) -> None:
        """A tick that an outcome ends."""
        select.select(also_read, [], [], min(timeout_s, 0.01))

    def retry_in_s(self) -> float:
        """No attempt is due while a test runs."""
        return 60.0

    def paused(self) -> None:
        """Memory is full."""


def ledger() -> PostgresDataset:
    """A declared dataset whose pieces are cut at once."""
    return PostgresDataset(
        name="ledger", kind="postgres", tier=TIERS["player_ledger"], dsn_env="X", slot="s", rpo=timedelta(seconds=30),
        rto=timedelta(minutes=15), snapshot=Snapshot(every=timedelta(hours=24)),
        retention=Retention(lock="governance", days=14, lock_days=14), location=Location("ovh", "gra", "MT"),
        vault="primary", replicas=(), restore_test=RestoreTest("0 3 * * *", "casino_ledger"),
        drill=Drill("0 4 1 * *", timedelta(days=35)), owners=("team:platform",), exception=None,
        linger=timedelta(0), source=Path("defs.yaml"), line=1,
    )  # fmt: skip


@contextlib.contextmanager
def loop_over(
    vault: Vault, stream: ScriptedStream, *, listener: Callable[[CaptureReport], None] | None = None, **options: Any
) -> Iterator[CaptureLoop]:
    """A real loop with real putters over `stream`, from an empty chain."""
    settings = CaptureOptions(**options)
    vault.keys.for_writing("ledger")
    with ExitStack() as stack:
        putters = Putters(
            vault, dataset="ledger", lock_of=lambda: vault.locks.lock("ledger", "wal", vault.clock()),
            count=settings.putters, give_up_s=settings.give_up_s, is_only_copy=lambda: stream.connection is None,
            metrics=NoMetrics(),
        )  # fmt: skip
        stack.callback(putters.close)
        watch = SimpleNamespace(
            stopping_since_s=None,
            take_beats=list,
            newest=SimpleNamespace(slot=None, trouble=None, clock_offset=timedelta(0)),
            error=None,
        )
        parts = LoopParts(
            vault=vault, dataset=ledger(), identity=HERE, stream=cast("Any", stream), putters=putters,
            watch=cast("Any", watch), facts=Aside("facts"), listening=Aside("listening"), beside=Aside("beside"),
            standbys=StandbySlots(Nodes(""), slot="s", system_id=HERE.system_id, timeline=HERE.timeline),
            listener=listener,
            metrics=NoMetrics(), clock=vault.clock, options=settings,
        )  # fmt: skip
        yield CaptureLoop(parts, StoredEnd(BEGIN, BEGIN, None, None, 0, None), 1)


def at(piece: int) -> int:
    """Where a piece begins."""
    return BEGIN + piece * SIZE


def test_a_hole_in_what_was_acknowledged_is_never_taken_for_a_crash() -> None:
    """Every piece carries the acknowledged prefix, so one that vanished behind the newest fact is a hole to both."""
    vault = throwaway_vault()
    with loop_over(vault, ScriptedStream(300, PulledPlugError())) as loop, pytest.raises(PulledPlugError):
        loop.run(threading.Event())
    record_capture(vault, "ledger", "position", Anchor("7", 1, BEGIN, at(9), None, None, 1, None))
    pieces = list(vault.objects("ledger", "wal"))
    assert len(pieces) >= 299
    assert verify(vault).ok
    store = cast("MemoryStore", vault.store)
    del store.rows[str(pieces[11].key)]
    assert {finding.kind for finding in verify(vault).errors} == {"hole"}
    chain = resolve(vault.objects("ledger", "wal"), vault.header, BEGIN)
    assert chain.end == at(11)
    with pytest.raises(VaultError) as caught:
        require_whole(vault, chain, at(9))
    assert caught.value.code == "restore.hole"


def test_every_piece_says_what_was_stored_when_it_was_made() -> None:
    """The first piece too: it says where the chain begins; none ever claims more than what lies before it."""
    vault = throwaway_vault()
    with loop_over(vault, ScriptedStream(5, PulledPlugError())) as loop, pytest.raises(PulledPlugError):
        loop.run(threading.Event())
    said = [vault.header(obj).extra["acknowledged_to"] for obj in vault.objects("ledger", "wal")]
    assert said == [f"{at(number):016X}" for number in range(len(said))]


def test_a_piece_on_the_spool_leaves_two_lag_samples_in_memory_and_no_more() -> None:
    """A spool holds hours of pieces: what is kept of each must not depend on how many messages it came in."""
    vault, taken = throwaway_vault(), list[Piece]()
    with loop_over(vault, ScriptedStream(0)) as loop:
        spooling = SimpleNamespace(take=lambda _, piece: taken.append(piece))
        loop._parts = replace(loop._parts, spooling=cast("Any", spooling), putters=cast("Any", NoIdlePutters()))
        samples = tuple(Arrival(BEGIN + number, float(number)) for number in range(1, SIZE + 1))
        loop._submit(Piece(BEGIN, at(1), AT, AT, Body((bytes(SIZE),)), samples))
    assert list(loop._arrivals) == [samples[0], samples[-1]]
    assert [piece.arrivals for piece in taken] == [()]


def test_what_is_in_flight_never_keeps_the_spool_from_its_first_piece() -> None:
    """Putters that hold all that memory may: without a next piece nothing would go to the disk, for ever."""
    vault = throwaway_vault()
    with loop_over(vault, ScriptedStream(0)) as loop:
        options = replace(loop._parts.options, in_flight_cap_bytes=SIZE)
        spooling = SimpleNamespace(queued_bytes=0)
        loop._cutter.position = at(1)
        for spool, expected in ((None, False), (spooling, True)):
            loop._parts = replace(loop._parts, options=options, spooling=cast("Any", spool))
            assert loop._may_read() is expected
        loop._cutter.add(WalData(at(1), at(2), AT, bytes(SIZE)), 0.0)
        assert not loop._may_read()


class NoIdlePutters:
    """Every putter waits for the vault."""

    has_idle = False


def lost() -> SourceError:
    """An end for good."""
    return SourceError("source.slot_lost", "the slot is lost", "accept the gap")


def stored_end(vault: Vault) -> int:
    """Where the chain in the vault ends."""
    return resolve(vault.objects("ledger", "wal"), vault.header, BEGIN).end


def test_what_was_received_before_a_final_error_is_stored_however_slow_the_vault_is() -> None:
    """It may be the only copy: the patience is that of a put, not that of a stop, and the source's error stays."""
    vault = throwaway_vault()
    stream = ScriptedStream(1, lost())
    with loop_over(vault, stream, stop_within_s=0.1, give_up_s=180) as loop:
        put = vault.store.put

        def slow(*args: Any) -> Any:
            threading.Event().wait(1)
            return put(*args)

        vault.store.put = slow  # type: ignore[method-assign,assignment]
        with pytest.raises(SourceError, match=r"source\.slot_lost"):
            loop.run(threading.Event())
    assert stored_end(vault) == at(1)


def test_a_vault_that_stays_away_is_a_note_on_the_sources_error() -> None:
    """Both are told, the source's first: what has to be put on record hangs on it."""
    vault = throwaway_vault()
    with loop_over(vault, ScriptedStream(1, lost()), give_up_s=0.5) as loop:

        def refuse(*_: Any) -> Any:
            raise unreachable("the store", "no answer")

        vault.store.put = refuse  # type: ignore[method-assign,assignment]
        with pytest.raises(SourceError, match=r"source\.slot_lost") as caught:
            loop.run(threading.Event())
    assert any("64 bytes" in note and "not stored" in note for note in caught.value.__notes__)


def test_no_put_is_given_up_while_the_source_is_away() -> None:
    """Vault and source away at once: the capture holds on to what it has, beyond its usual patience."""
    vault, stop = throwaway_vault(), threading.Event()
    stream = ScriptedStream(1)
    stream.before_message = lambda _: setattr(stream, "connection", None)
    with loop_over(vault, stream, give_up_s=0.2) as loop:
        put, tries = vault.store.put, []

        def recover(*args: Any) -> Any:
            tries.append(args)
            if len(tries) < 4:  # backing off 0.2, 0.4 and 0.8 s: the patience is long over
                raise unreachable("the store", "no answer")
            stop.set()
            return put(*args)

        vault.store.put = recover  # type: ignore[method-assign,assignment]
        loop.run(stop)
    assert stored_end(vault) == at(1)


def test_a_listener_that_fails_ends_the_capture_and_loses_nothing() -> None:
    """Its error is raised once everything received is stored, even when it came in the middle of draining."""
    vault = throwaway_vault()

    def broken(_: CaptureReport) -> None:
        raise RuntimeError("nobody listens")

    stream = ScriptedStream(50)
    stream.at_once = True
    with loop_over(vault, stream, listener=broken) as loop, pytest.raises(RuntimeError, match="nobody listens"):
        loop.run(threading.Event())
    assert stream.sent
    assert stored_end(vault) == at(stream.sent)


def test_a_capture_that_cannot_take_a_newer_key_up_says_so() -> None:
    """It goes on under the old one, which may be a stolen one: no silence about that."""
    vault, reports = throwaway_vault(), list[CaptureReport]()
    vault.keys.stale["ledger"] = VaultError("vault.wrong_key", "data key ab can't be unwrapped", "look")
    with (
        loop_over(vault, ScriptedStream(3, PulledPlugError()), listener=reports.append) as loop,
        pytest.raises(PulledPlugError),
    ):
        loop.run(threading.Event())
    assert any("vault.wrong_key: data key ab can't be unwrapped" in str(report) for report in reports)
