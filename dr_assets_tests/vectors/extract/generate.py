"""Make the golden vector of an extract's file: manifest, signature and files as they lie in the zip.

    python -m dr_assets_tests.vectors.extract.generate

What belongs here: the files' bytes. What stays out: reading them (reader.py), and the zip around them, whose compressed
bytes are the library's affair. A changed byte is a changed format and needs a new version number, never a new vector.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from dr_assets.proving.extract_file import MANIFEST, SIGNATURE, files_of, manifest_of, signature_of
from dr_assets.reconciliation.extracts import Answer
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.signing import Signer

FOLDER = Path(__file__).parent
SIGNER = Signer.from_seed(hashlib.sha256(b"vectors: signer").digest())
ANSWERS = (
    Answer("player", ("player_id", "name", "closed_at"), (("4711", 'Zoë, "the\n2nd"', None),)),
    Answer(
        "postings",
        ("posting_id", "currency", "amount_minor", "is_final"),
        ((1, "EUR", "9007199254740993", True), (2, "EUR", "-12", False), (3, "JPY", "5", True), (4, "EUR", None, True)),
    ),
    Answer("contacts", ("player_id",), ()),
)
SAID: dict[str, Json] = {
    "extract_id": "00112233445566778899aabbccddeeff"[:16],
    "estate": "casino",
    "dataset": "ledger",
    "subject_id": "3f" * 16,
    "target": "2026-11-21T14:05:00Z",
    "by": "eve",
    "reason": "AML art. 40, case 17",
    "made_at": "2026-11-22T12:00:00.000000Z",
    "contract": "casino_ledger",
    "contract_digest": "ab" * 32,
    "base_backup": "casino/ledger/base/x",
    "replayed_lsn": "0/3000028",
    "timeline": 1,
    "recovered_at": "2026-11-21T14:04:59.500000Z",
    "last_commit_at": None,
}


def index() -> dict[str, Any]:
    """What the file holds: each of the zip's files in hex, in the zip's order."""
    contents = files_of(ANSWERS)
    manifest = manifest_of(SAID, ANSWERS, contents)
    signed = {MANIFEST: manifest, SIGNATURE: signature_of(manifest, SIGNER)}
    return {
        "format_version": 1,
        "trusted": {SIGNER.signer_id: SIGNER.public_key.hex()},
        "files": [[name, data.hex()] for name, data in {**signed, **contents}.items()],
    }


def encoded() -> bytes:
    """The file's bytes."""
    return json.dumps(index(), indent=2, sort_keys=True).encode() + b"\n"


if __name__ == "__main__":
    (FOLDER / "index.json").write_bytes(encoded())
