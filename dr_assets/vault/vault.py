"""The vault: sealing into a locked store and opening out of it.

What belongs here: put, list, fetch, open, and the header alone. What stays out: chains, facts, verification.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.format.envelope import (
    FRAME_LIMIT_BYTES,
    LENGTH_BYTES,
    SIGNATURE_DOMAIN,
    TRAILER_BYTES,
    first_frame,
    frame_count,
    header_length,
    signed_message,
    split_head,
    split_trailer,
)
from dr_assets.vault.format.frames import open_first_frame
from dr_assets.vault.format.header import HEADER_LIMIT_BYTES, PREFIX_BYTES, Header
from dr_assets.vault.format.keys import KEYS, ObjectKey, prefix_of, require_name
from dr_assets.vault.format.segment import (
    Opened,
    Plaintext,
    Prepared,
    Sealed,
    check_belongs,
    open_sealed,
    unlock,
    verify_envelope,
)
from dr_assets.vault.format.segment import prepare as prepare_segment
from dr_assets.vault.format.sizes import plaintext_limit
from dr_assets.vault.keys.ring import KeyRing
from dr_assets.vault.retention import LockRules, check_skew
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import Lock, ObjectStore, Version
from dr_assets.vault.storage.refusals import missing, too_large
from dr_assets.vault.storage.versions import Name, authentic, find_name, get_authentic, scan
from dr_assets.vault.storage.write_once import Receipt, ensure_locked, put_locked

WHOLE_READ_BYTES: Final = 256 * 1024  # below this one read of all is cheaper than two of parts
HEAD_READ_BYTES: Final = 4 * 1024
# Header and first frame at their largest.
FIRST_READ_BYTES: Final = PREFIX_BYTES + HEADER_LIMIT_BYTES + LENGTH_BYTES + FRAME_LIMIT_BYTES

__all__ = ["Receipt", "StoredObject", "Vault"]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as listed: its authentic version. `modified_at` is the store's clock at the put.

    `storage_class` is what the listing told, "" for none.
    """

    key: ObjectKey
    version_id: str
    size_bytes: int
    modified_at: datetime
    storage_class: str = ""


