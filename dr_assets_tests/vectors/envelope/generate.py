"""Make the golden vectors of a person's envelopes: everything that is random elsewhere is fixed here.

    python -m dr_assets_tests.vectors.envelope.generate

What belongs here: the envelopes. What stays out: reading them (reader.py). A changed byte is a changed format and needs
a new version number, never a new vector. Of large ones only the digest is kept.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.subjects.envelope import bound_to, seal_under

FOLDER = Path(__file__).parent
MIB = 1 << 20
PERSON = DataKey.of(hashlib.sha256(b"vectors: person key").digest())
SUBJECT = "3f" * 16
LARGEST_SHOWN_BYTES = 4096


def pattern(size_bytes: int) -> bytes:
    """The SHA-256 of each index, one after the other."""
    return b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(-(-size_bytes // 32)))[
        :size_bytes
    ]


def seal(label: str, size_bytes: int) -> tuple[bytes, bytes]:
    """Associated data and envelope; salt and document key follow from the label."""
    aad = bound_to(estate="casino", dataset="kyc", subject_id=SUBJECT, document_id=f"documents/{label}é#1")
    salt = hashlib.sha256(f"vectors: salt of {label}".encode()).digest()
    key = hashlib.sha256(f"vectors: key of {label}".encode()).digest()
    return aad, b"".join(seal_under(PERSON, (pattern(size_bytes),), aad, salt=salt, document_key=key))


def index() -> dict[str, Any]:
    """What the file holds."""
    rows: dict[str, Any] = {}
    for label, size in (
        ("empty", 0), ("one-byte", 1), ("small", 300), ("chunk-exactly", MIB), ("chunk-and-one", MIB + 1),
        ("three-chunks", 2 * MIB + 12345),
    ):  # fmt: skip
        aad, sealed = seal(label, size)
        rows[label] = {
            "aad": aad.hex(),
            "size_bytes": size,
            "envelope_sha256": hashlib.sha256(sealed).hexdigest(),
            "envelope_bytes": len(sealed),
        }
        if len(sealed) <= LARGEST_SHOWN_BYTES:
            rows[label]["envelope"] = sealed.hex()
    return {
        "format_version": 1,
        "person_key": PERSON.secret.hex(),
        "person_key_id": PERSON.key_id,
        "subject_id": SUBJECT,
        "envelopes": rows,
    }


def encoded() -> bytes:
    """The file's bytes."""
    return json.dumps(index(), indent=2, sort_keys=True).encode() + b"\n"


if __name__ == "__main__":
    (FOLDER / "index.json").write_bytes(encoded())
