"""Locks lengthened by hand: for an audit, an investigation, a regime that came late.

What belongs here: which objects, until when, the fact. What stays out: extensions that the house does by itself
(stores/, keys/), and legal holds, which have no date (holds.py).

A lock that is lengthened in compliance mode can't be shortened again by anybody. So it is bounded by the cap, and data
keys are lengthened with what they open, first.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.regimes import LOCK_CAP
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import KEYS, ObjectKey, prefix_of
from dr_assets.vault.retention.judged import SUBJECTS
from dr_assets.vault.retention.lengths import KEY_MARGIN
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.versions import authentic
from dr_assets.vault.vault import StoredObject, Vault

LOCK_EXTENSION: Final = "lock_extension"
_WORKERS: Final = 16
_CHUNK: Final = 1024


@dataclass(frozen=True, slots=True)
class Extension:
    """What was looked at, and how much of it was locked for less long than asked for."""

    dataset: str
    until: datetime
    objects: int
    extended: int


def extend_locks(
    vault: Vault, dataset: str, until: datetime, *, objects: Sequence[str] = (), dry_run: bool = False
) -> Extension:
    """Lock `objects` (all of the dataset by default) until `until` at least; data keys a year longer, and first.

    May be killed anywhere and run again. Raises PolicyError `vault.lock_too_long`, `vault.extension_past`,
    `hold.not_an_object`; VaultError `vault.missing`, `vault.not_locked`, `vault.lock_refused`.
    """
    now = vault.clock()
    _require_bounded(now, until)
    if dataset == SUBJECTS:
        raise PolicyError("hold.not_an_object", "backups of people's keys have to go in time", "leave them out")
    mode = vault.locks.lock(dataset, "manifest", now).mode
    chosen = [vault.find(_key(vault, dataset, text)) for text in objects]
    keys = _extend(vault, _key_objects(vault, dataset), Lock(mode, until + KEY_MARGIN), dry_run=dry_run)
    found = iter(chosen) if chosen else vault.objects(dataset)
    rest = _extend(vault, found, Lock(mode, until), dry_run=dry_run)
    done = Extension(dataset, until, keys[0] + rest[0], keys[1] + rest[1])
    if done.extended and not dry_run:
        named: list[Json] = [str(obj.key) for obj in chosen]
        body: dict[str, Json] = {"until": canonical.format_time(until), "mode": mode, "extended": done.extended}
        record_fact(vault, dataset, LOCK_EXTENSION, body | {"objects": named})
    return done


def _require_bounded(now: datetime, until: datetime) -> None:
    if until - now > LOCK_CAP:
        raise PolicyError(
            "vault.lock_too_long",
            f"a lock until {until:%Y-%m-%d} is asked for, at most {LOCK_CAP.days} days from now are allowed",
            "nobody can take it back; extend again when the time comes",
        )
    if until <= now:
        raise PolicyError("vault.extension_past", f"{until:%Y-%m-%d %H:%M}Z is over", "give a time to come")


def _key(vault: Vault, dataset: str, text: str) -> ObjectKey:
    key = ObjectKey.parse(text)
    if key is None or (key.estate, key.dataset) != (vault.estate, dataset):
        raise PolicyError("hold.not_an_object", f"{text} is no object of {dataset}", "give its full name")
    return key


def _key_objects(vault: Vault, dataset: str) -> Iterator[StoredObject]:
    for name in vault.names(prefix_of(vault.estate, dataset, KEYS)):
        version = authentic(vault.store, name)
        if name.key is not None and version is not None:
            yield StoredObject(name.key, version.version_id, version.size_bytes, version.modified_at)


def _extend(vault: Vault, objects: Iterator[StoredObject], lock: Lock, *, dry_run: bool) -> tuple[int, int]:
    """How many there were, and of how many the lock ended before; sixteen at a time."""
    whole = Lock(lock.mode, lock.retain_until.replace(microsecond=0) + timedelta(seconds=1))

    def extend(obj: StoredObject) -> bool:
        if not dry_run:
            return vault.ensure_locked(obj, whole)
        head = vault.store.head(str(obj.key), obj.version_id or None)
        return head is None or head.lock is None or head.lock.retain_until < whole.retain_until

    looked = extended = 0
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="extend") as pool:
        while chunk := list(islice(objects, _CHUNK)):
            looked += len(chunk)
            extended += sum(pool.map(extend, chunk))
    return looked, extended
