"""Format, page, generator and an independent reader, held to each other: backups outlive code."""

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import open_sealed
from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.signing import Trust, signer_id_of
from dr_assets_tests.vectors.vault import generate, reader

FOLDER = Path(__file__).parent
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text())
DATA_KEYS = [bytes.fromhex(held["data_key"]) for held in INDEX["key_objects"].values()]


def test_the_generator_still_makes_these_very_bytes() -> None:
    """A difference is a changed format; every file in the folder is made by it, none is left over."""
    made = generate.files()
    assert {path.name for path in FOLDER.iterdir() if path.suffix in {".bin", ".json"}} == made.keys()
    for name, content in made.items():
        assert (FOLDER / name).read_bytes() == content, name


@pytest.mark.parametrize("name", sorted(INDEX["objects"]))
def test_the_independent_reader_opens_every_object(name: str) -> None:
    """Written from docs/format.md alone, it gets the very plaintext."""
    wanted = INDEX["objects"][name]
    data = (FOLDER / name).read_bytes()
    header, plaintext = reader.open_object(wanted["name"], data, DATA_KEYS, INDEX["public_keys"])
    assert (len(plaintext), hashlib.sha256(plaintext).hexdigest()) == (
        wanted["size_bytes"],
        wanted["plaintext_sha256"],
    )
    assert header["sealed_at"] == "2031-05-04T03:02:01.123456Z"


@pytest.mark.parametrize("name", sorted(INDEX["objects"]))
def test_the_package_opens_every_object(name: str) -> None:
    """As it lay under its name."""
    wanted = INDEX["objects"][name]
    trust = Trust({signer_id_of(bytes.fromhex(key)): bytes.fromhex(key) for key in INDEX["public_keys"]})
    opened = open_sealed(
        (FOLDER / name).read_bytes(),
        trust=trust,
        key_of=lambda _: DataKey.of(DATA_KEYS[0]),
        key=ObjectKey.parse(wanted["name"]),
    )
    assert hashlib.sha256(opened.plaintext).hexdigest() == wanted["plaintext_sha256"]
    assert opened.header.digest == wanted["header_digest"]


def test_the_independent_reader_unwraps_the_data_key() -> None:
    """From the key object and the key-encryption key."""
    for name, held in INDEX["key_objects"].items():
        keks = [bytes.fromhex(kek) for kek in INDEX["key_encryption_keys"]]
        secret = reader.open_key_object(held["name"], (FOLDER / name).read_bytes(), keks, INDEX["public_keys"])
        assert secret.hex() == held["data_key"]


def test_the_independent_reader_proves_the_logs_leaves(tmp_path: Path) -> None:
    """Checkpoint, tile, bundle and leaf under their names: three statements, and not with a byte changed."""
    for name, file in INDEX["log"].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((FOLDER / file).read_bytes())
    folder = reader.Folder(tmp_path, [], INDEX["public_keys"])
    leaves = folder.leaves("casino")
    assert [leaf["predicate"]["kind"] for leaf in leaves] == ["manifest", "fact", "wal"]
    assert folder.dsse((FOLDER / "log-leaf.bin").read_bytes(), "application/vnd.in-toto+json") == leaves[0]
    for name in INDEX["log"]:
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        with pytest.raises((reader.RefusedError, InvalidSignature, ValueError, KeyError)):
            reader.Folder(tmp_path, [], INDEX["public_keys"]).leaves("casino")
        (tmp_path / name).write_bytes(whole)


def test_the_independent_reader_is_independent_and_short() -> None:
    """It imports nothing of this project and has at most 300 lines."""
    text = (FOLDER / "reader.py").read_text()
    assert len(text.splitlines()) <= 300
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    standard = {"base64", "collections", "hashlib", "itertools", "json", "pathlib", "re", "sys", "typing"}
    assert imported <= standard | {"zstandard", "cryptography"}


def test_a_full_segment_is_held_to_its_micros_by_the_page_alone() -> None:
    """Bytes, links, count, names and list, computed here from what the independent reader gets."""
    opened = {}
    for name in ("micro-one", "micro-two", "full", "full-list", "expiry-list"):
        wanted = INDEX["objects"][f"{name}.bin"]
        data = (FOLDER / f"{name}.bin").read_bytes()
        opened[name] = (wanted, *reader.open_object(wanted["name"], data, DATA_KEYS, INDEX["public_keys"]))
    micros = [opened["micro-one"], opened["micro-two"]]
    full, header, plaintext = opened["full"]
    assert plaintext == b"".join(row[2] for row in micros)
    names = "".join(f"{row[0]['name']}\n" for row in micros)
    assert header["extra"] == {
        "acknowledged_to": header["last"],
        "role": "roller",
        "micro_count": "2",
        "micro_keys_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "micro_last": micros[1][0]["header_digest"],
    }
    listed = json.loads(opened["full-list"][2])
    assert listed == {
        "full": full["name"],
        "full_header": full["header_digest"],
        "micros": [[row[0]["name"].rpartition("/")[2], row[0]["plaintext_sha256"]] for row in micros],
    }
    (stage,) = json.loads(opened["expiry-list"][2])["stages"]
    (rows,) = stage["objects"].values()
    assert [row[0] for row in rows] == [row[0]["name"].rpartition("/")[2] for row in micros]
