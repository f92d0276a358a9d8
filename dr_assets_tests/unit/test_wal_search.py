import random
import struct

import pytest

from dr_assets.stores.postgres.wal import PAGE_BYTES, header_bytes
from dr_assets.stores.postgres.wal_search import find_restore_point

SEGMENT = 1 << 16
BEGIN = 5 * SEGMENT


def paged(content: bytes) -> bytes:
    """`content` as WAL from BEGIN on: page headers (of nonsense) between."""
    out = b""
    while content:
        position = BEGIN + len(out)
        head = header_bytes(position, SEGMENT)
        out += b"\xd1" * head + content[: PAGE_BYTES - head]
        content = content[PAGE_BYTES - head :]
    return out


def restore_point(name: bytes) -> bytes:
    """The record that pg_create_restore_point writes: behind the name's zero stands garbage."""
    body = struct.pack("<q", 1) + name + b"\0" + b"\xaa" * (63 - len(name))
    return struct.pack("<IIQBBxxI", 98, 0, 8, 0x70, 0, 0) + bytes([255, 72]) + body


@pytest.mark.parametrize("offset", [*range(PAGE_BYTES - 140, PAGE_BYTES - 30, 7), 0, 100_000])
def test_a_restore_point_is_found_wherever_it_lies(offset: int) -> None:
    """Also across a page's border and across the border of two pieces."""
    noise = random.Random(offset).randbytes(120_000)
    wal = paged(noise[:offset] + restore_point(b"release 7") + noise[offset:])
    for cut in (61, 4000, 8192, 50_000):
        pieces = [(BEGIN + at, wal[at : at + cut]) for at in range(0, len(wal), cut)]
        found = find_restore_point(pieces, "release 7", BEGIN, SEGMENT)
        assert found is not None
        assert found >= BEGIN + offset + 34
        assert find_restore_point(pieces, "release 8", BEGIN, SEGMENT) is None
        assert find_restore_point(pieces, "release", BEGIN, SEGMENT) is None


def test_a_name_in_somebody_s_data_is_no_restore_point() -> None:
    """The words alone are not enough: they must stand in a restore point's record."""
    wal = paged(b"x" * 500 + b"release 7\0" + b"y" * 5000)
    assert find_restore_point([(BEGIN, wal)], "release 7", BEGIN, SEGMENT) is None
