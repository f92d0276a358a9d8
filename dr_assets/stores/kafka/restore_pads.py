"""Pads: batches of empty records that bring a fresh partition to the offset at which the old one began.

What belongs here: making them, and what they cost. What stays out: producing them, and DeleteRecords, after which
nothing of them is to be seen (restore_write.py).

A broker wants one record for every offset and looks at each, so the cost grows with the offsets: 0.17 seconds of one
core of an Apache Kafka 4 broker for a million, measured, and 0.8 MB of its disk until its segments go.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from dr_assets.stores.kafka import codecs
from dr_assets.stores.kafka.batches import assemble, put_varint

PAD_RECORDS: Final = 1_000_000
BROKER_S_PER_MILLION: Final = 0.17
DISK_BYTES_PER_MILLION: Final = 820_000
# The delta's varint has seven bits a byte, doubled by zigzag: 64 neighbours differ in its first byte alone.
_BLOCK: Final = 64
_FIELDS_BEFORE: Final = b"\x00\x00"  # attributes, timestamp delta
_FIELDS_BEHIND: Final = b"\x01\x01\x00"  # null key, null value, no headers


def pads(count: int) -> Iterator[tuple[bytes, int]]:
    """Batches that together take `count` offsets, each with how many."""
    while count > 0:
        size = min(count, PAD_RECORDS)
        yield pad(size), size
        count -= size


@lru_cache(maxsize=2)
def pad(count: int) -> bytes:
    """One batch of `count` records without key, value or header, at timestamp 0."""
    return assemble(
        codecs.compress(codecs.ZSTD, _records(count), level=1),
        base_offset=0,
        leader_epoch=-1,
        attributes=codecs.ZSTD,
        last_offset_delta=count - 1,
        base_timestamp=0,
        max_timestamp=0,
        producer=(-1, -1, -1),
        count=count,
    )


def _records(count: int) -> bytes:
    out = bytearray()
    for delta in range(min(count, _BLOCK)):
        varint = bytearray()
        put_varint(varint, delta)
        out += _record_head(len(varint)) + varint + _FIELDS_BEHIND
    lows = [bytes([delta << 1 & 0x7F | 0x80]) for delta in range(_BLOCK)]
    for block in range(1, -(-count // _BLOCK)):
        high = bytearray()
        rest = block
        while rest > 0x7F:  # noqa: PLR2004 - seven bits a byte
            high.append(rest & 0x7F | 0x80)
            rest >>= 7
        high.append(rest)
        head = _record_head(1 + len(high))
        tail = bytes(high) + _FIELDS_BEHIND
        out += head + (tail + head).join(lows[: min(_BLOCK, count - block * _BLOCK)]) + tail
    return bytes(out)


def _record_head(varint_bytes: int) -> bytes:
    size = len(_FIELDS_BEFORE) + varint_bytes + len(_FIELDS_BEHIND)
    return bytes([size << 1]) + _FIELDS_BEFORE
