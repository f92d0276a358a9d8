"""A reader of a person's envelope, version 1, written from docs/format.md alone (section 10): nothing of dr_assets."""

import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

STORED = (1 << 20) + 16


def hkdf(secret: bytes, salt: bytes | None, info: bytes, length: int) -> bytes:
    """RFC 5869."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def open_envelope(person_key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """The document."""
    if sealed[:8] != b"\x89DRPERS\x01" or len(sealed) < 104 + 16:
        raise ValueError("no envelope")
    if sealed[8:24] != hkdf(person_key, None, b"dr_assets v1 key id", 16):
        raise ValueError("another key's")
    wrapping_key = hkdf(person_key, sealed[24:56], b"dr_assets v1 person envelope", 32)
    document_key = AESGCM(wrapping_key).decrypt(bytes(12), sealed[56:104], sealed[:56] + aad)
    bound = hashlib.sha256(sealed[:104] + aad).digest()
    chunks = [sealed[at : at + STORED] for at in range(104, len(sealed), STORED)]
    return b"".join(
        AESGCM(document_key).decrypt(
            number.to_bytes(12, "big"),
            chunk,
            bound + number.to_bytes(8, "big") + bytes([number == len(chunks) - 1]),
        )
        for number, chunk in enumerate(chunks)
    )
