"""The port to object stores: versioned, write-once, locked.

What belongs here: what a store must be able to do and the values it speaks in. What stays out: any one store
(memory.py, s3.py) and what the objects mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol

LockMode = Literal["COMPLIANCE", "GOVERNANCE"]
# Trouble with the whole store or every key provider, not with one object: whoever passes over what can't be believed
# must not pass over this.
STORE_AWAY: Final = frozenset({"vault.unreachable", "vault.refused_credentials", "vault.no_bucket", "keys.unreachable"})

# Classes whose objects have to be thawed before a byte of them can be read.
COLD_CLASSES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
ThawTier = Literal["Expedited", "Standard", "Bulk"]


@dataclass(frozen=True, slots=True)
class Lock:
    """A retention lock: nobody deletes or shortens before `retain_until` (aware UTC); governance has a bypass."""

    mode: LockMode
    retain_until: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """One row of a listing: a version of a key, or a delete marker on it. `storage_class` is "" where none is told."""

    key: str
    version_id: str
    size_bytes: int
    modified_at: datetime
    is_delete_marker: bool = False
    storage_class: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """One folder's look: `folders` end in a slash and are sorted; `versions` are of names directly in it."""

    folders: tuple[str, ...]
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class Thaw:
    """A cold object is being brought back (`until` is None), or can be read until then."""

    until: datetime | None


@dataclass(frozen=True, slots=True)
class Head:
    """What a store says of one version. `sha256` is hex, or None when the store kept no checksum of the whole.

    `held`: under legal hold, which no date ends. `thaw` is None for what nobody asked to bring back.
    """

    key: str
    version_id: str
    size_bytes: int
    sha256: str | None
    lock: Lock | None
    modified_at: datetime
    held: bool = False
    storage_class: str = ""
    thaw: Thaw | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether nobody can read it now: in a cold class, and not brought back (yet)."""
        return self.storage_class in COLD_CLASSES and (self.thaw is None or self.thaw.until is None)


@dataclass(frozen=True, slots=True)
class Blob:
    """One version's bytes with what the store says of it."""

    head: Head
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Put:
    """The outcome of a put. `existed`: the same bytes were there already. `store_at` is the store's own clock."""

    version_id: str
    existed: bool
    store_at: datetime


@dataclass(frozen=True, slots=True)
class BucketState:
    """What protects a bucket as a whole; `default_lock_days` is the net under every put."""

    versioned: bool
    object_lock: bool
    default_mode: LockMode | None
    default_lock_days: int | None


class ObjectStore(Protocol):
    """All a vault needs of a store; threads may share it.

    Every method may raise VaultError `vault.unreachable`, `vault.refused_credentials` or `vault.no_bucket`.
    """

    def put(self, key: str, data: bytes, sha256: str, lock: Lock) -> Put:
        """Write once, locked, with the digest checked by the store.

        Success if the key is free, or holds bytes of this digest; else raises VaultError `vault.key_conflict`.
        """
        ...

    def head(self, key: str, version_id: str | None = None) -> Head | None:
        """What the store says of a version (the current one by default); None if there is none."""
        ...

    def get(self, key: str, version_id: str | None = None, *, limit_bytes: int | None = None) -> Blob:
        """A version's bytes; raises VaultError `vault.missing`, `vault.cold`, or at once `vault.too_large`."""
        ...

    def get_range(self, key: str, version_id: str, begin: int, end: int) -> bytes:
        """Bytes [begin, end) of a version, fewer at its end; raises VaultError `vault.missing` or `vault.cold`."""
        ...

    def list_versions(self, prefix: str, start_after: str = "") -> Iterator[Version]:
        """Every version and delete marker of all keys with `prefix` above `start_after`, newest first within a key.

        Keys come in text order, and none is left out, only as long as they differ after their last slash and none is
        the beginning of another: some stores page by folder and lose names otherwise (docs/decisions/0010).
        """
        ...

    def list_name(self, key: str) -> Iterator[Version]:
        """Every version and delete marker of exactly this key, newest first, whatever other names lie around it."""
        ...

    def list_level(self, prefix: str) -> Level:
        """What lies directly under `prefix`, which ends in a slash."""
        ...

    def extend(self, key: str, version_id: str, lock: Lock) -> None:
        """Lengthen a version's lock; raises VaultError `vault.lock_refused` if that would shorten or weaken it."""
        ...

    def delete_version(self, key: str, version_id: str) -> None:
        """Remove one version or delete marker for good; that it is gone already is no error.

        Raises VaultError `vault.lock_refused` while its lock or a legal hold holds.
        """
        ...

    def set_hold(self, key: str, version_id: str, *, held: bool) -> None:
        """Place or release the legal hold on a version, again without harm; raises VaultError `vault.missing`."""
        ...

    def thaw(self, key: str, version_id: str, *, days: int, tier: ThawTier) -> None:
        """Ask that a cold version be readable for `days` once it is there; that it was asked already is no error.

        Raises VaultError `vault.missing`, and `vault.not_cold` for what can be read anyway.
        """
        ...

    def now(self) -> datetime:
        """The store's clock, to one second, asked for now."""
        ...

    def recent_now(self) -> datetime:
        """The store's clock, to one second, reckoned from an answer at most a minute old, else asked for."""
        ...

    def bucket_state(self) -> BucketState:
        """How the bucket is protected; raises VaultError `vault.no_bucket`."""
        ...
