"""Records of erased people come back from an export without what they said, at the offsets they had."""

import pytest

from dr_assets.stores.kafka import codecs
from dr_assets.stores.kafka.batches import Record, encode, parse_header, records, split
from dr_assets.stores.kafka.erase import TopicEraser
from dr_assets.vault.subjects.erased import ErasureList
from dr_assets.vault.subjects.history import SoftDeletion
from dr_assets_tests.faults.vault.sample import StillClock
from dr_assets_tests.unit.test_subject_ring import IDS

NOW = StillClock().at
KEYED = r"player-(?P<subject>[0-9]+)"


def _eraser(*people: str, pattern: str = KEYED) -> TopicEraser:
    listed = {IDS.of(who): SoftDeletion(IDS.of(who), NOW, NOW, "a", is_marked=True) for who in people}
    return TopicEraser(pattern, ErasureList(listed), IDS)


def _rows(begin: int = 100) -> list[Record]:
    keys = [b"player-1", b"player-2", None, b"\xff\xfe", b"other-1", b"player-1", b"player-11"]
    return [
        Record(begin + number, 1_700_000_000_000 + number * 7, key, b"value %d" % number, ((b"h", b"x"), (b"h", None)))
        for number, key in enumerate(keys)
    ]


@pytest.mark.parametrize("compression", range(5))
@pytest.mark.parametrize("transactional", [False, True])
def test_their_values_and_headers_go_and_everything_else_stays(compression: int, *, transactional: bool) -> None:
    """Offsets, keys, times, other records, codec, producer and transaction as they were; the CRC is right."""
    batch = encode(
        _rows(), compression=compression, producer_id=7, producer_epoch=3, base_sequence=11,
        transactional=transactional, leader_epoch=5,
    )  # fmt: skip
    eraser = _eraser("1")
    blanked = eraser.blank(memoryview(batch))
    ((header, there),) = split(blanked)
    was = parse_header(batch)
    for name in (
        "base_offset", "leader_epoch", "attributes", "last_offset_delta", "base_timestamp", "max_timestamp",
        "producer_id", "producer_epoch", "base_sequence", "count",
    ):  # fmt: skip
        assert getattr(header, name) == getattr(was, name), name
    wanted = [row._replace(value=None, headers=()) if row.key == b"player-1" else row for row in _rows()]
    assert list(records(there)) == wanted
    assert (eraser.blanked.records, eraser.blanked.people) == (2, {IDS.of("1")})


def test_batches_without_anybody_pass_byte_for_byte() -> None:
    """The very same view, when nobody of the erased is in it; of several batches only theirs change; markers never."""
    one = encode([Record(0, 5, b"player-2", b"a"), Record(1, 6, b"player-3", b"b")], compression=codecs.ZSTD)
    view = memoryview(one)
    assert _eraser("1").blank(view) is view
    theirs = encode([Record(2, 7, b"player-1", b"mine")])
    marker = encode([Record(3, 8, b"\0\0\0\1", b"\0\0\0\0\0\0")], transactional=True, control=True)
    after = bytes(_eraser("1", pattern=r"(?P<subject>.*)|player-1").blank(memoryview(one + theirs + marker)))
    assert after == one + theirs + marker
    blanked = bytes(_eraser("1").blank(memoryview(one + theirs + marker)))
    assert blanked[: len(one)] == one
    assert blanked[-len(marker) :] == marker
    assert b"mine" not in blanked


def test_a_hole_in_a_compacted_batch_stays_where_it_was() -> None:
    """Offsets that the cleaner took are taken afterwards too, and those behind them stay."""
    rows = [Record(10, 5, b"player-1", b"a"), Record(14, 6, b"player-2", b"b"), Record(19, 9, b"player-1", None)]
    ((header, there),) = split(_eraser("1").blank(memoryview(encode(rows))))
    assert header.next_offset == 20
    assert [(row.offset, row.value) for row in records(there)] == [(10, None), (14, b"b"), (19, None)]
