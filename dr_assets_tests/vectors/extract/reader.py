"""A reader of an extract, version 1, written from docs/format.md alone (section 13): nothing of dr_assets."""

import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def read_extract(path: Path, trusted: dict[str, bytes]) -> dict[str, list[dict[str, Any]]]:
    """Rows by query. Raises what the first broken promise raises."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        files = {name: archive.read(name) for name in names}
    assert len(files) == len(names)
    manifest, said = files.pop("manifest.json"), json.loads(files.pop("manifest.sig"))
    key = Ed25519PublicKey.from_public_bytes(trusted[said["signer_id"]])
    key.verify(bytes.fromhex(said["signature"]), b"dr_assets v1 extract\0" + manifest)
    body = json.loads(manifest)
    assert (body["format"], body["version"]) == ("dr_assets.extract", 1)
    found = {}
    for query in body["queries"]:
        for name, listed in query["files"].items():
            data = files.pop(name)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (listed["size_bytes"], listed["sha256"])
            if name.endswith(".json"):
                found[query["name"]] = json.loads(data)
            else:
                table = list(csv.reader(io.StringIO(data.decode(), newline="")))
                assert table[0] == query["columns"]
                assert len(table) - 1 == query["rows"]
        _require_sums(query, found[query["name"]])
    assert not files
    return found


def _require_sums(query: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    sums: dict[str, dict[str, int]] = {name: {} for name in query["columns"] if name.endswith("_minor")}
    for row in rows:
        for name, by in sums.items():
            if row[name] is not None:
                currency = str(row["currency"]) if "currency" in query["columns"] else ""
                by[currency] = by.get(currency, 0) + int(row[name])
    assert {name: {key: str(total) for key, total in by.items()} for name, by in sums.items()} == query["sums"]
