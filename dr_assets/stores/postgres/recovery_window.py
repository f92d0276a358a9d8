"""The recovery window: which instants can be restored to, and which base backups carry them.

What belongs here: the rule of what is kept, over base backups that were read. What stays out: removing what isn't
(expire.py), planning a restore (plan.py).

Every instant of the last `retention.days` must stay reachable. So a base backup is kept that ended within them, and
the newest usable one that ended before; with an incremental, all it builds on. That newest one is kept however old it
is: when base backups stop, nothing may run out.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres import base_manifest
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.clip import reachable_at
from dr_assets.stores.postgres.course import Course
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.resume import STORE_AWAY
from dr_assets.stores.postgres.wal import segment_begin
from dr_assets.vault.chain import Chain
from dr_assets.vault.format.keys import BASE, ObjectKey, part_stream
from dr_assets.vault.vault import StoredObject, Vault

_READERS: Final = 8
_LARGEST_SEGMENT: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class BaseBackup:
    """A base backup as its manifest tells; `manifest` is None, with the reason, where that can't be believed."""

    obj: StoredObject
    manifest: BaseManifest | None
    trouble: str | None = None

    @property
    def key(self) -> ObjectKey:
        """The manifest's name: its positions are the WAL that the backup needs."""
        return self.obj.key

    @property
    def end_at(self) -> datetime:
        """When it was consistent, by the source's clock; by the store's at the put where that can't be read."""
        return self.obj.modified_at if self.manifest is None else self.manifest.end_at

    @property
    def wal_begin(self) -> int:
        """Where the WAL that it needs begins, rounded down as a restore lays it."""
        size = _LARGEST_SEGMENT if self.manifest is None else self.manifest.segment_bytes
        return segment_begin(self.key.first, size)


def base_backups(vault: Vault, dataset: str, *, as_of: datetime | None = None) -> list[BaseBackup]:
    """All of them, oldest first. Raises VaultError when the store can't be read."""

    def read(obj: StoredObject) -> BaseBackup:
        try:
            return BaseBackup(obj, base_manifest.decode(vault.open(obj).plaintext, name=str(obj.key)))
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            return BaseBackup(obj, None, f"{error.code}: {error.found}")

    with ThreadPoolExecutor(_READERS, thread_name_prefix="manifests") as pool:
        found = list(pool.map(read, vault.objects(dataset, BASE, as_of=as_of)))
    return sorted(found, key=lambda backup: (backup.end_at, backup.key))


def kept_backups(
    backups: Sequence[BaseBackup], window_begin: datetime, is_usable: Callable[[BaseBackup], bool]
) -> list[BaseBackup]:
    """Those that an instant in the window needs, oldest first.

    What can't be read is kept: nobody knows what it holds. Without a usable one before the window all are kept.
    """
    kept = {backup.key for backup in backups if backup.end_at >= window_begin or backup.manifest is None}
    before = [backup for backup in reversed(backups) if backup.key not in kept]
    newest = next((backup for backup in before if is_usable(backup)), None)
    kept |= {backup.key for backup in before} if newest is None else {newest.key}
    by_name = {str(backup.key): backup for backup in backups}
    for backup in backups:
        if backup.key in kept:
            kept |= {ancestor.key for ancestor in _ancestors(backup, by_name)}
    return [backup for backup in backups if backup.key in kept]


def _ancestors(backup: BaseBackup, by_name: dict[str, BaseBackup]) -> list[BaseBackup]:
    found: list[BaseBackup] = []
    at: BaseBackup | None = backup
    while at is not None and at.manifest is not None and at.manifest.parent_key is not None:
        at = by_name.get(at.manifest.parent_key)
        if at is None or at in found:
            break
        found.append(at)
    return found


def is_usable(vault: Vault, dataset: str, backup: BaseBackup, backups: Iterable[BaseBackup]) -> bool:
    """Whether its parts, those of what it builds on, and the WAL up to its end are there, by their names."""
    manifest = backup.manifest
    if manifest is None:
        return False
    by_name = {str(other.key): other for other in backups}
    built_on = _ancestors(backup, by_name)
    if len(built_on) != manifest.depth:
        return False
    if not all(_has_parts(vault, dataset, one.manifest) for one in (backup, *built_on) if one.manifest is not None):
        return False
    chain = stored_wal(vault, dataset, manifest.system_id, manifest.timeline, backup.wal_begin)
    return bool(chain.segments) and chain.end >= manifest.stop_lsn


def _has_parts(vault: Vault, dataset: str, manifest: BaseManifest) -> bool:
    there = {str(obj.key) for obj in vault.objects(dataset, part_stream(manifest.snapshot_id))}
    return all(part.key in there for part in manifest.parts)


@dataclass(frozen=True, slots=True)
class WalNeeds:
    """From which position on each stream's WAL is needed by the base backups that are kept."""

    kept: tuple[BaseBackup, ...]
    captured_system: str | None

    def floor(self, system_id: str, timeline: int) -> int | None:
        """Below it nothing is needed; None when nothing of the stream is.

        A base backup on an earlier timeline leads into every later one, so all of that is needed. So is what is
        captured now, though no base backup of it may exist yet.
        """
        own = [backup for backup in self.kept if backup.key.system_id == system_id]
        if any(backup.key.timeline < timeline for backup in own) or (not own and system_id == self.captured_system):
            return 0
        return min((backup.wal_begin for backup in own if backup.key.timeline == timeline), default=None)


@dataclass(frozen=True, slots=True)
class Window:
    """Instants [oldest_at, newest_at] of one timeline that can be restored to; source's clock.

    `first` and `last` name its oldest and newest base backup, `end_lsn` is where its WAL ends. `newest_at` is None
    while no heartbeat dates the WAL: then only positions can be asked for.
    """

    system_id: str
    timeline: int
    oldest_at: datetime
    newest_at: datetime | None
    end_lsn: int
    base_backups: int
    first: str
    last: str


def recovery_windows(vault: Vault, dataset: str, backups: Sequence[BaseBackup]) -> list[Window]:
    """One window for each unbroken run of WAL that begins with a base backup; a hole begins another. By names alone.

    A base backup without the WAL up to its end counts for nothing yet. Raises VaultError.
    """
    windows: list[Window] = []
    streams = sorted({(one.key.system_id, one.key.timeline) for one in backups})
    for system_id, timeline in streams:
        own = [one for one in backups if (one.key.system_id, one.key.timeline) == (system_id, timeline)]
        own = sorted((one for one in own if one.manifest is not None), key=lambda one: one.key)
        while own:
            chain = stored_wal(vault, dataset, system_id, timeline, own[0].wal_begin)
            carried = [one for one in own if one.key.last <= chain.end] if chain.segments else []
            if carried and carried[0] is own[0]:
                windows.append(_window(vault, carried, chain))
            own = [one for one in own[1:] if one not in carried]
    return windows


def _window(vault: Vault, carried: Sequence[BaseBackup], chain: Chain) -> Window:
    first, last = carried[0], carried[-1]
    return Window(
        first.key.system_id, first.key.timeline, first.end_at, reachable_at(vault, Course(chain)), chain.end,
        len(carried), _snapshot_id(first), _snapshot_id(last),
    )  # fmt: skip


def _snapshot_id(backup: BaseBackup) -> str:
    return "" if backup.manifest is None else backup.manifest.snapshot_id
