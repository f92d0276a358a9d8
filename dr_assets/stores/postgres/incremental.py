"""Incremental base backups (PostgreSQL 17 and newer): what the next one builds on, and that this outlives it.

What belongs here: whether the source can give one, the choice of its parent, its parent's `backup_manifest`, the locks
of all that it rests on. What stays out: the protocol (basebackup.py), the order of a backup's steps (snapshot.py),
putting layers together again (combine.py).

A full is taken in place of an incremental where none can be: nothing to build on, a chain at its longest, a source that
left its history. Whoever asked is told why.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import PolicyError, SourceError, VaultError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres import base_manifest
from dr_assets.stores.postgres.base_manifest import BaseManifest, Parent
from dr_assets.stores.postgres.capture_facts import GAP, latest_anchor
from dr_assets.stores.postgres.dsn import describe_dsn
from dr_assets.stores.postgres.fetch import opened_in_order
from dr_assets.stores.postgres.followed import left_on_the_way
from dr_assets.stores.postgres.layers import BaseLayer, layers_of
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.objective import stream_of, unfollowed
from dr_assets.stores.postgres.parts import PART_BYTES
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import BASE
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.storage import STORE_AWAY, Lock
from dr_assets.vault.vault import StoredObject, Vault

MIN_MAJOR: Final = 17
_LOOKS_AT_ONCE: Final = max(16, 4 * (os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Ground:
    """What an incremental builds on: its parent's layers, the full first, the parent last."""

    layers: tuple[BaseLayer, ...]

    @property
    def manifest(self) -> BaseManifest:
        """The parent's."""
        return self.layers[-1].manifest

    def parent(self) -> Parent:
        """As the incremental's manifest names it."""
        manifest = self.manifest
        key = str(self.layers[-1].stored.key)
        return Parent(manifest.snapshot_id, key, manifest.full_snapshot_id, manifest.depth + 1)

    def objects(self) -> Iterator[StoredObject]:
        """Every part and manifest without which the incremental is worth nothing."""
        for layer in self.layers:
            yield from (*layer.parts, layer.stored)


@dataclass(frozen=True, slots=True)
class Choice:
    """Either what to build on, or why it has to be a full."""

    ground: Ground | None
    why_full: str | None = None


def require_incrementals(dsn: str, server_version: int, summarize_wal: str | None) -> None:
    """Refuse a source that cannot give incrementals at all.

    Raises PolicyError (`snapshot.no_incrementals`) below 17, SourceError (`snapshot.no_summaries`) where
    `summarize_wal` is off.
    """
    if server_version // 10000 < MIN_MAJOR:
        raise PolicyError(
            "snapshot.no_incrementals",
            f"{describe_dsn(dsn)} is PostgreSQL {server_version // 10000}: servers keep track of changed blocks since "
            f"{MIN_MAJOR}",
            "take fulls only: leave out `snapshot.incremental_every`",
        )
    if summarize_wal != "on":
        raise SourceError(
            "snapshot.no_summaries",
            f"{describe_dsn(dsn)} has summarize_wal = {summarize_wal}: it doesn't keep track of changed blocks",
            "ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf(); then take a full to build on",
        )


def choose_ground(
    vault: Vault, dataset: PostgresDataset, system_id: str, server_version: int, *, data_checksums: bool
) -> Choice:
    """The newest base backup of this cluster, if an incremental may build on it.

    One that is damaged, lacks parts, or may be of a history that the source has left is not built on: on one timeline
    PostgreSQL can't tell the two apart. Whatever keeps the vault from answering is raised.
    """
    found = sorted(vault.objects(dataset.name, BASE, system_id=system_id), key=lambda obj: (obj.modified_at, obj.key))
    newest = [obj for obj in found if obj.key.system_id == system_id][-1:]
    if not newest:
        return Choice(None, "the vault holds no base backup of this cluster to build on")
    try:
        opened = vault.open(newest[0])
        manifest = base_manifest.decode(opened.plaintext, name=str(newest[0].key))
        why_full = _unfit(manifest, dataset, server_version, data_checksums=data_checksums)
        why_full = why_full or _left_behind(vault, dataset.name, manifest, opened)
        return Choice(None, why_full) if why_full else Choice(Ground(layers_of(vault, manifest, newest[0])))
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return Choice(None, f"{newest[0].key} cannot be built on: {error.code}: {error.found}")


