import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres import wal

SEGMENT = 1 << 16
"""Small segments (the arithmetic takes any size), so that a test crosses several."""


@dataclass
class WalWriter:
    """Writes WAL as a server does, byte for byte in the parts that the reader looks at."""

    base: int
    data: bytearray = field(default_factory=bytearray)
    previous: int = 0
    ends: list[tuple[int, int]] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Where the next byte goes."""
        return self.base + len(self.data)

    def page_header(self, remaining: int, info: int) -> None:
        """Begin a page."""
        long = self.position % SEGMENT == 0
        info |= wal.LONG_HEADER if long else 0
        self.data += struct.pack("<HHIQI4x", 0xD116, info, 1, self.position, remaining)
        if long:
            self.data += struct.pack("<QII", 7, SEGMENT, wal.PAGE_BYTES)

    def record(self, payload_bytes: int, rmid: int = 10, info: int = 0) -> tuple[int, int]:
        """Write one record; returns its [begin, end)."""
        if self.position % wal.PAGE_BYTES == 0:
            self.page_header(0, 0)
        begin = self.position
        total = wal.RECORD_HEADER_BYTES + payload_bytes
        payload = bytes(i * 31 & 0xFF for i in range(payload_bytes))
        head = struct.pack("<IIQBBxx", total, 5, self.previous, info, rmid)
        crc = wal.crc32c(head, wal.crc32c(payload))
        self.pour(head + struct.pack("<I", crc) + payload)
        self.data += bytes(-len(self.data) % 8)
        end = self.position
        if rmid == 0 and info == wal.XLOG_SWITCH:
            self.data += bytes(wal.segment_ceil(end, SEGMENT) - end)
            end = self.position
        self.previous = begin
        self.ends.append((begin, end))
        return begin, end

    def pour(self, body: bytes) -> None:
        """Write bytes over as many pages as they need."""
        while body:
            if self.position % wal.PAGE_BYTES == 0:
                self.page_header(len(body), wal.CONTINUES_RECORD)
            room = wal.PAGE_BYTES - self.position % wal.PAGE_BYTES
            self.data += body[:room]
            body = body[room:]

    def page_of(self, position: int) -> bytes:
        """The page at a position, as far as written."""
        start = position - self.base
        return bytes(self.data[start : start + wal.PAGE_BYTES])

    def last(self, end: int | None = None) -> wal.Record | None:
        """What the code under test finds."""
        return wal.last_complete_record(self.page_of, self.base, self.position if end is None else end, SEGMENT)


def written(sizes: list[int]) -> WalWriter:
    """WAL of records with these payloads."""
    writer = WalWriter(base=3 * SEGMENT)
    for size in sizes:
        writer.record(size)
    return writer


@settings(max_examples=120, deadline=None)
@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=25), st.data())
def test_wal_cut_anywhere_ends_at_the_last_record_that_lies_whole_before_the_cut(
    sizes: list[int], data: st.DataObject
) -> None:
    """Whatever byte the stored WAL ends at, the end found is that of the last record whose every byte is there."""
    writer = written(sizes)
    cut = data.draw(st.integers(writer.base, writer.position))
    # A record is complete with its last byte; the padding that aligns it carries nothing.
    whole = [(b, e) for b, e in writer.ends if e - 8 < cut and _unpadded_end(writer, b) <= cut]
    found = writer.last(cut)
    assert (None if found is None else (found.begin, found.end)) == (whole[-1] if whole else None)


def _unpadded_end(writer: WalWriter, begin: int) -> int:
    start = begin - writer.base
    total = int.from_bytes(writer.data[start : start + 4], "little")
    last_byte = wal.record_end(begin, total, SEGMENT)
    return last_byte - (-total % 8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=2, max_size=20))
def test_walking_yields_every_record_with_the_positions_that_the_writer_gave(sizes: list[int]) -> None:
    """From a segment's begin every record is found, in order, over page and segment borders."""
    writer = written(sizes)
    found = list(wal.records(writer.page_of, writer.base, writer.position, SEGMENT))
    assert [(r.begin, r.end) for r in found] == writer.ends


def test_a_switch_ends_with_its_segment() -> None:
    """XLOG_SWITCH ends where its segment ends, also when the empty rest of the segment is not stored."""
    writer = written([100])
    begin, end = writer.record(0, rmid=0, info=wal.XLOG_SWITCH)
    assert end % SEGMENT == 0
    for cut in (begin + 24, begin + 3000, end):
        last = writer.last(cut)
        assert last is not None
        assert (last.begin, last.end, last.is_switch) == (begin, end, True)


def test_empty_pages_behind_a_switch_hide_nothing_that_follows_in_the_next_segment() -> None:
    """The search walks back over zeroed pages, and a record behind them is found before them."""
    writer = written([100])
    writer.record(0, rmid=0, info=wal.XLOG_SWITCH)
    begin, end = writer.record(50)
    last = writer.last()
    assert last is not None
    assert (last.begin, last.end) == (begin, end)


def test_a_record_given_up_in_a_crash_is_stepped_over() -> None:
    """After a crash the server overwrites the rest of a half-written record from the next page on."""
    writer = written([100])
    good = writer.previous
    writer.pour(struct.pack("<IIQBBxxI", 20_000, 5, good, 0, 10, 1) + bytes(4000))
    writer.data += bytes(-len(writer.data) % wal.PAGE_BYTES)
    writer.page_header(0, wal.OVERWRITES_RECORD)
    begin, end = writer.record(16, rmid=0, info=0xD0)
    assert [(r.begin, r.end) for r in wal.records(writer.page_of, writer.base, writer.position, SEGMENT)][-1] == (
        begin,
        end,
    )
    assert writer.last().end == end  # type: ignore[union-attr]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32))
def test_a_flipped_bit_in_the_last_page_is_damage_or_moves_the_end(seed: int) -> None:
    """No flip inside the last record goes unseen: either it is named as damage or the record is not complete."""
    writer = written([3000, 3000, 500])
    begin, _ = writer.ends[-1]
    offset = begin - writer.base + seed % (wal.RECORD_HEADER_BYTES + 500)
    writer.data[offset] ^= 1 << (seed % 8)
    try:
        last = writer.last()
    except VaultError:
        return
    assert last is not None
    assert last.begin < begin


def test_no_record_at_all_is_said() -> None:
    """A chain that ends inside its first record has no complete one."""
    writer = written([5000])
    assert writer.last(writer.base + 200) is None
    assert writer.last(writer.base + 10) is None


@pytest.mark.parametrize(
    ("timeline", "position", "segment_bytes", "name"),
    [
        (1, 0x1_0000_0000, 16 << 20, "000000010000000100000000"),
        (1, 0xFFFF_FFFF, 16 << 20, "0000000100000000000000FF"),
        (0xA, 0x16_B374D848, 16 << 20, "0000000A00000016000000B3"),
        (1, 0x2_4000_0000, 1 << 30, "000000010000000200000001"),
    ],
)
def test_segment_names_are_those_of_pg_walfile_name(
    timeline: int, position: int, segment_bytes: int, name: str
) -> None:
    """Names agree with what the server calls its files, for any segment size."""
    assert wal.segment_name(timeline, position, segment_bytes) == name


def test_crc_is_castagnolis() -> None:
    """The check value of CRC-32C, in one piece and in two."""
    assert wal.crc32c(b"123456789") == 0xE3069283
    assert wal.crc32c(b"6789", wal.crc32c(b"12345")) == 0xE3069283
