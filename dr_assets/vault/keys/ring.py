"""The key ring: each dataset's data keys, found in the vault, unwrapped once, kept in memory.

What belongs here: finding, making, renewing and rewrapping data keys. What stays out: what they encrypt.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import KEYS, ObjectKey, prefix_of
from dr_assets.vault.keys.derive import KEY_BYTES, DataKey
from dr_assets.vault.keys.key_object import KeyObject, parse_key_object
from dr_assets.vault.keys.provider import KeyProvider, WrapContext
from dr_assets.vault.retention import LockRules
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.versions import get_authentic, scan
from dr_assets.vault.storage.write_once import extend_locked, put_locked


@dataclass(frozen=True, slots=True)
class _Held:
    """An unwrapped key with the lock of the wrapping it came from."""

    data_key: DataKey
    key: ObjectKey
    version_id: str
    retain_until: datetime | None


class KeyRing:
    """All data keys of an estate's vault; threads may share it."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        estate: str,
        provider: KeyProvider,
        trust: Trust,
        signer: Signer | None,
        locks: LockRules,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._estate = estate
        self.provider = provider
        self._trust = trust
        self._signer = signer
        self._locks = locks
        self._clock = clock
        self._mutex = threading.RLock()
        self._writing: dict[str, _Held] = {}
        self._by_id: dict[tuple[str, str], DataKey] = {}

    def anew(self) -> "KeyRing":
        """The same ring that remembers nothing: for who wants to know what the vault holds *now*."""
        return KeyRing(
            store=self._store,
            estate=self._estate,
            provider=self.provider,
            trust=self._trust,
            signer=self._signer,
            locks=self._locks,
            clock=self._clock,
        )

    def for_writing(self, dataset: str) -> DataKey:
        """The dataset's oldest usable key; the first writer makes one. Its lock is renewed when half of it is over.

        Two processes that make the first key at once both succeed: readers find either by its id.
        """
        with self._mutex:
            held = self._writing.get(dataset)
            if held is None:
                held = self._find_oldest(dataset) or self._create(dataset)
            self._writing[dataset] = held = self._renewed(dataset, held)
            return held.data_key

    def key_of(self, header: Header) -> DataKey:
        """The key that a header names; raises VaultError `vault.no_key` or `vault.wrong_key`."""
        return self.by_id(header.dataset, header.key_id)

    def by_id(self, dataset: str, key_id: str) -> DataKey:
        """As `key_of`."""
        with self._mutex:
            known = self._by_id.get((dataset, key_id))
            if known is None:
                known = self._by_id[dataset, key_id] = self._find(dataset, key_id)
            return known

    def rewrap(self, dataset: str, key_id: str) -> ObjectKey:
        """Add a wrapping by the provider's current key-encryption key; nothing locked is touched, none is revoked."""
        secret = self.by_id(dataset, key_id)
        prefix = prefix_of(self._estate, dataset, KEYS, key_id)
        generations = [name.key.timeline for name in scan(self._store, prefix) if name.key is not None]
        return self._store_wrapping(dataset, secret, max(generations) + 1).key

    def _find_oldest(self, dataset: str) -> _Held | None:
        refusals: list[VaultError] = []
        names = [name for name in scan(self._store, prefix_of(self._estate, dataset, KEYS)) if name.versions]
        for name in sorted(names, key=lambda name: (name.versions[0].modified_at, name.text)):
            if name.key is None:
                continue
            try:
                return self._open(name.key)
            except VaultError as refusal:  # a stranger's key object must not stop us, so try the next
                if refusal.code in {"vault.unreachable", "vault.refused_credentials"}:
                    raise
                refusals.append(refusal)
        if refusals:
            raise refusals[0]
        return None

    def _find(self, dataset: str, key_id: str) -> DataKey:
        prefix = prefix_of(self._estate, dataset, KEYS, key_id)
        names = [name.key for name in scan(self._store, prefix) if name.key is not None]
        refusals: list[VaultError] = []
        for key in reversed(names):  # the newest generation first
            try:
                return self._open(key).data_key
            except VaultError as refusal:
                refusals.append(refusal)
        if refusals:
            raise refusals[0]
        raise VaultError(
            "vault.no_key",
            f"{prefix} holds no wrapping, so what is sealed under that data key can't be opened",
            "copy the key objects from a replica of this vault",
        )

    def _open(self, key: ObjectKey) -> _Held:
        blob = get_authentic(self._store, key)
        parsed = parse_key_object(blob.data, key=key, trust=self._trust)
        data_key = DataKey.of(self.provider.unwrap(parsed.wrapping, parsed.context))
        if data_key.key_id != key.system_id:
            raise VaultError("vault.wrong_key", f"{key} wraps another key than it says", "its writer was faulty")
        return _Held(data_key, key, blob.head.version_id, blob.head.lock.retain_until if blob.head.lock else None)

    def _create(self, dataset: str) -> _Held:
        held = self._store_wrapping(dataset, DataKey.of(os.urandom(KEY_BYTES)), generation=1)
        again = self._open(held.key)  # read back before first use
        if again.data_key != held.data_key:
            raise VaultError("vault.not_stored", f"{held.key} does not read back", "don't trust this store")
        return again

    def _store_wrapping(self, dataset: str, data_key: DataKey, generation: int) -> _Held:
        if self._signer is None:
            raise PolicyError(
                "vault.read_only",
                "this vault was opened without a signing key",
                "open it for writing, or seal elsewhere",
            )
        context = WrapContext(self._estate, dataset, data_key.key_id, generation)
        wrapping = self.provider.wrap(data_key.secret, context)
        now = self._clock()
        wrapped = KeyObject(context, self.provider.name, wrapping, now, self._signer.signer_id)
        key, data, sha256 = wrapped.sealed(self._signer)
        lock = self._locks.lock(dataset, "key", now)
        receipt = put_locked(self._store, key, data, sha256, lock, clock=self._clock)
        return _Held(data_key, key, receipt.version_id, receipt.lock.retain_until)

    def _renewed(self, dataset: str, held: _Held) -> _Held:
        """Extend the lock before what is sealed today could outlive its key."""
        now = self._clock()
        length = self._locks.length(dataset, "key")
        if held.retain_until is not None and held.retain_until - now >= length / 2:
            return held
        if self._signer is None:
            return held
        lock = self._locks.lock(dataset, "key", now)
        seen = extend_locked(self._store, held.key, held.version_id, lock, clock=self._clock)
        return _Held(held.data_key, held.key, held.version_id, seen.retain_until)
