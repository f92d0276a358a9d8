"""The Merkle tree of RFC 6962: hashes, growing it, proofs and their verification. Pure.

What belongs here: arithmetic over hashes of 32 bytes. What stays out: where hashes lie (tiles.py), what leaves say.

A tree is a list of leaf hashes. `RangeRoot` hands out the hash of any range [begin, end) that the splits of RFC 6962
§2.1 can ask for; everything else is built on it, so that proofs come out of a list, of tiles or of a store alike.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Final

from dr_assets.estate.errors import VaultError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

RangeRoot = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256 over a zero byte and the entry (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 over a one byte and both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split_at(size: int) -> int:
    """The largest power of two below `size` (≥ 2): how many leaves the left subtree has."""
    return 1 << ((size - 1).bit_length() - 1)


def bag(peaks: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees, the largest and leftmost first; the empty tree's without any."""
    if not peaks:
        return EMPTY_ROOT
    return reduce(lambda right, left: node_hash(left, right), reversed(peaks))


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root of a tree with these leaf hashes."""
    grown = CompactRange()
    for leaf in hashes:
        grown.append(leaf)
    return grown.root


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes, faster than `root_of`."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


class CompactRange:
    """A tree that only grows: its size and the roots of its perfect subtrees, at most 64 of them."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)
        if size < 0 or len(self.peaks) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} perfect subtrees, not {len(self.peaks)}")

    def append(self, leaf: bytes) -> None:
        """One more leaf, by its hash."""
        carried, bits = leaf, self.size
        while bits & 1:
            carried = node_hash(self.peaks.pop(), carried)
            bits >>= 1
        self.peaks.append(carried)
        self.size += 1

    @property
    def root(self) -> bytes:
        """The root as it is now."""
        return bag(self.peaks)


def range_root_of(hashes: Sequence[bytes]) -> RangeRoot:
    """The ranges of a tree that lies in a list."""
    return lambda begin, end: root_of(hashes[begin:end])


def inclusion_proof(range_root: RangeRoot, index: int, size: int) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1: the leaf's sibling first, the root's child last. ValueError for no leaf of the tree."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} of a tree of {size}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + split_at(end - begin)
        if index < middle:
            path.append(range_root(middle, end))
            end = middle
        else:
            path.append(range_root(begin, middle))
            begin = middle
    return path[::-1]


def consistency_proof(range_root: RangeRoot, old_size: int, new_size: int) -> list[bytes]:
    """PROOF of RFC 6962 §2.1.2 that a tree of `new_size` begins with one of `old_size`; none is needed from 0.

    ValueError when the old tree is larger.
    """
    if not 0 <= old_size <= new_size:
        raise ValueError(f"a tree of {new_size} leaves did not grow from {old_size}")
    if old_size in {0, new_size}:
        return []
    proof: list[bytes] = []
    begin, end = 0, new_size
    while end != old_size:
        middle = begin + split_at(end - begin)
        if old_size <= middle:
            proof.append(range_root(middle, end))
            end = middle
        else:
            proof.append(range_root(begin, middle))
            begin = middle
    if begin:  # else the old root itself is the last step, and whoever verifies has it
        proof.append(range_root(begin, end))
    return proof[::-1]


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a leaf's hash and its proof lead to (RFC 9162 §2.1.3.2). Raises VaultError `log.bad_proof`."""
    if not 0 <= index < size:
        raise bad_proof(f"there is no leaf {index} in a tree of {size}")
    node, last, root = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise bad_proof("more hashes than the tree has levels")
        if node & 1 or node == last:
            root = node_hash(step, root)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            root = node_hash(root, step)
        node, last = node >> 1, last >> 1
    if last:
        raise bad_proof("fewer hashes than the tree has levels")
    return root


def verify_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Pass, or raise VaultError `log.bad_proof`: the leaf with this hash is `index` of the tree with this root."""
    if root_from_inclusion(leaf, index, size, proof) != root:
        raise bad_proof(f"leaf {index} does not lead to the root of the tree of {size}")


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Pass, or raise VaultError `log.bad_proof`: the new tree begins with the old one (RFC 9162 §2.1.4.2)."""
    if not 0 <= old_size <= new_size:
        raise bad_proof(f"a tree of {new_size} leaves did not grow from one of {old_size}")
    if old_size in {0, new_size}:
        same = old_root == (new_root if old_size else EMPTY_ROOT)
        if proof or not same:
            raise bad_proof(f"two roots of {old_size} leaves differ, or hashes are given where none is needed")
        return
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not path:
        raise bad_proof("no hash is given where some are needed")
    old_seen, new_seen = _climb(old_size - 1, new_size - 1, path)
    if old_seen != old_root or new_seen != new_root:
        raise bad_proof(f"the tree of {new_size} leaves does not begin with that of {old_size}")


def _climb(node: int, last: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    while node & 1:
        node, last = node >> 1, last >> 1
    old_seen = new_seen = path[0]
    for step in path[1:]:
        if last == 0:
            raise bad_proof("more hashes than the tree has levels")
        if node & 1 or node == last:
            old_seen, new_seen = node_hash(step, old_seen), node_hash(step, new_seen)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new_seen = node_hash(new_seen, step)
        node, last = node >> 1, last >> 1
    if last:
        raise bad_proof("fewer hashes than the tree has levels")
    return old_seen, new_seen


def bad_proof(what: str) -> VaultError:
    """The error of a proof that proves nothing."""
    return VaultError("log.bad_proof", what, "leaf, proof or checkpoint was altered, or the log was forked: keep all")
