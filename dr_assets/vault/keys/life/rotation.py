"""Rotation: a new data key for writing from now on, and wrappings of the old ones by today's key-encryption keys.

What belongs here: the order of the steps, and when one is due. What stays out: re-encryption, which never happens:
what is locked stays as it is, and old wrappings go on opening it.

A rotation takes effect with its fact, and the fact comes last: when every provider has wrapped the new key, and every
region was seen to hold the wrappings. Killed before that, the old key goes on writing, `unfinished` names what was
begun, and the next run completes it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dr_assets.estate.durations import format_duration
from dr_assets.estate.errors import DrError, VaultError
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.keys.derive import KEY_BYTES, DataKey
from dr_assets.vault.keys.key_object import KeyObject
from dr_assets.vault.keys.life.choice import BEGUN, ROTATION
from dr_assets.vault.keys.life.listing import KeyRow, datasets_with_keys, list_keys, writing_key
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation that took effect. `troubles` are old keys that could not be wrapped anew, each with why."""

    dataset: str
    key_id: str
    previous: str
    at: datetime
    wrapped_anew: tuple[str, ...]
    troubles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyAge:
    """How old a dataset's writing key is, and how old it may get."""

    dataset: str
    key_id: str
    created_at: datetime
    age: timedelta
    every: timedelta

    @property
    def is_due(self) -> bool:
        """Whether the next one should come now."""
        return self.age >= self.every


def rotate(vault: Vault, dataset: str, reason: str) -> Rotation:
    """Complete a rotation that was begun, or make one. Live writers take it up within `TAKE_UP_S` without a pause.

    Raises VaultError `keys.not_everywhere`, `vault.no_key` (the dataset has no key to rotate), PolicyError
    `keys.kek_retired`, `vault.read_only`.
    """
    row = writing_key(vault, dataset)
    if row is None:
        raise VaultError("vault.no_key", f"{dataset} has no data key yet", "its first writer makes one")
    wrapped_anew, troubles = _wrap_anew(vault, dataset)
    key_id, wrappings = _complete_begun(vault, dataset) or _begin(vault, row, reason)
    body: dict[str, Json] = {
        "key_id": key_id,
        "previous": row.key_id,
        "reason": reason,
        "wrapped_anew": list[Json](wrapped_anew),
        "wrappings": _told(wrappings),
    }
    if row.is_exposed:  # nothing may be sealed under it any more, this word neither
        vault.keys.write_with(dataset, key_id)
    receipt = record_fact(vault, dataset, ROTATION, body)
    vault.keys.take_up(dataset)
    return Rotation(dataset, key_id, row.key_id, receipt.stored_at, tuple(wrapped_anew), tuple(troubles))


def rotate_due(vault: Vault, every: timedelta) -> list[Rotation]:
    """Rotate what is due or was begun, dataset by dataset.

    One whose provider or region is away keeps no other's key from being rotated: its VaultError or PolicyError is
    raised when all were tried.
    """
    done: list[Rotation] = []
    failed: list[DrError] = []
    for dataset in datasets_with_keys(vault):
        try:
            age = age_of(vault, dataset, every)
            begun = unfinished(vault, dataset) is not None
            if begun or (age is not None and age.is_due):
                reason = "begun before" if begun else f"due every {format_duration(every)}"
                done.append(rotate(vault, dataset, reason))
        except DrError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return done


def unfinished(vault: Vault, dataset: str) -> str | None:
    """The data key of a rotation that was begun and has not taken effect; None if there is none."""
    begun, done = latest_fact(vault, dataset, BEGUN), latest_fact(vault, dataset, ROTATION)
    if begun is None or (done is not None and (done.body["key_id"] == begun.body["key_id"] or done.at > begun.at)):
        return None
    return str(begun.body["key_id"])


def age_of(vault: Vault, dataset: str, every: timedelta) -> KeyAge | None:
    """The writing key's age by this host's clock; None where there is no key."""
    row = writing_key(vault, dataset)
    if row is None:
        return None
    return KeyAge(dataset, row.key_id, row.created_at, vault.clock() - row.created_at, every)


def _complete_begun(vault: Vault, dataset: str) -> tuple[str, tuple[KeyObject, ...]] | None:
    """Go on with what a killed run began, as long as a wrapping of its key was stored; else the key died with it."""
    key_id = unfinished(vault, dataset)
    if not any(row.key_id == key_id and not row.is_exposed for row in list_keys(vault, dataset)) or key_id is None:
        return None
    return key_id, vault.keys.complete(dataset, key_id)


def _begin(vault: Vault, row: KeyRow, reason: str) -> tuple[str, tuple[KeyObject, ...]]:
    secret, dataset = DataKey.of(os.urandom(KEY_BYTES)), row.dataset
    if not row.is_exposed:  # else there is no key yet to seal that word under; killed now, the new key dies unused
        record_fact(vault, dataset, BEGUN, {"key_id": secret.key_id, "previous": row.key_id, "reason": reason})
    wrappings = vault.keys.complete(dataset, secret.key_id, secret)
    if vault.keys.anew().by_id(dataset, secret.key_id) != secret:
        raise VaultError("vault.not_stored", f"data key {secret.key_id} does not open", "don't trust this store")
    return secret.key_id, wrappings


def _wrap_anew(vault: Vault, dataset: str) -> tuple[list[str], list[str]]:
    """See that today's key-encryption keys open every old key too: the old ones may be taken away one day."""
    wrapped: list[str] = []
    troubles: list[str] = []
    begun = unfinished(vault, dataset)
    for row in list_keys(vault, dataset):
        if row.key_id == begun:
            continue
        before = len(row.wrappings)
        try:
            after = len(vault.keys.complete(dataset, row.key_id))
        except DrError as error:
            # What can't be opened today can't be wrapped today; that must not keep the new key from coming.
            if error.code in STORE_AWAY and error.code != "keys.unreachable":
                raise
            troubles.append(f"{row.key_id}: {error.code}")
            continue
        if after > before:
            wrapped.append(row.key_id)
    return wrapped, troubles


def _told(wrappings: Sequence[KeyObject]) -> list[Json]:
    return [
        {
            "created_at": format_time(held.created_at),
            "generation": held.context.generation,
            "kek_id": held.wrapping.kek_id,
            "provider": held.provider,
        }
        for held in wrappings
    ]
