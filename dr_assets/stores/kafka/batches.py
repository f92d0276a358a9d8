"""Record batches of Kafka's format 2: their headers, their CRC, the records inside, and new ones.

What belongs here: bytes to values and back, with no broker at hand. What stays out: fetching and producing (wire.py),
compression (codecs.py). Source: Kafka's own definition of the message format, version 2 (KIP-98, KIP-534).

A batch's CRC covers its bytes from the attributes on. Base offset, length and leader epoch lie before it: a broker sets
them when it appends, so a batch keeps its CRC at another offset. The producer's id, epoch and sequence lie behind it.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import crc32c

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka import codecs

HEADER_BYTES: Final = 61
# What the length field does not count: the base offset and itself.
PREFIX_BYTES: Final = 12
CRC_FROM: Final = 21
MAGIC: Final = 2

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_PRODUCER: Final = struct.Struct(">qhi")
_PRODUCER_AT: Final = 43
_CODEC_MASK: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_DELETE_HORIZON: Final = 0x40

ABORT, COMMIT = 0, 1

Headers = tuple[tuple[bytes, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """A batch's first 61 bytes. `size_bytes` is all of it, the 12 bytes of its prefix included."""

    base_offset: int
    size_bytes: int
    leader_epoch: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int

    @property
    def next_offset(self) -> int:
        """The first offset behind the batch; compaction may have taken records, never this."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def is_control(self) -> bool:
        """A transaction's marker: takes an offset, is no record of anybody's."""
        return bool(self.attributes & _CONTROL)

    @property
    def is_transactional(self) -> bool:
        """Written inside a transaction."""
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def compression(self) -> int:
        """The codec's number (codecs.NAMES)."""
        return self.attributes & _CODEC_MASK

    @property
    def is_log_append_time(self) -> bool:
        """Every record's time is the broker's, `max_timestamp`, whatever the records say."""
        return bool(self.attributes & _LOG_APPEND_TIME)

    @property
    def has_delete_horizon(self) -> bool:
        """The cleaner wrote this batch: it holds tombstones or a marker that may be dropped from a moment on."""
        return bool(self.attributes & _DELETE_HORIZON)

    @property
    def is_dense(self) -> bool:
        """One record for every offset of its range: nothing was compacted away."""
        return self.count == self.last_offset_delta + 1


class Record(NamedTuple):
    """One record as a consumer sees it. Header names are bytes: a producer may send any."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def parse_header(view: memoryview | bytes, at: int = 0) -> BatchHeader:
    """The header at `at`. Raises SourceError (`kafka.batch`) where no batch of format 2 begins."""
    if len(view) - at < HEADER_BYTES:
        raise _broken(f"{len(view) - at} bytes are left where a batch's header has {HEADER_BYTES}")
    base, length, epoch, magic, crc, attributes, last_delta, first_at, last_at, producer, producer_epoch, seq, count = (
        _HEADER.unpack_from(view, at)
    )
    if magic != MAGIC:
        raise SourceError(
            "kafka.magic",
            f"a batch at offset {base} has message format {magic}, only {MAGIC} is read (brokers write it since 2017)",
            "have the topic's old segments rewritten, or declare it excluded",
        )
    if length < HEADER_BYTES - PREFIX_BYTES or last_delta < 0 or base < 0:
        raise _broken(f"a batch at offset {base} says it has {length} bytes and a last offset delta of {last_delta}")
    return BatchHeader(
        base,
        length + PREFIX_BYTES,
        epoch,
        crc,
        attributes,
        last_delta,
        first_at,
        last_at,
        producer,
        producer_epoch,
        seq,
        count,
    )


def split(data: memoryview | bytes, *, check_crc: bool = True) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Every whole batch with its header, in order; views into `data`.

    A batch cut off at the end is left out without a word: fetches end so. Raises SourceError (`kafka.crc`) for one
    whose bytes aren't what its producer sent.
    """
    view = memoryview(data)
    at = 0
    while len(view) - at >= HEADER_BYTES:
        header = parse_header(view, at)
        if len(view) - at < header.size_bytes:
            return
        batch = view[at : at + header.size_bytes]
        if check_crc and crc32c.crc32c(batch[CRC_FROM:]) != header.crc:
            raise SourceError(
                "kafka.crc",
                f"the batch at offset {header.base_offset} has the CRC {crc32c.crc32c(batch[CRC_FROM:]):08x}, its "
                f"header says {header.crc:08x}",
                "it was damaged on the way or on the broker's disk: try again, then another replica",
            )
        yield header, batch
        at += header.size_bytes


def records(batch: memoryview | bytes) -> Iterator[Record]:
    """The records of one batch, decompressed; a control batch's are its marker's.

    Raises SourceError (`kafka.record`, `kafka.codec`) when they cannot be read.
    """
    header = parse_header(batch)
    body = bytes(codecs.decompress(header.compression, memoryview(batch)[HEADER_BYTES : header.size_bytes]))
    fixed_at = header.max_timestamp if header.is_log_append_time else None
    at = 0
    try:
        for _ in range(header.count):
            record, at = _record(body, at, header, fixed_at)
            yield record
    except (IndexError, ValueError) as error:
        raise SourceError(
            "kafka.record",
            f"the batch at offset {header.base_offset} can't be decoded: {error}",
            "its CRC fits, so its producer wrote it so; it can be restored as it is, not looked into",
        ) from error


def marker(batch: memoryview | bytes) -> int:
    """What a control batch says: ABORT, COMMIT, or another of the broker's own types."""
    record = next(records(batch), None)
    if record is None or record.key is None or len(record.key) < 4:  # noqa: PLR2004 - two int16: version, type
        raise _broken(f"the control batch at offset {parse_header(batch).base_offset} holds no marker")
    kind: int = struct.unpack_from(">h", record.key, 2)[0]
    return kind


