"""Packs: what a fetch brings is checked and held to its position, gathered, cut, and accounted for."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.stores.kafka.batches import Record, encode
from dr_assets.stores.kafka.book import Book, Cursor
from dr_assets.stores.kafka.export import decided_below
from dr_assets.stores.kafka.fetcher import Brought
from dr_assets.stores.kafka.fetching import Fetched
from dr_assets.stores.kafka.keeper import Begun, Ended, Looked
from dr_assets.stores.kafka.ledger import Ledger
from dr_assets.stores.kafka.pack import PACK_BYTES, Cutter, Part, part_of
from dr_assets.stores.kafka.resume import applied
from dr_assets.vault.format.pack import Break, PackIndex, Row, Slice, Stream, parse_index

TOPIC, OTHER = "ab" * 16, "cd" * 16
STREAM: Stream = (TOPIC, 0, 0)
AT = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
NAMES = {TOPIC: "bets", OTHER: "players"}


def batch(offset: int, count: int = 2, **more: Any) -> bytes:
    """A batch of `count` records."""
    return encode([Record(offset + at, 1000 + offset + at, b"k", b"v" * 20) for at in range(count)], **more)


def fetched(*batches: bytes, end: int = 100) -> Fetched:
    """A broker's answer."""
    return Fetched(TOPIC, 0, 0, end, end - 1, 0, None, memoryview(b"".join(batches)))


def part(first: int, end: int, *, stream: Stream = STREAM, mark: int = 100, broken: Break | None = None) -> Part:
    """One that was checked."""
    body = memoryview(batch(first, end - first))
    return Part(stream, first, end, body, end - first, 7, 3, mark, mark, 0, transactional=False, broken=broken)


def test_what_was_fetched_before_is_left_out() -> None:
    """A broker answers with the whole batch that holds the position, or one before: by offsets, never twice."""
    found = part_of(STREAM, 4, fetched(batch(0), batch(2), batch(4), batch(6, 3)))
    assert found is not None
    assert (found.first, found.next, found.count, bytes(found.batches)) == (4, 9, 5, batch(4) + batch(6, 3))
    assert part_of(STREAM, 9, fetched(batch(4), batch(6, 3))) is None


def test_a_fetch_in_the_middle_of_a_batch_keeps_it_whole() -> None:
    """As after records were deleted up to there: the batch begins before, the part at the position."""
    found = part_of(STREAM, 5, fetched(batch(4, 3)))
    assert found is not None
    assert (found.first, found.next, bytes(found.batches)) == (5, 7, batch(4, 3))


def test_the_next_position_is_by_the_last_offset_not_by_the_count() -> None:
    """A batch that compaction took records out of ends where it always did."""
    holed = encode([Record(10, 1, b"k", b"v"), Record(17, 2, b"k", b"v")])
    found = part_of(STREAM, 10, fetched(holed))
    assert found is not None
    assert (found.next, found.count) == (18, 2)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_batch_that_was_cut_off_is_left_to_the_next_fetch(cut: int) -> None:
    """Answers end where their limit is, in the middle of a batch."""
    found = part_of(STREAM, 0, fetched(batch(0), batch(2)[:cut]))
    assert found is not None
    assert (found.next, bytes(found.batches)) == (2, batch(0))


