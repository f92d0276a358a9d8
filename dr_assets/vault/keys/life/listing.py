"""Which data keys there are, which of them writes, and what lies under which key-encryption key.

What belongs here: reading and telling. What stays out: changing anything.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import was_ours
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import is_name
from dr_assets.vault.keys.life.choice import FactChoice
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.storage.versions import look
from dr_assets.vault.vault import StoredObject, Vault

READERS: Final = 8


@dataclass(frozen=True, slots=True)
class Wrapped:
    """One wrapping of a data key."""

    provider: str
    kek_id: str
    generation: int
    is_retired: bool


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One data key. `is_writing`: what is sealed now is sealed under it; every other one only opens."""

    dataset: str
    key_id: str
    created_at: datetime
    is_writing: bool
    wrappings: tuple[Wrapped, ...]

    @property
    def is_exposed(self) -> bool:
        """Whether somebody with a retired key-encryption key can open it."""
        return any(wrapped.is_retired for wrapped in self.wrappings)

    def under(self, kek_id: str) -> bool:
        """Whether this key-encryption key opens it."""
        return any(wrapped.kek_id == kek_id for wrapped in self.wrappings)


@dataclass(frozen=True, slots=True)
class Lying:
    """An object and the data key that it was sealed under."""

    obj: StoredObject
    key_id: str
    sealed_at: datetime


def datasets_with_keys(vault: Vault) -> list[str]:
    """Every dataset that has a key object, declared or not."""
    folders = look(vault.store, f"{vault.estate}/")[1]
    names = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
    return [name for name in names if is_name(name) and next(vault.keys.wrappings(name), None) is not None]


def list_keys(vault: Vault, dataset: str) -> list[KeyRow]:
    """The dataset's data keys, oldest first; nothing is unwrapped.

    What writes is what the last rotation named; as long as there was none, the oldest.
    """
    choice = FactChoice(vault)
    named, retired = choice.writing_key_id(dataset), choice.retired_keks()
    found: dict[str, list[Wrapped]] = {}
    created: dict[str, datetime] = {}
    for key, held in vault.keys.wrappings(dataset):
        kek_id = held.wrapping.kek_id
        wrapped = Wrapped(held.provider, kek_id, held.context.generation, kek_id in retired)
        found.setdefault(key.system_id, []).append(wrapped)
        created[key.system_id] = min(held.created_at, created.get(key.system_id, held.created_at))
    order = sorted(created, key=lambda key_id: (created[key_id], key_id))
    writing = named or next(iter(order), None)
    return [
        KeyRow(dataset, key_id, created[key_id], key_id == writing, tuple(found[key_id])) for key_id in order
    ]  # fmt: skip


def writing_key(vault: Vault, dataset: str) -> KeyRow | None:
    """The data key that writes now; None where nothing was ever written."""
    return next((row for row in list_keys(vault, dataset) if row.is_writing), None)


def objects_under(vault: Vault, dataset: str, key_ids: frozenset[str]) -> Iterator[Lying]:
    """Every object that was sealed under one of these data keys, by its signed header; strangers' are passed over."""
    return (lying for lying in _lying(vault, vault.objects(dataset)) if lying.key_id in key_ids)


def sealed_since(vault: Vault, dataset: str, since: datetime) -> Iterator[Lying]:
    """Every object that the store took since then, with the data key that its signed header names."""
    return _lying(vault, [obj for obj in vault.objects(dataset) if obj.modified_at >= since])


def header_of_ours(vault: Vault, obj: StoredObject) -> Header | None:
    """The object's header, None for what a stranger laid under a fitting name: that must not hide what is ours.

    Raises VaultError for what is ours and damaged.
    """
    try:
        return vault.header(obj)
    except VaultError as error:
        if error.code in STORE_AWAY or was_ours(vault, obj):
            raise
        return None


def _lying(vault: Vault, objects: Iterable[StoredObject]) -> Iterator[Lying]:
    with ThreadPoolExecutor(READERS) as pool:
        for obj, header in pool.map(lambda obj: (obj, header_of_ours(vault, obj)), objects):
            if header is not None:
                yield Lying(obj, header.key_id, header.sealed_at)
