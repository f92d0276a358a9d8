"""One object, judged in both regions: the same bytes, locked there for at least as long as here.

What belongs here: reading both sides' heads (or bytes) and the verdict. What stays out: copying, and which objects.

Nothing is assumed of the machinery that copies. A store that replicates keeps the version's id, so the head is asked
by that id first; one that was copied to has ids of its own, so then the versions under the name are asked, oldest
first. A store that shows no checksum of the whole is read. What a store says of a checksum may be older than its
bytes: so samples are read in full (`deep`).
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import KEYS, ObjectKey
from dr_assets.vault.format.sizes import stored_limit
from dr_assets.vault.replication.walk import Pair
from dr_assets.vault.retention import LOCK_CAP
from dr_assets.vault.storage import STORE_AWAY, Head, Lock, ObjectStore
from dr_assets.vault.storage.versions import get_authentic, has_digest

LOG_LIMIT_BYTES: Final = 16 << 20  # a tile has 8 KiB, an entry bundle 256 leaves
LOCK_TOLERANCE: Final = timedelta(seconds=1)

Why = Literal["missing", "differs", "rotten", "unlocked", "short_lock", "no_hold", "tampered", "refused"]


@dataclass(frozen=True, slots=True)
class Proven:
    """Seen in both regions. `locked_until` is the replica's lock, `copied_bytes` what had to be brought there now."""

    pair: Pair
    locked_until: datetime | None
    copied_bytes: int = 0
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Unproven:
    """Not to be counted on in the other region, and why."""

    pair: Pair
    why: Why
    detail: str
    held: Head | None = None
    found: Head | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """Nothing to replicate: a stranger's bytes under a name of ours, or gone from the source since it was listed."""

    pair: Pair


Verdict = Proven | Unproven | Left


def prove(
    source: ObjectStore, replica: ObjectStore, pair: Pair, now: datetime, *, deep: bool = False, ask: bool = True
) -> Verdict:
    """Judge one pair. `now` is the stores' time. Raises VaultError when a store can't be read at all.

    `deep` reads the replica's bytes. Without `ask` a name that the replica didn't list is taken for missing at once:
    for who puts it there next, write-once, anyway.
    """
    try:
        held = held_at_source(source, pair)
        if held is None:
            return Left(pair)
        found = _found_at_replica(replica, pair, held) if ask or pair.replica else None
        if found is None:
            return Unproven(pair, "missing", "not in the other region", held)
        same = _judge_bytes(source, replica, pair, held, found, deep=deep)
        return same or _judge_lock(pair, held, found, now)
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        why: Why = "tampered" if error.code == "vault.tampered" else "refused"
        return Unproven(pair, why, f"{error.code}: {error.found}")


def held_at_source(source: ObjectStore, pair: Pair) -> Head | None:
    """The authentic version's head; None if there is none: strangers' bytes, or removed since.

    Raises VaultError `vault.tampered` for bytes that had the digest in their name and have it no more.
    """
    if pair.key is None:
        return source.head(pair.text, pair.source[0].version_id)
    heads = [head for row in pair.source if (head := source.head(pair.text, row.version_id)) is not None]
    for head in heads:
        if head.sha256 is not None and head.sha256.startswith(pair.key.digest):
            return head
    if not heads:
        return None
    try:  # a store without checksums, or one that lied just now: the bytes have the last word
        return get_authentic(source, pair.key).head
    except VaultError as error:
        gone = error.code == "vault.missing"
        if gone or (error.code == "vault.tampered" and all(head.sha256 is not None for head in heads)):
            return None
        raise


def lock_asked(held: Lock | None, key: ObjectKey | None, now: datetime) -> Lock | None:
    """What the replica's lock must be: the source's while that holds, and no longer than anything may be locked.

    Somebody with a writer's key can lock an object for centuries; that mistake stays in one region.
    """
    if held is None or held.retain_until <= now:
        return None
    return replace(held, retain_until=min(held.retain_until, (now + _cap(key)).replace(microsecond=0)))


