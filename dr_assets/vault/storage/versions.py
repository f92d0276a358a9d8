"""Which version of a name is the one that was sealed: versions and delete markers put on top change nothing.

What belongs here: grouping a listing by key, choosing the authentic version, `as of`. What stays out: signatures.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import DIGEST_HEX, ObjectKey
from dr_assets.vault.storage import Blob, ObjectStore, Version
from dr_assets.vault.storage.refusals import missing


@dataclass(frozen=True, slots=True)
class Name:
    """A name in the store with its versions and its delete markers, each oldest first. `key` is None if not ours."""

    text: str
    key: ObjectKey | None
    versions: tuple[Version, ...]
    markers: tuple[Version, ...]


def scan(store: ObjectStore, prefix: str, start_after: str = "", *, as_of: datetime | None = None) -> Iterator[Name]:
    """All names under `prefix` as they were at `as_of`: what came later is not there."""
    for text, rows in groupby(store.list_versions(prefix, start_after), key=lambda row: row.key):
        # Stores list the newest first; a stable sort of the reverse keeps their order within one second.
        known = sorted(
            (row for row in reversed(list(rows)) if as_of is None or row.modified_at <= as_of),
            key=lambda row: row.modified_at,
        )
        if known:
            yield Name(
                text,
                ObjectKey.parse(text),
                tuple(row for row in known if not row.is_delete_marker),
                tuple(row for row in known if row.is_delete_marker),
            )


def authentic(store: ObjectStore, name: Name) -> Version | None:
    """The oldest version with the digest that the name ends in; the oldest of all if none can be told; None if none is.

    A name with one version isn't looked into here: whoever reads it compares the digest anyway.
    """
    if len(name.versions) <= 1 or name.key is None:
        return name.versions[0] if name.versions else None
    for version in name.versions:
        head = store.head(name.text, version.version_id)
        if head is not None and head.sha256 is not None and head.sha256.startswith(name.key.digest):
            return version
    return name.versions[0]


def has_digest(data: bytes, key: ObjectKey) -> bool:
    """Whether these are the bytes that the name was made for."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_HEX] == key.digest


def get_authentic(store: ObjectStore, key: ObjectKey, first_try: str | None = None) -> Blob:
    """The bytes whose digest the name ends in, from version `first_try` or else from any other version.

    Raises VaultError `vault.missing` if there is no version, `vault.tampered` if none has the digest.
    """
    found = False
    text = str(key)
    if first_try is not None:
        try:
            blob = store.get(text, first_try)
        except VaultError as error:
            if error.code != "vault.missing":
                raise
        else:
            if has_digest(blob.data, key):
                return blob
            found = True
    for row in reversed([row for row in store.list_versions(text) if row.key == text and not row.is_delete_marker]):
        if row.version_id == first_try:
            continue
        blob = store.get(text, row.version_id)
        if has_digest(blob.data, key):
            return blob
        found = True
    if not found:
        raise missing(text, None)
    raise VaultError(
        "vault.tampered",
        f"{text} has not the digest in its name",
        "the object was altered or cut; restore from a replica of this vault",
    )
