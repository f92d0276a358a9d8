"""The WAL's own arithmetic: segment names, page headers, where a record ends, where the last whole one ends.

What belongs here: pure functions over WAL bytes and positions. What stays out: files, servers, the vault, the text
form of an LSN (lsn.py). The end of the last complete record is found here independently of the server that replays,
so that a replay which stopped early is seen.

Source of the rules: PostgreSQL's xlogreader.c, xlogrecord.h and xlog_internal.h, alike in 15 to 18.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.crc32c import crc32c
from dr_assets.stores.postgres.lsn import format_lsn

PAGE_BYTES = 8192
SHORT_HEADER_BYTES = 24
LONG_HEADER_BYTES = 40
RECORD_HEADER_BYTES = 24

CONTINUES_RECORD = 0x0001
LONG_HEADER = 0x0002
OVERWRITES_RECORD = 0x0008

RM_XLOG = 0
RM_XACT = 1
XLOG_SWITCH = 0x40
XLOG_RESTORE_POINT = 0x70

_PAGE = struct.Struct("<HHIQI")
_LONG = struct.Struct("<QII")
_RECORD = struct.Struct("<IIQBBxxI")
# The same without its CRC: length, transaction, predecessor, info, resource manager.
RECORD_HEAD = struct.Struct("<IIQBB")
_CRC_OFFSET = 20
_ALIGNMENT = 8
# Every version's magic has this high byte; the low one counts the versions.
_MAGIC_HIGH = 0xD1
# An XLogRecord larger than this cannot exist (XLogRecordMaxSize), so such a length is damage.
_RECORD_MAX_BYTES = 1020 * 1024 * 1024

PageOf = Callable[[int], bytes | memoryview]
"""The bytes of the page that begins at a position; shorter than a page where the known WAL ends inside it."""


@dataclass(frozen=True, slots=True)
class PageHeader:
    """The head of a WAL page. `remaining` counts the bytes, from here on, of a record begun on an earlier page."""

    magic: int
    info: int
    timeline: int
    position: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Record:
    """One complete record: [begin, end) with `begin` behind a page header and `end` where replay would report it."""

    begin: int
    end: int
    total_bytes: int
    previous: int
    resource_manager: int
    info: int

    @property
    def is_switch(self) -> bool:
        """Whether this record ends its segment (XLOG_SWITCH)."""
        return self.resource_manager == RM_XLOG and self.info & 0xF0 == XLOG_SWITCH


def segment_name(timeline: int, position: int, segment_bytes: int) -> str:
    """Name of the file in pg_wal that holds the byte at `position`: timeline, high part, low part."""
    per_id = 0x1_0000_0000 // segment_bytes
    number = position // segment_bytes
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"


def segment_begin(position: int, segment_bytes: int) -> int:
    """Position of the first byte of the segment that holds `position`."""
    return position - position % segment_bytes


def segment_ceil(position: int, segment_bytes: int) -> int:
    """The first segment boundary at or behind `position`."""
    return -(-position // segment_bytes) * segment_bytes


def page_begin(position: int) -> int:
    """Position of the first byte of the page that holds `position`."""
    return position - position % PAGE_BYTES


def header_bytes(position: int, segment_bytes: int) -> int:
    """Length of the page header at a page's begin: the first page of a segment has the long one."""
    return LONG_HEADER_BYTES if position % segment_bytes == 0 else SHORT_HEADER_BYTES


def record_end(begin: int, total_bytes: int, segment_bytes: int, *, switch: bool = False) -> int:
    """Where a record that begins at `begin` ends, over all page headers between, aligned to 8.

    A record that fills its page ends at the page's end, not behind the next header; a switch ends with its segment.
    """
    remaining = aligned(total_bytes)
    position = begin
    room = PAGE_BYTES - position % PAGE_BYTES
    while remaining > room:
        remaining -= room
        position += room
        position += header_bytes(position, segment_bytes)
        room = PAGE_BYTES - position % PAGE_BYTES
    end = position + remaining
    return segment_ceil(end, segment_bytes) if switch else end


def parse_page_header(page: bytes | memoryview) -> PageHeader:
    """The page header at the begin of `page`, which holds 24 bytes or more."""
    return PageHeader(*_PAGE.unpack_from(page))


def parse_long_header(page: bytes | memoryview) -> tuple[int, int, int]:
    """System identifier, segment size and page size from a segment's first page, which holds 40 bytes or more."""
    system_id, segment_bytes, page_bytes = _LONG.unpack_from(page, SHORT_HEADER_BYTES)
    return system_id, segment_bytes, page_bytes


def last_complete_record(page_of: PageOf, begin: int, end: int, segment_bytes: int) -> Record | None:
    """The last record that lies wholly before `end`, in WAL known on [begin, end); None when there is none.

    `end` may lie anywhere, also inside a record or a header: what it cuts is not complete. Only the tail is read:
    the search walks from the last page, then from the one before, until a page begins a record that ends in time.
    Raises VaultError (`wal.damaged`) when something before `end` is no WAL.
    """
    start = page_begin(max(begin, end - 1))
    while start >= page_begin(begin):
        last = None
        for record in records(page_of, start, end, segment_bytes):
            last = record
        if last is not None:
            return last
        start -= PAGE_BYTES
    return None


