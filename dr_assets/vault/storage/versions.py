"""Which version of a name is the one that was sealed: versions and delete markers put on top change nothing.

What belongs here: grouping a listing by key, choosing the authentic version, `as of`. What stays out: signatures.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import DIGEST_HEX, ObjectKey, is_log_folder
from dr_assets.vault.format.sizes import stored_limit
from dr_assets.vault.storage import Blob, ObjectStore, Version
from dr_assets.vault.storage.refusals import missing

PLACE_DEPTH: Final = 5  # estate/dataset/stream/system id/timeline/
POSITIONS_LENGTH: Final = 16 + 1 + 16 + 1 + DIGEST_HEX


@dataclass(frozen=True, slots=True)
class Name:
    """A name in the store with its versions and its delete markers, each oldest first. `key` is None if not ours."""

    text: str
    key: ObjectKey | None
    versions: tuple[Version, ...]
    markers: tuple[Version, ...]


def scan(store: ObjectStore, prefix: str, start_after: str = "", *, as_of: datetime | None = None) -> Iterator[Name]:
    """All names under `prefix` as they were at `as_of`: what came later is not there.

    Goes down folder by folder to where positions are listed, because a flat listing over folders of which one's name
    begins another's loses names in some stores. `start_after` needs a prefix that reaches down to the positions.
    A log's names have folders of their own (docs/format.md), all of which are gone down into.
    """
    if prefix.count("/") >= PLACE_DEPTH and not is_log_folder(prefix):
        yield from _place(store, prefix, start_after, as_of)
        return
    if start_after or not prefix.endswith("/"):
        raise ValueError(f"{prefix} does not reach down to the positions")
    names, folders = look(store, prefix, as_of=as_of)
    yield from names
    for folder in folders:
        yield from scan(store, folder, as_of=as_of)


def look(store: ObjectStore, prefix: str, *, as_of: datetime | None = None) -> tuple[list[Name], tuple[str, ...]]:
    """The names directly in a folder, and the folders in it."""
    level = store.list_level(prefix)
    return [name for rows in _by_key(level.versions).values() for name in _name(rows, as_of)], level.folders


def _place(store: ObjectStore, prefix: str, start_after: str, as_of: datetime | None) -> Iterator[Name]:
    """Names where positions are listed, a family at a time: those that share the characters of one key of ours.

    A stranger's name that merely continues one of ours can make a store skip ours, or some versions of it, at the end
    of a page. So where there is one, ours is asked for by itself.
    """
    cut = len("/".join(prefix.split("/")[:PLACE_DEPTH])) + 1 + POSITIONS_LENGTH
    for stem, family in groupby(store.list_versions(prefix, start_after), key=lambda row: row.key[:cut]):
        names = _by_key(family)
        if names.keys() != {stem} and len(stem) == cut and stem > start_after:
            names |= _by_key(store.list_name(stem))
        for text in sorted(names):
            yield from _name(names[text], as_of)


def _by_key(rows: Iterable[Version]) -> dict[str, list[Version]]:
    names: dict[str, list[Version]] = {}
    for row in rows:
        names.setdefault(row.key, []).append(row)
    return names


def _name(rows: list[Version], as_of: datetime | None) -> Iterator[Name]:
    """The name with these rows, if it was there at `as_of`."""
    # Stores list the newest first; a stable sort of the reverse keeps their order within one second.
    known = sorted(
        (row for row in reversed(rows) if as_of is None or row.modified_at <= as_of), key=lambda row: row.modified_at
    )
    if known:
        versions = tuple(row for row in known if not row.is_delete_marker)
        markers = tuple(row for row in known if row.is_delete_marker)
        yield Name(rows[0].key, ObjectKey.parse(rows[0].key), versions, markers)


def find_name(store: ObjectStore, key: ObjectKey, *, as_of: datetime | None = None) -> Name | None:
    """The name of this key, if there is one."""
    rows = list(store.list_name(str(key)))
    return next(_name(rows, as_of), None) if rows else None


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

    Raises VaultError `vault.missing` if there is no version, `vault.tampered` if none has the digest; what is larger
    than an object of this stream can be is not read.
    """
    found = False
    text = str(key)
    if first_try is not None:
        try:
            blob = _read_if_ours(store, key, first_try)
        except VaultError as error:
            if error.code != "vault.missing":
                raise
        else:
            if blob is not None:
                return blob
            found = True
    for row in reversed([row for row in store.list_name(text) if not row.is_delete_marker]):
        if row.version_id == first_try:
            continue
        blob = _read_if_ours(store, key, row.version_id)
        if blob is not None:
            return blob
        found = True
    if not found:
        raise missing(text, None)
    raise VaultError(
        "vault.tampered",
        f"{text} has not the digest in its name",
        "the object was altered or cut; restore from a replica of this vault",
    )


def _read_if_ours(store: ObjectStore, key: ObjectKey, version_id: str) -> Blob | None:
    """A version's bytes if they have the digest in the name; None if not, unread if they are too many."""
    try:
        blob = store.get(str(key), version_id, limit_bytes=stored_limit(key.stream))
    except VaultError as error:
        if error.code != "vault.too_large":
            raise
        return None
    return blob if has_digest(blob.data, key) else None
