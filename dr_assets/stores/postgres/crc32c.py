"""CRC-32C as PostgreSQL's `backup_manifest` writes it, for the few small files that no program of PostgreSQL's sees.

What belongs here: that one function. What stays out: which files (lay.py). Source: RFC 3720, appendix B.4, the
Castagnoli polynomial, reflected; the manifest shows the four bytes as they lie in memory, least significant first.
"""

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = tuple(_row(value) for value in range(256))


def crc32c_hex(data: bytes) -> str:
    """The checksum of `data` as 8 hex digits, in the manifest's byte order. A megabyte takes a tenth of a second."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "little").hex()
