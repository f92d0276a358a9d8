"""The tree: the roots that others publish, proofs of any leaf and any growth, and nothing else believed."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.merkle import (
    EMPTY_ROOT,
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    range_root_of,
    root_of,
    split_at,
    verify_consistency,
    verify_inclusion,
)
from dr_assets.vault.log.tiles import Tile, TreeEdge, range_root, split_hashes

# The eight leaves that implementations of RFC 6962 test with, and the roots of the trees of the first n of them.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
# (leaf, size) and (old, new) with the paths over them, as published with the same leaves.
PATHS = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
    (1, 5): (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
GROWTH = {
    (1, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
HASHES = [leaf_hash(entry) for entry in LEAVES]


def mth(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 §2.1 as it is written, by which the fast ways are judged."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = split_at(len(hashes))
    return node_hash(mth(hashes[:k]), mth(hashes[k:]))


def made_up(size: int) -> list[bytes]:
    """Hashes of so many leaves."""
    return [leaf_hash(str(number).encode()) for number in range(size)]


@pytest.mark.parametrize(("size", "root"), list(enumerate(ROOTS, start=1)))
def test_the_published_roots_come_out(size: int, root: str) -> None:
    """Whoever has an implementation of RFC 6962 comes to the same roots."""
    assert root_of(HASHES[:size]).hex() == root
    assert root_of([]) == EMPTY_ROOT


@pytest.mark.parametrize(("place", "path"), PATHS.items())
def test_the_published_inclusion_proofs_come_out(place: tuple[int, int], path: tuple[str, ...]) -> None:
    """The same hashes in the same order, and they verify."""
    index, size = place
    proof = inclusion_proof(range_root_of(HASHES[:size]), index, size)
    assert [step.hex() for step in proof] == list(path)
    verify_inclusion(HASHES[index], index, size, bytes.fromhex(ROOTS[size - 1]), proof)


@pytest.mark.parametrize(("sizes", "path"), GROWTH.items())
def test_the_published_consistency_proofs_come_out(sizes: tuple[int, int], path: tuple[str, ...]) -> None:
    """The same hashes in the same order, and they verify."""
    old, new = sizes
    proof = consistency_proof(range_root_of(HASHES[:new]), old, new)
    assert [step.hex() for step in proof] == list(path)
    verify_consistency(old, bytes.fromhex(ROOTS[old - 1]), new, bytes.fromhex(ROOTS[new - 1]), proof)


@given(st.integers(0, 700))
@settings(deadline=None, max_examples=60)
def test_a_grown_tree_has_the_root_of_the_definition(size: int) -> None:
    """Leaf by leaf, and by tiles: the root is that of RFC 6962's own recursion."""
    hashes = made_up(size)
    grown = CompactRange()
    for one in hashes:
        grown.append(one)
    assert grown.root == mth(hashes)
    assert CompactRange(grown.size, grown.peaks).root == grown.root


@given(st.integers(1, 1200), st.data())
@settings(deadline=None, max_examples=80)
def test_every_proof_out_of_tiles_verifies_and_no_other_does(size: int, data: st.DataObject) -> None:
    """Any leaf, any earlier size, the tree grown in any batches; one flipped bit anywhere is caught."""
    entries = [str(number).encode() for number in range(size)]
    tiles: dict[Tile, bytes] = {}
    edge = TreeEdge(0, [])
    while edge.size < size:
        tiles |= edge.grow(entries[edge.size : edge.size + data.draw(st.integers(1, size - edge.size))])
    hashes = made_up(size)
    ranges = range_root(size, lambda tile: split_hashes(tiles[tile], tile.width))
    root = root_of(hashes)
    assert edge.root == root == ranges(0, size)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    proof, growth = inclusion_proof(ranges, index, size), consistency_proof(ranges, old, size)
    assert proof == inclusion_proof(range_root_of(hashes), index, size)
    old_root = root_of(hashes[:old])
    verify_inclusion(hashes[index], index, size, root, proof)
    verify_consistency(old, old_root, size, root, growth)
    for wrong in spoilt([hashes[index], root, *proof], data):
        with pytest.raises(VaultError, match=r"log\.bad_proof"):
            verify_inclusion(wrong[0], index, size, wrong[1], wrong[2:])
    for wrong in spoilt([old_root, root, *growth], data):
        with pytest.raises(VaultError, match=r"log\.bad_proof"):
            verify_consistency(old, wrong[0], size, wrong[1], wrong[2:])


def spoilt(parts: list[bytes], data: st.DataObject) -> list[list[bytes]]:
    """One byte of one hash altered; one hash too few; one too many."""
    at, byte = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 31))
    flipped = [*parts]
    flipped[at] = bytes(value ^ (where == byte) for where, value in enumerate(parts[at]))
    return [flipped, *([parts[:-1]] if len(parts) > 2 else []), [*parts, b"\x07" * 32]]


@pytest.mark.parametrize(("index", "size"), [(8, 8), (-1, 8), (0, 0)])
def test_no_proof_is_made_or_believed_of_a_leaf_that_is_none(index: int, size: int) -> None:
    """Outside the tree there is nothing to prove."""
    with pytest.raises(ValueError, match="leaf"):
        inclusion_proof(range_root_of(HASHES), index, size)
    with pytest.raises(VaultError, match="no leaf"):
        verify_inclusion(HASHES[0], index, size, HASHES[0], [])


def test_an_older_tree_is_no_growth() -> None:
    """A log that got shorter, or another one of the same size, is refused; growth from nothing needs no proof."""
    root = root_of(HASHES)
    with pytest.raises(ValueError, match="did not grow"):
        consistency_proof(range_root_of(HASHES), 9, 8)
    with pytest.raises(VaultError, match="did not grow"):
        verify_consistency(9, root, 8, root, [])
    with pytest.raises(VaultError, match="differ"):
        verify_consistency(8, HASHES[0], 8, root, [])
    with pytest.raises(VaultError, match="no hash is given"):
        verify_consistency(3, root, 8, root, [])
    verify_consistency(0, EMPTY_ROOT, 8, root, [])


def test_a_compact_range_has_as_many_peaks_as_bits() -> None:
    """A state that can't be a tree's is our own bug."""
    with pytest.raises(ValueError, match="perfect subtrees"):
        CompactRange(5, [HASHES[0]])
