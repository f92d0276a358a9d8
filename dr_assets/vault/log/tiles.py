"""Tiles (C2SP tlog-tiles): the tree's hashes and entries in pieces of 256, each under a name of its own.

What belongs here: names, bundles of entries, which tiles a growing tree writes, any node out of tiles. What stays out:
where tiles lie (store.py).
"""

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from dr_assets.vault.log.checkpoint import malformed
from dr_assets.vault.log.merkle import HASH_BYTES, RangeRoot, bag, leaf_hash, perfect_root

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
ENTRIES: Final = "entries"
ENTRY_LIMIT_BYTES: Final = 1024  # a leaf of ours; the format itself could hold 65535
TILE_LIMIT_BYTES: Final = WIDTH * HASH_BYTES
BUNDLE_LIMIT_BYTES: Final = WIDTH * (2 + ENTRY_LIMIT_BYTES)

# Inner nodes that are remembered: of any two proofs the upper halves are nearly the same.
_NODES_KEPT: Final = 1 << 14
_LENGTH: Final = struct.Struct(">H")
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Tile `index` of `level`; `width` hashes, 256 when it is full. `level` -1 is a bundle of entries."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Its name: `tile/0/x001/234`, `tile/entries/000.p/17`."""
        level = ENTRIES if self.level < 0 else str(self.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{index_path(self.index)}{partial}"

    @classmethod
    def parse(cls, path: str) -> "Tile | None":
        """The tile of this very name; None if it is none."""
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        level = -1 if found["level"] == ENTRIES else int(found["level"])
        width = int(found["width"] or WIDTH)
        tile = cls(level, int(found["index"].replace("x", "").replace("/", "")), width)
        return tile if tile.path == path else None


def index_path(index: int) -> str:
    """Three digits a folder, all but the last with an x before: 1234067 is `x001/x234/067`."""
    text = f"{index % 1000:03d}"
    while index >= 1000:  # noqa: PLR2004 - three digits, as the format has it
        index //= 1000
        text = f"x{index % 1000:03d}/{text}"
    return text


def partial_of(level: int, size: int) -> Tile | None:
    """The partial tile at the right edge of a level (-1: of the entries), None where it ends with a full one."""
    count = size >> (HEIGHT * max(level, 0))
    return Tile(level, count // WIDTH, count % WIDTH) if count % WIDTH else None


def holder_of(level: int, index: int, size: int) -> Tile:
    """The tile that holds hash `index` of a level in a tree of `size`: the full one, or that of its edge."""
    count = size >> (HEIGHT * max(level, 0))
    tile = index // WIDTH
    return Tile(level, tile, min(WIDTH, count - tile * WIDTH))


def edge_tiles(size: int) -> list[Tile]:
    """The partial hash tiles of a tree: with them alone it can grow and its root be told."""
    found = (partial_of(level, size) for level in range((size.bit_length() + HEIGHT - 1) // HEIGHT))
    return [tile for tile in found if tile is not None]


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Entries, each behind its length in two bytes."""
    return b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """Exactly `width` entries. Raises VaultError `log.malformed`."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise malformed("a bundle of entries ends within a length")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise malformed("a bundle of entries ends within an entry")
        entries.append(data[at : at + length])
        at += length
    if len(entries) != width:
        raise malformed(f"a bundle of {width} entries holds {len(entries)}")
    return entries


def split_hashes(data: bytes, width: int) -> list[bytes]:
    """The hashes of a tile of this width. Raises VaultError `log.malformed`."""
    if len(data) != width * HASH_BYTES:
        raise malformed(f"a tile of {width} hashes has {len(data)} bytes")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


@dataclass(slots=True)
class TreeEdge:
    """A tree that grows: of each level the hashes that are in no full tile yet."""

    size: int
    levels: list[list[bytes]]

    @classmethod
    def of(cls, size: int, read: Callable[[Tile], Sequence[bytes]]) -> "TreeEdge":
        """The edge of a tree of `size`, its partial tiles read by `read`."""
        levels = [list[bytes]() for _ in range((size.bit_length() + HEIGHT - 1) // HEIGHT)]
        for tile in edge_tiles(size):
            levels[tile.level] = list(read(tile))
        return cls(size, levels)

    @property
    def root(self) -> bytes:
        """The root: over the perfect subtrees of each level's hashes, the highest level's first."""
        return bag([peak for level in reversed(self.levels) for peak in _peaks(level)])

    def grow(self, entries: Sequence[bytes]) -> dict[Tile, bytes]:
        """Append leaves; the hash tiles that this fills or leaves partial at the new edge, with their bytes."""
        written: dict[Tile, bytes] = {}
        touched: set[int] = set()
        for entry in entries:
            self._put(0, leaf_hash(entry), written, touched)
            self.size += 1
        for level in touched:
            tile = partial_of(level, self.size)
            if tile is not None:
                written[tile] = b"".join(self.levels[level])
        return written

    def _put(self, level: int, value: bytes, written: dict[Tile, bytes], touched: set[int]) -> None:
        if level == len(self.levels):
            self.levels.append([])
        hashes = self.levels[level]
        hashes.append(value)
        touched.add(level)
        if len(hashes) == WIDTH:
            # `size` is not counted up yet: all but the last leaf of this tile are in it.
            written[Tile(level, self.size >> (HEIGHT * (level + 1)))] = b"".join(hashes)
            root = perfect_root(hashes)
            hashes.clear()
            self._put(level + 1, root, written, touched)


def _peaks(hashes: Sequence[bytes]) -> list[bytes]:
    """The roots of the perfect subtrees over less than a tile's hashes, the largest first."""
    peaks: list[bytes] = []
    at = 0
    for bit in range(HEIGHT - 1, -1, -1):
        if len(hashes) >> bit & 1:
            peaks.append(perfect_root(hashes[at : at + (1 << bit)]))
            at += 1 << bit
    return peaks


def bundles(size: int, entries: Sequence[bytes], held: Sequence[bytes]) -> dict[Tile, bytes]:
    """The bundles that `entries`, appended to a tree of `size`, fill or leave partial.

    `held` are the entries at the edge before: the last `size` mod 256.
    """
    begin = size // WIDTH
    rows = [*held, *entries]
    return {
        Tile(-1, begin + at // WIDTH, len(rows[at : at + WIDTH])): encode_bundle(rows[at : at + WIDTH])
        for at in range(0, len(rows), WIDTH)
    }


def range_root(size: int, read: Callable[[Tile], Sequence[bytes]]) -> RangeRoot:
    """The ranges of a tree of `size` whose hash tiles `read` hands out."""

    @lru_cache(maxsize=_NODES_KEPT)
    def node(height: int, index: int) -> bytes:
        level, rest = divmod(height, HEIGHT)
        first = index << rest
        tile = holder_of(level, first, size)
        hashes = read(tile)
        at = first - tile.index * WIDTH
        return perfect_root(hashes[at : at + (1 << rest)])

    def root(begin: int, end: int) -> bytes:
        peaks: list[bytes] = []
        while begin < end:
            height = (end - begin).bit_length() - 1
            if begin:
                height = min(height, (begin & -begin).bit_length() - 1)
            peaks.append(node(height, begin >> height))
            begin += 1 << height
        return bag(peaks)

    return root
