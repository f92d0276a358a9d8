"""How large an object of each stream can be, so that nobody reads into memory what cannot be ours.

What belongs here: the limits, for writers and readers alike. What stays out: reading.

Anybody who may write could put an object of terabytes under a fitting name. Sizes are known before a body is read.
"""

from typing import Final

from dr_assets.vault.format.envelope import FRAME_LIMIT_BYTES, LENGTH_BYTES, TRAILER_BYTES, frame_count
from dr_assets.vault.format.header import HEADER_LIMIT_BYTES, PREFIX_BYTES
from dr_assets.vault.format.keys import BASE, KEYS, fact_stream

SEGMENT_LIMIT_BYTES: Final = 64 << 20
MANIFEST_LIMIT_BYTES: Final = 256 << 20
FACT_LIMIT_BYTES: Final = 16 << 20
KEY_OBJECT_LIMIT_BYTES: Final = 64 << 10


def plaintext_limit(stream: str) -> int:
    """The most bytes that one object of `stream` may hold: WAL, parts, manifests, facts."""
    if stream.startswith(fact_stream("")):
        return FACT_LIMIT_BYTES
    return MANIFEST_LIMIT_BYTES if stream == BASE else SEGMENT_LIMIT_BYTES


def stored_limit(stream: str) -> int:
    """The most bytes that one object of `stream` has in the store; more than that was never sealed by us."""
    if stream == KEYS:
        return KEY_OBJECT_LIMIT_BYTES
    frames = frame_count(plaintext_limit(stream)) * (FRAME_LIMIT_BYTES + LENGTH_BYTES)
    return PREFIX_BYTES + HEADER_LIMIT_BYTES + frames + TRAILER_BYTES
