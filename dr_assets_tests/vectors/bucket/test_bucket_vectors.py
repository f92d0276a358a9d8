"""A copied bucket's plaintexts, the page, the generator and an independent reader, held to each other."""

import json
from pathlib import Path
from typing import Any

import pytest

from dr_assets.stores.bucket import manifest
from dr_assets.stores.bucket.inventory import decode_shard, encode_shard
from dr_assets.stores.bucket.runs import microseconds
from dr_assets_tests.vectors.bucket import generate, reader

INDEX: dict[str, Any] = json.loads((Path(__file__).parent / "index.json").read_text())
PARTS = {name: bytes.fromhex(data) for name, data in INDEX["parts"].items()}
NOW = microseconds(generate.AT)


def bucket(*, keys: bool = True) -> reader.Bucket:
    """The reader, with or without people's keys."""
    people = {who: bytes.fromhex(key) for who, key in INDEX["person_keys"].items()} if keys else {}
    return reader.Bucket("kyc", bytes.fromhex(INDEX["subject_id_key"]), people)


def test_the_generator_still_makes_these_very_bytes() -> None:
    """A difference is a changed format."""
    assert generate.files() == INDEX


def test_the_independent_reader_finds_every_document() -> None:
    """Before the delete marker, and behind it; by name, with all that belongs to each."""
    shard = INDEX["shard"].encode()
    before = bucket().documents(shard, PARTS, NOW)
    assert {name: content for name, (_, content) in before.items()} == {
        "kyc/anna/pass port é.pdf": b"her passport",
        "kyc/anna/scan.tiff": bytes(range(256)) * 3,
        "readme.txt": b"nobody's",
    }
    assert before["readme.txt"][0]["tags"] == {"kind": "id card"}
    behind = bucket().documents(shard, PARTS, NOW + 1)
    assert set(behind) == {"kyc/anna/scan.tiff", "readme.txt"}
    assert set(bucket().documents(shard, PARTS, NOW + 6_000_000)) == set(before)  # the marker was removed by then


def test_without_her_key_nothing_of_her_opens() -> None:
    """What is left of her is digests."""
    with pytest.raises(KeyError):
        bucket(keys=False).documents(INDEX["shard"].encode(), PARTS, NOW)
    assert "anna" not in INDEX["shard"]
    assert b"anna" not in b"".join(PARTS.values())


def test_the_package_reads_what_the_vectors_hold() -> None:
    """Shard and manifest come back byte for byte, the check of the key of names is right."""
    rows = decode_shard(INDEX["shard"].encode(), name="shard")
    assert encode_shard(rows) == INDEX["shard"].encode()
    read = manifest.decode(INDEX["manifest"].encode(), name="manifest")
    assert read.encode() == INDEX["manifest"].encode()
    assert read.names_check == bucket().digest("check", "")[:8].hex() == INDEX["names_check"]
