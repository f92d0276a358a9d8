"""What a legal hold on a stretch of time needs of a Postgres dataset: from when on its objects are kept.

What belongs here: that one question. What stays out: holds themselves (vault/retention/holds.py).
"""

from datetime import datetime, timedelta
from typing import Final

from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.recovery_window import base_backups, is_usable, kept_backups
from dr_assets.vault.vault import Vault

MARGIN: Final = timedelta(hours=1)  # between the source's clock and the store's, and for what a base backup gathers
# A full segment is put after the WAL in it: an hour of it, and six before a roller that stands still is told.
ROLLED_WITHIN: Final = timedelta(hours=24)


def needed_from(vault: Vault, dataset: str, begin: datetime) -> datetime | None:
    """When the oldest object was stored that a restore to `begin` (source's clock) needs; None when all has to stay.

    That is of the base backups it builds on, and of the WAL from there. Without a usable base backup before `begin`
    nothing is known to be dispensable. Raises VaultError.
    """
    backups = base_backups(vault, dataset)
    kept = kept_backups(backups, begin, lambda one: is_usable(vault, dataset, one, backups))
    if not any(one.end_at < begin for one in kept):
        return None
    times: list[datetime] = []
    for backup in kept:
        if backup.manifest is None:
            continue
        times.append(min(backup.manifest.begin_at, backup.obj.modified_at) - MARGIN)
        chain = stored_wal(vault, dataset, backup.key.system_id, backup.key.timeline, backup.wal_begin)
        times += [segment.modified_at for segment in chain.segments[:1]]
    return min(times, default=None)


def needed_until(end: datetime) -> datetime:
    """Until when, by the store's clock, objects may be put that hold WAL of before `end`."""
    return end + ROLLED_WITHIN
