"""The whole check of an exported log, and the proof that one object is in it.

What belongs here: the order of the checks. What stays out: each of them (offline_tree.py, offline_outside.py).
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.log import merkle
from dr_assets.vault.log.belief import Belief
from dr_assets.vault.log.checkpoint import Signed
from dr_assets.vault.log.export_files import Export
from dr_assets.vault.log.merkle import leaf_hash, verify_inclusion
from dr_assets.vault.log.offline import OfflineReport, Progress, read_checkpoints
from dr_assets.vault.log.offline_outside import check_outsiders, name_strangers
from dr_assets.vault.log.offline_tree import Found, TreeCheck
from dr_assets.vault.log.statement import NAMES, parse_leaf
from dr_assets.vault.log.tiles import TILE_LIMIT_BYTES, Tile, range_root, split_hashes


@dataclass(frozen=True, slots=True)
class ObjectProof:
    """That a leaf of the newest checkpoint's tree speaks of an object with these bytes."""

    name: str
    sha256: str
    index: int
    leaf: bytes
    path: tuple[bytes, ...]
    signed: Signed

    def to_json(self) -> dict[str, Any]:
        """All that another's tool needs to check it: leaf, proof (RFC 6962), signed checkpoint."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "index": self.index,
            "size": self.signed.checkpoint.size,
            "root": self.signed.checkpoint.root.hex(),
            "leaf": self.leaf.decode("ascii"),
            "leaf_hash": leaf_hash(self.leaf).hex(),
            "inclusion_proof": [base64.b64encode(step).decode("ascii") for step in self.path],
            "checkpoint": self.signed.note.decode(),
        }


def verify_export(
    root: Path,
    belief: Belief,
    *,
    wanted: tuple[str, str] | None = None,
    progress: Progress | None = None,
) -> tuple[OfflineReport, ObjectProof | None]:
    """Check an export; with `wanted` (an object's name and its SHA-256 in hex) also prove that it is logged.

    Damage is reported, never raised. Raises PolicyError `log.no_export`.
    """
    export, report = Export(root), OfflineReport()
    try:
        return report, _verify(export, belief, report, wanted, progress)
    except VaultError as error:  # a folder that can't even be listed to its end
        report.hurt(str(root), error.found)
        return report, None


def _verify(
    export: Export, belief: Belief, report: OfflineReport, wanted: tuple[str, str] | None, progress: Progress | None
) -> ObjectProof | None:
    checkpoints = read_checkpoints(export, belief, report)
    if not checkpoints:
        return None
    tree = TreeCheck(export, belief, checkpoints, report)
    name = wanted[0] if wanted else None
    alone = tree.run(progress, wanted=name)
    counted = tree.batches(wanted=name)
    check_outsiders(export, belief, checkpoints, report)
    name_strangers(export, tree.seen, report)
    return _prove(export, checkpoints[report.size], report, wanted, alone or counted) if wanted else None


def _prove(
    export: Export, signed: Signed, report: OfflineReport, wanted: tuple[str, str], found: Found | None
) -> ObjectProof | None:
    """The object's proof, itself checked; a row says what came of it."""
    name, sha256 = wanted
    claim = f"{name} with SHA-256 {sha256} is logged"
    if found is None:
        report.say(claim, "no leaf speaks of it", proven=False)
        return None
    if not _speaks_of(found.leaf, name, sha256):
        report.hurt(f"leaf {found.index}", f"says that {name} has other bytes")
        return None
    size = signed.checkpoint.size
    try:
        path = merkle.inclusion_proof(range_root(size, lambda tile: _hashes(export, tile)), found.index, size)
        verify_inclusion(leaf_hash(found.leaf), found.index, size, signed.checkpoint.root, path)
    except VaultError as error:
        report.hurt(f"leaf {found.index}", error.found)
        return None
    report.say(claim, f"leaf {found.index} of {size}, {len(path)} hashes lead to the root", proven=True)
    return ObjectProof(name, sha256, found.index, found.leaf, tuple(path), signed)


def _speaks_of(leaf: bytes, name: str, sha256: str) -> bool:
    """A leaf for one object tells its digest; one for many their names, which hold half of each digest."""
    said = parse_leaf(leaf, None)
    if said.kind != NAMES:
        return (said.name, said.sha256) == (name, sha256)
    key = ObjectKey.parse(name)
    return key is not None and sha256.startswith(key.digest)


def _hashes(export: Export, tile: Tile) -> Sequence[bytes]:
    return split_hashes(export.read(tile.path, limit_bytes=TILE_LIMIT_BYTES) or b"", tile.width)
