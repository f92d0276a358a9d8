"""Roll-up: the same cuts whoever makes them, nothing that isn't acknowledged, and one chain over fulls and micros."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.full_put import StreamRoll
from dr_assets.stores.postgres.full_segments import first_stored, micros_beneath, stored_timelines, stored_wal
from dr_assets.stores.postgres.rollup import roll_streams
from dr_assets.vault.chain import Chain
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.format.segment import Sealed
from dr_assets.vault.full_segment import FULL, FULL_LIST, joins, parse_full_list
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Receipt, StoredObject, Vault

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIZE = 100
SMALL = Limits(size_bytes=10 * SIZE, span=timedelta(hours=1), micros=1000)


@dataclass
class Clock:
    """Time that only tests move."""

    now: datetime = T0

    def __call__(self) -> datetime:
        """As a vault asks."""
        return self.now


@dataclass
class Wal:
    """A source's WAL in a vault, piece by piece, as a capture would put it."""

    vault: Vault
    system_id: str = "7"
    timeline: int = 1
    position: int = 5000
    previous: str | None = None
    begin: int = 5000
    epoch: int = 1
    bytes_at: dict[int, bytes] = field(default_factory=dict)

    def put(self, count: int, *, every: timedelta = timedelta(seconds=1), stored: bool = True) -> None:
        """`count` pieces more; `stored` lets each say that all before it is."""
        for _ in range(count):
            number = self.position // SIZE
            at = T0 + number * every
            extra = {"recovery_point_at": format_time(at)}
            if stored:
                extra["acknowledged_to"] = f"{self.position:016X}"
            data = number.to_bytes(4, "big") * (SIZE // 4)
            prepared = self.vault.prepare(
                dataset="ledger", stream="wal", kind="wal", system_id=self.system_id, timeline=self.timeline,
                first=self.position, last=self.position + SIZE, begin_at=at, end_at=at + every, plaintext=data,
                previous=self.previous, writer_epoch=self.epoch, extra=extra,
            )  # fmt: skip
            self.vault.put(prepared.seal(), self.vault.locks.lock("ledger", "micro", self.vault.clock()))
            self.bytes_at[self.position] = data
            self.previous = prepared.header.digest
            self.position += SIZE

    def tell(self, stored: int | None = None) -> None:
        """A capture's word of how far all is stored."""
        stored = self.position if stored is None else stored
        record_capture(
            self.vault, "ledger", "position",
            Anchor(self.system_id, self.timeline, self.begin, stored, None, None, self.epoch, None),
        )  # fmt: skip

    def expected(self, begin: int, end: int) -> bytes:
        """The WAL as it was put."""
        return b"".join(data for at, data in sorted(self.bytes_at.items()) if begin <= at < end)


def vault_of(clock: Clock) -> Vault:
    """In memory, its time moved by the test."""
    return throwaway_vault(store=MemoryStore(clock), clock=clock)


def roll(vault: Vault, limits: Limits = SMALL) -> StreamRoll:
    """One run over the only stream."""
    (only,) = roll_streams(vault, "ledger", limits=limits)
    assert only.trouble is None
    return only


def ranges(objects: Sequence[StoredObject]) -> list[tuple[int, int]]:
    """Positions by name."""
    return [(obj.key.first, obj.key.last) for obj in objects]


def content(vault: Vault, chain: Chain) -> bytes:
    """All that the chain holds; every piece is seen to join the one before."""
    opened = [vault.open(obj) for obj in chain.segments]
    for earlier, later in pairwise(opened):
        assert joins(earlier.header, later.header)
    return b"".join(piece.plaintext for piece in opened)


def test_fulls_hold_the_same_bytes_and_the_tail_goes_on() -> None:
    """Ten pieces of a hundred bytes fill a full; what does not fill one stays micro; the chain is one."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(35)
    wal.tell()
    done = roll(vault)
    assert (done.fulls, done.micros, done.rolled_to) == (3, 30, 8000)
    chain = stored_wal(vault, "ledger", "7", 1, 5000)
    assert [obj.key.stream for obj in chain.segments] == [FULL] * 3 + ["wal"] * 5
    assert content(vault, chain) == wal.expected(5000, 8500)
    assert (chain.begin, chain.end, chain.holes, chain.orphans, chain.forks) == (5000, 8500, (), (), ())


def test_an_hour_of_the_sources_clock_ends_a_full() -> None:
    """Before the piece with which it would span more than an hour; nothing is cut before that piece is there."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(4, every=timedelta(minutes=15))
    wal.tell()
    assert roll(vault).fulls == 0
    wal.put(1, every=timedelta(minutes=15))
    wal.tell()
    assert roll(vault).fulls == 1
    (full,) = vault.objects("ledger", FULL)
    assert (full.key.first, full.key.last) == (5000, 5400)
    header = vault.header(full)
    assert header.end_at - header.begin_at == timedelta(hours=1)
    assert header.extra["recovery_point_at"] == format_time(T0 + 53 * timedelta(minutes=15))


def test_a_run_again_makes_nothing_and_every_roller_cuts_at_the_same_places() -> None:
    """The cuts depend on the pieces alone: in one go or bit by bit, they are the same."""
    at_once, bit_by_bit = vault_of(Clock()), vault_of(Clock())
    wal = Wal(at_once)
    wal.put(47)
    wal.tell()
    roll(at_once)
    other = Wal(bit_by_bit)
    for count in (3, 9, 1, 13, 21):
        other.put(count)
        other.tell()
        roll(bit_by_bit)
    assert ranges(list(at_once.objects("ledger", FULL))) == ranges(list(bit_by_bit.objects("ledger", FULL)))
    again = roll(at_once)
    assert (again.fulls, again.lists) == (0, 0)


def test_only_what_is_acknowledged_is_rolled_up() -> None:
    """A piece beyond everything that a capture said is stored may still be left behind by the next capture."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(25, stored=False)
    wal.tell(stored=6900)
    assert roll(vault).rolled_to == 6000
    wal.tell(stored=7100)
    assert roll(vault).rolled_to == 7000


def test_the_end_of_a_timeline_is_closed_off_once_another_is_captured() -> None:
    """Its last full is a shorter one; the new timeline's chain begins where the old one was left."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(25)
    wal.tell()
    assert roll(vault).rolled_to == 7000
    promoted = Wal(vault, timeline=2, position=wal.position, begin=wal.position, epoch=2)
    promoted.put(11)
    promoted.tell()
    old, new = roll_streams(vault, "ledger", limits=SMALL)
    assert (old.rolled_to, old.fulls, new.rolled_to, new.fulls) == (7500, 1, 8500, 1)
    assert stored_timelines(vault, "ledger", "7") == [1, 2]
    first = first_stored(vault, "ledger", "7", 2)
    assert first is not None
    assert (first.key.stream, first.key.first) == (FULL, 7500)
    assert content(vault, stored_wal(vault, "ledger", "7", 1, 5000)) == wal.expected(5000, 7500)


def test_a_chain_that_a_gap_closed_is_closed_off_and_the_next_one_begun() -> None:
    """What was never captured stays a hole; fulls go on behind it in a chain of their own."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(14)
    wal.tell()
    later = Wal(vault, position=9000, begin=9000, epoch=2)
    later.put(13)
    later.tell()
    assert roll(vault).rolled_to == 10000
    assert ranges(list(vault.objects("ledger", FULL))) == [(5000, 6000), (6000, 6400), (9000, 10000)]
    assert stored_wal(vault, "ledger", "7", 1, 5000).end == 6400
    chain = stored_wal(vault, "ledger", "7", 1, 9000)
    assert (chain.end, content(vault, chain)) == (10300, later.expected(9000, 10300))
    later.put(10)
    later.tell()
    assert roll(vault).rolled_to == 11000


def test_missing_wal_is_trouble_and_no_full_leads_over_it() -> None:
    """What is acknowledged and not there stops the roll-up of its stream, aloud."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(30)
    wal.tell()
    store = vault.store
    assert isinstance(store, MemoryStore)
    (gone,) = [name for name in store.rows if f"/{6500:016X}-" in name]
    del store.rows[gone]
    (only,) = roll_streams(vault, "ledger", limits=SMALL)
    assert only.trouble is not None
    assert only.trouble.startswith("rollup.hole")
    assert only.rolled_to == 6000


def test_the_list_names_every_micro_and_a_missing_one_is_made_up_for() -> None:
    """A kill between a full and its list leaves a full without one: the next run writes it, of the same micros."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(25)
    wal.tell()
    roll(vault)
    store = vault.store
    assert isinstance(store, MemoryStore)
    lists = list(vault.objects("ledger", FULL_LIST))
    body = canonical.decode(vault.open(lists[1]).plaintext, limit_bytes=1 << 20, what="list")
    listed = parse_full_list(body, name="list")
    assert [row.key for row in listed.covered] == [obj.key for obj in vault.objects("ledger", "wal")][10:20]
    del store.rows[str(lists[1].key)]
    assert roll(vault).lists == 1
    again = canonical.decode(
        vault.open(list(vault.objects("ledger", FULL_LIST))[1]).plaintext, limit_bytes=1 << 20, what="list"
    )
    assert again == body


def test_a_full_that_is_damaged_is_replaced_by_its_micros_while_they_are_there() -> None:
    """By its header when that can't be believed, and on request when its bytes were found damaged."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(45)
    wal.tell()
    roll(vault)
    fulls = list(vault.objects("ledger", FULL))
    assert ranges(micros_beneath(vault, fulls[1])) == [(at, at + SIZE) for at in range(6000, 7000, SIZE)]
    chain = stored_wal(vault, "ledger", "7", 1, 5000, without={fulls[1].key})
    assert [obj.key.stream for obj in chain.segments] == [FULL] + ["wal"] * 10 + [FULL] * 2 + ["wal"] * 5
    assert content(vault, chain) == wal.expected(5000, 9500)
    store = vault.store
    assert isinstance(store, MemoryStore)
    row = store.rows[str(fulls[0].key)][0]
    row.data = bytes([row.data[0] ^ 1]) + row.data[1:] if row.data else b""
    chain = stored_wal(vault, "ledger", "7", 1, 5050)
    assert [obj.key.stream for obj in chain.segments][:11] == ["wal"] * 10 + [FULL]
    assert (chain.segments[0].key.first, chain.unreadable) == (5000, ())


@pytest.mark.parametrize("begin", [5000, 5999, 6000, 7450, 8000, 8499])
def test_the_chain_may_begin_anywhere(begin: int) -> None:
    """Inside a full, inside a micro, or where two of them meet."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(35)
    wal.tell()
    roll(vault)
    chain = stored_wal(vault, "ledger", "7", 1, begin)
    assert chain.segments[0].key.first <= begin < chain.segments[0].key.last
    assert chain.end == 8500


def test_two_rollers_at_once_never_break_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may put a full the other has put, too: the duplicates compete, and the chain stays whole."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(45)
    wal.tell()
    put = vault.put
    state = {"depth": 0}

    def put_after_another(sealed: Sealed, lock: Lock) -> Receipt:
        state["depth"] += 1
        if state["depth"] in {1, 4}:
            roll(vault)
        return put(sealed, lock)

    monkeypatch.setattr(vault, "put", put_after_another)
    roll(vault)
    monkeypatch.undo()
    roll(vault)
    chain = stored_wal(vault, "ledger", "7", 1, 5000)
    assert content(vault, chain) == wal.expected(5000, 9500)
    assert [obj.key.stream for obj in chain.segments] == [FULL] * 4 + ["wal"] * 5


def test_a_piece_that_fits_by_accident_is_not_rolled_up() -> None:
    """A dead writer's piece begins where the live chain goes on, and names another as the one before it."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(12)
    dead = Wal(vault, position=wal.position + SIZE, previous="ab" * 32)
    dead.put(1, stored=False)
    wal.tell()
    wal.put(11)
    wal.tell()
    assert roll(vault).rolled_to == 7000
    chain = stored_wal(vault, "ledger", "7", 1, 5000)
    assert content(vault, chain) == wal.expected(5000, 7300)


def test_a_run_of_pieces_that_joins_by_position_alone_is_not_rolled_up() -> None:
    """Where names leave no choice the links are seen as the pieces are opened, and a break is told."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(5)
    stranger = Wal(vault, position=wal.position, previous="ab" * 32)
    stranger.put(8)
    wal.tell(stored=stranger.position)
    (only,) = roll_streams(vault, "ledger", limits=SMALL)
    assert only.fulls == 0
    assert only.trouble is not None
    assert only.trouble.startswith("rollup.hole")
