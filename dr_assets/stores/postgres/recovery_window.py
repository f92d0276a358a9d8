"""The recovery window: which instants can be restored to, and which base backups carry them.

What belongs here: the rule of what is kept, over base backups that were read. What stays out: removing what isn't
(expire.py), planning a restore (plan.py).

Every instant of the last `retention.days` must stay reachable. So a base backup is kept that ended within them, and
the newest usable one that ended before; with an incremental, all it builds on. That newest one is kept however old it
is: when base backups stop, nothing may run out.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres import base_manifest
from dr_assets.stores.postgres.base_manifest import BaseManifest, Part
from dr_assets.stores.postgres.clip import reachable_at
from dr_assets.stores.postgres.course import Course
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.wal import segment_begin
from dr_assets.vault.chain import Chain
from dr_assets.vault.facts import was_ours
from dr_assets.vault.format.keys import BASE, ObjectKey, part_stream
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import StoredObject, Vault

_READERS: Final = 8
_OPENERS: Final = 3  # parts, of tens of megabytes each, that are in memory at once
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
    """All of them, oldest first; what none of ours ever sealed for its place is none. Raises VaultError.

    One of ours that can't be read any more is told with the reason.
    """

    def read(obj: StoredObject) -> BaseBackup | None:
        try:
            return BaseBackup(obj, base_manifest.decode(vault.open(obj).plaintext, name=str(obj.key)))
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            return BaseBackup(obj, None, f"{error.code}: {error.found}") if was_ours(vault, obj) else None

    with ThreadPoolExecutor(_READERS, thread_name_prefix="manifests") as pool:
        found = [one for one in pool.map(read, vault.objects(dataset, BASE, as_of=as_of)) if one is not None]
    return sorted(found, key=lambda backup: (backup.end_at, backup.key))


def kept_backups(
    backups: Sequence[BaseBackup],
    window_begin: datetime,
    is_usable: Callable[[BaseBackup], bool],
    *,
    damaged: Collection[ObjectKey] = (),
) -> list[BaseBackup]:
    """Those that an instant in the window needs, oldest first.

    What can't be read is kept: nobody knows what it holds. Nor does what is `damaged` go, though it carries nothing.
    Without a usable one before the window all are kept.
    """
    kept = {one.key for one in backups if one.end_at >= window_begin or one.manifest is None or one.key in damaged}
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


def carrier_of(kept: Sequence[BaseBackup], window_begin: datetime, damaged: Collection[ObjectKey]) -> BaseBackup | None:
    """The newest of those that are kept though they ended before the window: what older ones go on the strength of."""
    before = [one for one in kept if one.end_at < window_begin and one.manifest and one.key not in damaged]
    return before[-1] if before else None


def damage_of(vault: Vault, dataset: str, backup: BaseBackup, backups: Iterable[BaseBackup]) -> str | None:
    """Open every part of a base backup and of what it builds on, a few at a time; the first trouble, None without any.

    Raises VaultError when the store is away.
    """

    def trouble(part: Part) -> str | None:
        key = ObjectKey.parse(part.key)
        if key is None or key.dataset != dataset:
            return f"{part.key}: no name of a part"
        try:
            obj = vault.find(key)
            opened = vault.open(obj)
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            return f"{error.code}: {error.found}"
        return None if opened.header.kind == "part" else f"{part.key}: no part"

    manifests = [one.manifest for one in (backup, *_ancestors(backup, {str(one.key): one for one in backups}))]
    todo = iter([part for manifest in manifests if manifest is not None for part in manifest.parts])
    with ThreadPoolExecutor(_OPENERS, thread_name_prefix="opens") as pool:
        while chunk := list(islice(todo, _OPENERS)):
            for found in pool.map(trouble, chunk):
                if found is not None:
                    return found
    return None


def is_usable(vault: Vault, dataset: str, backup: BaseBackup, backups: Iterable[BaseBackup]) -> bool:
    """Whether its parts, those of what it builds on, and the WAL up to its end are there, by their names."""
    manifest = backup.manifest
    if manifest is None or not is_whole(vault, dataset, backup, backups):
        return False
    chain = stored_wal(vault, dataset, manifest.system_id, manifest.timeline, backup.wal_begin)
    return bool(chain.segments) and chain.end >= manifest.stop_lsn


def is_whole(vault: Vault, dataset: str, backup: BaseBackup, backups: Iterable[BaseBackup]) -> bool:
    """Whether its parts and those of what it builds on are there, by their names."""
    by_name = {str(other.key): other for other in backups}
    return _is_whole(backup, by_name, lambda one: _has_parts(vault, dataset, one))


def whole_backups(vault: Vault, dataset: str, backups: Sequence[BaseBackup]) -> list[BaseBackup]:
    """Those that `is_whole`; each one's parts are listed once, however many build on it."""
    by_name = {str(one.key): one for one in backups}
    has_parts = {one.key: _has_parts(vault, dataset, one) for one in backups}
    return [one for one in backups if _is_whole(one, by_name, lambda other: has_parts[other.key])]


def _is_whole(backup: BaseBackup, by_name: dict[str, BaseBackup], has_parts: Callable[[BaseBackup], bool]) -> bool:
    if backup.manifest is None:
        return False
    built_on = _ancestors(backup, by_name)
    return len(built_on) == backup.manifest.depth and all(map(has_parts, (backup, *built_on)))


def _has_parts(vault: Vault, dataset: str, backup: BaseBackup) -> bool:
    """Also of one that can't be read: then there is nothing to miss, and it counts for nothing anyway."""
    if backup.manifest is None:
        return True
    there = {str(obj.key) for obj in vault.objects(dataset, part_stream(backup.manifest.snapshot_id))}
    return all(part.key in there for part in backup.manifest.parts)


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

    A base backup without the WAL up to its end counts for nothing yet, nor does one that lacks a part, its own or of
    what it builds on. Raises VaultError.
    """
    windows: list[Window] = []
    whole = whole_backups(vault, dataset, backups)
    streams = sorted({(one.key.system_id, one.key.timeline) for one in whole})
    for system_id, timeline in streams:
        own = [one for one in whole if (one.key.system_id, one.key.timeline) == (system_id, timeline)]
        own = sorted(own, key=lambda one: one.key)
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
