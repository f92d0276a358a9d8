"""Writing: put once, read back what the store holds and for how long, only then call it stored.

What belongs here: the order of DESIGN §4. What stays out: what the bytes are.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.retention import LOCK_CAP, check_skew
from dr_assets.vault.storage import Head, Lock, ObjectStore, Put
from dr_assets.vault.storage.refusals import missing

LOCK_TOLERANCE: Final = timedelta(seconds=1)  # stores keep whole seconds


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the store was seen to hold: digest (hex) and lock were read back, not assumed. `stored_at` is its clock."""

    key: ObjectKey
    version_id: str
    sha256: str
    size_bytes: int
    lock: Lock
    stored_at: datetime


def put_locked(
    store: ObjectStore,
    key: ObjectKey,
    data: bytes,
    sha256: str,
    lock: Lock,
    *,
    clock: Callable[[], datetime],
) -> Receipt:
    """Put `data` under `key`, read checksum and lock back, lengthen the lock of an earlier put that was shorter.

    The clock is compared with the store's before, since a locked object with a wrong time stays, and after it.

    Raises VaultError `vault.lock_too_long`, `vault.key_conflict`, `vault.clock_skew`, `vault.not_locked`,
    `vault.not_stored`, and what the store raises.
    """
    before = clock()
    _require_bounded(key, lock, before)
    require_clock(store, clock)
    put = store.put(str(key), data, sha256, lock)
    check_skew(put.store_at, before, clock())
    head = _read_back(store, key, put.version_id, sha256, len(data))
    if not _holds(head, lock):
        lock = _lengthened(store, key, put, head, lock)
        head = _read_back(store, key, put.version_id, sha256, len(data))
    return Receipt(key, put.version_id, sha256, len(data), _require_lock(key, head, lock), put.store_at)


def _lengthened(store: ObjectStore, key: ObjectKey, put: Put, head: Head, lock: Lock) -> Lock:
    """Lengthen the lock of an earlier put to `lock`; the lock that is then to be read back.

    A writer may not (docs/roles.md). Then the earlier put's own will do if it is as long, counted from that put: a
    retry asks for the same days some moments later.
    """
    try:
        store.extend(str(key), put.version_id, lock)
    except VaultError as error:
        if error.code != "vault.refused_credentials" or not put.existed:
            raise
        return Lock(lock.mode, lock.retain_until - (put.store_at - head.modified_at))
    return lock


def require_clock(store: ObjectStore, clock: Callable[[], datetime]) -> None:
    """Raise VaultError `vault.clock_skew` when `clock` is more than 5 s off the store's.

    Costs no request while the store answered something within the last minute; what looks like skew then is asked
    for anew before it is believed, since a host that slept reckons wrongly.
    """
    before = clock()
    try:
        check_skew(store.recent_now(), before, clock())
    except VaultError as error:
        if error.code != "vault.clock_skew":
            raise
        before = clock()
        check_skew(store.now(), before, clock())


def extend_locked(
    store: ObjectStore, key: ObjectKey, version_id: str, lock: Lock, *, clock: Callable[[], datetime]
) -> Lock:
    """Lengthen the lock of what is there, and read it back: the lock that the store was seen to hold.

    Raises VaultError `vault.clock_skew`, `vault.lock_refused`, `vault.missing`, `vault.not_locked`.
    """
    require_clock(store, clock)
    store.extend(str(key), version_id, lock)
    head = store.head(str(key), version_id or None)
    if head is None:
        raise missing(str(key), version_id)
    return _require_lock(key, head, lock)


def ensure_locked(
    store: ObjectStore, key: ObjectKey, version_id: str, lock: Lock, *, clock: Callable[[], datetime]
) -> bool:
    """Extend the lock of what is there if it ends before `lock`; whether it had to be. Read back in both cases.

    Raises as `extend_locked`, and VaultError `vault.lock_too_long`.
    """
    head = store.head(str(key), version_id or None)
    if head is None:
        raise missing(str(key), version_id)
    if _holds(head, lock):
        return False
    _require_bounded(key, lock, clock())
    # A lock that is stronger than what is asked for must not come out weaker.
    mode = "COMPLIANCE" if head.lock is not None and head.lock.mode == "COMPLIANCE" else lock.mode
    extend_locked(store, key, version_id, Lock(mode, _later(head.lock, lock)), clock=clock)
    return True


def _later(held: Lock | None, lock: Lock) -> datetime:
    return lock.retain_until if held is None else max(held.retain_until, lock.retain_until)


def _require_bounded(key: ObjectKey, lock: Lock, now: datetime) -> None:
    if lock.retain_until - now > 2 * LOCK_CAP:
        raise VaultError("vault.lock_too_long", f"{key}: a lock until {lock.retain_until}", "no lock is that long")


def _require_lock(key: ObjectKey, head: Head, lock: Lock) -> Lock:
    if head.lock is None or not _holds(head, lock):
        raise VaultError(
            "vault.not_locked",
            f"{key}: asked for {lock.mode} until {lock.retain_until}, the store shows {head.lock}",
            "the bucket must have been created with Object Lock (`dr-assets vault init`)",
        )
    return head.lock


def _read_back(store: ObjectStore, key: ObjectKey, version_id: str, sha256: str, size_bytes: int) -> Head:
    head = store.head(str(key), version_id or None)
    if head is None:
        raise VaultError(
            "vault.not_stored", f"{key} was put and is not there", "the store loses writes: don't trust it with backups"
        )
    stored = head.sha256 or _digest_of_bytes(store, key, version_id, head.size_bytes)
    if stored != sha256 or head.size_bytes != size_bytes:
        raise VaultError(
            "vault.not_stored",
            f"{key}: put {size_bytes} bytes of SHA-256 {sha256}, the store holds {head.size_bytes} of {stored}",
            "the store or something before it alters data: don't trust it with backups",
        )
    return head


def _digest_of_bytes(store: ObjectStore, key: ObjectKey, version_id: str, size_bytes: int) -> str:
    """For a store that shows no checksum of the whole object: read it."""
    return hashlib.sha256(store.get(str(key), version_id or None, limit_bytes=size_bytes).data).hexdigest()


def _holds(head: Head, lock: Lock) -> bool:
    if head.lock is None or head.lock.retain_until + LOCK_TOLERANCE < lock.retain_until:
        return False
    return lock.mode == "GOVERNANCE" or head.lock.mode == "COMPLIANCE"
