"""Tiles under the names of C2SP tlog-tiles: paths, widths, bundles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.names import is_log_name
from dr_assets.vault.log.tiles import (
    Tile,
    TreeEdge,
    bundles,
    decode_bundle,
    edge_tiles,
    encode_bundle,
    split_hashes,
)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1234067), "tile/0/x001/x234/067"),  # the specification's example
        (Tile(0, 0, 1), "tile/0/000.p/1"),
        (Tile(63, 999), "tile/63/999"),
        (Tile(1, 1000, 255), "tile/1/x001/000.p/255"),
        (Tile(-1, 5), "tile/entries/005"),
        (Tile(-1, 1234067, 17), "tile/entries/x001/x234/067.p/17"),
    ],
)
def test_a_tile_has_the_path_of_the_specification(tile: Tile, path: str) -> None:
    """There and back; the vault knows the name as its log's."""
    assert tile.path == path
    assert Tile.parse(path) == tile
    assert is_log_name(f"casino/log/{path}")


@pytest.mark.parametrize(
    "path",
    [
        "tile/64/000", "tile/00/000", "tile/0/0", "tile/0/0000", "tile/0/x000/001", "tile/0/001/002", "tile/0/000.p/0",
        "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p", "tile/entries/", "tile/-1/000", "tile/0/000/x",
        "tile/0/x001", "tile/0/\N{ARABIC-INDIC DIGIT ZERO}00",
    ],
)  # fmt: skip
def test_what_no_tile_is_called_is_no_tile(path: str) -> None:
    """One name a tile: nothing else can stand for it."""
    assert Tile.parse(path) is None
    assert not is_log_name(f"casino/log/{path}")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("casino/log/checkpoint/00000000000000000007", True),
        ("casino/log/checkpoint/7", False),
        ("casino/log/batch/00000000000000000007-0000", True),
        ("casino/log/batch/00000000000000000007", False),
        ("casino/log/witnessed/00000000000000000007/example.com-0123456789abcdef", True),
        ("casino/log/anchor/00000000000000000007/a/b", False),
        ("casino/logs/tile/0/000", False),
        ("casino/ledger/log/tile/0/000", False),
        ("casino/log/", False),
    ],
)
def test_the_vault_knows_its_logs_names_and_no_others(name: str, is_one: bool) -> None:
    """What is not of these forms is foreign."""
    assert is_log_name(name) == is_one


def test_the_edge_of_a_tree_is_as_the_specification_has_it() -> None:
    """70,000 leaves: 112 in the last tile of level 0, 17 in that of level 1, 1 above; 256 have a full one below 1."""
    assert edge_tiles(70_000) == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert edge_tiles(256) == [Tile(1, 0, 1)]
    assert edge_tiles(0) == []
    edge = TreeEdge(0, [])
    written = edge.grow([b"x"] * 70_000)
    assert len([tile for tile in written if tile.level == 0 and tile.width == 256]) == 273
    assert {tile for tile in written if tile.width != 256} == set(edge_tiles(70_000))


@given(st.lists(st.binary(max_size=1024), max_size=40))
def test_a_bundle_holds_its_entries(entries: list[bytes]) -> None:
    """Each behind its length; any other count, or a cut anywhere, is refused."""
    data = encode_bundle(entries)
    assert decode_bundle(data, len(entries)) == entries
    with pytest.raises(VaultError, match=r"log\.malformed"):
        decode_bundle(data, len(entries) + 1)
    for cut in range(1, min(len(data), 5)):
        with pytest.raises(VaultError, match=r"log\.malformed"):
            decode_bundle(data[:-cut], len(entries))


def test_bundles_continue_where_the_last_one_ended() -> None:
    """Entries that are held at the edge go before the new ones; full bundles and one partial come out."""
    rows = [str(number).encode() for number in range(600)]
    made = bundles(250, rows[250:], rows[:250])
    assert sorted(made) == [Tile(-1, 0), Tile(-1, 1), Tile(-1, 2, 88)]
    assert [entry for tile in sorted(made) for entry in decode_bundle(made[tile], tile.width)] == rows
    with pytest.raises(VaultError, match=r"log\.malformed"):
        split_hashes(b"x" * 33, 1)
