import contextlib
import random
import struct
from typing import Any

import pytest
import snappy
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka import codecs
from dr_assets.stores.kafka.batches import (
    COMMIT,
    HEADER_BYTES,
    Record,
    at_offset,
    encode,
    marker,
    parse_header,
    records,
    split,
    with_producer,
)

_optional = st.none() | st.binary(max_size=200)
_names = st.text(max_size=8, alphabet=st.characters(exclude_categories=["Cs"])).map(str.encode)
_rows = st.lists(
    st.tuples(
        st.integers(0, 2**48), _optional, _optional, st.lists(st.tuples(_names, _optional), max_size=3).map(tuple)
    ),
    min_size=1,
    max_size=20,
)
_codecs = st.sampled_from(range(5))


def _records(rows: list[Any], first: int = 0) -> list[Record]:
    return [Record(first + index, *row) for index, row in enumerate(rows)]


@given(rows=_rows, codec=_codecs, first=st.integers(0, 2**60))
@settings(max_examples=200, deadline=None)
def test_what_is_encoded_is_decoded_equal(rows: list[Any], codec: int, first: int) -> None:
    """Keys and values that are null or empty, null and repeated headers, any times: through every codec, unchanged."""
    wanted = _records(rows, first)
    batch = encode(wanted, compression=codec)
    [(header, view)] = split(batch)
    assert list(records(view)) == wanted
    assert (header.base_offset, header.next_offset, header.compression) == (first, first + len(rows), codec)
    assert header.max_timestamp == max(row[0] for row in rows)


@given(rows=_rows, codec=_codecs)
@settings(max_examples=200, deadline=None)
def test_kafka_pythons_decoder_reads_what_we_encode(rows: list[Any], codec: int) -> None:
    """A decoder that isn't ours finds the same records and the same CRC."""
    batch = encode(_records(rows), compression=codec)
    theirs = DefaultRecordBatch(bytearray(batch))
    assert theirs.validate_crc()
    seen = [(r.timestamp, r.key, r.value, tuple((k.encode(), v) for k, v in r.headers)) for r in theirs]
    assert seen == [tuple(row) for row in rows]


