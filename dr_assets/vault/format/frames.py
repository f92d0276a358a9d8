"""Frames: at most 1 MiB of plaintext each, compressed, then encrypted so that none can be moved, cut off or replaced.

What belongs here: zstd and AES-256-GCM of one object's frames. What stays out: lengths, header, trailer.
"""

import struct
import threading
from collections.abc import Iterator
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.canonical import malformed
from dr_assets.vault.format.envelope import FRAME_PLAINTEXT_BYTES, Envelope, frame_count

TAG_BYTES: Final = 16
ZSTD_LEVEL: Final = 1  # docs/decisions/0011: level 3 is a third slower and gains nothing on database pages
_ROOM_BYTES: Final = FRAME_PLAINTEXT_BYTES + (FRAME_PLAINTEXT_BYTES >> 6)  # more than zstd makes of any frame
_rooms = threading.local()


def seal_frames(plaintext: memoryview, key: bytes, header_sha256: bytes) -> Iterator[bytearray]:
    """Each frame as `length ‖ ciphertext`, in order."""
    cipher, compressor = AESGCM(key), zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    count = frame_count(len(plaintext))
    for number in range(count):
        begin = number * FRAME_PLAINTEXT_BYTES
        compressed = compressor.compress(plaintext[begin : begin + FRAME_PLAINTEXT_BYTES])
        frame = bytearray(4 + len(compressed) + TAG_BYTES)
        struct.pack_into(">I", frame, 0, len(compressed) + TAG_BYTES)
        cipher.encrypt_into(_nonce(number), compressed, _bound(header_sha256, number, count), memoryview(frame)[4:])
        yield frame


def open_frames(data: bytes, envelope: Envelope, key: bytes, *, name: str) -> Iterator[bytes]:
    """Each frame's plaintext, in order, never more than 1 MiB in memory.

    Raises VaultError `vault.tampered` naming the object and the frame.
    """
    opening = _Opening(data, envelope.header_sha256, envelope.header.size_bytes, key, name)
    for number, where in enumerate(envelope.frames):
        yield opening.frame(number, where)


def open_first_frame(
    data: bytes, where: tuple[int, int], *, header_sha256: bytes, size_bytes: int, key: bytes, name: str
) -> bytes:
    """The first frame's plaintext, from bytes that reach that far; the whole plaintext has `size_bytes`, by the header.

    Raises VaultError `vault.tampered`. What lies behind the frame is not judged.
    """
    return _Opening(data, header_sha256, size_bytes, key, name).frame(0, where)


class _Opening:
    """One object's frames, each decrypted and decompressed by itself."""

    def __init__(self, data: bytes, header_sha256: bytes, size_bytes: int, key: bytes, name: str) -> None:
        self._view = memoryview(data)
        self._header_sha256 = header_sha256
        self._size_bytes = size_bytes
        self._name = name
        self._cipher, self._decompressor = AESGCM(key), zstandard.ZstdDecompressor()
        self._count = frame_count(size_bytes)

    def frame(self, number: int, where: tuple[int, int]) -> bytes:
        """The plaintext of one, whose ciphertext lies at [begin, end)."""
        begin, end = where
        try:
            bound = _bound(self._header_sha256, number, self._count)
            compressed = _room(max(0, end - begin - TAG_BYTES))
            self._cipher.decrypt_into(_nonce(number), self._view[begin:end], bound, compressed)
        except (InvalidTag, ValueError):
            raise VaultError(
                "vault.tampered",
                f"{self._name}: frame {number} of {self._count} fails authentication",
                "the object was altered; restore from a replica of this vault",
            ) from None
        return _decompress(self._decompressor, compressed, _frame_size(self._size_bytes, number), self._name)


def _room(size_bytes: int) -> memoryview:
    """Where this thread decrypts frame after frame: memory that the kernel makes anew costs many times the decryption.

    What lies there is good until the next call.
    """
    if size_bytes > _ROOM_BYTES:  # no frame of ours: it won't stay
        return memoryview(bytearray(size_bytes))
    room: bytearray | None = getattr(_rooms, "room", None)
    if room is None:
        room = _rooms.room = bytearray(_ROOM_BYTES)
    return memoryview(room)[:size_bytes]


def _decompress(decompressor: zstandard.ZstdDecompressor, compressed: memoryview, size_bytes: int, name: str) -> bytes:
    """Exactly `size_bytes`; what the frame claims is compared *before* zstandard allocates that much."""
    try:
        claimed = zstandard.frame_content_size(compressed)
        if claimed != size_bytes:
            raise malformed(f"{name}: a frame claims {claimed} bytes of plaintext where {size_bytes} are due")
        if size_bytes == 0:  # zstandard reads a claimed size of zero as "unknown"
            return b""
        plaintext = decompressor.decompress(compressed, max_output_size=size_bytes, allow_extra_data=False)
    except zstandard.ZstdError:
        raise malformed(f"{name}: a frame is not zstd") from None
    if len(plaintext) != size_bytes:
        raise malformed(f"{name}: a frame holds {len(plaintext)} bytes where {size_bytes} are due")
    return plaintext


def _frame_size(size_bytes: int, number: int) -> int:
    return min(FRAME_PLAINTEXT_BYTES, size_bytes - number * FRAME_PLAINTEXT_BYTES)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _bound(header_sha256: bytes, number: int, count: int) -> bytes:
    """Associated data: the header, the frame's place in it, and whether it is the last."""
    return header_sha256 + number.to_bytes(4, "big") + (b"\1" if number == count - 1 else b"\0")
