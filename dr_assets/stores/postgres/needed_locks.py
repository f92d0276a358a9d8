"""Locks of what is kept for longer than planned: base backups and full segments that recovery still depends on.

What belongs here: extending them while they are needed. What stays out: what is needed (recovery_window.py), locks of
micro-segments (backlog.py).

Locks are made for the plan: a base backup each interval. When base backups stop, the last one and its WAL stay
(expiry keeps them), and here their locks are kept a week ahead.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from dr_assets.stores.postgres.backlog import extend_where_under
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.recovery_window import BaseBackup, WalNeeds, base_backups, is_usable, kept_backups
from dr_assets.stores.postgres.rollup import streams_of
from dr_assets.vault.format.keys import BASE, ObjectKey, part_stream
from dr_assets.vault.full_segment import FULL, FULL_LIST
from dr_assets.vault.retention import SLACK
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import StoredObject, Vault


def extend_needed(vault: Vault, dataset: str) -> int:
    """Extend to two weeks every lock that ends within one and is still needed; how many that were.

    While base backups are taken as declared this costs one listing of their manifests. Raises VaultError.
    """
    now = vault.clock()
    oldest_at = now + SLACK - vault.locks.length(dataset, "manifest")
    if not any(obj.modified_at < oldest_at for obj in vault.objects(dataset, BASE)):
        return 0
    backups = base_backups(vault, dataset)
    window_begin = now - vault.locks.kept_for(dataset)
    kept = kept_backups(backups, window_begin, lambda one: is_usable(vault, dataset, one, backups))
    aged = (obj for obj in _needed(vault, dataset, kept) if obj.modified_at < oldest_at)
    return _extend(vault, dataset, aged, now)


def _needed(vault: Vault, dataset: str, kept: list[BaseBackup]) -> Iterator[StoredObject]:
    for backup in kept:
        yield backup.obj
        if backup.manifest is not None:
            listed = {ObjectKey.parse(part.key) for part in backup.manifest.parts}
            parts = vault.objects(dataset, part_stream(backup.manifest.snapshot_id))
            yield from (obj for obj in parts if obj.key in listed)
    if not any(backup.manifest is not None for backup in kept):
        return
    anchor = latest_anchor(vault, dataset)
    needs = WalNeeds(tuple(kept), None if anchor is None else anchor.system_id)
    for stream in streams_of(vault, dataset):
        floor = needs.floor(stream.system_id, stream.timeline)
        for kind in (FULL, FULL_LIST) if floor is not None else ():
            for obj in vault.objects(dataset, kind, system_id=stream.system_id, timeline=stream.timeline):
                if floor is not None and obj.key.last > floor:
                    yield obj


def _extend(vault: Vault, dataset: str, objects: Iterable[StoredObject], now: datetime) -> int:
    rule = vault.locks.lock(dataset, "manifest", now)
    lock = Lock(rule.mode, (now + 2 * SLACK).replace(microsecond=0))
    return extend_where_under(SLACK, lock, vault, objects, now)
