"""Make the golden vectors of a copied bucket: what lies in a part, its inventory, its manifest.

    python -m dr_assets_tests.vectors.bucket.generate

What belongs here: those plaintexts, with everything that is random elsewhere fixed. What stays out: reading them
(reader.py), and the sealed objects around them (vectors/vault). A changed byte is a changed format.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dr_assets.stores.bucket.document import Head, record
from dr_assets.stores.bucket.inventory import Row, Spot, encode_shard
from dr_assets.stores.bucket.manifest import Parent, Part, RunManifest, Tally
from dr_assets.stores.bucket.names import Names
from dr_assets.stores.bucket.runs import microseconds, system_of
from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.subjects.envelope import bound_to, seal_under
from dr_assets.vault.subjects.ids import SubjectIds

FOLDER = Path(__file__).parent
AT = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
ID_KEY = hashlib.sha256(b"vectors: key of subject ids").digest()
PERSON = DataKey.of(hashlib.sha256(b"vectors: person key").digest())
SUBJECT = SubjectIds(ID_KEY).of("anna@example.com")
NAMES = Names.of("kyc", ID_KEY)
SYSTEM = system_of("documents", "kyc/")
PART = f"casino/kyc/base-one/{SYSTEM}/00000000/{0:016X}-{1:016X}-{'ab' * 16}"


def files() -> dict[str, Any]:
    """The index, which holds it all."""
    part, rows = bytearray(), []
    for name, version, content, subject, pieces in (
        ("kyc/anna/pass port é.pdf", "v1", b"her passport", SUBJECT, 0),
        ("kyc/anna/scan.tiff", "v2", bytes(range(256)) * 3, SUBJECT, 2),
        ("readme.txt", "null", b"nobody's", None, 0),
    ):
        rows.append(_document(part, name, version, content, subject, pieces))
    rows.append(_marker(part, "kyc/anna/pass port é.pdf", "v3"))
    rows.sort(key=lambda row: (row.name_id, row.order))
    shard = encode_shard(rows)
    return {
        "format_version": 1,
        "dataset": "kyc",
        "subject_id_key": ID_KEY.hex(),
        "names_check": NAMES.check,
        "person_keys": {SUBJECT: PERSON.secret.hex()},
        "parts": {PART: bytes(part).hex()},
        "shard": shard.decode("ascii"),
        "manifest": _manifest(shard).decode("ascii"),
    }


def _document(part: bytearray, name: str, version_id: str, content: bytes, subject: str | None, pieces: int) -> Row:
    head = Head(
        name, version_id, "etag", AT, len(content), hashlib.sha256(content).hexdigest(),
        headers={"ContentType": "application/pdf"}, metadata={"number": "7"}, tags={"kind": "id card"},
    )  # fmt: skip
    version = NAMES.version_of(version_id, "etag", AT, len(content))
    size = len(content) // pieces if pieces else 0
    spots = [
        _add(part, name, version, subject, content[number * size : (number + 1) * size], str(number))
        for number in range(pieces)
    ]
    at = _add(part, name, version, subject, record(head, b"" if pieces else content), "head")
    digest = NAMES.digest(head.sha256, subject)
    return Row(
        NAMES.name_id(name), version, microseconds(AT), "version", subject, len(content), digest,
        NAMES.folder_ids(name), at, tuple(spots),
    )  # fmt: skip


def _marker(part: bytearray, name: str, version_id: str) -> Row:
    head = Head(name, version_id, "", AT, 0, "", is_marker=True)
    at = _add(part, name, version_id, SUBJECT, record(head), "head")
    order = microseconds(AT) + 1
    return Row(
        NAMES.name_id(name), version_id, order, "marker", SUBJECT, 0, "", NAMES.folder_ids(name), at,
        gone_at=microseconds(AT) + 5_000_000,
    )  # fmt: skip


def _add(part: bytearray, name: str, version: str, subject: str | None, plaintext: bytes, place: str) -> Spot:
    data = plaintext
    if subject is not None:
        document_id = f"{NAMES.name_id(name).hex()} {version} {place}"
        aad = bound_to(estate="casino", dataset="kyc", subject_id=subject, document_id=document_id)
        salt = hashlib.sha256(f"vectors: salt of {document_id}".encode()).digest()
        key = hashlib.sha256(f"vectors: key of {document_id}".encode()).digest()
        data = b"".join(seal_under(PERSON, (plaintext,), aad, salt=salt, document_key=key))
    spot = Spot(PART, len(part), len(data))
    part += data
    return spot


def _manifest(shard: bytes) -> bytes:
    key = f"casino/kyc/base-two/{SYSTEM}/00000000/{0:016X}-{1:016X}-{'cd' * 16}"
    return RunManifest(
        dataset="kyc",
        snapshot_id="two",
        system_id=SYSTEM,
        bucket="documents",
        prefix="kyc/",
        is_versioned=True,
        is_whole_listing=True,
        is_complete=True,
        listing_begin_at=AT,
        listing_end_at=AT,
        end_at=AT,
        names_check=NAMES.check,
        subject_kind="key",
        listed=Tally(3, 0, 788),
        held=Tally(3, 0, 788),
        policy={"lock": "compliance"},
        inventory=(key,),
        refers=(PART,),
        parts=(Part(key, hashlib.sha256(shard).hexdigest(), len(shard)),),
        parent=Parent("one", f"casino/kyc/base/{SYSTEM}/00000000/{1:016X}-{2:016X}-{'ef' * 16}", "one", 1),
    ).encode()


def main() -> None:
    """Write it."""
    (FOLDER / "index.json").write_text(json.dumps(files(), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