def _cap(key: ObjectKey | None) -> timedelta:
    return 2 * LOCK_CAP if key is not None and key.stream == KEYS else LOCK_CAP


def _found_at_replica(replica: ObjectStore, pair: Pair, held: Head) -> Head | None:
    """The version of the source's id, else the oldest with the digest; a listing that lacks it is asked again."""
    ids = [row.version_id for row in pair.replica]
    if held.version_id and (not ids or held.version_id in ids):
        found = replica.head(pair.text, held.version_id)
        if found is not None and _fits(found, held, pair):
            return found
    if not ids:
        rows = [row for row in replica.list_name(pair.text) if not row.is_delete_marker]
        ids = [row.version_id for row in reversed(rows)]
    heads = [head for version_id in ids if (head := replica.head(pair.text, version_id)) is not None]
    return next((head for head in heads if _fits(head, held, pair)), heads[0] if heads else None)


def _fits(found: Head, held: Head, pair: Pair) -> bool:
    """Whether what the store says of it is right, as far as it says anything."""
    if found.size_bytes != held.size_bytes:
        return False
    if found.sha256 is None:
        return True
    if pair.key is not None:
        return found.sha256.startswith(pair.key.digest)
    return held.sha256 is None or found.sha256 == held.sha256


def _judge_bytes(
    source: ObjectStore, replica: ObjectStore, pair: Pair, held: Head, found: Head, *, deep: bool
) -> Unproven | None:
    """What is wrong with the copy's bytes."""
    if not _fits(found, held, pair):
        return Unproven(pair, "differs", f"version {found.version_id} there holds other bytes", held, found)
    if not _is_same(source, replica, pair, held, found, deep=deep):
        return Unproven(pair, "rotten", f"version {found.version_id} there lost its bytes", held, found)
    return None


def _is_same(source: ObjectStore, replica: ObjectStore, pair: Pair, held: Head, found: Head, *, deep: bool) -> bool:
    """Whether the bytes are, as far as the heads don't say it."""
    if not deep and found.sha256 is not None and (pair.key is not None or held.sha256 is not None):
        return True
    limit = LOG_LIMIT_BYTES if pair.key is None else stored_limit(pair.key.stream)
    data = replica.get(pair.text, found.version_id, limit_bytes=limit).data
    if pair.key is not None:
        return has_digest(data, pair.key)
    own = held.sha256 or hashlib.sha256(source.get(pair.text, held.version_id, limit_bytes=limit).data).hexdigest()
    return hashlib.sha256(data).hexdigest() == own


def _judge_lock(pair: Pair, held: Head, found: Head, now: datetime) -> Verdict:
    if held.held and not found.held:
        return Unproven(pair, "no_hold", "under legal hold here, not there", held, found)
    asked = lock_asked(held.lock, pair.key, now)
    if asked is not None and held.lock is not None and asked.retain_until < held.lock.retain_until:
        # The cap moves on with the clock; a lock that was cut to it is long enough for half of that time.
        asked = replace(asked, retain_until=now + _cap(pair.key) / 2)
    until = None if found.lock is None else found.lock.retain_until
    if asked is not None and found.lock is None:
        return Unproven(pair, "unlocked", f"locked here until {asked.retain_until:%Y-%m-%d}, not there", held, found)
    if asked is not None and found.lock is not None:
        is_weaker = (asked.mode, found.lock.mode) == ("COMPLIANCE", "GOVERNANCE")
        if is_weaker or found.lock.retain_until + LOCK_TOLERANCE < asked.retain_until:
            return Unproven(pair, "short_lock", f"{_text(asked)} here, {_text(found.lock)} there", held, found)
    return Proven(pair, until)


def _text(lock: Lock) -> str:
    return f"{lock.mode} until {lock.retain_until:%Y-%m-%dT%H:%M:%SZ}"
