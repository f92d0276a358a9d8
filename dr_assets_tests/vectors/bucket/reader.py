"""A reader of a copied bucket, written from docs/format.md alone (sections 10 and 12): nothing of dr_assets."""

import hashlib
import hmac
import json
from typing import Any

from dr_assets_tests.vectors.envelope.reader import open_envelope


class Bucket:
    """Names as the dataset's digests tell them, documents as the parts hold them."""

    def __init__(self, dataset: str, subject_id_key: bytes, person_keys: dict[str, bytes]) -> None:
        label = b"dr_assets v1 bucket names\0" + dataset.encode()
        self.key = hmac.new(subject_id_key, label, hashlib.sha256).digest()
        self.dataset, self.person_keys = dataset, person_keys

    def digest(self, label: str, text: str) -> bytes:
        """D of the page."""
        return hmac.new(self.key, label.encode() + b"\0" + text.encode(), hashlib.sha256).digest()

    def documents(self, shard: bytes, parts: dict[str, bytes], at_us: int) -> dict[str, tuple[dict[str, Any], bytes]]:
        """Head and content of every current version at a moment, by name."""
        inventory = json.loads(shard)
        newest: dict[str, list[Any]] = {}
        for row in inventory["rows"]:
            name_id, _, order, *_, gone_at = row
            if order <= at_us and (gone_at is None or gone_at > at_us):
                newest[name_id] = row  # rows of a name are in the order of age
        found = {}
        for row in newest.values():
            name_id, version, _, state, subject, size, digest, folders, head_at, pieces, _ = row
            if state != "v":
                continue

            def opened(place: list[int], what: str, row: list[Any] = row) -> bytes:
                number, offset, length = place
                data = parts[inventory["parts"][number]][offset : offset + length]
                return data if row[4] is None else self.envelope(row[4], f"{row[0]} {row[1]} {what}", data)

            record = opened(head_at, "head")
            length = int.from_bytes(record[:4], "big")
            head, content = json.loads(record[4 : 4 + length]), record[4 + length :]
            content += b"".join(opened(place, str(number)) for number, place in enumerate(pieces))
            sha256 = hashlib.sha256(content).hexdigest()
            told = sha256 if subject is None else self.digest("digest", sha256).hex()
            in_folders = [head["name"][: at + 1] for at, char in enumerate(head["name"]) if char == "/"]
            wanted = [self.digest("folder", folder)[:8].hex() for folder in in_folders]
            require(head["sha256"] == sha256 and digest == told and size == len(content))
            require(self.digest("name", head["name"])[:16].hex() == name_id)
            require([inventory["folders"][number] for number in folders] == wanted)
            require(version == head["version_id"] or version.startswith("null-"))
            found[head["name"]] = head, content
        return found

    def envelope(self, subject: str, document_id: str, data: bytes) -> bytes:
        """A person's record."""
        bound = {"dataset": self.dataset, "document_id": document_id, "estate": "casino", "subject_id": subject}
        aad = json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()
        return open_envelope(self.person_keys[subject], data, aad)


def require(told: bool) -> None:
    """Stop at what is not as the page says."""
    if not told:
        raise ValueError("not as the page says")
