"""Reading a vault's log: what its newest checkpoint vouches for, and proofs of it.

What belongs here: tiles, leaves, batches and proofs out of the vault, each held to the checkpoint's root. What stays
out: signatures of outsiders (cosignature.py, timestamp.py), an exported copy (offline.py).

Nothing is believed for its name. A checkpoint must be signed by one whom the vault trusts; a full tile must hash to
what its parent holds, the tiles at the right edge together to the root, an entry to its hash in a tile, a batch's
leaves to those of the tree and its lists to their leaves. So what was laid over the log's files, or put in their
place, is passed over as long as the true bytes are there in some version.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice, product
from threading import Lock as Mutex
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log import merkle
from dr_assets.vault.log.batch import BATCH_LIMIT_BYTES, Batch, parse_batch
from dr_assets.vault.log.checkpoint import Checkpoint, Signed, origin_of, verify_checkpoint
from dr_assets.vault.log.files import LogFiles
from dr_assets.vault.log.merkle import leaf_hash, perfect_root
from dr_assets.vault.log.names import batch_name, checkpoint_name, tile_name
from dr_assets.vault.log.note import NOTE_LIMIT_BYTES, parse_note
from dr_assets.vault.log.statement import NAMES, Statement, parse_leaf
from dr_assets.vault.log.tiles import (
    BUNDLE_LIMIT_BYTES,
    TILE_LIMIT_BYTES,
    WIDTH,
    Tile,
    TreeEdge,
    decode_bundle,
    edge_tiles,
    holder_of,
    partial_of,
    range_root,
    split_hashes,
)
from dr_assets.vault.vault import Vault

CACHED_TILES: Final = 4096  # 80 MB when full: all hashes of a million leaves
ATTEMPTS: Final = 16
_COMBINATIONS: Final = 4096  # of versions at the right edge; it takes a stranger's hand for there to be more than one


@dataclass(frozen=True, slots=True)
class Vouched:
    """What one leaf vouches for: an object (`names` has one), or pieces of a place."""

    index: int
    leaf: bytes
    statement: Statement
    names: tuple[str, ...]


class LogReader:
    """One checkpoint's tree, read from a vault; threads may share it."""

    def __init__(self, files: LogFiles, signed: Signed) -> None:
        self.files = files
        self.vault = files.vault
        self.signed = signed
        self._cache: OrderedDict[Tile, Sequence[bytes]] = OrderedDict()
        self._mutex = Mutex()

    @classmethod
    def open(cls, vault: Vault, *, as_of: datetime | None = None, files: LogFiles | None = None) -> "LogReader | None":
        """The newest checkpoint that one of the trusted signed, as of a moment of the store's clock; None without one.

        Of the vault's own log, or of the one that began here: another log by the same signer, copied here, is no word
        about this one. Raises VaultError when the store can't be read.
        """
        files = files or LogFiles(vault, as_of)
        origin = origin_of(vault.estate, vault.name)
        is_asked = False
        for size in files.sizes_down():
            signed = read_checkpoint(files, size, origin)
            if signed is None and not is_asked and (other := read_checkpoint(files, size)) is not None:
                origin, is_asked = _began_here(files) or other.checkpoint.origin, True
                signed = read_checkpoint(files, size, origin)
            if signed is not None:
                return cls(files, _beyond(files, signed))
        return None

    @classmethod
    def at(cls, vault: Vault, size: int) -> "LogReader | None":
        """The checkpoint of this very size."""
        files = LogFiles(vault)
        signed = read_checkpoint(files, size)
        return None if signed is None else cls(files, signed)

    @property
    def checkpoint(self) -> Checkpoint:
        """Origin, size and root."""
        return self.signed.checkpoint

    @property
    def note(self) -> bytes:
        """The signed note."""
        return self.signed.note

    @cached_property
    def _edge(self) -> dict[Tile, list[bytes]]:
        """The partial tiles, which together must lead to the root."""
        size, tiles = self.checkpoint.size, edge_tiles(self.checkpoint.size)
        choices = [self._candidates(tile) for tile in tiles]
        for chosen in islice(product(*choices), _COMBINATIONS):
            held = dict(zip(tiles, chosen, strict=True))
            if TreeEdge.of(size, held.__getitem__).root == self.checkpoint.root:
                return held
        raise self._damaged("the tiles at its right edge do not lead to its root, or are gone")

    def _candidates(self, tile: Tile) -> list[list[bytes]]:
        """What versions of a partial tile could be it, and the begin of the full tile that came after it."""
        found: dict[tuple[bytes, ...], None] = {}
        for at in (tile, Tile(tile.level, tile.index)):
            for data in self.files.versions(tile_name(self.vault.estate, at), limit_bytes=TILE_LIMIT_BYTES):
                if len(data) == at.width * merkle.HASH_BYTES:
                    found[tuple(split_hashes(data, at.width)[: tile.width])] = None
        return [list(hashes) for hashes in found]

    def edge(self) -> TreeEdge:
        """The tree's right edge, for whoever appends. Raises VaultError `log.damaged`."""
        return TreeEdge.of(self.checkpoint.size, self._edge.__getitem__)

    def edge_entries(self) -> list[bytes]:
        """The entries in the last bundle, if that is partial."""
        tile = partial_of(-1, self.checkpoint.size)
        return [] if tile is None else list(self.bundle(tile.index))

    def hashes(self, tile: Tile) -> Sequence[bytes]:
        """A hash tile of this tree, proven against what is above it. Raises VaultError `log.damaged`."""
        if tile.width != WIDTH:
            return self._edge[tile]
        with self._mutex:
            held = self._cache.get(tile)
            if held is not None:
                self._cache.move_to_end(tile)
                return held
        parent = holder_of(tile.level + 1, tile.index, self.checkpoint.size)
        wanted = self.hashes(parent)[tile.index - parent.index * WIDTH]

        def proven(data: bytes) -> list[bytes]:
            hashes = split_hashes(data, WIDTH)
            if perfect_root(hashes) != wanted:
                raise self._damaged(f"{tile.path} does not lead to its root")
            return hashes

        found = self.files.read_current(tile_name(self.vault.estate, tile), proven, limit_bytes=TILE_LIMIT_BYTES)
        if found is None:
            raise self._damaged(f"{tile.path} is gone, or no version of it leads to its root")
        with self._mutex:
            self._cache[tile] = found
            if len(self._cache) > CACHED_TILES:
                self._cache.popitem(last=False)
        return found

    def leaf_hashes(self, begin: int, end: int) -> list[bytes]:
        """The hashes of leaves [begin, end)."""
        rows: list[bytes] = []
        for index in range(begin // WIDTH, -(-end // WIDTH)):
            rows += self.hashes(holder_of(0, index * WIDTH, self.checkpoint.size))
        skipped = begin // WIDTH * WIDTH
        return rows[begin - skipped : end - skipped]

    def bundle(self, index: int) -> list[bytes]:
        """The entries of bundle `index` as far as this tree goes. Raises VaultError `log.damaged`."""
        size = self.checkpoint.size
        tile = holder_of(-1, index * WIDTH, size)
        wanted = self.leaf_hashes(index * WIDTH, index * WIDTH + tile.width)
        for at in dict.fromkeys([tile, Tile(-1, index)]):

            def proven(data: bytes, width: int = at.width) -> list[bytes]:
                entries = decode_bundle(data, width)[: len(wanted)]
                if list(map(leaf_hash, entries)) != wanted:
                    raise self._damaged(f"{tile.path} holds other entries than its tree")
                return entries

            found = self.files.read_current(tile_name(self.vault.estate, at), proven, limit_bytes=BUNDLE_LIMIT_BYTES)
            if found is not None:
                return found
        raise self._damaged(f"{tile.path} is gone, or no version of it holds the tree's entries")

    def leaves(self, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Leaves [begin, end), each proven."""
        end = self.checkpoint.size if end is None else min(end, self.checkpoint.size)
        for index in range(begin // WIDTH, -(-end // WIDTH)):
            entries = self.bundle(index)
            yield from entries[max(begin - index * WIDTH, 0) : end - index * WIDTH]

    def leaf(self, index: int) -> bytes:
        """One leaf. ValueError for none of this tree."""
        if not 0 <= index < self.checkpoint.size:
            raise ValueError(f"leaf {index} of a tree of {self.checkpoint.size}")
        return self.bundle(index // WIDTH)[index % WIDTH]

    def inclusion(self, index: int) -> list[bytes]:
        """The inclusion proof of a leaf (RFC 6962 §2.1.1)."""
        return merkle.inclusion_proof(self._range_root, index, self.checkpoint.size)

    def consistency(self, old_size: int) -> list[bytes]:
        """The proof that this tree begins with that of `old_size` (RFC 6962 §2.1.2)."""
        return merkle.consistency_proof(self._range_root, old_size, self.checkpoint.size)

    def root_at(self, old_size: int) -> bytes:
        """The root that this tree had with its first `old_size` leaves."""
        return self._range_root(0, old_size)

    def require_extends(self, old: Checkpoint) -> None:
        """Raise VaultError `log.forked` unless this tree begins with that of an earlier checkpoint of the same log."""
        if old.origin != self.checkpoint.origin:
            raise VaultError("log.other_log", f"{old.origin} is another log than {self.checkpoint.origin}", "compare")
        if old.size > self.checkpoint.size:
            raise VaultError(
                "log.older",
                f"the log has {self.checkpoint.size} leaves, a checkpoint with {old.size} is known",
                "the vault was set back or part of its log was hidden: use a replica, keep all checkpoints",
            )
        if self.root_at(old.size) != old.root:
            raise VaultError(
                "log.forked",
                f"the log of {self.checkpoint.size} leaves does not begin with the {old.size} of a known checkpoint",
                "the log was rewritten: keep everything, and believe the witnessed one",
            )

    @cached_property
    def _range_root(self) -> merkle.RangeRoot:
        return range_root(self.checkpoint.size, self.hashes)

    def batches(self, begin: int = 0) -> Iterator[Batch]:
        """The batches that made this tree from a batch's `base` on, leaves and lists proven.

        Raises VaultError `log.damaged`.
        """
        at = begin
        while at < self.checkpoint.size:
            batch = self.batch_at(at)
            if batch is None:
                raise self._damaged(f"the batch that follows {at} leaves is gone, or no version of it fits the tree")
            yield batch
            at = batch.size

    def batch_at(self, base: int) -> Batch | None:
        """The batch that followed `base` leaves; None if there is none that this tree holds."""
        found = self._batch_at(base)
        return None if found is None else found[0]

    def batch_file(self, base: int) -> tuple[str, bytes]:
        """The name of the batch that followed `base` leaves, and its bytes. Raises VaultError `log.damaged`."""
        found = self._batch_at(base)
        if found is None:
            raise self._damaged(f"the batch that follows {base} leaves is gone")
        return found[1], found[2]

    def _batch_at(self, base: int) -> tuple[Batch, str, bytes] | None:
        def proven(data: bytes) -> tuple[Batch, bytes]:
            found = parse_batch(data, self.vault.trust)
            if found.base != base or not base < found.size <= self.checkpoint.size:
                raise self._damaged("a batch for another tree")
            if list(map(leaf_hash, found.leaves)) != self.leaf_hashes(base, found.size):
                raise self._damaged("a batch with other leaves")
            return found, data

        for attempt in range(ATTEMPTS):
            name = batch_name(self.vault.estate, base, attempt)
            found = self.files.read_current(name, proven, limit_bytes=2 * BATCH_LIMIT_BYTES)
            if found is not None:
                return found[0], name, found[1]
            if next(self.vault.store.list_name(name), None) is None:
                return None
        return None

    def last_batch(self) -> Batch:
        """The batch that this checkpoint ends. Raises VaultError `log.damaged`."""
        for base in self.files.bases_down(self.checkpoint.size):
            found = self.batch_at(base)
            if found is not None:
                if found.size == self.checkpoint.size:
                    return found
                break
        raise self._damaged("the batch that it ends is gone")

    def vouched(self, begin: int = 0) -> Iterator[Vouched]:
        """Everything that the log vouches for, in order, from the batch that follows `begin` leaves on.

        Raises VaultError `log.damaged`, `log.malformed`, `log.bad_leaf`.
        """
        for batch in self.batches(begin):
            lists = {names.index: names for names in batch.lists}
            for index, leaf in enumerate(batch.leaves, start=batch.base):
                said = parse_leaf(leaf, self.vault.trust)
                names = lists.get(index)
                if said.kind != NAMES:
                    yield Vouched(index, leaf, said, (said.name,))
                    continue
                if names is None or names.place != said.name or names.sha256 != said.sha256:
                    raise self._damaged(f"the names behind leaf {index} are gone or others")
                yield Vouched(index, leaf, said, names.texts)

    def find(self, name: str, stored_at: datetime | None = None) -> Vouched | None:
        """The leaf that vouches for an object's name; None if there is none.

        With `stored_at` (the store's clock at its put) the search begins at the first batch that was put after it.
        """
        begin = 0 if stored_at is None else self._batch_after(stored_at)
        return next((vouched for vouched in self.vouched(begin) if name in vouched.names), None)

    def _batch_after(self, moment: datetime) -> int:
        """The base of a batch, the first that was put at `moment` or later, or an earlier one."""
        low, high = 0, self.checkpoint.size  # the batch at `low` is early enough to begin with
        while high - low > 1:
            middle = (low + high) // 2
            row = self.files.stored_since(middle)
            base = None if row is None else int(row.key.rpartition("/")[2].partition("-")[0])
            if row is None or base is None or base >= high:
                high = middle
            elif row.modified_at < moment:
                low = base
            else:
                high = middle
        return low if self.batch_at(low) is not None else 0  # a stranger's name leads astray: then all of it is read

    def _damaged(self, what: str) -> VaultError:
        return VaultError(
            "log.damaged",
            f"the log at {self.checkpoint.size} leaves: {what}",
            "restore the log's files from a replica or an export of this vault",
        )


def read_checkpoint(files: LogFiles, size: int, origin: str | None = None) -> Signed | None:
    """The checkpoint of a size that one of the trusted signed, for the log `origin` if given; None without one.

    A note of ours has one signature. With another line behind it the note would still be signed, and be another one to
    the time stamps that vouch for its bytes.
    """

    def signed(data: bytes) -> Signed:
        found, lines = verify_checkpoint(data, files.vault.trust), parse_note(data)
        if found.checkpoint.size != size or len(lines.unverified) != 1 or lines.to_bytes() != data:
            raise VaultError("log.misplaced", "a checkpoint of another size or with more behind it", "it's passed over")
        if origin not in {None, found.checkpoint.origin}:
            raise VaultError("log.misplaced", f"a checkpoint of {found.checkpoint.origin}", "it's passed over")
        return found

    return files.read_current(checkpoint_name(files.vault.estate, size), signed, limit_bytes=NOTE_LIMIT_BYTES)


def _began_here(files: LogFiles) -> str | None:
    """The log whose first batch was put here first; None where none is left."""
    for attempt in range(ATTEMPTS):
        for data in files.versions(batch_name(files.vault.estate, 0, attempt), limit_bytes=2 * BATCH_LIMIT_BYTES):
            batch = _batch_of(data, files, 0)
            if batch is not None:
                return batch.origin
        if next(files.vault.store.list_name(batch_name(files.vault.estate, 0, attempt)), None) is None:
            return None
    return None


def _beyond(files: LogFiles, signed: Signed) -> Signed:
    """What a listing left out: the batch that was decided on at a checkpoint's size leads to the next one's name."""
    while True:
        size, newer = signed.checkpoint.size, None
        for attempt in range(ATTEMPTS):
            name = batch_name(files.vault.estate, size, attempt)
            if next(files.vault.store.list_name(name), None) is None:
                break
            # One at a time: whoever may write there can lay down any number of large ones.
            rows = files.versions(name, limit_bytes=2 * BATCH_LIMIT_BYTES)
            found = filter(None, (_batch_of(data, files, size) for data in rows))
            batch = next((batch for batch in found if batch.origin == signed.checkpoint.origin), None)
            if batch is not None:
                newer = read_checkpoint(files, batch.size, batch.origin)
                break
        if newer is None:
            return signed
        signed = newer


def _batch_of(data: bytes, files: LogFiles, base: int) -> Batch | None:
    try:
        batch = parse_batch(data, files.vault.trust)
    except VaultError:
        return None
    return batch if batch.base == base and batch.leaves else None
