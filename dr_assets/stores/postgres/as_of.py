"""The WAL of one stream as it was stored at an earlier moment, though its pieces have been replaced since.

What belongs here: full segments that were put later in place of micro-segments that have expired. What stays out: which
pieces make a chain (full_segments.py), what is as of then of base backups and facts (their listings).

Micro-segments live for weeks, recovery windows for months. So what a capture had stored as of then is mostly to be had
from full segments alone, which were put after it. They are taken only where the pieces of then don't lead to what the
capture said it had stored, and no farther than that.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from dr_assets.stores.postgres.capture_facts import anchor_of
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.vault.chain import Chain
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.view import Listing, View


def stored_wal_as_of(
    vault: Vault, dataset: str, system_id: str, timeline: int, begin: int, as_of: datetime | None
) -> Chain:
    """As `stored_wal`; the chain may end within its last piece, where a capture's word of then (store's clock) ends.

    Raises VaultError when the store can't be read, or that word is damaged.
    """
    chain = stored_wal(vault, dataset, system_id, timeline, begin, as_of=as_of)
    if as_of is None:
        return chain
    anchor = anchor_of(vault, dataset, system_id, timeline, as_of=as_of)
    if anchor is None or chain.end >= anchor.stored:
        return chain
    replaced = stored_wal(_replaced(vault, anchor.stored), dataset, system_id, timeline, begin, as_of=as_of)
    if replaced.end <= chain.end:
        return chain
    return _cut(replaced, anchor.stored, as_of)


def _cut(chain: Chain, end: int, as_of: datetime) -> Chain:
    """`chain` without what only a later put tells of positions behind `end`."""
    if not any(obj.key.last > end and obj.modified_at > as_of for obj in chain.segments):
        return chain
    segments = tuple(obj for obj in chain.segments if obj.key.first < end)
    return replace(chain, segments=segments, end=end, holes=(), orphans=(), unreadable=())


def _replaced(vault: Vault, end: int) -> Vault:
    """`vault`, of which listings as of a moment show later full segments as well, of what begins before `end`."""

    def select(listed: Listing, stream: str | None, as_of: datetime | None) -> Iterator[StoredObject]:
        if stream != FULL or as_of is None:
            return listed(as_of)
        return (obj for obj in listed(None) if obj.modified_at <= as_of or obj.key.first < end)

    return View(vault, select)
