"""The key ring: each dataset's data keys, found in the vault, unwrapped once, kept in memory.

What belongs here: choosing, finding, making and completing data keys. What stays out: key objects in stores
(wrappings.py), who is asked to unwrap (opener.py), what the keys encrypt.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import DrError, VaultError
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.keys.choice import KeyChoice
from dr_assets.vault.keys.derive import KEY_BYTES, DataKey
from dr_assets.vault.keys.key_object import KeyObject
from dr_assets.vault.keys.opener import Opener, weightiest
from dr_assets.vault.keys.provider import KeyProvider, WrapContext
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.keys.refusals import UNREACHABLE, not_everywhere, retired
from dr_assets.vault.keys.wrappings import Replica, Stored, Wrappings, no_replicas
from dr_assets.vault.retention import LockRules
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import STORE_AWAY, ObjectStore
from dr_assets.vault.storage.versions import Name

TAKE_UP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Held:
    """An unwrapped key with its wrappings, and when it was chosen (`time.monotonic`)."""

    data_key: DataKey
    stored: tuple[Stored, ...]
    chosen_s: float


class KeyRing:
    """All data keys of an estate's vault; threads may share it.

    `trouble` is why the last look for a newer key, or the last attempt to complete a key in use, did not succeed, by
    dataset: neither stops a writer. `stale` are those of them whose last look failed: they may write under a key that
    was replaced, stolen even.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        estate: str,
        providers: Providers,
        trust: Trust,
        signer: Signer | None,
        locks: LockRules,
        clock: Callable[[], datetime],
        replicas: Callable[[str], Sequence[Replica]] = no_replicas,
        choice: KeyChoice | None = None,
        take_up_s: float = TAKE_UP_S,
    ) -> None:
        self.providers = providers
        self.choice = choice
        self.trouble: dict[str, DrError] = {}
        self.stale: dict[str, DrError] = {}
        self._estate = estate
        self._clock = clock
        self._store, self._trust, self._signer, self._locks = store, trust, signer, locks
        self._replicas = replicas
        self._take_up_s = take_up_s
        self._wrappings = Wrappings(
            store=store, estate=estate, trust=trust, signer=signer, locks=locks, clock=clock, replicas=replicas
        )
        self._opener = Opener(providers)
        self._writing_mutex = threading.RLock()
        self._known_mutex = threading.Lock()
        self._writing: dict[str, _Held] = {}
        self._threads: dict[tuple[str, str], threading.Thread] = {}
        self._by_id: dict[tuple[str, str], DataKey] = {}

    @property
    def provider(self) -> KeyProvider:
        """The first provider that is declared."""
        return self.providers.every[0]

    def anew(self) -> "KeyRing":
        """The same ring that remembers nothing: for who wants to know what the vault holds *now*."""
        return KeyRing(
            store=self._store,
            estate=self._estate,
            providers=self.providers,
            trust=self._trust,
            signer=self._signer,
            locks=self._locks,
            clock=self._clock,
            replicas=self._replicas,
            choice=self.choice,
            take_up_s=self._take_up_s,
        )

    # --- writing ----------------------------------------------------------------------------------------------------

    def stale_warning(self, dataset: str) -> str | None:
        """What a writer should tell while the last look for a newer key failed; None while all is well."""
        error = self.stale.get(dataset)
        return None if error is None else f"no newer data key can be taken up: {error.code}: {error.found}"

    def for_writing(self, dataset: str) -> DataKey:
        """The key that the last rotation named, or else the dataset's oldest usable one; the first writer makes one.

        A lock of a wrapping is renewed when half of it is over. Once a key was chosen nothing here waits for a newer
        one: that is looked for beside, every `take_up_s` seconds. Two processes that make the first key at once both
        succeed: readers find either by its id.

        Raises VaultError `keys.unreachable`, `keys.not_everywhere` (a new key only), `vault.wrong_key`; PolicyError
        `keys.kek_retired`, `vault.read_only`.
        """
        with self._writing_mutex:
            held = self._writing.get(dataset)
            if held is None:
                held = self._chosen(dataset) or self._made(dataset)
            elif self.choice is not None and time.monotonic() - held.chosen_s > self._take_up_s:
                self._beside(self._look, dataset)
            stored = tuple(self._wrappings.renewed(dataset, one) for one in held.stored)
            self._writing[dataset] = held = replace(held, stored=stored)
            return held.data_key

    def take_up(self, dataset: str) -> DataKey:
        """Choose anew and write with that from now on; writers go on with the old key while this looks."""
        held = self._chosen(dataset)
        if held is None:
            return self.for_writing(dataset)
        with self._writing_mutex:
            self._writing[dataset] = held
        return held.data_key

    def write_with(self, dataset: str, key_id: str) -> DataKey:
        """Write with this key from now on, as long as nobody names another: how the first word under it is sealed.

        Raises as `by_id`, and PolicyError `keys.kek_retired`.
        """
        held = self._found(dataset, key_id)
        self._refuse_retired(held.stored)
        with self._writing_mutex:
            self._writing[dataset] = held
        return held.data_key

    def settle(self) -> None:
        """Wait for what is under way beside: for tests, and for whoever wants to read `trouble`."""
        for thread in [*self._threads.values()]:
            thread.join()

    def _beside(self, look: Callable[..., None], dataset: str, *more: str) -> None:
        """A provider or a region that hangs must not hold up a writer that has a key."""
        with self._known_mutex:
            running = self._threads.get((look.__name__, dataset))
            if running is None or not running.is_alive():
                thread = threading.Thread(target=look, args=(dataset, *more), name=f"keys-{dataset}", daemon=True)
                self._threads[look.__name__, dataset] = thread
                thread.start()

    def _look(self, dataset: str) -> None:
        try:
            self.take_up(dataset)
        except DrError as error:
            self.trouble[dataset] = self.stale[dataset] = error
            with self._writing_mutex:
                self._writing[dataset] = replace(self._writing[dataset], chosen_s=time.monotonic())
        else:
            self.stale.pop(dataset, None)

    def _chosen(self, dataset: str) -> _Held | None:
        """What to write with by the last rotation or by age, None where there is no key at all yet."""
        named = None if self.choice is None else self.choice.writing_key_id(dataset)
        held = self._oldest(dataset) if named is None else self._found(dataset, named)
        if held is not None:
            self._refuse_retired(held.stored)
            if len(self.providers.of_dataset(dataset)) > 1 or self._wrappings.has_replicas(dataset):
                self._beside(self._complete_in_use, dataset, held.data_key.key_id)
        return held

    def _oldest(self, dataset: str) -> _Held | None:
        refusals: list[VaultError] = []
        for names in _by_age(self._wrappings.names(dataset)):
            try:
                return self._opened(names)
            except VaultError as refusal:  # a stranger's key object must not stop us, so try the next
                if refusal.code in STORE_AWAY:
                    raise
                refusals.append(refusal)
        if refusals:
            raise refusals[0]
        return None

    def _refuse_retired(self, wrappings: Sequence[Stored]) -> None:
        """Raise PolicyError `keys.kek_retired` for a key that lies open to whoever took a retired one."""
        keks = frozenset[str]() if self.choice is None else self.choice.retired_keks()
        for stored in wrappings:
            if stored.held.wrapping.kek_id in keks:
                raise retired(stored.held.provider, stored.held.wrapping.kek_id)

    def _complete_in_use(self, dataset: str, key_id: str) -> None:
        """A provider or region that was declared later gets its wrappings; who doesn't answer stops no writer."""
        try:
            self.complete(dataset, key_id)
        except DrError as error:
            self.trouble[dataset] = error
        else:
            self.trouble.pop(dataset, None)

    def _made(self, dataset: str) -> _Held:
        """A new data key, wrapped by every provider, in every region, read back and opened before it seals anything."""
        data_key = DataKey.of(os.urandom(KEY_BYTES))
        stored = self._completed(dataset, data_key.key_id, data_key)
        self._opener.prove(stored, data_key)
        return _Held(data_key, stored, time.monotonic())

    # --- wrapping ---------------------------------------------------------------------------------------------------

    def complete(self, dataset: str, key_id: str, secret: DataKey | None = None) -> tuple[KeyObject, ...]:
        """See that every provider's current key-encryption key wraps this data key, in every region, each read back.

        What lacks is put; nothing that is locked is touched, and no wrapping is revoked by a newer one. Killed
        anywhere, call it again. `secret` is given for a key that the vault doesn't hold yet. Returns all its wrappings.

        Raises VaultError `keys.not_everywhere`, PolicyError `keys.kek_retired`, `vault.read_only`.
        """
        return tuple(stored.held for stored in self._completed(dataset, key_id, secret))

    def _completed(self, dataset: str, key_id: str, secret: DataKey | None) -> tuple[Stored, ...]:
        known = self._wrappings.of_key(dataset, key_id)
        lacking = self._lacking(dataset, key_id, known)
        if lacking:
            data_key = secret or self.by_id(dataset, key_id)
            made = [self._wrappings.signed(self._wrapped(dataset, data_key, one, known)) for one in lacking]
            known = self._wrappings.put_everywhere(dataset, key_id, made, known)
        elif self._wrappings.has_replicas(dataset):
            self._wrappings.copy(dataset, key_id, known)
        return tuple(known)

    def wrappings(self, dataset: str) -> Iterator[tuple[ObjectKey, KeyObject]]:
        """All wrappings of the dataset's keys, by data key and generation; what isn't ours is passed over."""
        return ((stored.key, stored.held) for stored in self._wrappings.of_dataset(dataset))

    def regions(self, dataset: str) -> Sequence[Replica]:
        """The other regions that the dataset's wrappings have to lie in."""
        return self._replicas(dataset)

    def _lacking(self, dataset: str, key_id: str, known: Sequence[Stored]) -> list[KeyProvider]:
        there = {(stored.held.provider, stored.held.wrapping.kek_id) for stored in known}
        try:
            return [one for one in self.providers.of_dataset(dataset) if (one.name, one.kek_id) not in there]
        except VaultError as error:
            raise not_everywhere(dataset, key_id, error.found) from error

    def _wrapped(self, dataset: str, data_key: DataKey, provider: KeyProvider, known: Sequence[Stored]) -> KeyObject:
        if self.choice is not None and provider.kek_id in self.choice.retired_keks():
            raise retired(provider.name, provider.kek_id)
        before = [stored.held.context.generation for stored in known if stored.held.provider == provider.name]
        context = WrapContext(self._estate, dataset, data_key.key_id, max(before, default=0) + 1)
        try:
            wrapping = provider.wrap(data_key.secret, context)
        except VaultError as error:
            if error.code != UNREACHABLE:
                raise
            raise not_everywhere(dataset, data_key.key_id, error.found) from error
        return KeyObject(context, provider.name, wrapping, self._clock(), self._wrappings.signer().signer_id)

    # --- opening ----------------------------------------------------------------------------------------------------

    def key_of(self, header: Header) -> DataKey:
        """The key that a header names; raises VaultError `vault.no_key`, `vault.wrong_key`, `keys.unreachable`."""
        return self.by_id(header.dataset, header.key_id)

    def learn(self, dataset: str, data_keys: Iterable[DataKey]) -> None:
        """Open with these without asking any provider: for who brings them from an escrow."""
        with self._known_mutex:
            self._by_id |= {(dataset, one.key_id): one for one in data_keys}

    def by_id(self, dataset: str, key_id: str) -> DataKey:
        """As `key_of`. Nobody waits for another's look: two that ask for an unknown key at once both look."""
        with self._known_mutex:
            known = self._by_id.get((dataset, key_id))
        return known if known is not None else self._found(dataset, key_id).data_key

    def _found(self, dataset: str, key_id: str) -> _Held:
        names = self._wrappings.names(dataset, key_id)
        if not names:
            raise VaultError(
                "vault.no_key",
                f"{self._wrappings.place(dataset, key_id)} holds no wrapping, so what is sealed under that data key "
                "can't be opened",
                "copy the key objects from a replica of this vault",
            )
        return self._opened(names)

    def _opened(self, names: Sequence[Name]) -> _Held:
        """One data key by the names of its wrappings: the newest that opens counts.

        Raises `keys.unreachable` when none opens and a provider gave no answer, else what an operator can mend, else
        why it is damaged.
        """
        stored, refusals = self._wrappings.read_all(names)
        for one in self._opener.in_order(stored):
            try:
                data_key = self._opener.open(one)
            except DrError as refusal:
                refusals.append(refusal)
                continue
            with self._known_mutex:
                self._by_id[one.key.dataset, data_key.key_id] = data_key
            return _Held(data_key, tuple(stored), time.monotonic())
        raise weightiest(refusals)


def _by_age(names: Sequence[Name]) -> list[list[Name]]:
    """Each data key's names, the oldest data key first, by the store's clock at the first put of any wrapping."""
    keys: dict[str, list[Name]] = {}
    for name in names:
        keys.setdefault(name.text.rsplit("/", 3)[1], []).append(name)
    return sorted(keys.values(), key=lambda one: min((name.versions[0].modified_at, name.text) for name in one))
