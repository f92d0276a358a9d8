"""A reader of format version 1, written from docs/format.md alone: it imports nothing of dr_assets.

What belongs here: the shortest honest way from bytes to plaintext. What stays out: anything the page doesn't say.
"""

import hashlib
import json
from typing import Any

import zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MIB = 1 << 20
PLACES = ("estate", "dataset", "stream", "system_id")
FIELDS = {
    *PLACES, "timeline", "first", "last", "kind", "begin_at", "end_at", "sealed_at", "codec", "size_bytes",
    "plaintext_sha256", "key_id", "salt", "key_commitment", "signer_id", "previous", "writer_epoch", "extra",
}  # fmt: skip


class RefusedError(Exception):
    """The bytes break a rule of the page."""


def require(condition: object, rule: str) -> None:
    """Or refuse."""
    if not condition:
        raise RefusedError(rule)


def canonical(value: Any) -> bytes:
    """Section 2."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def parse(text: bytes) -> dict[str, Any]:
    """Section 2, the other way."""
    try:
        value = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError):
        raise RefusedError("JSON") from None
    require(isinstance(value, dict) and canonical(value) == text, "canonical")
    return dict(value)


def hkdf(secret: bytes, salt: bytes | None, info: bytes, length: int) -> bytes:
    """RFC 5869."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def verify(public_keys: list[str], signer_id: str, signature: bytes, message: bytes) -> None:
    """By the one key of that id."""
    keys = {hashlib.sha256(bytes.fromhex(key)).hexdigest()[:32]: bytes.fromhex(key) for key in public_keys}
    require(signer_id in keys, "trusted signer")
    Ed25519PublicKey.from_public_bytes(keys[signer_id]).verify(signature, message)


def open_key_object(name: str, data: bytes, keks: list[bytes], public_keys: list[str]) -> bytes:
    """Section 4: the data key."""
    require(hashlib.sha256(data).hexdigest()[:32] == name[-32:], "digest in the name")
    fields = parse(data)
    signature = bytes.fromhex(fields.pop("signature"))
    require(fields["kind"] == "dr_assets key object v1", "kind")
    verify(public_keys, fields["signer_id"], signature, b"dr_assets key object v1\0" + canonical(fields))
    place = f"{fields['estate']}/{fields['dataset']}/keys/{fields['key_id']}/{fields['generation']:08X}/"
    require(name == f"{place}{'0' * 16}-{'0' * 16}-{name[-32:]}", "name")
    context = {field: fields[field] for field in ("dataset", "estate", "generation", "key_id", "purpose")}
    by_id = {hashlib.sha256(b"dr_assets v1 kek id\0" + kek).hexdigest()[:32]: kek for kek in keks}
    wrapped = bytes.fromhex(fields["wrapped"])
    secret = AESGCM(by_id[fields["kek_id"]]).decrypt(wrapped[:12], wrapped[12:], canonical(context))
    require(hkdf(secret, None, b"dr_assets v1 key id", 16).hex() == fields["key_id"], "key id")
    return secret


def open_object(name: str, data: bytes, data_keys: list[bytes], public_keys: list[str]) -> tuple[dict[str, Any], bytes]:
    """Section 3: header and plaintext."""
    require(data[:7] == b"\x89DRSEAL" and data[7:8] == b"\1", "magic and version")
    length = int.from_bytes(data[8:12], "big")
    require(length <= 65536 and 12 + length + 96 <= len(data), "header length")
    header = parse(data[12 : 12 + length])
    require(header.keys() == FIELDS and header["codec"] == "zstd+aes-256-gcm", "fields")
    header_digest = hashlib.sha256(data[: 12 + length]).digest()
    content_digest, signature = data[-96:-64], data[-64:]
    require(hashlib.sha256(data[:-96]).digest() == content_digest, "content digest")
    message = b"dr_assets sealed object v1\0" + header_digest + content_digest
    verify(public_keys, header["signer_id"], signature, message)
    place = "/".join(header[part] for part in PLACES) + f"/{header['timeline']:08X}/"
    digest = hashlib.sha256(data).hexdigest()[:32]
    require(name == f"{place}{header['first']}-{header['last']}-{digest}", "name")
    by_id = {hkdf(key, None, b"dr_assets v1 key id", 16).hex(): key for key in data_keys}
    keys = hkdf(by_id[header["key_id"]], bytes.fromhex(header["salt"]), b"dr_assets v1 object", 64)
    require(keys[32:].hex() == header["key_commitment"], "key commitment")
    plaintext = b"".join(frames(data[12 + length : -96], keys[:32], header_digest, header["size_bytes"]))
    require(hashlib.sha256(plaintext).hexdigest() == header["plaintext_sha256"], "plaintext digest")
    return header, plaintext


def frames(body: bytes, key: bytes, header_digest: bytes, size_bytes: int) -> list[bytes]:
    """Section 3, Frames."""
    count, pieces, at = max(1, -(-size_bytes // MIB)), [], 0
    for number in range(count):
        length = int.from_bytes(body[at : at + 4], "big")
        bound = header_digest + number.to_bytes(4, "big") + bytes([number == count - 1])
        frame = AESGCM(key).decrypt(number.to_bytes(12, "big"), body[at + 4 : at + 4 + length], bound)
        size = min(MIB, size_bytes - number * MIB)
        require(zstandard.frame_content_size(frame) == size, "piece size")
        pieces.append(zstandard.decompress(frame, max_output_size=max(1, size)))
        at += 4 + length
    require(at == len(body), "frames fill the body")
    return pieces
