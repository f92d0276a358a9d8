"""A document as it lies in a part: its head and its bytes, in its person's envelope, or plain where it is nobody's.

What belongs here: the head's fields, the record's bytes, which envelope belongs to which place. What stays out: where
records lie (inventory.py), and the person's key (persons.py).

A record is the length of the head in four bytes, the head, the content. A large document's content lies in pieces, each
a record of its own without a head; its head comes behind them, since only then their digest is known.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed
from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.subjects.envelope import bound_to, open_with, seal_for

HEAD_LIMIT_BYTES: Final = 256 << 10
_LENGTH: Final = struct.Struct(">I")
_FIELDS: Final = frozenset(
    {"etag", "headers", "is_marker", "metadata", "modified_at", "name", "sha256", "size_bytes", "tags", "version_id"}
)


@dataclass(frozen=True, slots=True)
class Head:
    """What a source tells of one version beside its bytes. `sha256` is hex, of the content; empty for a marker."""

    name: str
    version_id: str
    etag: str
    modified_at: datetime
    size_bytes: int
    sha256: str
    is_marker: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical.encode(
            {
                "etag": self.etag,
                "headers": dict(self.headers),
                "is_marker": self.is_marker,
                "metadata": dict(self.metadata),
                "modified_at": canonical.format_time(self.modified_at),
                "name": self.name,
                "sha256": self.sha256,
                "size_bytes": self.size_bytes,
                "tags": dict(self.tags),
                "version_id": self.version_id,
            }
        )


def record(head: Head, content: bytes = b"") -> bytes:
    """The record's bytes before any envelope."""
    encoded = head.encode()
    if len(encoded) > HEAD_LIMIT_BYTES:
        raise malformed(f"a document's head: {len(encoded)} bytes, at most {HEAD_LIMIT_BYTES} are allowed")
    return _LENGTH.pack(len(encoded)) + encoded + content


def parse_record(data: bytes, *, what: str) -> tuple[Head, memoryview]:
    """The head and the content behind it. Raises VaultError `vault.malformed`; `what` doesn't name the document."""
    if len(data) < _LENGTH.size:
        raise malformed(f"{what}: ends within a record's length")
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    if length > HEAD_LIMIT_BYTES or end > len(data):
        raise malformed(f"{what}: a head of {length} bytes in a record of {len(data)}")
    raw = canonical.decode(bytes(data[_LENGTH.size : end]), limit_bytes=HEAD_LIMIT_BYTES, what=what)
    return _head(raw, what), memoryview(data)[end:]


def _head(raw: dict[str, Json], what: str) -> Head:
    if raw.keys() != _FIELDS:
        raise malformed(f"{what}: a head with unknown or missing fields")
    size_bytes, is_marker = raw["size_bytes"], raw["is_marker"]
    if not isinstance(is_marker, bool):
        raise malformed(f"{what}: a head whose fields are none")
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
        raise malformed(f"{what}: a head without a size")
    return Head(
        name=_text(raw["name"], what),
        version_id=_text(raw["version_id"], what),
        etag=_text(raw["etag"], what),
        modified_at=canonical.parse_time(raw["modified_at"], what),
        size_bytes=size_bytes,
        sha256=_text(raw["sha256"], what),
        is_marker=is_marker,
        headers=_texts(raw["headers"], what),
        metadata=_texts(raw["metadata"], what),
        tags=_texts(raw["tags"], what),
    )


def _text(value: Json, what: str) -> str:
    if not isinstance(value, str):
        raise malformed(f"{what}: a head whose fields are none")
    return value


def _texts(value: Json, what: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise malformed(f"{what}: a head whose fields are none")
    return {name: str(text) for name, text in value.items()}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose records these are, and which document's: what an envelope is bound to. No person: no envelope."""

    estate: str
    dataset: str
    subject_id: str | None
    name_id: bytes
    version: str

    def seal(self, person: DataKey | None, plaintext: bytes, piece: int | None = None) -> bytes:
        """The record as it goes into a part; `piece` counts from 0, None is the head's."""
        return plaintext if person is None else seal_for(person, plaintext, self._bound(piece))

    def open(self, person: DataKey | None, sealed: bytes, piece: int | None = None) -> bytes:
        """What `seal` took. Raises VaultError as `open_with` does."""
        return sealed if person is None else open_with(person, sealed, self._bound(piece))

    def _bound(self, piece: int | None) -> bytes:
        place = "head" if piece is None else str(piece)
        return bound_to(
            estate=self.estate,
            dataset=self.dataset,
            subject_id=self.subject_id or "",
            document_id=f"{self.name_id.hex()} {self.version} {place}",
        )
