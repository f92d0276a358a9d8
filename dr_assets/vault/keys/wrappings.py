"""Wrappings as the vault's regions hold them: listed, read, put in every region and read back, kept locked.

What belongs here: key objects in stores. What stays out: unwrapping and choosing (ring.py).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.vault.believed import believed
from dr_assets.vault.format.keys import KEYS, ObjectKey, prefix_of
from dr_assets.vault.keys.key_object import KeyObject, parse_key_object
from dr_assets.vault.keys.refusals import not_everywhere
from dr_assets.vault.retention import LockRules
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import STORE_AWAY, ObjectStore
from dr_assets.vault.storage.versions import Name, get_authentic, scan
from dr_assets.vault.storage.write_once import extend_locked, put_locked

_NO_RIGHT: Final = frozenset({"vault.refused_credentials", "vault.lock_refused"})


@dataclass(frozen=True, slots=True)
class Replica:
    """Another region's store; opened only when a key has to be there, since it may be away or not set up here.

    `open` may raise PolicyError for a setting that lacks.
    """

    name: str
    open: Callable[[], ObjectStore]


@dataclass(frozen=True, slots=True)
class Stored:
    """A wrapping as read from the vault's own store: whom it is by, and until when its authentic version is locked."""

    key: ObjectKey
    held: KeyObject
    data: bytes
    version_id: str
    retain_until: datetime | None


class Wrappings:
    """All key objects of an estate's vault; threads may share it."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        estate: str,
        trust: Trust,
        signer: Signer | None,
        locks: LockRules,
        clock: Callable[[], datetime],
        replicas: Callable[[str], Sequence[Replica]],
    ) -> None:
        self._store = store
        self._estate = estate
        self._trust = trust
        self._signer = signer
        self._locks = locks
        self._clock = clock
        self._replicas = replicas

    def place(self, dataset: str, key_id: str | None = None) -> str:
        """The prefix of a dataset's key objects, or of one data key's."""
        return prefix_of(self._estate, dataset, KEYS, key_id)

    def names(self, dataset: str, key_id: str | None = None) -> list[Name]:
        """Names that may hold a wrapping, by data key and then by generation."""
        found = scan(self._store, self.place(dataset, key_id))
        return [name for name in found if name.key is not None and name.versions]

    def read(self, key: ObjectKey) -> Stored:
        """The wrapping under `key`, verified; raises VaultError as `parse_key_object` and the store do."""
        blob = get_authentic(self._store, key)
        held = parse_key_object(blob.data, key=key, trust=self._trust)
        lock = blob.head.lock
        return Stored(key, held, blob.data, blob.head.version_id, lock.retain_until if lock else None)

    def of_key(self, dataset: str, key_id: str) -> list[Stored]:
        """One data key's wrappings, oldest generation first; what isn't ours is passed over."""
        return list(self._ours(self.names(dataset, key_id)))

    def of_dataset(self, dataset: str) -> Iterator[Stored]:
        """All wrappings of a dataset; what isn't ours is passed over."""
        return self._ours(self.names(dataset))

    def _ours(self, names: Sequence[Name]) -> Iterator[Stored]:
        for name in names:
            stored = None if name.key is None else believed(self.read, name.key)
            if stored is not None:
                yield stored

    def read_all(self, names: Sequence[Name]) -> tuple[list[Stored], list[DrError]]:
        """The wrappings under these names, and why others of them can't be believed."""
        stored: list[Stored] = []
        refusals: list[DrError] = []
        for name in names:
            try:
                stored += [self.read(name.key)] if name.key is not None else []
            except VaultError as refusal:
                if refusal.code in STORE_AWAY:
                    raise
                refusals.append(refusal)
        return stored, refusals

    def has_replicas(self, dataset: str) -> bool:
        """Whether a key of this dataset has to lie in another region too."""
        return bool(self._replicas(dataset))

    def signed(self, held: KeyObject) -> tuple[ObjectKey, bytes]:
        """Name and bytes of a key object that isn't stored yet."""
        key, data, _ = held.sealed(self.signer())
        return key, data

    def signer(self) -> Signer:
        """Who signs key objects; raises PolicyError `vault.read_only`."""
        if self._signer is None:
            raise PolicyError(
                "vault.read_only",
                "this vault was opened without a signing key",
                "open it for writing, or seal elsewhere",
            )
        return self._signer

    def put_everywhere(
        self, dataset: str, key_id: str, made: Sequence[tuple[ObjectKey, bytes]], known: Sequence[Stored]
    ) -> list[Stored]:
        """Put what was `made`, in the other regions also what they lack of `known`; returns all that is there now.

        The vault's own store comes last, so that a wrapping found there was in every region before its first use.
        Raises VaultError `keys.not_everywhere` when another region doesn't answer or doesn't take it.
        """
        self._copy(dataset, key_id, [*((one.key, one.data) for one in known), *made])
        for key, data in made:
            self._put(self._store, dataset, key, data)
        stored = self.of_key(dataset, key_id)
        lost = {key for key, _ in made} - {one.key for one in stored}
        if lost:
            raise _not_read_back(min(lost))
        return stored

    def copy(self, dataset: str, key_id: str, known: Sequence[Stored]) -> None:
        """See that every other region has these; raises VaultError `keys.not_everywhere`."""
        self._copy(dataset, key_id, [(one.key, one.data) for one in known])

    def _copy(self, dataset: str, key_id: str, wanted: Sequence[tuple[ObjectKey, bytes]]) -> None:
        for replica in self._replicas(dataset):
            try:
                store = replica.open()
                for key, data in wanted:
                    self._put_if_absent(store, dataset, key, data)
            except DrError as error:
                raise not_everywhere(dataset, key_id, f"region {replica.name}: {error.found}") from error

    def _put_if_absent(self, store: ObjectStore, dataset: str, key: ObjectKey, data: bytes) -> None:
        """What lies there already is left as it is: another's lock may not be ours to lengthen."""
        try:
            there = get_authentic(store, key).data
        except VaultError as error:
            if error.code not in {"vault.missing", "vault.tampered"}:
                raise
            there = b""
        if there != data:
            self._put(store, dataset, key, data)
            if get_authentic(store, key).data != data:
                raise _not_read_back(key)

    def _put(self, store: ObjectStore, dataset: str, key: ObjectKey, data: bytes) -> None:
        lock = self._locks.lock(dataset, "key", self._clock())
        put_locked(store, key, data, hashlib.sha256(data).hexdigest(), lock, clock=self._clock)

    def renewed(self, dataset: str, stored: Stored) -> Stored:
        """The wrapping with its lock extended, if half of it is over: what is sealed today must not outlive its key.

        Who may not extend goes on while the lock outlives what is sealed today; then raises VaultError
        `vault.refused_credentials` or `vault.lock_refused`.
        """
        now = self._clock()
        length = self._locks.length(dataset, "key")
        if self._signer is None or (stored.retain_until is not None and stored.retain_until - now >= length / 2):
            return stored
        lock = self._locks.lock(dataset, "key", now)
        try:
            seen = extend_locked(self._store, stored.key, stored.version_id, lock, clock=self._clock)
        except VaultError as error:
            needed = now + self._locks.length(dataset, "part")
            if error.code not in _NO_RIGHT or stored.retain_until is None or stored.retain_until < needed:
                raise
            return stored
        return replace(stored, retain_until=seen.retain_until)


def no_replicas(_dataset: str) -> Sequence[Replica]:
    """A vault that lies in one region."""
    return ()


def _not_read_back(key: ObjectKey) -> VaultError:
    return VaultError("vault.not_stored", f"{key} does not read back", "don't trust this store")