class Vault:
    """One estate's objects in one store; threads may share it.

    Every method that reaches the store may raise VaultError `vault.unreachable`, `vault.refused_credentials` or
    `vault.no_bucket`.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        estate: str,
        name: str,
        keys: KeyRing,
        trust: Trust,
        signer: Signer | None,
        locks: LockRules,
        clock: Callable[[], datetime],
    ) -> None:
        self.store = store
        self.estate = require_name(estate, "estate")
        self.name = name
        self.keys = keys
        self.trust = trust
        self.signer = signer
        self.locks = locks
        self.clock = clock

    def __repr__(self) -> str:
        return f"Vault({self.estate}/{self.name})"

    def anew(self) -> "Vault":
        """The same vault without any key in memory: what it can open, it opens by what the store holds now."""
        return Vault(
            store=self.store,
            estate=self.estate,
            name=self.name,
            keys=self.keys.anew(),
            trust=self.trust,
            signer=self.signer,
            locks=self.locks,
            clock=self.clock,
        )

    def prepare(
        self,
        *,
        dataset: str,
        stream: str,
        kind: str,
        system_id: str,
        timeline: int,
        first: int,
        last: int,
        begin_at: datetime,
        end_at: datetime,
        plaintext: Plaintext,
        previous: str | None = None,
        writer_epoch: int = 0,
        extra: Mapping[str, str] | None = None,
        plaintext_sha256: str | None = None,
    ) -> Prepared:
        """Fix the header of an object for positions [first, last), in a chain's order; seal it in a pool afterwards.

        A `plaintext` that is a view must stay as it is until then. `plaintext_sha256` (hex) is its digest, for who has
        it already; no reader accepts the object if it is not.

        Raises PolicyError `vault.read_only`, VaultError `vault.too_large`, `vault.malformed`, `vault.wrong_key`.
        """
        if self.signer is None:
            raise PolicyError(
                "vault.read_only", "this vault was opened without a signing key", "open it with signing=True"
            )
        if len(plaintext) > plaintext_limit(stream):
            raise too_large(f"an object of {dataset}/{stream}", len(plaintext), plaintext_limit(stream))
        return prepare_segment(
            estate=self.estate,
            dataset=dataset,
            stream=stream,
            kind=kind,
            system_id=system_id,
            timeline=timeline,
            first=first,
            last=last,
            begin_at=begin_at,
            end_at=end_at,
            sealed_at=self.clock(),
            plaintext=plaintext,
            data_key=self.keys.for_writing(dataset),
            signer=self.signer,
            previous=previous,
            writer_epoch=writer_epoch,
            extra=extra,
            plaintext_sha256=plaintext_sha256,
        )

    def put(self, sealed: Sealed, lock: Lock) -> Receipt:
        """Store once; digest and lock are read back. After a failure send the *same* `sealed` again.

        Raises VaultError `vault.key_conflict`, `vault.not_locked`, `vault.not_stored`, `vault.clock_skew`,
        `vault.lock_too_long`.
        """
        return put_locked(self.store, sealed.key, sealed.data, sealed.sha256, lock, clock=self.clock)

    def ensure_locked(self, obj: StoredObject, lock: Lock) -> bool:
        """See that an object is locked for at least `lock`, extending it where it isn't; whether that was needed.

        What the store holds is read back either way. Raises VaultError `vault.missing`, `vault.not_locked`,
        `vault.lock_refused`, `vault.clock_skew`, `vault.lock_too_long`.
        """
        return ensure_locked(self.store, obj.key, obj.version_id, lock, clock=self.clock)

    def names(self, prefix: str, start_after: str = "", *, as_of: datetime | None = None) -> Iterator[Name]:
        """All names under `prefix`, ours or not, with every version and delete marker."""
        return scan(self.store, prefix, start_after, as_of=as_of)

    def objects(
        self,
        dataset: str | None = None,
        stream: str | None = None,
        *,
        system_id: str | None = None,
        timeline: int | None = None,
        start_after_position: int | None = None,
        as_of: datetime | None = None,
    ) -> Iterator[StoredObject]:
        """Sealed objects in key order; key objects, foreign names, later versions and delete markers are left out.

        `start_after_position` keeps those whose first position is at least this; it needs stream, system id and
        timeline. `as_of` is the store's clock: what was put later is not there.
        """
        prefix = prefix_of(self.estate, dataset, stream, system_id, timeline)
        start_after = ""
        if start_after_position is not None:
            if None in (dataset, stream, system_id, timeline):
                raise ValueError("a position means nothing without dataset, stream, system id and timeline")
            start_after = f"{prefix}{start_after_position:016X}"
        wanted = (dataset, stream, system_id, timeline)
        for name in self.names(prefix, start_after, as_of=as_of):
            key = name.key
            if key is None or key.stream == KEYS or not _fits(key, wanted):
                continue
            version = authentic(self.store, name)
            if version is not None:
                yield _stored(key, version)

    def find(self, key: ObjectKey, *, as_of: datetime | None = None) -> StoredObject:
        """The object of this name, or VaultError `vault.missing`."""
        name = find_name(self.store, key, as_of=as_of)
        version = None if name is None else authentic(self.store, name)
        if version is None:
            raise missing(str(key), None)
        return _stored(key, version)

    def fetch(self, obj: StoredObject) -> bytes:
        """The bytes whose digest the name ends in, from another version of it if need be.

        Raises VaultError `vault.missing` or `vault.tampered`.
        """
        return get_authentic(self.store, obj.key, obj.version_id).data

    def open(self, obj: StoredObject, *, plaintext_digest: bool = True) -> Opened:
        """Fetch, verify digest, signer, signature, place and key, decrypt, verify the plaintext.

        Raises VaultError as `fetch` and `format.segment.open_sealed` do, which says what `plaintext_digest` is.
        """
        return open_sealed(
            self.fetch(obj),
            trust=self.trust,
            key_of=self.keys.key_of,
            key=obj.key,
            plaintext_digest=plaintext_digest,
        )

    def header(self, obj: StoredObject) -> Header:
        """The header, its signature and place verified; of a large object only both ends are read."""
        name = str(obj.key)
        if obj.size_bytes > WHOLE_READ_BYTES:
            return self.header_of_ends(obj)
        header = verify_envelope(self.fetch(obj), self.trust, name=name).header
        check_belongs(header, obj.key, name=name)
        return header

    def header_of_ends(self, obj: StoredObject) -> Header:
        """As `header`, from both ends alone: the bytes between them, and so the digest in the name, are not judged."""
        head = self.store.get_range(str(obj.key), obj.version_id, 0, HEAD_READ_BYTES)
        end = PREFIX_BYTES + header_length(head)
        if end > len(head):
            head = self.store.get_range(str(obj.key), obj.version_id, 0, end)
        header, _, _ = self._of_ends(obj, head)
        return header

    def first_frame(self, obj: StoredObject) -> tuple[Header, bytes]:
        """The header and at most the first MiB of the plaintext, from both ends alone, as `header_of_ends` reads them.

        The frame is authenticated by its key, and its key by the header. Raises VaultError as `open` does.
        """
        name = str(obj.key)
        head = self.store.get_range(name, obj.version_id, 0, min(obj.size_bytes, FIRST_READ_BYTES))
        header, header_sha256, begin = self._of_ends(obj, head)
        key = unlock(header, self.keys.key_of, name=name).secret
        where = first_frame(head, begin, frame_count(header.size_bytes))
        return header, open_first_frame(
            head, where, header_sha256=header_sha256, size_bytes=header.size_bytes, key=key, name=name
        )

    def _of_ends(self, obj: StoredObject, head: bytes) -> tuple[Header, bytes, int]:
        """What `split_head` gives, believed: by the trailer's signature and the place that the object lies in."""
        name = str(obj.key)
        header, header_sha256, begin = split_head(head)
        tail = self.store.get_range(name, obj.version_id, obj.size_bytes - TRAILER_BYTES, obj.size_bytes)
        trailer = split_trailer(tail)
        message = signed_message(header_sha256, trailer.content_sha256)
        self.trust.verify(header.signer_id, trailer.signature, SIGNATURE_DOMAIN, message, name=name)
        check_belongs(header, obj.key, name=name)
        return header, header_sha256, begin

    def check_clock(self) -> None:
        """Raise VaultError `vault.clock_skew` when this host's clock is more than 5 s off the store's."""
        before = self.clock()
        check_skew(self.store.now(), before, self.clock())


def _stored(key: ObjectKey, version: Version) -> StoredObject:
    return StoredObject(key, version.version_id, version.size_bytes, version.modified_at, version.storage_class)


def _fits(key: ObjectKey, wanted: tuple[str | None, str | None, str | None, int | None]) -> bool:
    """Whether the parts that the prefix could not fix are right too."""
    own = (key.dataset, key.stream, key.system_id, key.timeline)
    return all(want is None or want == part for want, part in zip(wanted, own, strict=True))