def encode(
    records: Sequence[Record],
    *,
    compression: int = codecs.NONE,
    level: int | None = None,
    base_offset: int | None = None,
    leader_epoch: int = -1,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
    control: bool = False,
) -> bytes:
    """A batch of these records, with CreateTime; offsets as they are, or from `base_offset` on without holes."""
    first = records[0].offset
    last_delta = len(records) - 1 if base_offset is not None else records[-1].offset - first
    base_at = records[0].timestamp
    out = bytearray()
    for index, record in enumerate(records):
        put_record(out, record, index if base_offset is not None else record.offset - first, base_at)
    attributes = compression | (_TRANSACTIONAL if transactional else 0) | (_CONTROL if control else 0)
    return assemble(
        codecs.compress(compression, bytes(out), level=level),
        base_offset=first if base_offset is None else base_offset,
        leader_epoch=leader_epoch,
        attributes=attributes,
        last_offset_delta=last_delta,
        base_timestamp=base_at,
        max_timestamp=max(record.timestamp for record in records),
        producer=(producer_id, producer_epoch, base_sequence),
        count=len(records),
    )


def assemble(
    body: bytes,
    *,
    base_offset: int,
    leader_epoch: int,
    attributes: int,
    last_offset_delta: int,
    base_timestamp: int,
    max_timestamp: int,
    producer: tuple[int, int, int],
    count: int,
) -> bytes:
    """A batch around records that are encoded, and compressed, already."""
    length = HEADER_BYTES + len(body) - PREFIX_BYTES
    batch = bytearray(HEADER_BYTES + len(body))
    fields = (attributes, last_offset_delta, base_timestamp, max_timestamp, *producer, count)
    _HEADER.pack_into(batch, 0, base_offset, length, leader_epoch, MAGIC, 0, *fields)
    batch[HEADER_BYTES:] = body
    return _sealed(batch)


def with_producer(batch: memoryview | bytes, producer_id: int, epoch: int, sequence: int) -> bytes:
    """The same batch under another producer: these three fields and the CRC change, nothing else."""
    changed = bytearray(batch)
    _PRODUCER.pack_into(changed, _PRODUCER_AT, producer_id, epoch, sequence)
    return _sealed(changed)


def at_offset(batch: memoryview | bytes, base_offset: int, leader_epoch: int = -1) -> bytes:
    """The same batch elsewhere; its CRC holds, for it does not cover these fields."""
    moved = bytearray(batch)
    struct.pack_into(">q", moved, 0, base_offset)
    struct.pack_into(">i", moved, PREFIX_BYTES, leader_epoch)
    return bytes(moved)


def put_varint(out: bytearray, value: int) -> None:
    """Zigzag, then seven bits a byte, as protocol buffers do."""
    rest = (value << 1) ^ (value >> 63)
    while rest > 0x7F:  # noqa: PLR2004 - seven bits
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


def _sealed(batch: bytearray) -> bytes:
    struct.pack_into(">I", batch, CRC_FROM - 4, crc32c.crc32c(memoryview(batch)[CRC_FROM:]))
    return bytes(batch)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if byte < 0x80:  # noqa: PLR2004 - most are one byte
        return (byte >> 1) ^ -(byte & 1), at
    value = byte & 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - no continuation bit
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 63:  # noqa: PLR2004 - Kafka's longest is of 64 bits
            raise ValueError("a number of more than 64 bits")


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = _varint(data, at)
    if size < 0:
        return None, at
    if at + size > len(data):
        raise ValueError("a field ends behind the batch")
    return data[at : at + size], at + size


def _record(data: bytes, at: int, header: BatchHeader, fixed_at: int | None) -> tuple[Record, int]:
    size, at = _varint(data, at)
    end = at + size
    at += 1  # a record's own attributes: none is defined
    at_delta, at = _varint(data, at)
    offset_delta, at = _varint(data, at)
    key, at = _bytes(data, at)
    value, at = _bytes(data, at)
    count, at = _varint(data, at)
    headers: Headers = ()
    if count:
        headers, at = _headers(data, at, count)
    if at != end or size < 0:
        raise ValueError(f"a record's length is {size}, its fields end {end - at} bytes before that")
    timestamp = header.base_timestamp + at_delta if fixed_at is None else fixed_at
    return Record(header.base_offset + offset_delta, timestamp, key, value, headers), at


def _headers(data: bytes, at: int, count: int) -> tuple[Headers, int]:
    if count < 0:
        raise ValueError(f"a record with {count} headers")
    found = []
    for _ in range(count):
        name, at = _bytes(data, at)
        value, at = _bytes(data, at)
        if name is None:
            raise ValueError("a header without a name")
        found.append((name, value))
    return tuple(found), at


def _put_bytes(out: bytearray, value: bytes | None) -> None:
    if value is None:
        out.append(1)  # -1 in zigzag
        return
    put_varint(out, len(value))
    out += value


def put_record(out: bytearray, record: Record, offset_delta: int, base_at: int) -> None:
    """A record as it lies in a batch's body, before compression; its time against the batch's `base_at`."""
    body = bytearray(1)
    put_varint(body, record.timestamp - base_at)
    put_varint(body, offset_delta)
    _put_bytes(body, record.key)
    _put_bytes(body, record.value)
    put_varint(body, len(record.headers))
    for name, value in record.headers:
        _put_bytes(body, name)
        _put_bytes(body, value)
    put_varint(out, len(body))
    out += body


def _broken(found: str) -> SourceError:
    return SourceError("kafka.batch", found, "these bytes are no record batches of Kafka's format 2")
