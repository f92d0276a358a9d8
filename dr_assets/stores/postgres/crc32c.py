"""CRC-32C, of WAL records and as PostgreSQL's `backup_manifest` writes it.

What belongs here: that one function and its text form. What stays out: whose bytes (wal.py, lay.py). The arithmetic is
the library's, in the processor's own instruction: whoever follows a source looks at every byte that it writes.
"""

import crc32c as library


def crc32c(data: bytes | memoryview, crc: int = 0) -> int:
    """The checksum of `data`, continuing `crc`."""
    return library.crc32c(data, crc)


def crc32c_hex(data: bytes) -> str:
    """The checksum of `data` as 8 hex digits, in the manifest's byte order: least significant byte first."""
    return crc32c(data).to_bytes(4, "little").hex()
