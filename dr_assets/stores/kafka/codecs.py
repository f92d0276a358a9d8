"""The codecs of record batches: none, gzip, snappy, lz4, zstd, as Kafka's own clients frame them.

What belongs here: bytes to bytes. What stays out: what the bytes are (batches.py). Decompression is bounded: a batch
of a hostile or broken producer ends with an error, not with the machine's memory.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Final

from dr_assets.estate.errors import SourceError

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
NAMES: Final = ("none", "gzip", "snappy", "lz4", "zstd")

# Kafka's largest batch is an int32 of compressed bytes; what honest producers make of it stays far below this.
_PLAIN_MAX_BYTES: Final = 1 << 30
# Java's clients wrap snappy in xerial's framing: magic, two versions, then blocks with their lengths. librdkafka
# sends a bare snappy block. Both are accepted by every broker and consumer.
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = _XERIAL + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK_BYTES: Final = 32 << 10
_ZSTD_FED_BYTES: Final = 8 << 10


def compress(codec: int, data: bytes, *, level: int | None = None) -> bytes:
    """`data` as a producer with this codec would send it. `level` is zstd's and gzip's."""
    if codec == NONE:
        return data
    return _known(_COMPRESS, codec)(data, level)


def decompress(codec: int, data: memoryview | bytes) -> bytes | memoryview:
    """The plain bytes; raises SourceError (`kafka.codec`) for what isn't of this codec, or too much of it."""
    if codec == NONE:
        return data
    try:
        return _known(_DECOMPRESS, codec)(data)
    except SourceError:
        raise
    except Exception as error:
        # Each library has its own exceptions, some derive from Exception alone.
        raise _unreadable(codec, f"{type(error).__name__}: {error}") from error


def _known(table: dict[int, Callable[..., bytes]], codec: int) -> Callable[..., bytes]:
    found = table.get(codec)
    if found is None:
        raise SourceError(
            "kafka.codec",
            f"a record batch names codec {codec}, Kafka has {', '.join(NAMES)}",
            "the batch was made by something newer than this version, or is damaged",
        )
    return found


def _gzip(data: bytes, level: int | None) -> bytes:
    packer = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _gunzip(data: memoryview | bytes) -> bytes:
    out = bytearray()
    rest: bytes = bytes(data)
    while rest:
        unpacker = zlib.decompressobj(31)
        out += unpacker.decompress(rest, _PLAIN_MAX_BYTES - len(out))
        if not unpacker.eof:
            raise _unreadable(GZIP, _too_much(out))
        rest = unpacker.unused_data
    return bytes(out)


def _snap(data: bytes, level: int | None) -> bytes:
    import snappy  # noqa: PLC0415 - only a restore that re-encodes needs it

    del level
    out = [_XERIAL_HEADER]
    for at in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = snappy.compress(data[at : at + _XERIAL_BLOCK_BYTES])
        out += (struct.pack(">i", len(block)), block)
    return b"".join(out)


def _unsnap(data: memoryview | bytes) -> bytes:
    view = memoryview(data)
    if bytes(view[: len(_XERIAL)]) != _XERIAL:
        return _unsnap_block(view, _PLAIN_MAX_BYTES)
    out = bytearray()
    at = len(_XERIAL_HEADER)
    while at < len(view):
        (size,) = struct.unpack_from(">i", view, at)
        at += 4
        if size < 0 or at + size > len(view):
            raise _unreadable(SNAPPY, "a block that ends behind the batch")
        out += _unsnap_block(view[at : at + size], _PLAIN_MAX_BYTES - len(out))
        at += size
    return bytes(out)


def _unsnap_block(block: memoryview, room: int) -> bytes:
    import snappy  # noqa: PLC0415 - see `_snap`

    # A snappy block begins with the length of its plain bytes: read before anything is given memory.
    plain_bytes = shift = 0
    for byte in bytes(block[:5]):
        plain_bytes |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the varint's last byte has no continuation bit
            break
    if plain_bytes > room:
        raise _unreadable(SNAPPY, f"over {_PLAIN_MAX_BYTES} bytes")
    plain: bytes = snappy.uncompress(bytes(block))
    return plain


def _lz4(data: bytes, level: int | None) -> bytes:
    import lz4.frame  # noqa: PLC0415 - see `_snap`

    del level
    # Kafka's Java reader takes frames of independent blocks only.
    packed: bytes = lz4.frame.compress(data, block_linked=False, store_size=False)
    return packed


def _unlz4(data: memoryview | bytes) -> bytes:
    import lz4.frame  # noqa: PLC0415 - see `_snap`

    unpacker = lz4.frame.LZ4FrameDecompressor()
    out: bytes = unpacker.decompress(data, max_length=_PLAIN_MAX_BYTES)
    if not unpacker.eof:
        raise _unreadable(LZ4, _too_much(out))
    return out


def _zstd(data: bytes, level: int | None) -> bytes:
    import zstandard  # noqa: PLC0415 - see `_snap`

    return zstandard.ZstdCompressor(level=3 if level is None else level).compress(data)


def _unzstd(data: memoryview | bytes) -> bytes:
    import zstandard  # noqa: PLC0415 - see `_snap`

    # Streaming clients write no content size, so the one-shot call won't do; fed in small pieces, because this one has
    # no limit of its own and a few bytes may stand for 128 KiB.
    out = bytearray()
    rest: bytes = bytes(data)
    while rest:
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        at = 0
        while at < len(rest) and not unpacker.eof:
            out += unpacker.decompress(rest[at : at + _ZSTD_FED_BYTES])
            at += _ZSTD_FED_BYTES
            if len(out) > _PLAIN_MAX_BYTES:
                raise _unreadable(ZSTD, _too_much(out))
        if not unpacker.eof:
            raise _unreadable(ZSTD, _too_much(out))
        rest = unpacker.unused_data + rest[at:]
    return bytes(out)


def _too_much(out: bytes | bytearray) -> str:
    return f"over {_PLAIN_MAX_BYTES} bytes" if len(out) >= _PLAIN_MAX_BYTES else "it ends in mid-stream"


def _unreadable(codec: int, found: str) -> SourceError:
    return SourceError(
        "kafka.codec",
        f"a record batch's {NAMES[codec]} data can't be decompressed: {found}",
        "its CRC tells whether it was damaged on the way; if it fits, the producer wrote it so",
    )


_COMPRESS: Final[dict[int, Callable[..., bytes]]] = {GZIP: _gzip, SNAPPY: _snap, LZ4: _lz4, ZSTD: _zstd}
_DECOMPRESS: Final[dict[int, Callable[..., bytes]]] = {GZIP: _gunzip, SNAPPY: _unsnap, LZ4: _unlz4, ZSTD: _unzstd}
