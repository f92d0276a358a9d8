"""CRC-32C, of WAL records and as PostgreSQL's `backup_manifest` writes it.

What belongs here: that one function and its text form. What stays out: whose bytes (wal.py, lay.py). It is for a few
pages and small files, not for volumes: a megabyte takes a tenth of a second. Source: RFC 3720, appendix B.4, the
Castagnoli polynomial, reflected; the manifest shows the four bytes as they lie in memory, least significant first.
"""

from functools import cache
from typing import Final

_POLYNOMIAL: Final = 0x82F63B78


def crc32c(data: bytes, crc: int = 0) -> int:
    """The checksum of `data`, continuing `crc`."""
    table = _table()
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def crc32c_hex(data: bytes) -> str:
    """The checksum of `data` as 8 hex digits, in the manifest's byte order."""
    return crc32c(data).to_bytes(4, "little").hex()


@cache
def _table() -> tuple[int, ...]:
    return tuple(_row(value) for value in range(256))


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value
