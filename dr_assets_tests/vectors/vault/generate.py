"""Make the golden vectors of format version 1: everything that is random elsewhere is fixed here.

    python -m dr_assets_tests.vectors.vault.generate

What belongs here: the objects. What stays out: reading them (reader.py). A changed byte is a changed format and needs a
new version number, never a new vector; only another release of zstd may compress the same piece into other bytes.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dr_assets.stores.postgres.full_cut import FullDraft, Limits
from dr_assets.vault import expiry_list
from dr_assets.vault.expiry_list import EXPIRY_LIST, Doomed
from dr_assets.vault.format import canonical
from dr_assets.vault.format.segment import Opened, Sealed, prepare
from dr_assets.vault.full_segment import FULL, FULL_LIST, FullList
from dr_assets.vault.keys.aead_wrap import kek_id_of
from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.keys.key_object import KeyObject
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.log.checkpoint import Checkpoint, sign_checkpoint
from dr_assets.vault.log.merkle import leaf_hash
from dr_assets.vault.log.statement import NAMES, OBJECT, Statement, make_leaf
from dr_assets.vault.log.tiles import encode_bundle
from dr_assets.vault.signing import Signer

FOLDER = Path(__file__).parent
AT = datetime(2031, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
MIB = 1 << 20
KEK = hashlib.sha256(b"vectors: key-encryption key").digest()
DATA_KEY = DataKey.of(hashlib.sha256(b"vectors: data key").digest())
SIGNER = Signer.from_seed(hashlib.sha256(b"vectors: signer").digest())


def pattern(size_bytes: int) -> bytes:
    """Bytes that compress, and that a reader in any language can make: the SHA-256 of their index, 64 times each."""
    block = b"".join(
        hashlib.sha256(number.to_bytes(4, "big")).digest() * 64 for number in range(-(-size_bytes // 2048))
    )
    return block[:size_bytes]


def seal(label: str, plaintext: bytes, **changes: Any) -> Sealed:
    """One object; its salt follows from its label."""
    fields: dict[str, Any] = {
        "estate": "casino",
        "dataset": "ledger",
        "stream": "wal",
        "kind": "wal",
        "system_id": "7512345678901234567",
        "timeline": 1,
        "first": 0x16B374D848,
        "last": 0x16B374D848 + max(1, len(plaintext)),
        "begin_at": AT - timedelta(milliseconds=500),
        "end_at": AT - timedelta(microseconds=1),
        "sealed_at": AT,
        "data_key": DATA_KEY,
        "signer": SIGNER,
        "salt": hashlib.sha256(f"vectors: salt of {label}".encode()).digest(),
    }
    return prepare(plaintext=plaintext, **(fields | changes)).seal()


def objects() -> Iterator[tuple[str, Sealed, bytes]]:
    """Label, object, plaintext: every edge of the format."""
    first = None
    for label, size in (
        ("empty", 0), ("one-byte", 1), ("small", 5000), ("frame-exactly", MIB), ("frame-and-one", MIB + 1),
        ("three-frames", 2 * MIB + 12345),
    ):  # fmt: skip
        plaintext = pattern(size)
        sealed = seal(label, plaintext)
        first = first or sealed
        yield label, sealed, plaintext
    assert first is not None
    extra = {
        "acknowledged_to": f"{0x16B374D848:016X}",
        "recovery_point_at": "2031-05-04T03:02:01.000001Z",
        "note": "é€𝄞",
    }
    yield (
        "chained",
        seal("chained", b"next", previous=first.header.digest, writer_epoch=7, extra=extra, timeline=0xFFFFFFFF),
        b"next",
    )
    yield from rolled_up()
    parts: list[canonical.Json] = [{"key": str(first.key), "sha256": first.sha256, "size_bytes": len(first.data)}]
    body = canonical.encode({"parts": parts})
    yield "manifest", seal("manifest", body, stream="base", kind="manifest"), body
    fact = canonical.encode({"why": "a fact"})
    at = 1935543721123456
    place = {"stream": "facts-drill", "kind": "fact", "system_id": "0", "timeline": 0, "first": at, "last": at + 1}
    yield "fact", seal("fact", fact, **place), fact


def rolled_up() -> Iterator[tuple[str, Sealed, bytes]]:
    """Two micro-segments, their full segment and its list; the list of an expiry that removes them."""
    begin, texts = 0x16B4000000, (pattern(3000), pattern(2000))
    one = seal("micro-one", texts[0], first=begin, last=begin + 3000)
    two = seal("micro-two", texts[1], first=begin + 3000, last=begin + 5000, previous=one.header.digest)
    draft = FullDraft(Limits())
    for sealed, text in zip((one, two), texts, strict=True):
        draft.add(sealed.key, Opened(sealed.header, (text,)))
        yield f"micro-{'one' if sealed is one else 'two'}", sealed, text
    place = {"first": begin, "last": begin + 5000, "writer_epoch": 3}
    full = seal("full", b"".join(texts), stream=FULL, extra=draft.extra(), **place)
    yield "full", full, b"".join(texts)
    listed = canonical.encode(FullList(full.key, full.header.digest, tuple(draft.covered)).to_json())
    yield "full-list", seal("full-list", listed, stream=FULL_LIST, kind="manifest", **place), listed
    doomed = [Doomed(sealed.key, ("v2", "v1"), "micro-segment beneath a full segment") for sealed in (one, two)]
    removal = canonical.encode(expiry_list.to_json(doomed))
    at = 1935543721123456
    stands = {"stream": EXPIRY_LIST, "kind": "manifest", "system_id": "0", "timeline": 0, "first": at, "last": at + 1}
    yield "expiry-list", seal("expiry-list", removal, **stands), removal


def key_object() -> tuple[str, bytes]:
    """The data key as provider `file` wraps it, with a fixed nonce."""
    context = WrapContext("casino", "ledger", DATA_KEY.key_id, 1)
    nonce = hashlib.sha256(b"vectors: nonce").digest()[:12]
    wrapped = nonce + AESGCM(KEK).encrypt(nonce, DATA_KEY.secret, context.encoded())
    held = KeyObject(context, "file", Wrapping(kek_id_of(KEK), wrapped), AT, SIGNER.signer_id)
    key, data, _ = held.sealed(SIGNER)
    return str(key), data


def log_files() -> dict[str, bytes]:
    """A log of three leaves: a leaf by itself, its bundle, its tile, its checkpoint."""
    subjects = [("manifest", OBJECT), ("fact", OBJECT), ("wal", NAMES)]
    leaves = []
    for label, kind in subjects:
        name = f"casino/ledger/{label}/0/00000000/" + ("" if kind == NAMES else f"{0:016X}-{1:016X}-{'ab' * 16}")
        sha256 = hashlib.sha256(f"vectors: {label}".encode()).hexdigest()
        said: dict[str, canonical.Json] = {"kind": label, "stored_at": canonical.format_time(AT)}
        leaves.append(make_leaf(Statement(kind, name, sha256, said), SIGNER))
    hashes = [leaf_hash(leaf) for leaf in leaves]
    root = hashlib.sha256(b"\1" + hashlib.sha256(b"\1" + hashes[0] + hashes[1]).digest() + hashes[2]).digest()
    signed = sign_checkpoint(Checkpoint("dr-assets/casino/primary", len(leaves), root), SIGNER)
    return {
        "log-leaf.bin": leaves[0],
        "log-entries.bin": encode_bundle(leaves),
        "log-tile.bin": b"".join(hashes),
        "log-checkpoint.bin": signed.note,
    }


def files() -> dict[str, bytes]:
    """Every file of the folder, by name."""
    made: dict[str, bytes] = {}
    index: dict[str, Any] = {
        "format_version": 1,
        "public_keys": [SIGNER.public_key.hex()],
        "key_encryption_keys": [KEK.hex()],
        "objects": {},
    }
    name, made["key-object.bin"] = key_object()
    index["key_objects"] = {"key-object.bin": {"name": name, "data_key": DATA_KEY.secret.hex()}}
    for label, sealed, plaintext in objects():
        made[f"{label}.bin"] = sealed.data
        index["objects"][f"{label}.bin"] = {
            "name": str(sealed.key),
            "size_bytes": len(plaintext),
            "plaintext_sha256": hashlib.sha256(plaintext).hexdigest(),
            "header_digest": sealed.header.digest,
        }
    logged = log_files()
    made |= logged
    index["log"] = {
        "casino/log/tile/entries/000.p/3": "log-entries.bin",
        "casino/log/tile/0/000.p/3": "log-tile.bin",
        f"casino/log/checkpoint/{3:020d}": "log-checkpoint.bin",
    }
    made["index.json"] = json.dumps(index, indent=2, sort_keys=True).encode() + b"\n"
    return made


if __name__ == "__main__":
    for file_name, content in files().items():
        (FOLDER / file_name).write_bytes(content)
