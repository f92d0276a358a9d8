"""Where header, frames and trailer lie in an object's bytes.

What belongs here: splitting bytes with every length bounded. What stays out: decryption and signatures.

    magic 7 ‖ version 1 ‖ header length 4 ‖ header ‖ { frame length 4 ‖ frame } … ‖ content digest 32 ‖ signature 64
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.canonical import malformed
from dr_assets.vault.format.header import HEADER_LIMIT_BYTES, MAGIC, PREFIX_BYTES, VERSION, Header, parse_header

FRAME_PLAINTEXT_BYTES: Final = 1 << 20
FRAME_LIMIT_BYTES: Final = FRAME_PLAINTEXT_BYTES + (64 << 10)  # zstd adds under 5 KiB to a MiB of noise, GCM 16 bytes
TRAILER_BYTES: Final = 32 + 64
SIGNATURE_DOMAIN: Final = b"dr_assets sealed object v1"

_LENGTH: Final = struct.Struct(">I")
LENGTH_BYTES: Final = _LENGTH.size  # before each frame


@dataclass(frozen=True, slots=True)
class Trailer:
    """The last 96 bytes: the digest of all bytes before it, and the signature."""

    content_sha256: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """An object's parts; `frames` are (begin, end) of each ciphertext in the object's bytes."""

    header: Header
    header_sha256: bytes
    frames: tuple[tuple[int, int], ...]
    trailer: Trailer


def header_length(prefix: bytes) -> int:
    """The header's length in bytes, from an object's first bytes.

    Raises VaultError `vault.newer_version` for a format that this program doesn't know, else `vault.malformed`.
    """
    if len(prefix) < PREFIX_BYTES:
        raise malformed(f"object: {len(prefix)} bytes are too few for a header")
    if prefix[: len(MAGIC)] != MAGIC:
        raise malformed("object: does not begin with the magic of a sealed object")
    version = prefix[len(MAGIC)]
    if version > VERSION:
        raise VaultError(
            "vault.newer_version",
            f"the object has format version {version}, this program reads up to {VERSION}",
            "use the dr-assets release that wrote it, or a newer one",
        )
    if version != VERSION:
        raise malformed(f"object: format version {version} never existed")
    (length,) = _LENGTH.unpack_from(prefix, len(MAGIC) + 1)
    if length > HEADER_LIMIT_BYTES:
        raise malformed(f"object: a header of {length} bytes, at most {HEADER_LIMIT_BYTES} are allowed")
    return int(length)


def split_head(data: bytes) -> tuple[Header, bytes, int]:
    """Header, its SHA-256 and where the frames begin, from bytes that reach at least that far."""
    end = PREFIX_BYTES + header_length(data)
    if len(data) < end:
        raise malformed("object: ends within its header")
    return parse_header(bytes(data[PREFIX_BYTES:end])), hashlib.sha256(data[:end]).digest(), end


def first_frame(data: bytes, begin: int, count: int) -> tuple[int, int]:
    """Where the first of `count` frames' ciphertext lies, from an object's first bytes; the frames begin at `begin`."""
    return _frame(data, begin, len(data), 0, count)


def split_trailer(data: bytes) -> Trailer:
    """The trailer, from bytes that end where the object ends."""
    if len(data) < TRAILER_BYTES:
        raise malformed("object: ends within its trailer")
    return Trailer(bytes(data[-TRAILER_BYTES:-64]), bytes(data[-64:]))


def split(data: bytes) -> Envelope:
    """All parts of a whole object. Raises VaultError `vault.malformed` or `vault.newer_version`."""
    header, header_sha256, begin = split_head(data)
    if len(data) < begin + TRAILER_BYTES:
        raise malformed("object: ends within its trailer")
    frames = _split_frames(data, begin, len(data) - TRAILER_BYTES, frame_count(header.size_bytes))
    return Envelope(header, header_sha256, frames, split_trailer(data))


def frame_count(size_bytes: int) -> int:
    """How many frames a plaintext of this size has: all hold 1 MiB, save the last; nothing is one empty frame."""
    return max(1, -(-size_bytes // FRAME_PLAINTEXT_BYTES))


def _split_frames(data: bytes, begin: int, end: int, count: int) -> tuple[tuple[int, int], ...]:
    frames: list[tuple[int, int]] = []
    for number in range(count):
        frames.append(_frame(data, begin, end, number, count))
        begin = frames[-1][1]
    if begin != end:
        raise malformed(f"object: {end - begin} bytes too many after the last of {count} frames")
    return tuple(frames)


def _frame(data: bytes, begin: int, end: int, number: int, count: int) -> tuple[int, int]:
    """Where a frame's ciphertext lies whose length stands at `begin`; it has to end before `end`."""
    if begin + LENGTH_BYTES > end:
        raise malformed(f"object: ends before frame {number} of {count}")
    (length,) = _LENGTH.unpack_from(data, begin)
    begin += LENGTH_BYTES
    if length > FRAME_LIMIT_BYTES or begin + length > end:
        raise malformed(f"object: frame {number} of {count} claims {length} bytes, more than there are or may be")
    return begin, begin + int(length)


def signed_message(header_sha256: bytes, content_sha256: bytes) -> bytes:
    """What the signature is over, after its domain: both digests, so that a header can be believed alone."""
    return header_sha256 + content_sha256
