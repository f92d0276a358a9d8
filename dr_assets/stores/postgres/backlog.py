"""Micro-segments that wait for their full segment: how many, since when, and that their locks don't run out.

What belongs here: counting them, judging the backlog, extending locks. What stays out: rolling up (rollup.py).

A micro is locked for 14 days, whatever the retention, because a full segment will take its place. Until that one was
read back, and is proven in every replica that the dataset declares, the roller extends the lock of every micro that
has less than half of it left. The log takes up every object within minutes, and what is left then are days, so it
isn't asked.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Literal

from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.full_put import Stream
from dr_assets.stores.postgres.rollup import newest_full, streams_of
from dr_assets.vault.believed import believed
from dr_assets.vault.format.keys import WAL
from dr_assets.vault.replication import standing
from dr_assets.vault.retention import MICRO_LOCK
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import StoredObject, Vault

HALF: Final = MICRO_LOCK / 2
BEHIND: Final = timedelta(hours=6)  # a full spans an hour at most, so something keeps the roller from its work
_WORKERS: Final = 16
_CHUNK: Final = 1024

Colour = Literal["green", "yellow", "red"]


@dataclass(frozen=True, slots=True)
class Backlog:
    """One stream's micro-segments behind its newest full. `size_bytes` is WAL, not what is stored.

    `oldest_at` is the store's clock at the put of the oldest, `locked_until` the end of that one's lock; None without
    a backlog (or without a lock). `rolled_to` is where fulls end, None without any.
    """

    stream: Stream
    rolled_to: int | None
    micros: int
    size_bytes: int
    oldest_at: datetime | None
    locked_until: datetime | None

    def age(self, now: datetime) -> timedelta:
        """Of the oldest micro that waits."""
        return timedelta() if self.oldest_at is None else max(timedelta(), now - self.oldest_at)

    def colour(self, now: datetime) -> Colour:
        """Red at half of the lock, by age or by what is left; yellow when no roller can have run for hours."""
        if self.oldest_at is None:
            return "green"
        left = timedelta() if self.locked_until is None else self.locked_until - now
        if self.age(now) >= HALF or left < HALF:
            return "red"
        return "yellow" if self.age(now) >= BEHIND else "green"


def backlog_of(vault: Vault, stream: Stream) -> Backlog:
    """One listing from the newest full on, and one look at the oldest micro's lock. Raises VaultError."""
    micros = size_bytes = 0
    oldest: StoredObject | None = None
    rolled_to = _rolled_to(vault, stream)
    for obj in waiting(vault, stream, rolled_to):
        micros += 1
        size_bytes += obj.key.last - obj.key.first
        if oldest is None or obj.modified_at < oldest.modified_at:
            oldest = obj
    head = None if oldest is None else vault.store.head(str(oldest.key), oldest.version_id or None)
    lock = None if head is None else head.lock
    return Backlog(
        stream, rolled_to, micros, size_bytes,
        None if oldest is None else oldest.modified_at, None if lock is None else lock.retain_until,
    )  # fmt: skip


def backlogs(vault: Vault, dataset: str) -> list[Backlog]:
    """Of every stream of the dataset. Raises VaultError."""
    return [backlog_of(vault, stream) for stream in streams_of(vault, dataset)]


def waiting(vault: Vault, stream: Stream, rolled_to: int | None) -> Iterator[StoredObject]:
    """The micros behind the newest full, in order."""
    return vault.objects(
        stream.dataset, WAL, system_id=stream.system_id, timeline=stream.timeline,
        start_after_position=rolled_to or 0,
    )  # fmt: skip


def settled_to(vault: Vault, stream: Stream, replicas: Sequence[str]) -> int | None:
    """Up to where fulls stand for their micros: read back here, and proven in every one of `replicas`."""
    ends = [_rolled_to(vault, stream)]
    for replica in replicas:
        found = believed(lambda name: standing(vault, name), replica)
        place = (vault.estate, stream.dataset, stream.system_id, stream.timeline)
        ends.append(None if found is None else found.proven_to(*place, full=True))
    known = [end for end in ends if end is not None]
    return min(known) if len(known) == len(ends) else None


def extend_waiting(vault: Vault, dataset: str, replicas: Sequence[str] = ()) -> int:
    """Extend the lock of every micro that waits and has less than half of it left; how many that were.

    One whose full is not proven in each of `replicas` waits, too.

    Only those are looked at whose put is as long ago. Raises VaultError, `vault.not_locked` if a store doesn't do it.
    """
    now = vault.clock()
    extended = 0
    for stream in streams_of(vault, dataset):
        aged = (
            obj for obj in waiting(vault, stream, settled_to(vault, stream, replicas)) if now - obj.modified_at >= HALF
        )
        extended += _extend_short(vault, dataset, aged, now)
    return extended


def _rolled_to(vault: Vault, stream: Stream) -> int | None:
    latest = latest_anchor(vault, stream.dataset)
    is_own = latest is not None and (latest.system_id, latest.timeline) == (stream.system_id, stream.timeline)
    newest = newest_full(vault, stream, latest if is_own else None)
    return None if newest is None else newest[1].last


def _extend_short(vault: Vault, dataset: str, objects: Iterable[StoredObject], now: datetime) -> int:
    return extend_where_under(HALF, vault.locks.lock(dataset, "micro", now), vault, objects, now)


def extend_where_under(
    shortest: timedelta, lock: Lock, vault: Vault, objects: Iterable[StoredObject], now: datetime
) -> int:
    """Lock those as `lock` says of which less than `shortest` is left at `now`; how many. Raises VaultError."""

    def extend(obj: StoredObject) -> bool:
        head = vault.store.head(str(obj.key), obj.version_id or None)
        if head is None or (head.lock is not None and head.lock.retain_until - now >= shortest):
            return False
        return vault.ensure_locked(obj, lock)

    return in_chunks(extend, objects)


def in_chunks(extend: Callable[[StoredObject], bool], objects: Iterable[StoredObject]) -> int:
    """For how many `extend` said yes; of the listing, only a chunk is in memory."""
    extended, todo = 0, iter(objects)
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="extend") as pool:
        while chunk := list(islice(todo, _CHUNK)):
            extended += sum(pool.map(extend, chunk))
    return extended
