"""The signed file of an extract: a zip of what a database held of one person at a moment, and its offline check.

What belongs here: the file's layout (docs/format.md, Extracts), signing and believing it. What stays out: the queries
(reconciliation/extracts.py), restoring and the record (extract.py).

Anybody who has the trust file can check one with neither vault nor network: the signature over `manifest.json`, each
file's digest, and counts and sums, which are made anew from the rows.
"""

import csv
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dr_assets.estate.errors import VaultError
from dr_assets.reconciliation.cells import harmless
from dr_assets.reconciliation.extracts import Answer, rows_of
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.signing import Signer, Trust

FORMAT: Final = "dr_assets.extract"
VERSION: Final = 1
DOMAIN: Final = b"dr_assets v1 extract"
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
_MANIFEST_LIMIT_BYTES: Final = 16 << 20
_FILE_LIMIT_BYTES: Final = 2 << 30
# What the library says of bytes that are no zip, or no longer the one that they were.
_UNREADABLE: Final = (
    OSError, zipfile.BadZipFile, zlib.error, struct.error, ValueError, NotImplementedError, RuntimeError, EOFError,
)  # fmt: skip
# Nothing of when and where it was made but what the manifest says: the same answers give the same files.
_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)


def files_of(answers: Sequence[Answer]) -> dict[str, bytes]:
    """The answers as CSV for people and JSON for programs, by file name."""
    found = {}
    for answer in answers:
        found[f"{answer.name}.csv"] = _csv(answer)
        found[f"{answer.name}.json"] = canonical.encode(list(rows_of(answer))) + b"\n"
    return found


def manifest_of(said: Mapping[str, Json], answers: Sequence[Answer], contents: Mapping[str, bytes]) -> bytes:
    """The canonical manifest: what was asked (`said`), and each query's columns, count, sums and files."""
    queries: list[Json] = []
    for answer in answers:
        names = (f"{answer.name}.csv", f"{answer.name}.json")
        queries.append(
            {
                "name": answer.name,
                "columns": list[Json](answer.columns),
                "rows": len(answer.rows),
                "sums": {column: dict[str, Json](sums) for column, sums in answer.sums().items()},
                "files": {
                    name: {"sha256": _sha256(contents[name]), "size_bytes": len(contents[name])} for name in names
                },
            }
        )
    return canonical.encode({**said, "format": FORMAT, "version": VERSION, "queries": queries})


def signature_of(manifest: bytes, signer: Signer) -> bytes:
    """The detached signature's file."""
    signature = signer.sign(DOMAIN, manifest)
    return canonical.encode({"signer_id": signer.signer_id, "signature": signature.hex()}) + b"\n"


def write_zip(path: Path, manifest: bytes, signature: bytes, contents: Mapping[str, bytes]) -> None:
    """Write the file; whoever else is on this host can't read it."""
    path.touch(mode=0o600, exist_ok=False)
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in ((MANIFEST, manifest), (SIGNATURE, signature), *contents.items()):
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), data, zipfile.ZIP_DEFLATED)


def verify_zip(path: Path, trust: Trust) -> dict[str, Any]:
    """The manifest of an extract that one of the trusted signed and in which nothing was changed.

    Raises VaultError: `vault.untrusted_signer`, `vault.bad_signature`, `extract.damaged`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _verified(archive, path.name, trust)
    except _UNREADABLE as error:
        raise _damaged(path.name, f"it can't be read ({type(error).__name__})") from None


def _verified(archive: zipfile.ZipFile, name: str, trust: Trust) -> dict[str, Any]:
    names = archive.namelist()
    manifest = _read(archive, name, MANIFEST, _MANIFEST_LIMIT_BYTES)
    said = canonical.decode(
        _read(archive, name, SIGNATURE, _MANIFEST_LIMIT_BYTES).strip(), limit_bytes=1 << 12, what=f"{name}: {SIGNATURE}"
    )
    try:
        signer_id, signature = str(said["signer_id"]), bytes.fromhex(str(said["signature"]))
    except (KeyError, ValueError):
        raise _damaged(name, f"{SIGNATURE} is no signature") from None
    trust.verify(signer_id, signature, DOMAIN, manifest, name=name)
    body: dict[str, Any] = canonical.decode(manifest, limit_bytes=_MANIFEST_LIMIT_BYTES, what=f"{name}: {MANIFEST}")
    if body.get("format") != FORMAT or body.get("version") != VERSION:
        raise _damaged(name, f"{MANIFEST} is of {body.get('format')} version {body.get('version')}")
    listed = {file for query in body["queries"] for file in query["files"]}
    if sorted(names) != sorted({MANIFEST, SIGNATURE, *listed}):
        raise _damaged(name, "it holds other files than its manifest lists")
    for query in body["queries"]:
        _verify_query(archive, name, query)
    return body


def _verify_query(archive: zipfile.ZipFile, name: str, query: Mapping[str, Any]) -> None:
    for file, listed in query["files"].items():
        data = _read(archive, name, file, _FILE_LIMIT_BYTES)
        if len(data) != listed["size_bytes"] or _sha256(data) != listed["sha256"]:
            raise _damaged(name, f"{file} is not the file that its manifest lists")
        if file.endswith(".json"):
            columns = tuple(query["columns"])
            rows = tuple(tuple(row[column] for column in columns) for row in json.loads(data))
            answer = Answer(query["name"], columns, rows)
            if len(rows) != query["rows"] or answer.sums() != query["sums"]:
                raise _damaged(name, f"counts or sums of {file} are not those of its manifest")


def _read(archive: zipfile.ZipFile, name: str, file: str, limit_bytes: int) -> bytes:
    """One file, no larger than it may be, whatever the directory of the zip says."""
    try:
        with archive.open(file) as opened:
            data = opened.read(limit_bytes + 1)
    except KeyError:
        raise _damaged(name, f"it holds no {file}") from None
    if len(data) > limit_bytes:
        raise _damaged(name, f"{file} is larger than {limit_bytes} bytes")
    return data


def _csv(answer: Answer) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(answer.columns)
    writer.writerows([_cell(value) for value in row] for row in answer.rows)
    return text.getvalue().encode("utf-8")


def _cell(value: Json) -> Json:
    return "" if value is None else harmless(value) if isinstance(value, str) else value


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _damaged(name: str, found: str) -> VaultError:
    return VaultError("extract.damaged", f"{name}: {found}", "ask for the file again: this one proves nothing")
