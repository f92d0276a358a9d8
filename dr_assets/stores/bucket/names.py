"""What stands for a document's name outside its person's envelope: keyed digests that tell nobody anything.

What belongs here: those digests, and the key of a version. What stays out: whose document it is (persons.py).

Names, metadata and digests of documents are personal data. Outside the envelope there are HMACs only, so that whoever
destroys a person's key destroys the names as well. A digest of a document's bytes is keyed too: a document with few
possible contents could be guessed from a plain one.
"""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.stores.bucket.listing import Listed
from dr_assets.stores.bucket.source import NULL

NAME_BYTES: Final = 16
FOLDER_BYTES: Final = 8
_LABEL: Final = b"dr_assets v1 bucket names\0"


@dataclass(frozen=True, slots=True)
class Names:
    """Digests under one dataset's key; who has not the key of subject ids can't make them."""

    _key: bytes = field(repr=False)

    @classmethod
    def of(cls, dataset: str, subject_id_key: bytes | None) -> "Names":
        """The dataset's. Without people there is no secret to keep: names lie in the sealed parts as they are."""
        return cls(hmac.new(subject_id_key or b"", _LABEL + dataset.encode("ascii"), hashlib.sha256).digest())

    @property
    def check(self) -> str:
        """Sixteen digits by which another key is told from this one."""
        return self._of(b"check", "")[:8].hex()

    def name_id(self, name: str) -> bytes:
        """Sixteen bytes for a name."""
        return self._of(b"name", name)[:NAME_BYTES]

    def folder_ids(self, name: str) -> tuple[bytes, ...]:
        """Eight bytes for each folder that the name lies in, from the top: `a/`, `a/b/` of `a/b/c`."""
        return tuple(self.folder_id(folder) for folder in folders_of(name))

    def folder_id(self, folder: str) -> bytes:
        """Eight bytes for a folder, which ends in a slash."""
        return self._of(b"folder", folder)[:FOLDER_BYTES]

    def digest(self, sha256: str, subject_id: str | None) -> str:
        """What an inventory tells of a document's bytes: nobody's as it is, a person's keyed."""
        return sha256 if subject_id is None else self._of(b"digest", sha256).hex()

    def version(self, row: Listed) -> str:
        """The key of a version: the store's own id, or for what has none what tells one content from the next."""
        return self.version_of(row.version_id, row.etag, row.modified_at, row.size_bytes)

    def version_of(self, version_id: str, etag: str, modified_at: datetime, size_bytes: int) -> str:
        """As `version`, of what another answer than a listing told."""
        if version_id not in {"", NULL}:
            return version_id
        seconds = int(modified_at.timestamp())
        return f"{NULL}-{self._of(b'version', f'{etag} {seconds} {size_bytes}')[:NAME_BYTES].hex()}"

    def _of(self, label: bytes, text: str) -> bytes:
        return hmac.new(self._key, label + b"\0" + text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def folders_of(name: str) -> Iterator[str]:
    """Every beginning of a name that ends in a slash, the shortest first."""
    at = name.find("/")
    while at >= 0:
        yield name[: at + 1]
        at = name.find("/", at + 1)