def _unfit(
    manifest: BaseManifest, dataset: PostgresDataset, server_version: int, *, data_checksums: bool
) -> str | None:
    most = dataset.snapshot.incrementals_max
    if manifest.depth >= most:
        return f"{manifest.depth} incrementals follow full {manifest.full_snapshot_id}, at most {most} may"
    if manifest.major != server_version // 10000:
        return f"base backup {manifest.snapshot_id} is of PostgreSQL {manifest.major}"
    if manifest.data_checksums != data_checksums:
        return f"data checksums were switched since base backup {manifest.snapshot_id}"
    return None


def _left_behind(vault: Vault, dataset: str, manifest: BaseManifest, opened: Opened) -> str | None:
    """Why the parent may be of another history than what the source writes now; None when nothing says so.

    A gap on record counts unless the parent is wholly of what came after it, by position and by time: a source that was
    set back has the same system, timeline and perhaps positions. A gap that turned out to be none costs one full.
    """
    gap = latest_fact(vault, dataset, GAP)
    if gap is not None and not _is_wholly_behind(manifest, gap):
        return f"base backup {manifest.snapshot_id} isn't wholly behind the gap of {gap.at.isoformat()}"
    anchor = latest_anchor(vault, dataset)
    if anchor is None or anchor.system_id != manifest.system_id:
        return None  # nothing was captured of this system yet
    body: dict[str, Json] = {"system_id": manifest.system_id, "timeline": manifest.timeline}
    body |= {"start_lsn": format_lsn(manifest.start_lsn), "stop_lsn": format_lsn(manifest.stop_lsn)}
    parent = Fact("snapshot", manifest.begin_at, body, opened.header.key(""), opened.header)
    stream = stream_of(anchor)
    return unfollowed(stream, parent, left_on_the_way(vault, dataset, stream, parent))


def _is_wholly_behind(manifest: BaseManifest, gap: Fact) -> bool:
    if manifest.begin_at <= gap.at:
        return False
    if gap.body["system_id"] != manifest.system_id:
        return True  # positions of two systems don't compare
    ends = [str(position) for name in ("chain_end", "available") if (position := gap.body.get(name)) is not None]
    return all(manifest.start_lsn >= parse_lsn(end) for end in ends)


def backup_manifest_of(vault: Vault, ground: Ground) -> Iterator[bytes]:
    """The parent's `backup_manifest`, verified, in pieces: what the server compares its files with."""
    layer = ground.layers[-1]
    archive = layer.manifest.backup_manifest
    parts = layer.parts[archive.first_part : archive.last_part]
    for opened in opened_in_order(vault, parts, plaintext_bytes=PART_BYTES):
        yield opened.plaintext


def hold_ground(vault: Vault, ground: Ground, lock: Lock) -> int:
    """Make everything the incremental rests on be locked for at least as long as it, each lock read back.

    Called before the incremental's manifest is sealed: whoever finds that may rely on the rest. Returns how many
    locks were extended. Raises VaultError, among others `vault.missing` and `vault.not_locked`.
    """
    with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="lock") as pool:
        return sum(pool.map(lambda obj: vault.ensure_locked(obj, lock), ground.objects()))


def refused(dsn: str, ground: Ground, said: str) -> SourceError:
    """The error for a server that does not give the incremental that was asked for."""
    return SourceError(
        "snapshot.incremental_refused",
        f"{describe_dsn(dsn)} gives no incremental of base backup {ground.manifest.snapshot_id}: {said}",
        "take a full (without --incremental), and see that `wal_summary_keep_time` is longer than the time between "
        "two base backups",
    )
