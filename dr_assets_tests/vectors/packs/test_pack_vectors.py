"""Packs: format, page, generator and an independent reader, held to each other."""

import json
from pathlib import Path
from typing import Any

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.pack import parse_index
from dr_assets.vault.format.pack_list import PACK_LIST, encode_pack_list, parse_pack_list
from dr_assets_tests.vectors.packs import generate, reader

FOLDER = Path(__file__).parent
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text())


def test_the_generator_still_makes_these_very_bytes() -> None:
    """A difference is a changed format; every file in the folder is made by it, none is left over."""
    made = generate.files()
    assert {path.name for path in FOLDER.iterdir() if path.suffix in {".bin", ".json"}} == made.keys()
    for name, content in made.items():
        assert (FOLDER / name).read_bytes() == content, name


@pytest.mark.parametrize("name", sorted(INDEX))
def test_package_and_independent_reader_read_every_pack_alike(name: str) -> None:
    """Index and slices; a slice's batches are of its offsets, and the package writes the very index again."""
    plaintext = (FOLDER / name).read_bytes()
    index, batches = reader.open_pack(plaintext)
    assert index == INDEX[name]
    for each, own in zip(index["slices"], batches, strict=True):
        found = reader.offsets(own)
        assert (found[0][0], found[-1][1]) == (each["first"], each["next"])
    parsed = parse_index(plaintext, size_bytes=len(plaintext), name=name)
    assert plaintext.startswith(parsed.encoded())


def test_package_and_independent_reader_read_the_catalogue_alike() -> None:
    """Names, joints, times and indices; the package writes the very bytes again."""
    text = (FOLDER / "catalogue.json").read_bytes()
    rows = reader.open_catalogue(text)
    assert [index for _, index in rows] == [INDEX[f"{label}.bin"] for label, _ in generate.packs()]
    key = ObjectKey("casino", "events", PACK_LIST, "0" * 32, 0, 0, len(rows), "0" * 32)
    parsed = parse_pack_list(json.loads(text), key)
    assert [str(row.key).rpartition("/")[2] for row in parsed] == [name for name, _ in rows]
    assert encode_pack_list(parsed) == text


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "0000000000000009-000000000000000A-" + "0" * 32}, {"name": "pack"}, {"header": "ab"}, {"previous": 1},
        {"writer_epoch": -1}, {"writer_epoch": True}, {"end_at": "now"}, {"recovery_point_at": 1}, {"index": []},
        {"more": 1},
    ],
)  # fmt: skip
def test_a_catalogue_of_another_form_is_malformed(changes: dict[str, Any]) -> None:
    """Whatever of a row is out of bounds, or names another pack than its position."""
    body = json.loads((FOLDER / "catalogue.json").read_bytes())
    body["packs"][1] |= changes
    with pytest.raises(VaultError) as refused:
        parse_pack_list(body, ObjectKey("casino", "events", PACK_LIST, "0" * 32, 0, 0, 4, "0" * 32))
    assert refused.value.code == "vault.malformed"


def _changed(**changes: Any) -> bytes:
    """The pack with jumps, its index changed; slices.N.field for a slice's."""
    plaintext = (FOLDER / "jumps.bin").read_bytes()
    index, batches = reader.open_pack(plaintext)
    for path, value in changes.items():
        *way, last = path.split("__")
        inner: Any = index
        for step in way:
            inner = inner[int(step) if step.isdecimal() else step]
        inner[last] = value
    text = json.dumps(index, sort_keys=True, separators=(",", ":")).encode()
    return len(text).to_bytes(4) + text + b"".join(batches)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2}, {"slices__0__at": 1}, {"slices__0__size_bytes": 1}, {"slices__1__next": 3},
        {"slices__0__topic_id": "00" * 16}, {"slices__0__topic_id": "xyz"}, {"slices__0__partition": -1},
        {"slices__0__partition": True}, {"slices__0__first": 1 << 63}, {"slices__0__broken": {"why": "gap", "was": 11}},
        {"slices__0__broken": {"why": "diverged", "was": 4}}, {"slices__0__more": 1}, {"table__0__complete": 1},
        {"table__0__began_at": "yesterday"}, {"topics": []}, {"cluster_id": ""}, {"table": {}},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_an_index_that_breaks_a_rule_is_refused(changes: dict[str, Any]) -> None:
    """Each field out of its bounds, each relation that doesn't hold: VaultError, never another exception."""
    parse_index(_changed(), size_bytes=len(_changed()), name="pack")
    plaintext = _changed(**changes)
    with pytest.raises(VaultError) as refused:
        parse_index(plaintext, size_bytes=len(plaintext), name="pack")
    assert refused.value.code == "vault.malformed"


def test_a_pack_that_was_cut_is_refused() -> None:
    """At every byte of its index, and behind it."""
    plaintext = (FOLDER / "jumps.bin").read_bytes()
    for end in range(len(plaintext)):
        with pytest.raises(VaultError):
            parse_index(plaintext[:end], size_bytes=end, name="pack")