def test_a_flipped_bit_is_never_stored() -> None:
    """`kafka.crc`, wherever in the covered bytes it is."""
    whole = batch(0)
    for at in range(21, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        with pytest.raises(SourceError):
            part_of(STREAM, 0, fetched(bytes(damaged)))


def test_a_pack_is_due_after_the_linger_or_when_it_is_full() -> None:
    """Nothing gathered: never. A part: after the linger. Enough bytes: at once."""
    cutter = Cutter("cluster", 7, 0.25)
    assert cutter.due_in_s(100.0) is None
    cutter.add(part(0, 2), 100.0, AT)
    assert cutter.due_in_s(100.1) == pytest.approx(0.15)
    assert cutter.due_in_s(101.0) == 0.0
    large = memoryview(bytes(PACK_BYTES))
    cutter.add(Part(STREAM, 2, 3, large, 1, 7, 3, 9, 9, 0, transactional=False), 100.0, AT)
    assert cutter.due_in_s(100.0) == 0.0


def test_parts_become_slices_side_by_side() -> None:
    """Parts that continue each other are one slice; a jump begins another; each slice's bytes are its batches."""
    cutter = Cutter("cluster", 7, 0.25)
    other: Stream = (OTHER, 3, 1)
    parts = [part(0, 2), part(0, 5, stream=other), part(2, 3), part(9, 11, broken=Break("gap", 3)), part(11, 12)]
    for each in parts:
        cutter.add(each, 0.0, AT)
    pack = cutter.cut(NAMES, None, AT, AT)
    plaintext = pack.data.whole()
    index = parse_index(plaintext, size_bytes=pack.size_bytes, name="pack")
    assert index == pack.index
    assert [(each.stream, each.first, each.next, each.broken) for each in index.slices] == [
        (STREAM, 0, 3, None), (STREAM, 9, 12, Break("gap", 3)), (other, 0, 5, None)
    ]  # fmt: skip
    begin = len(plaintext) - sum(each.size_bytes for each in index.slices)
    bodies = [plaintext[begin + each.at : begin + each.at + each.size_bytes] for each in index.slices]
    assert bodies[0] == bytes(parts[0].batches) + bytes(parts[2].batches)
    assert (cutter.number, cutter.size_bytes, cutter.due_in_s(1e9)) == (8, 0, None)


def row(stream: Stream, end: int, *, complete: bool = False) -> Row:
    """Where a stream stands."""
    return Row(*stream, 0, end, -1, -1, -1, 0, AT, complete)


def brought(*reached: Stream, at: datetime = AT, parts: Sequence[Part] = ()) -> Brought:
    """A fetch."""
    return Brought(at, 0.0, tuple(parts), reached)


def test_the_recovery_point_is_the_oldest_of_all_streams() -> None:
    """None until each was fetched to its end and the topics were looked at; a new stream takes it away again."""
    ledger = Ledger({}, {})
    later = AT + timedelta(seconds=1)
    other: Stream = (OTHER, 0, 0)
    ledger.begin(Begun(row(STREAM, 0), "bets"))
    ledger.begin(Begun(row(other, 0), "players"))
    ledger.reach(brought(STREAM, at=later))
    ledger.look(Looked(later))
    assert ledger.recovery_point() is None
    ledger.reach(brought(other, at=AT))
    assert ledger.recovery_point() == AT
    ledger.begin(Begun(row((OTHER, 1, 0), 0), "players"))
    assert ledger.recovery_point() is None
    ledger.end(Ended((OTHER, 1, 0)))
    assert ledger.recovery_point() == AT
    ledger.reach(brought(other, at=later + timedelta(seconds=5)))
    assert ledger.recovery_point() == later  # a topic may have been made since the last look


def test_a_new_generation_holds_nothing_back_and_ends_the_old_one() -> None:
    """While it catches up the old one tells the recovery point; complete, it takes its place."""
    ledger = Ledger({}, {})
    new: Stream = (TOPIC, 0, 1)
    ledger.begin(Begun(row(STREAM, 0), "bets"))
    ledger.look(Looked(AT))
    ledger.reach(brought(STREAM))
    ledger.begin(Begun(row(new, 0), "bets"))
    assert ledger.recovery_point() == AT
    assert ledger.reach(brought(new)) == [STREAM]
    assert set(ledger.rows) == {new}
    assert ledger.rows[new].complete


def test_where_no_topic_is_captured_there_is_no_recovery_point() -> None:
    """A pattern that fits nothing, or a user who is shown nothing, must not pass for being up to date."""
    ledger = Ledger({}, {})
    ledger.look(Looked(AT))
    assert ledger.recovery_point() is None


def test_tables_and_slices_give_back_the_ledger() -> None:
    """Whatever was packed since a table, a resume ends where the ledger stood."""
    ledger = Ledger({}, {})
    other: Stream = (OTHER, 2, 0)
    ledger.begin(Begun(row(STREAM, 0), "bets"))
    ledger.begin(Begun(row(other, 0), "players"))
    indices: list[PackIndex] = []
    cutter = Cutter("cluster", 0, 0.25)
    steps = [[part(0, 2)], [part(2, 5), part(0, 1, stream=other)], [part(9, 10, broken=Break("gap", 5))]]
    for number, parts in enumerate(steps):
        for each in parts:
            assert ledger.add(each)
            cutter.add(each, 0.0, AT)
        table = ledger.table() if number == 0 else None
        indices.append(cutter.cut(ledger.topics, table, AT, None).index)
    rows, topics = applied(indices)
    assert rows == ledger.rows
    assert topics == NAMES
    assert ledger.gaps == 1


def test_a_part_of_a_stream_that_ended_is_left_out() -> None:
    """Its topic is gone: nothing of it goes into a pack without a row."""
    ledger = Ledger({}, {})
    assert not ledger.add(part(0, 2))


def cursor(partition: int, generation: int = 0, *, leader: int = 1) -> Cursor:
    """One that is fetched."""
    made = Cursor("bets", TOPIC, partition, generation, 0, AT, 0)
    made.leader = leader
    return made


def test_two_generations_of_a_partition_are_fetched_by_turns() -> None:
    """A request can hold a partition once: each gets half of them; what is held, or led elsewhere, gets none."""
    book = Book([cursor(0), cursor(0, 1), cursor(1), cursor(2), cursor(3, leader=2)])
    book.hold((TOPIC, 2, 0), "KAFKA_STORAGE_ERROR", 56)
    asked = [book.wants(1, 1000) for _ in range(6)]
    assert all(set(wants) == {(TOPIC, 0), (TOPIC, 1)} for wants in asked)
    assert sorted(wants[(TOPIC, 0)][0].generation for wants in asked) == [0, 0, 0, 1, 1, 1]
    assert set(book.wants(2, 1000)) == {(TOPIC, 3)}


def test_every_topic_is_asked_for_first_now_and_then() -> None:
    """A broker fills an answer from its front: a topic with a backlog must not keep the others' records away."""
    book = Book([cursor(0), cursor(1)])
    for topic in ("ff" * 16, "00" * 16):
        other = Cursor("other", topic, 0, 0, 0, AT, 0)
        other.leader = 1
        book.add(other)
    first = [next(iter(book.wants(1, 1000))) for _ in range(8)]
    assert Counter(first) == {(TOPIC, 0): 2, (TOPIC, 1): 2, ("ff" * 16, 0): 2, ("00" * 16, 0): 2}


def test_brokers_that_are_asked_alternately_each_turn_by_themselves() -> None:
    """Two brokers' long polls end one after the other for hours: each still gets both generations."""
    book = Book([cursor(0), cursor(0, 1), cursor(1, leader=2), cursor(1, 1, leader=2)])
    for node, partition in ((1, 0), (2, 1)):
        chosen = []
        for _ in range(4):
            chosen.append(book.wants(node, 1000)[(TOPIC, partition)][0].generation)
            book.wants(3 - node, 1000)
        assert sorted(chosen) == [0, 0, 1, 1]


def test_a_jump_is_told_by_the_next_slice_only() -> None:
    """Released at another offset, the cursor carries the break until something was fetched there."""
    book = Book([cursor(0)])
    book.hold(STREAM, "OFFSET_OUT_OF_RANGE", 1)
    book.release(STREAM, offset=50, broken=Break("gap", 7))
    found, want = book.wants(1, 1000)[(TOPIC, 0)]
    assert (want.offset, want.last_epoch, found.broken) == (50, -1, Break("gap", 7))
    book.advance(found, 60, 3, (99, 99, 0), reached=False)
    assert (found.broken, found.last_epoch) == (None, 3)


@pytest.mark.parametrize(
    ("jumps", "told"),
    [
        ([(5, "diverged", 10), (20, "gap", 5)], Break("gap", 10)),
        ([(20, "gap", 10), (5, "diverged", 20)], Break("diverged", 10)),
        ([(20, "gap", 10), (10, "diverged", 20)], None),
        ([(20, "gap", 10), (30, "gap", 20)], Break("gap", 10)),
    ],
)
def test_two_jumps_before_anything_was_fetched_are_told_so_that_it_can_be_read(jumps: Any, told: Break | None) -> None:
    """An election that lost records, then a retention: a pack that nobody can read would be all that is stored."""
    made = cursor(0)
    made.offset = 10
    book = Book([made])
    for offset, why, was in jumps:
        book.release(STREAM, offset=offset, broken=Break(why, was))
    found, _ = book.wants(1, 1000)[(TOPIC, 0)]
    assert found.broken == told
    cutter = Cutter("cluster", 7, 0.25)
    cutter.add(part(found.offset, found.offset + 1, broken=found.broken), 0.0, AT)
    pack = cutter.cut(NAMES, None, AT, AT)
    assert parse_index(pack.data.whole(), size_bytes=pack.size_bytes, name="pack").slices[0].broken == told


def test_what_a_leader_calls_stable_counts_once_the_log_is_stored_up_to_its_end_then() -> None:
    """A backlog: a transaction's abort may lie behind what is stored, though the leader told of it; not to be guessed.

    A log that was parted takes with it what was said of its end.
    """

    def told(first: int, end: int, mark: int, stable: int, broken: Break | None = None) -> Slice:
        return Slice(TOPIC, 0, 0, first, end, 0, 1, 1, 0, 0, mark, stable, 0, transactional=True, broken=broken)

    assert decided_below([told(0, 50, 50, 45)], 50) == 45
    assert decided_below([told(0, 50, 50, 45), told(50, 60, 200, 60)], 60) == 45
    assert decided_below([told(0, 50, 60, 50)], 50) == -1
    assert decided_below([told(0, 50, 60, 50), told(50, 70, 200, 70)], 70) == 50
    assert decided_below([told(0, 50, 60, 50), told(50, 90, 200, 80, Break("diverged", 60))], 90) == -1
    assert decided_below([], 0) == -1


def test_slices_out_of_line_are_refused() -> None:
    """An index whose slices overlap, or whose names lack, is malformed."""
    broken = PackIndex("cluster", {}, (Slice(TOPIC, 0, 0, 0, 1, 0, 5, 1, 1, 0, 1, 1, 0),))
    data = broken.encoded() + bytes(5)
    with pytest.raises(VaultError):
        parse_index(data, size_bytes=len(data), name="pack")
