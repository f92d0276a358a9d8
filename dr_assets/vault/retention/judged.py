"""Locks as they were read back, held to DESIGN §4: each kind to its rule, and some to what depends on them.

What belongs here: pure judgements over a lock, a kind and a moment. What stays out: reading (lock_check.py, verify/).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, cast

from dr_assets.vault.format.keys import BASE, KEYS, WAL, ObjectKey, fact_stream, part_stream
from dr_assets.vault.retention.lengths import Kind, LockRules
from dr_assets.vault.storage import Lock

LOCK_TOLERANCE: Final = timedelta(minutes=10)  # between the moment a lock was reckoned from and the put
LOG: Final = "log"  # dataset name of the transparency log's objects
SUBJECTS: Final = "subjects"  # dataset name of the people's key ring, whose backups are locked by a rule of their own
# A rotation takes a moment to reach every writer: so long the key before is still written with.
KEY_OVERLAP: Final = timedelta(days=1)


def kind_of(key: ObjectKey, header_kind: str | None = None) -> Kind:
    """Which rule keeps an object: by its header's kind where that is known, else by its stream alone."""
    if key.dataset == LOG:
        return "log"
    # A micro may have the long lock or the short one, as long as it had one of the two (docs/decisions/0070).
    by_stream: dict[str, Kind] = {KEYS: "key", WAL: "micro"}
    if key.stream in by_stream:
        return by_stream[key.stream]
    if header_kind is not None:
        return cast("Kind", header_kind)
    return _kind_of_stream(key.stream)


def _kind_of_stream(stream: str) -> Kind:
    if stream.startswith(fact_stream("")):
        return "fact"
    if stream.startswith(part_stream("")):
        return "part"
    return "manifest" if stream == BASE else "wal"


def lock_trouble(locks: LockRules, key: ObjectKey, held: Lock | None, *, sealed_at: datetime, kind: Kind) -> str | None:
    """Why a lock is not what its rule asks for, reckoned from when the object was sealed; None if it is."""
    if key.dataset == SUBJECTS:
        return None
    if held is None:
        return "has no retention lock"
    rule = locks.lock(key.dataset, kind, sealed_at)
    if held.retain_until + LOCK_TOLERANCE < rule.retain_until:
        return f"locked until {held.retain_until:%Y-%m-%d %H:%M}Z, its rule says {rule.retain_until:%Y-%m-%d %H:%M}Z"
    if rule.mode == "COMPLIANCE" and held.mode != "COMPLIANCE":
        return f"locked in {held.mode} mode, which has a bypass"
    return None


@dataclass(frozen=True, slots=True)
class Seen:
    """One object with its lock, as a store's head told. `stored_at` is the store's clock at the put."""

    key: ObjectKey
    version_id: str
    lock: Lock | None
    stored_at: datetime
    held: bool = False
    parent: str | None = None
    snapshot_id: str | None = None


def outlived_fulls(manifests: Iterable[Seen], parts: Iterable[Seen], now: datetime) -> Iterator[tuple[Seen, str]]:
    """What an incremental builds on and yet is locked for less long than the incremental's manifest.

    `parent` of a manifest is the name of the manifest that it builds on, `snapshot_id` its own backup's. A full is
    worth as much as the last of its incrementals, so every part and manifest below is held to the highest above it,
    as long as that one's own lock holds.
    """
    by_name = {str(seen.key): seen for seen in manifests}
    needed: dict[str, tuple[datetime, str]] = {}
    for name, seen in by_name.items():
        at, above = seen.parent, seen.lock
        hops = 0
        while at in by_name and above is not None and above.retain_until > now and hops <= len(by_name):
            until = max(needed.get(at, (above.retain_until, name)), (above.retain_until, name))
            needed[at] = until
            at, hops = by_name[at].parent, hops + 1
    of_backup = {
        part_stream(seen.snapshot_id): needed[name]
        for name, seen in by_name.items()
        if name in needed and seen.snapshot_id is not None
    }
    for seen in (*by_name.values(), *parts):
        want = needed.get(str(seen.key)) or of_backup.get(seen.key.stream)
        if want is not None and (seen.lock is None or seen.lock.retain_until + LOCK_TOLERANCE < want[0]):
            ends = "has no lock" if seen.lock is None else f"its lock ends {seen.lock.retain_until:%Y-%m-%d %H:%M}Z"
            yield seen, f"{ends}, and {want[1]} builds on it and is locked until {want[0]:%Y-%m-%d %H:%M}Z"


def outlived_keys(
    keys: Iterable[Seen], latest: dict[str, list[tuple[datetime, datetime]]]
) -> Iterator[tuple[Seen, str]]:
    """Data keys that end before what was sealed under them.

    `latest` holds, by dataset, pairs of when an object was stored and until when it is locked. A data key is written
    with from its first wrapping to that of the next key, and a little longer. Of several wrappings of one key the one
    with the longest lock counts: any of them opens it.
    """
    longest: dict[tuple[str, str], Seen] = {}
    made: dict[tuple[str, str], datetime] = {}
    for seen in keys:
        name = (seen.key.dataset, seen.key.system_id)
        made[name] = min(made.get(name, seen.stored_at), seen.stored_at)
        if name not in longest or _until(longest[name]) < _until(seen):
            longest[name] = seen
    for (dataset, key_id), seen in longest.items():
        begin = made[dataset, key_id]
        later = [at for (other, _), at in made.items() if other == dataset and at > begin]
        end = min(later) + KEY_OVERLAP if later else None
        ends = [until for at, until in latest.get(dataset, ()) if at >= begin and (end is None or at < end)]
        if ends and _until(seen) < max(ends):
            yield seen, f"its lock ends {_until(seen):%Y-%m-%d}, and what it opens is locked until {max(ends):%Y-%m-%d}"


def _until(seen: Seen) -> datetime:
    return seen.stored_at if seen.lock is None else seen.lock.retain_until
