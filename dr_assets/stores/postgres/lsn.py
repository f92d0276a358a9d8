"""Positions in the WAL: their text form and nothing else.

What belongs here: reading and writing an LSN (`16/B374D848`). What stays out: segments, pages, records (wal.py) and
anything that asks a server.
"""

import re

from dr_assets.estate.errors import SourceError

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_lsn(text: str) -> int:
    """Byte position of an LSN as PostgreSQL prints it: high and low 32 bits in hexadecimal.

    Raises SourceError (`wal.lsn_unreadable`) for anything else.
    """
    found = _LSN.fullmatch(text.strip())
    if found is None:
        raise SourceError(
            "wal.lsn_unreadable",
            f"{text[:40]!r} is no LSN",
            "write it as PostgreSQL does, for example 16/B374D848",
        )
    return (int(found[1], 16) << 32) | int(found[2], 16)


def format_lsn(position: int) -> str:
    """The LSN of a byte position, as PostgreSQL prints it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