@given(rows=_rows, codec=_codecs)
@settings(max_examples=200, deadline=None)
def test_what_kafka_python_encodes_is_decoded(rows: list[Any], codec: int) -> None:
    """Batches of a producer that isn't ours are read as they were meant; byte for byte ours, where uncompressed."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    plain = [(at, key, value, tuple((k, v or b"") for k, v in headers)) for at, key, value, headers in rows]
    for index, (at, key, value, headers) in enumerate(plain):
        builder.append(index, at, key, value, [(name.decode(), data) for name, data in headers])
    theirs = bytes(builder.build())
    wanted = _records(plain)
    assert list(records(theirs)) == wanted
    if codec == codecs.NONE:
        assert encode(wanted, leader_epoch=parse_header(theirs).leader_epoch) == theirs


@pytest.mark.parametrize("codec", range(1, 5))
@pytest.mark.parametrize("size", [0, 1, 32 << 10, (32 << 10) + 1, 3_000_000])
def test_codecs_return_what_they_were_given(codec: int, size: int) -> None:
    """Around and beyond the borders of their blocks."""
    data = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    assert bytes(codecs.decompress(codec, codecs.compress(codec, data))) == data


def test_snappy_without_javas_framing_is_read() -> None:
    """A bare block is what librdkafka sends."""
    assert codecs.decompress(codecs.SNAPPY, snappy.compress(b"bet" * 1000)) == b"bet" * 1000


@pytest.mark.parametrize("codec", range(1, 5))
def test_damaged_data_of_a_codec_is_an_error_of_the_sources(codec: int) -> None:
    """No library's own exception comes through, neither for cut data nor for other bytes."""
    packed = codecs.compress(codec, random.Random(1).randbytes(9_000))
    for broken in (packed[: len(packed) // 2], b"\x11\x22" * 50):
        with pytest.raises(SourceError) as caught:
            codecs.decompress(codec, broken)
        assert caught.value.code == "kafka.codec"


def test_a_snappy_bomb_is_refused_before_it_is_given_memory() -> None:
    """A block that says it has 4 GiB ends with an error."""
    with pytest.raises(SourceError, match="over 1073741824 bytes"):
        codecs.decompress(codecs.SNAPPY, b"\xff\xff\xff\xff\x0f" + bytes(20))


def test_lz4_is_of_independent_blocks() -> None:
    """Kafka's Java reader refuses frames whose blocks need each other: bit 5 of the frame's flags."""
    assert codecs.compress(codecs.LZ4, bytes(200_000))[4] & 0x20


def test_an_unknown_codec_is_refused() -> None:
    """5 to 7 are nobody's."""
    with pytest.raises(SourceError, match="codec 6"):
        codecs.decompress(6, b"x")


def test_a_cut_tail_ends_a_split_silently_and_a_flipped_bit_does_not() -> None:
    """Fetches end in mid-batch; damage inside a whole batch is never passed on."""
    one = encode([Record(0, 1, b"k", b"v")])
    two = encode([Record(1, 1, b"k", b"v" * 50), Record(2, 1, None, None)])
    data = one + two
    for end in range(len(data)):
        found = [header.base_offset for header, _ in split(data[:end])]
        assert found == ([0] if end >= len(one) else [])
    for at in range(21, len(data)):
        if len(one) <= at < len(one) + 21:
            continue
        flipped = bytearray(data)
        flipped[at] ^= 4
        with pytest.raises(SourceError) as caught:
            list(split(flipped))
        assert caught.value.code in {"kafka.crc", "kafka.batch"}


def test_another_producer_changes_these_fields_and_the_crc_alone() -> None:
    """A batch taken from an idempotent producer becomes nobody's, its records untouched."""
    batch = encode([Record(7, 1, b"k", b"v")], producer_id=900, producer_epoch=3, base_sequence=44, compression=4)
    freed = with_producer(batch, -1, -1, -1)
    header = parse_header(freed)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (-1, -1, -1)
    assert freed[HEADER_BYTES:] == batch[HEADER_BYTES:]
    assert freed[:17] == batch[:17]
    assert freed[21:43] == batch[21:43]
    assert [found.base_offset for found, _ in split(freed)] == [7]


def test_a_batch_moves_to_another_offset_with_its_crc() -> None:
    """Brokers do the same when they append."""
    moved = at_offset(encode([Record(7, 1, b"k", b"v")]), 100, 5)
    [(header, view)] = split(moved)
    assert (header.base_offset, header.leader_epoch) == (100, 5)
    assert [record.offset for record in records(view)] == [100]


def test_holes_are_kept_or_closed() -> None:
    """Compacted batches keep their range; re-encoded from an offset they have none."""
    thin = [Record(10, 5, b"a", b"1"), Record(13, 6, b"b", b"2")]
    kept, closed = encode(thin), encode(thin, base_offset=0)
    assert parse_header(kept).next_offset == 14
    assert not parse_header(kept).is_dense
    assert parse_header(closed).is_dense
    assert [record.offset for record in records(kept)] == [10, 13]
    assert [record.offset for record in records(closed)] == [0, 1]


def test_log_append_time_is_the_batchs() -> None:
    """Records of such a topic carry the broker's time, whatever the producer wrote."""
    batch = bytearray(encode([Record(0, 5, None, b"1"), Record(1, 9, None, b"2")]))
    struct.pack_into(">h", batch, 21, 0x08)
    struct.pack_into(">q", batch, 35, 1234)
    assert [record.timestamp for record in records(batch)] == [1234, 1234]


def test_a_marker_is_read() -> None:
    """Commit or abort stands in a control record's key."""
    batch = encode([Record(3, 1, struct.pack(">hh", 0, COMMIT), struct.pack(">hi", 0, 7))], control=True)
    assert parse_header(batch).is_control
    assert marker(batch) == COMMIT


@given(data=st.binary(min_size=61, max_size=200))
def test_bytes_that_are_no_batch_end_in_an_error_of_the_sources(data: bytes) -> None:
    """Nothing else escapes, however they look."""
    with contextlib.suppress(SourceError):
        for _, batch in split(data, check_crc=False):
            list(records(batch))


@given(rows=_rows, at=st.integers(0, 10_000), byte=st.integers(0, 255))
@settings(deadline=None)
def test_records_of_a_damaged_body_end_in_an_error_of_the_sources(rows: list[Any], at: int, byte: int) -> None:
    """A producer's own nonsense, under a CRC that fits, is an error with a code, not a traceback."""
    batch = bytearray(encode(_records(rows)))
    batch[HEADER_BYTES + at % (len(batch) - HEADER_BYTES)] = byte
    with contextlib.suppress(SourceError):
        list(records(batch))


def test_old_message_formats_are_named() -> None:
    """Formats 0 and 1 have another layout: refused, not misread."""
    old = bytearray(encode([Record(0, 1, None, b"1")]))
    old[16] = 1
    with pytest.raises(SourceError, match="message format 1"):
        list(split(old))
