"""Every lock of a vault read back by heads alone, and judged: no body is fetched, so it can run every hour.

What belongs here: listing, asking, and handing to the judgements (judged.py). What stays out: bytes (verify/), and
extending (holds.py, stores/).

Micro-segments are left out unless asked for: there may be a million, `rolled_up` minds their backlog, and a full
verification reads them anyway. Bound: one listing, and one head for every other object, sixteen at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.estate.regimes import SLACK
from dr_assets.vault.format import canonical
from dr_assets.vault.format.keys import BASE, KEYS, WAL, part_stream, prefix_of
from dr_assets.vault.format.sizes import MANIFEST_LIMIT_BYTES
from dr_assets.vault.retention.holds import Hold, holds_in_force
from dr_assets.vault.retention.judged import (
    Seen,
    kind_of,
    lock_trouble,
    outlived_fulls,
    outlived_keys,
)
from dr_assets.vault.storage import STORE_AWAY, Head
from dr_assets.vault.storage.versions import Name, authentic
from dr_assets.vault.vault import StoredObject, Vault

_WORKERS: Final = 16
_CHUNK: Final = 1024


@dataclass(frozen=True, slots=True, order=True)
class Unlocked:
    """One object whose lock is not what DESIGN §4 asks for."""

    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class LockReport:
    """What was asked for and found. `ended` are locks that are over as planned, `held` those under legal hold.

    `unheld` are covered by a hold in force, lack the store's flag, and will not be locked for much longer.
    """

    objects: int
    locked: int
    ended: int
    held: int
    unheld: int
    troubles: tuple[Unlocked, ...]


def check_locks(vault: Vault, dataset: str, *, micros: bool = False) -> LockReport:
    """Ask for every lock of a dataset, keys and facts included. Raises VaultError when the store can't be read."""
    now = vault.clock()
    seen = list(_seen(vault, dataset, micros=micros))
    troubles = [
        Unlocked(str(one.key), trouble)
        for one in seen
        if (one.lock is None or one.lock.retain_until > now) and (trouble := _trouble(vault, one)) is not None
    ]
    manifests = [_with_parent(vault, one) for one in seen if one.key.stream == BASE]
    parts = [one for one in seen if one.key.stream.startswith(part_stream(""))]
    troubles += [Unlocked(str(one.key), why) for one, why in outlived_fulls(manifests, parts, now)]
    troubles += [Unlocked(str(one.key), why) for one, why in outlived_keys(*_for_keys(seen, now))]
    over = [one for one in seen if one.lock is not None and one.lock.retain_until <= now]
    return LockReport(
        objects=len(seen),
        locked=sum(1 for one in seen if one.lock is not None and one.lock.retain_until > now),
        ended=len(over),
        held=sum(1 for one in seen if one.held),
        unheld=_unheld(seen, holds_in_force(vault, dataset), now + SLACK),
        troubles=tuple(sorted(set(troubles))),
    )


def _unheld(seen: Iterable[Seen], holds: Sequence[Hold], soon: datetime) -> int:
    unflagged = [one for one in seen if not one.held and (one.lock is None or one.lock.retain_until < soon)]
    return sum(1 for one in unflagged if any(hold.covers(one.key, one.stored_at) for hold in holds))


def _for_keys(seen: Iterable[Seen], now: datetime) -> tuple[list[Seen], dict[str, list[tuple[datetime, datetime]]]]:
    """The data keys, and until when what they open is locked; of what is over nothing is asked any more."""
    keys = [one for one in seen if one.key.stream == KEYS]
    latest: dict[str, list[tuple[datetime, datetime]]] = {}
    for one in seen:
        if one.key.stream != KEYS and one.lock is not None and one.lock.retain_until > now:
            latest.setdefault(one.key.dataset, []).append((one.stored_at, one.lock.retain_until))
    return keys, latest


def _trouble(vault: Vault, seen: Seen) -> str | None:
    """By the time of the put first, which needs no read; what looks short then is held to when it was sealed.

    A sealed piece may have waited in a spool for a vault that was away. Of the streams that don't hold our kind of
    object (keys) the put's time is all there is.
    """
    kind = kind_of(seen.key)
    trouble = lock_trouble(vault.locks, seen.key, seen.lock, sealed_at=seen.stored_at, kind=kind)
    if trouble is None or seen.lock is None or seen.key.stream == KEYS:
        return trouble
    head = vault.store.head(str(seen.key), seen.version_id or None)
    if head is None:
        return trouble
    try:
        header = vault.header(StoredObject(seen.key, seen.version_id, head.size_bytes, seen.stored_at))
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return None  # not ours, or damaged: a verification says which
    sealed_at, kind = header.sealed_at, kind_of(seen.key, header.kind)
    return lock_trouble(vault.locks, seen.key, seen.lock, sealed_at=sealed_at, kind=kind)


def _with_parent(vault: Vault, seen: Seen) -> Seen:
    """What a base backup's manifest builds on; one that can't be read builds on nothing that could be told."""
    obj = StoredObject(seen.key, seen.version_id, 0, seen.stored_at)
    try:
        body = canonical.decode(vault.open(obj).plaintext, limit_bytes=MANIFEST_LIMIT_BYTES, what=str(seen.key))
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return seen
    parent, own = body.get("parent"), body.get("snapshot_id")
    above = parent.get("key") if isinstance(parent, dict) else None
    return replace(
        seen,
        parent=above if isinstance(above, str) else None,
        snapshot_id=own if isinstance(own, str) else None,
    )


def _seen(vault: Vault, dataset: str, *, micros: bool) -> Iterator[Seen]:
    names = (name for name in _names(vault, dataset, micros=micros) if name.key is not None and name.versions)

    def ask(name: Name) -> Seen | None:
        version = authentic(vault.store, name)
        head: Head | None = None
        if version is not None:
            head = vault.store.head(name.text, version.version_id or None)
        if version is None or head is None or name.key is None:
            return None
        return Seen(name.key, version.version_id, head.lock, version.modified_at, head.held)

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="locks") as pool:
        while chunk := list(islice(names, _CHUNK)):
            yield from (one for one in pool.map(ask, chunk) if one is not None)


def _names(vault: Vault, dataset: str, *, micros: bool) -> Iterator[Name]:
    for folder in vault.store.list_level(prefix_of(vault.estate, dataset)).folders:
        if micros or not folder.endswith(f"/{WAL}/"):
            yield from vault.names(folder)
