"""The tree of an exported log, built anew from its leaves and held against every file of it.

What belongs here: statements, bundles, tiles, roots, batches. What stays out: checkpoints' signatures and outsiders.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log import merkle
from dr_assets.vault.log.batch import BATCH_LIMIT_BYTES, Batch, parse_batch
from dr_assets.vault.log.belief import Belief
from dr_assets.vault.log.checkpoint import Signed
from dr_assets.vault.log.export_files import Export
from dr_assets.vault.log.merkle import HASH_BYTES, leaf_hash, perfect_root
from dr_assets.vault.log.names import BATCH, base_of, size_of
from dr_assets.vault.log.offline import OfflineReport, Progress
from dr_assets.vault.log.statement import NAMES, parse_leaf
from dr_assets.vault.log.tiles import (
    BUNDLE_LIMIT_BYTES,
    HEIGHT,
    TILE_LIMIT_BYTES,
    WIDTH,
    Tile,
    decode_bundle,
    holder_of,
    split_hashes,
)

ATTEMPT_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Found:
    """The leaf that speaks of an object."""

    index: int
    leaf: bytes


@dataclass(slots=True)
class RebuiltTree:
    """The tree as its leaves make it: all leaf hashes, and of each level those that are in no full tile yet."""

    hashes: bytearray = field(default_factory=bytearray)
    levels: list[list[bytes]] = field(default_factory=list)
    range: merkle.CompactRange = field(default_factory=merkle.CompactRange)

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self.range.size

    def append(self, leaf: bytes) -> Iterator[tuple[Tile, bytes]]:
        """One more leaf, by its hash; the tiles that it fills."""
        size = self.size
        self.hashes += leaf
        self.range.append(leaf)
        level, value = 0, leaf
        while True:
            if level == len(self.levels):
                self.levels.append([])
            row = self.levels[level]
            row.append(value)
            if len(row) < WIDTH:
                return
            yield Tile(level, size >> (HEIGHT * (level + 1))), b"".join(row)
            value = perfect_root(row)
            row.clear()
            level += 1

    def edge(self) -> Iterator[tuple[Tile, bytes]]:
        """The partial tiles of the tree as it is now."""
        for level, row in enumerate(self.levels):
            if row:
                yield Tile(level, self.size >> (HEIGHT * (level + 1)), len(row)), b"".join(row)

    def leaf_hashes(self, begin: int, end: int) -> list[bytes]:
        """The hashes of leaves [begin, end)."""
        return [bytes(self.hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES]) for at in range(begin, end)]


class TreeCheck:
    """One export's tree; `seen` are the paths that were held against it."""

    def __init__(
        self, export: Export, belief: Belief, checkpoints: Mapping[int, Signed], report: OfflineReport
    ) -> None:
        self.export = export
        self.belief = belief
        self.checkpoints = checkpoints
        self.report = report
        self.tree = RebuiltTree()
        self.seen: set[str] = set()
        self.leaves_believed = 0
        self.kinds: dict[str, int] = {}

    def run(self, progress: Progress | None = None, *, wanted: str | None = None) -> Found | None:
        """Check everything of the tree; the leaf that speaks of the object `wanted` by itself, if one does."""
        since, size = self.report.damage_total, self.report.size
        found: Found | None = None
        self._at_checkpoint([])
        for index in range(-(-size // WIDTH)):
            entries = self._bundle(index, size)
            if entries is None:
                break
            for at, leaf in enumerate(entries, start=index * WIDTH):
                if leaf is not None and self._believe(at, leaf) == wanted is not None:
                    found = found or Found(at, leaf)
            if progress:
                progress(self.tree.size, size)
        whole = self.tree.size == size
        if not whole:
            self.report.hurt("tile", f"the tree can't be built beyond {self.tree.size} of {size} leaves")
        count = f"{self.leaves_believed} of {size} leaves"
        self.report.say(
            "every leaf is a statement signed by a believed key",
            count,
            proven=self.leaves_believed == size,
            since=since,
        )
        detail = f"{len(self.checkpoints)} roots, {len(self.seen)} files"
        self.report.say(
            "every checkpoint is the root over its leaves, each begins with the one before",
            detail,
            proven=whole,
            since=since,
        )
        return found

    def _bundle(self, index: int, size: int) -> Sequence[bytes | None] | None:
        """The entries of a bundle, its hashes taken into the tree; None when neither entries nor hashes are there."""
        tile = holder_of(-1, index * WIDTH, size)
        entries = self._entries(tile)
        held = self._hashes(Tile(0, tile.index, tile.width))
        made = [leaf_hash(entry) for entry in entries] if entries is not None else None
        hashes = made if made is not None else held
        if made is not None and held is not None and made != held and not self._all_believed(entries or []):
            # Else it is the tile that is wrong, and that is seen when it is compared.
            self.report.hurt(tile.path, "its entries are not those that the tree has hashes of")
            hashes = held
        if hashes is None:
            return None
        rows: list[bytes] = []
        for at, value in enumerate(hashes):
            rows.append(entries[at] if entries is not None else b"")
            for full, data in self.tree.append(value):
                self._compare(full, data, needed=True)
            if self.tree.size in self.checkpoints:
                self._at_checkpoint(rows if entries is not None else [])
        return entries if entries is not None else [None] * len(hashes)

    def _all_believed(self, entries: Sequence[bytes]) -> bool:
        try:
            for leaf in entries:
                parse_leaf(leaf, self.belief.trust)
        except VaultError:
            return False
        return True

    def _at_checkpoint(self, rows: Sequence[bytes]) -> None:
        """Here a checkpoint speaks of the tree: its root, and the partial tiles that were written for it."""
        signed = self.checkpoints.get(self.tree.size)
        if signed is None:
            return
        if signed.checkpoint.root != self.tree.range.root:
            self.report.hurt(
                f"checkpoints/{self.tree.size:020d}",
                "its root is not that over its leaves: THE LOG WAS REWRITTEN, or files of it were",
            )
        last = self.tree.size == self.report.size
        for tile, data in self.tree.edge():
            self._compare(tile, data, needed=last)
        if rows and len(rows) < WIDTH and not last:
            self._compare_entries(Tile(-1, self.tree.size // WIDTH, len(rows)), rows)

    def _compare(self, tile: Tile, wanted: bytes, *, needed: bool) -> None:
        self.seen.add(tile.path)
        data = self._read(tile.path, TILE_LIMIT_BYTES)
        if data is None and needed:
            self.report.hurt(tile.path, "is gone")
        elif data is not None and data != wanted:
            self.report.hurt(tile.path, "holds other hashes than its leaves lead to")

    def _compare_entries(self, tile: Tile, rows: Iterable[bytes]) -> None:
        """An earlier, shorter bundle: it may be gone, but not differ."""
        self.seen.add(tile.path)
        data = self._read(tile.path, BUNDLE_LIMIT_BYTES)
        if data is None:
            return
        try:
            fits = decode_bundle(data, tile.width) == list(rows)
        except VaultError:
            fits = False
        if not fits:
            self.report.hurt(tile.path, "holds other entries than the bundle that followed it")

    def _entries(self, tile: Tile) -> list[bytes] | None:
        self.seen.add(tile.path)
        data = self._read(tile.path, BUNDLE_LIMIT_BYTES)
        if data is None:
            self.report.hurt(tile.path, "is gone")
            return None
        try:
            return decode_bundle(data, tile.width)
        except VaultError as error:
            self.report.hurt(tile.path, error.found)
            return None

    def _hashes(self, tile: Tile) -> list[bytes] | None:
        """A tile's hashes; what is wrong with it is noted when it is compared."""
        data = self._read(tile.path, TILE_LIMIT_BYTES)
        try:
            return None if data is None else split_hashes(data, tile.width)
        except VaultError:
            return None

    def _read(self, path: str, limit_bytes: int) -> bytes | None:
        try:
            return self.export.read(path, limit_bytes=limit_bytes)
        except VaultError as error:
            self.report.hurt(path, error.found)
            return None

    def _believe(self, index: int, leaf: bytes) -> str | None:
        """The object's name that a believed leaf speaks of by itself."""
        try:
            said = parse_leaf(leaf, self.belief.trust)
        except VaultError as error:
            self.report.hurt(f"leaf {index}", error.found)
            return None
        self.leaves_believed += 1
        self.kinds[said.kind] = self.kinds.get(said.kind, 0) + 1
        return None if said.kind == NAMES else said.name

    def batches(self, *, wanted: str | None = None) -> Found | None:
        """Hold every batch against the tree and its lists against their leaves; the leaf of a list with `wanted`."""
        since, at, names_total = self.report.damage_total, 0, 0
        found: Found | None = None
        held: dict[int, list[str]] = {}
        for path in self.export.paths(BATCH):
            tail = path.removeprefix(f"{BATCH}/")
            base = size_of(tail) if base_of(tail) is None else base_of(tail)
            if base is not None:
                held.setdefault(base, []).append(path)
        while at < self.tree.size:
            batch = self._batch(at, held.get(at, []))
            if batch is None:
                self.report.hurt(f"{BATCH}/{at:020d}", "no batch that fits the tree follows here")
                break
            for names in batch.lists:
                names_total += len(names.tails)
                if wanted is not None and wanted in names.texts:
                    found = Found(names.index, batch.leaves[names.index - batch.base])
            at = batch.size
            if at not in self.checkpoints:
                self.report.hurt(f"checkpoints/{at:020d}", "is gone: a batch ends here, so a checkpoint was published")
        detail = f"{names_total} names behind {self.kinds.get(NAMES, 0)} leaves"
        self.report.say("every name that a leaf counts is told", detail, proven=at == self.report.size, since=since)
        return found

    def _batch(self, base: int, paths: Sequence[str]) -> Batch | None:
        """The batch that followed `base` leaves. Attempts that don't fit are a stranger's: then another one has to."""
        for path in paths:
            self.seen.add(path)
            data = self._read(path, 2 * BATCH_LIMIT_BYTES)
            try:
                batch = parse_batch(data or b"", self.belief.trust)
            except VaultError as error:
                self.report.hurt(path, error.found)
                continue
            try:
                if self._fits(batch, base):
                    return batch
            except VaultError:  # a leaf that is no statement; that is noted where the tree is built
                pass
            self.report.hurt(path, "its leaves or lists are not those of the tree")
        return None

    def _fits(self, batch: Batch, base: int) -> bool:
        if batch.base != base or not base < batch.size <= self.tree.size:
            return False
        if [leaf_hash(leaf) for leaf in batch.leaves] != self.tree.leaf_hashes(base, batch.size):
            return False
        lists = {names.index: names for names in batch.lists}
        for index, leaf in enumerate(batch.leaves, start=base):
            said, names = parse_leaf(leaf, None), lists.pop(index, None)
            if said.kind == NAMES and (names is None or (names.place, names.sha256) != (said.name, said.sha256)):
                return False
            if said.kind != NAMES and names is not None:
                return False
        return not lists
