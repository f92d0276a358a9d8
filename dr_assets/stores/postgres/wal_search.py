"""Finding a named restore point in WAL bytes, without a server.

What belongs here: searching pieces of WAL that come in order. What stays out: record arithmetic (wal.py), fetching.
"""

from collections.abc import Iterable
from typing import Final

from dr_assets.stores.postgres.wal import (
    PAGE_BYTES,
    RECORD_HEAD,
    RECORD_HEADER_BYTES,
    RM_XLOG,
    XLOG_RESTORE_POINT,
    header_bytes,
    page_begin,
)

# xl_restore_point: a time of 8 bytes and the name, zero-terminated in 64 bytes (what follows the zero is whatever the
# server's stack held); before it the two bytes that tell its length.
_NAME_BYTES: Final = 64
_BODY_BYTES: Final = 8 + _NAME_BYTES
_SHORT_DATA: Final = bytes([255, _BODY_BYTES])
_TOTAL_BYTES: Final = RECORD_HEADER_BYTES + len(_SHORT_DATA) + _BODY_BYTES
_NAME_OFFSET: Final = _TOTAL_BYTES - _NAME_BYTES


def find_restore_point(pieces: Iterable[tuple[int, bytes]], name: str, begin: int, segment_bytes: int) -> int | None:
    """Behind which position the restore point `name` lies, at most one page farther; None when it isn't there.

    `pieces` are (position, bytes) in order without a gap; the first record of interest begins at or behind `begin`.
    Only finds where to restore to: what is found is proven by the server that stops there.
    """
    wanted = name.encode() + b"\0"
    carried = b""
    for position, data in pieces:
        text = carried + _without_headers(position, data, segment_bytes)
        if position + len(data) > begin and _holds(text, wanted):
            return position + len(data)
        carried = text[-_TOTAL_BYTES:]
    return None


def _holds(text: bytes, wanted: bytes) -> bool:
    at = text.find(wanted)
    while at >= 0:
        start = at - _NAME_OFFSET
        if start >= 0 and text[at - 10 : at - 8] == _SHORT_DATA:
            total_bytes, _, _, info, resource_manager = RECORD_HEAD.unpack_from(text, start)
            if (total_bytes, resource_manager, info & 0xF0) == (_TOTAL_BYTES, RM_XLOG, XLOG_RESTORE_POINT):
                return True
        at = text.find(wanted, at + 1)
    return False


def _without_headers(position: int, data: bytes, segment_bytes: int) -> bytes:
    """The bytes of records alone: a record's parts on two pages become neighbours."""
    kept: list[memoryview] = []
    view, end, start = memoryview(data), position + len(data), position
    while start < end:
        page = page_begin(start)
        page_end = min(page + PAGE_BYTES, end)
        content = max(start, page + header_bytes(page, segment_bytes))
        if content < page_end:
            kept.append(view[content - position : page_end - position])
        start = page_end
    return b"".join(kept)
