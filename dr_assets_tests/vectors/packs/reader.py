"""A reader of packs, written from docs/format.md §11 alone: it imports nothing of dr_assets.

What belongs here: the shortest honest way from a pack's plaintext to the batches of each slice. What stays out: sealed
objects (vectors/vault/reader.py).
"""

import json
import struct
from typing import Any


class RefusedError(Exception):
    """The bytes break a rule of the page."""


def require(condition: object, rule: str) -> None:
    """Or refuse."""
    if not condition:
        raise RefusedError(rule)


def open_pack(plaintext: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """The index, and each slice's batches."""
    (length,) = struct.unpack_from(">I", plaintext)
    require(length <= 1 << 24, "the index's length")
    text, body = plaintext[4 : 4 + length], plaintext[4 + length :]
    index = json.loads(text)
    require(json.dumps(index, sort_keys=True, separators=(",", ":")).encode() == text, "canonical")
    require(index["version"] == 1, "version")
    at, batches = 0, []
    for each in index["slices"]:
        require(each["at"] == at and each["topic_id"] in index["topics"], "slices lie side by side")
        batches.append(body[at : at + each["size_bytes"]])
        at += each["size_bytes"]
    require(at == len(body), "slices fill the pack")
    return index, batches


def offsets(batches: bytes) -> list[tuple[int, int]]:
    """Of each batch its base offset and the offset behind its last."""
    found, at = [], 0
    while at < len(batches):
        base, size_bytes = struct.unpack_from(">qi", batches, at)
        (delta,) = struct.unpack_from(">i", batches, at + 23)
        found.append((base, base + delta + 1))
        at += 12 + size_bytes
    return found


def open_catalogue(text: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Name and index of each pack, in the order of their numbers."""
    body = json.loads(text)
    assert json.dumps(body, sort_keys=True, separators=(",", ":")).encode() == text
    assert body.keys() == {"version", "packs"}
    assert body["version"] == 1
    packs = body["packs"]
    fields = ["name", "header", "previous", "writer_epoch", "begin_at", "end_at", "recovery_point_at", "index"]
    assert all(row.keys() == set(fields) for row in packs)
    return [(row["name"], row["index"]) for row in packs]