def records(page_of: PageOf, start: int, end: int, segment_bytes: int) -> Iterator[Record]:
    """The complete records whose first byte lies behind `start` (a page's begin), up to `end`, each CRC checked.

    Stops at a record that `end` cuts, and where a page has no more records. Raises VaultError (`wal.damaged`).
    """
    walk = _Walk(page_of, end, segment_bytes)
    position = walk.first_record(start)
    previous: int | None = None
    while position is not None:
        found = walk.record_at(position, previous)
        if isinstance(found, int):
            # The record at `position` was given up when the server crashed; its place is taken from this page on.
            position = found
            continue
        if found is None:
            return
        yield found
        previous, position = found.begin, found.end


class _Walk:
    """Reads records as xlogreader does; `end` is where the known bytes end."""

    def __init__(self, page_of: PageOf, end: int, segment_bytes: int) -> None:
        self._page_of = page_of
        self._end = end
        self._segment_bytes = segment_bytes

    def first_record(self, start: int) -> int | None:
        """Where the first record that begins on the page at `start` (or behind its continuation) begins."""
        head = self._header(start)
        if head is None or head.magic == 0:
            return None
        if not head.info & CONTINUES_RECORD:
            return start
        return record_end(start + header_bytes(start, self._segment_bytes), head.remaining, self._segment_bytes)

    def record_at(self, position: int, previous: int | None) -> Record | int | None:
        """The record at `position`; None where none is complete; the page to go on from when it was given up."""
        begin = position
        if position % PAGE_BYTES == 0:
            head = self._header(position)
            if head is None or head.magic == 0:
                return None
            begin += header_bytes(position, self._segment_bytes)
        if begin + 4 > self._end:
            return None
        total_bytes = int.from_bytes(self._slice(begin, begin + 4), "little")
        if total_bytes == 0:
            return None
        if not RECORD_HEADER_BYTES <= total_bytes <= _RECORD_MAX_BYTES:
            raise _damaged(begin, f"a record length of {total_bytes}")
        body = self._body(begin, total_bytes)
        if body is None or isinstance(body, int):
            return body
        return self._checked(begin, body, previous)

    def _checked(self, begin: int, body: bytes, previous: int | None) -> Record:
        total_bytes, _, prev, info, resource_manager, crc = _RECORD.unpack_from(body)
        if crc32c(body[:_CRC_OFFSET], crc32c(body[RECORD_HEADER_BYTES:])) != crc:
            raise _damaged(begin, "a record whose CRC does not fit")
        if (prev != previous) if previous is not None else (prev >= begin):
            raise _damaged(begin, f"a record whose predecessor is said to be at {format_lsn(prev)}")
        switch = resource_manager == RM_XLOG and info & 0xF0 == XLOG_SWITCH
        end = record_end(begin, total_bytes, self._segment_bytes, switch=switch)
        return Record(begin, end, total_bytes, prev, resource_manager, info)

    def _body(self, begin: int, total_bytes: int) -> bytes | int | None:
        pieces: list[bytes] = []
        position, remaining = begin, total_bytes
        while True:
            piece_end = min(position + remaining, page_begin(position) + PAGE_BYTES)
            if piece_end > self._end:
                return None
            pieces.append(self._slice(position, piece_end))
            remaining -= piece_end - position
            if remaining == 0:
                return b"".join(pieces)
            head = self._header(piece_end)
            if head is None:
                return None
            if head.info & OVERWRITES_RECORD:
                return piece_end
            if not head.info & CONTINUES_RECORD or head.remaining != remaining:
                raise _damaged(piece_end, f"a page that does not continue the record at {format_lsn(begin)}")
            position = piece_end + header_bytes(piece_end, self._segment_bytes)

    def _header(self, position: int) -> PageHeader | None:
        """The page header at `position`, None when `end` cuts it. An empty (zeroed) page has magic 0."""
        if position + header_bytes(position, self._segment_bytes) > self._end:
            return None
        head = parse_page_header(self._page_of(position))
        if head.magic == 0 and head.position == 0:
            return head
        if head.magic >> 8 != _MAGIC_HIGH or head.position != position:
            raise _damaged(position, "no header of this page")
        if bool(head.info & LONG_HEADER) != (position % self._segment_bytes == 0):
            raise _damaged(position, "a page header of the wrong kind")
        return head

    def _slice(self, begin: int, end: int) -> bytes:
        start = page_begin(begin)
        return bytes(self._page_of(start)[begin - start : end - start])


def aligned(length: int) -> int:
    """The room that a record of this length takes."""
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _damaged(position: int, found: str) -> VaultError:
    return VaultError(
        "wal.damaged",
        f"at {format_lsn(position)} stands {found}",
        "this WAL cannot be replayed beyond that position; restore to a target before it, or from another vault",
    )
