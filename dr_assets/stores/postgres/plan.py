"""Planning a restore: which base backup, which WAL, and whether the target can be reached at all.

What belongs here: reading names, headers and manifests in the vault, and refusing before a byte is fetched. What stays
out: fetching (fetch.py), laying, replaying. A plan never leads over a hole.

Times in targets and of base backups are the source's clock; `as_of` is the store's.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.stores.postgres import base_manifest
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.capture_facts import Anchor, latest_anchor
from dr_assets.stores.postgres.clip import STORE_TROUBLE, linked, needed_pieces, reachable_at, require_whole
from dr_assets.stores.postgres.lay_wal import WalFrame
from dr_assets.stores.postgres.lineage import (
    Departure,
    find_departure,
    other_systems,
    require_before,
    require_common,
    require_current,
)
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.target import Target
from dr_assets.stores.postgres.wal import segment_begin
from dr_assets.vault.chain import Chain, resolve
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.format.keys import BASE, WAL, part_stream
from dr_assets.vault.vault import StoredObject, Vault

# No piece of WAL is larger, so the one that holds a position begins at most this much before it.
_PIECE_MAX_BYTES: Final = 64 << 20
_EPOCH_XIDS: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Everything a restore will read. `reachable_at` is the newest instant (source's clock) that the chain reaches.

    `fetch_bytes` are sealed bytes, `base_bytes` and `wal_bytes` what they become on disk. `notes` is for people: what
    was passed over, and why.
    """

    dataset: str
    target: Target
    as_of: datetime | None
    base: BaseManifest
    base_key: str
    parts: tuple[StoredObject, ...]
    frame: WalFrame
    pieces: tuple[StoredObject, ...]
    chain_end: int
    reachable_at: datetime | None
    duration_s: float
    notes: tuple[str, ...]

    @property
    def fetch_bytes(self) -> int:
        """Sealed bytes that will be read."""
        return sum(obj.size_bytes for obj in (*self.parts, *self.pieces))

    @property
    def wal_bytes(self) -> int:
        """WAL that will be laid."""
        return self.frame.end - self.frame.begin

    def to_json(self) -> dict[str, Json]:
        """For `--dry-run` and facts."""
        base, frame = self.base, self.frame
        return {
            "dataset": self.dataset,
            "target": str(self.target),
            "as_of": None if self.as_of is None else format_time(self.as_of),
            "base_backup": {
                "key": self.base_key,
                "snapshot_id": base.snapshot_id,
                "server_version": base.server_version,
                "system_id": base.system_id,
                "begin_at": format_time(base.begin_at),
                "end_at": format_time(base.end_at),
                "start_lsn": format_lsn(base.start_lsn),
                "stop_lsn": format_lsn(base.stop_lsn),
                "parts": len(self.parts),
                "tablespaces": len(base.archives) - 1,
            },
            "wal": {
                "timeline": frame.timeline,
                "begin": format_lsn(frame.begin),
                "end": format_lsn(frame.end),
                "chain_end": format_lsn(self.chain_end),
                "pieces": len(self.pieces),
            },
            "reachable_at": None if self.reachable_at is None else format_time(self.reachable_at),
            "fetch_bytes": self.fetch_bytes,
            "base_bytes": base.size_bytes,
            "wal_bytes": self.wal_bytes,
            "notes": list(self.notes),
        }


def plan_restore(vault: Vault, dataset: str, target: Target, *, as_of: datetime | None = None) -> RestorePlan:
    """The plan that reaches `target` from the newest usable base backup before it.

    Raises PolicyError: `restore.no_base_backup`, `restore.target_too_old`, `restore.target_beyond`, and when the source
    has left what would come back: `restore.other_system`, `restore.newer_timeline`, `restore.older_timeline`,
    `restore.abandoned_timeline`. VaultError: `restore.not_usable_yet` (the WAL up to a backup's stop LSN is not
    stored), `restore.hole`, and whatever the vault says of a damaged manifest when no other base backup can be used.
    """
    search = _Search(vault, dataset, target, as_of)
    for stored in search.base_backups():
        try:
            plan = search.plan_from(stored)
        except VaultError as error:
            if error.code in STORE_TROUBLE:
                raise
            search.passed_over(stored, error)
        else:
            if plan is not None:
                return plan
    raise search.failure()


class _Search:
    """One search over the base backups of a dataset, newest first."""

    def __init__(self, vault: Vault, dataset: str, target: Target, as_of: datetime | None) -> None:
        self._vault = vault
        self._dataset = dataset
        self._target = target
        self._as_of = as_of
        self._begin_s = time.monotonic()
        self._notes: list[str] = []
        self._errors: list[DrError] = []
        self._oldest: BaseManifest | None = None

    def base_backups(self) -> list[StoredObject]:
        """Newest first, by the store's clock. Raises PolicyError (`restore.no_base_backup`)."""
        found = list(self._vault.objects(self._dataset, BASE, as_of=self._as_of))
        if not found:
            raise PolicyError(
                "restore.no_base_backup",
                f"the vault holds no base backup of {self._dataset}{self._as_of_text()}",
                "take one with `dr-assets snapshot`; `dr-assets status` lists what is there",
            )
        return sorted(found, key=lambda obj: (obj.modified_at, obj.key.last), reverse=True)

    def plan_from(self, stored: StoredObject) -> RestorePlan | None:
        """The plan from this base backup; None when the target lies before it."""
        manifest = base_manifest.decode(self._vault.open(stored).plaintext, name=str(stored.key))
        self._oldest = manifest
        if _is_before(self._target, manifest):
            return None
        parts = self._parts(manifest)
        chain = self._chain(manifest)
        self._require_usable(manifest, chain)
        pieces = self._pieces(manifest, chain)
        if pieces is None:
            return None
        frame = WalFrame(
            manifest.system_id,
            manifest.timeline,
            segment_begin(manifest.start_lsn, manifest.segment_bytes),
            pieces[-1].key.last,
            manifest.segment_bytes,
        )
        return RestorePlan(
            dataset=self._dataset,
            target=self._target,
            as_of=self._as_of,
            base=manifest,
            base_key=str(stored.key),
            parts=parts,
            frame=frame,
            pieces=tuple(pieces),
            chain_end=chain.end,
            reachable_at=reachable_at(self._vault, chain.segments),
            duration_s=time.monotonic() - self._begin_s,
            notes=tuple(self._notes),
        )

    def passed_over(self, stored: StoredObject, error: DrError) -> None:
        """This base backup cannot be used; an older one may do."""
        self._errors.append(error)
        self._notes.append(f"base backup {stored.key} was passed over: {error.code}: {error.found}")

    def failure(self) -> DrError:
        """Why there is no plan: the newest backup's own trouble, or a target before the first."""
        if self._errors:
            return self._errors[0]
        oldest = self._oldest
        if self._target.name is not None:
            return PolicyError(
                "restore.target_unknown",
                f"no restore point named {self._target.name!r} lies in the WAL behind any base backup"
                f"{self._as_of_text()}",
                "names are given with pg_create_restore_point(); restore to a time or to `latest` instead",
            )
        assert oldest is not None  # noqa: S101 - a bug of ours if it fails: some backup was looked at
        return PolicyError(
            "restore.target_too_old",
            f"{self._target} lies before the oldest base backup{self._as_of_text()}, which ended at "
            f"{oldest.end_at.isoformat()} ({format_lsn(oldest.stop_lsn)}, transaction {oldest.next_xid})",
            "choose a later target; a base backup can only be followed forward",
        )

    def _parts(self, manifest: BaseManifest) -> tuple[StoredObject, ...]:
        listed = {
            str(obj.key): obj
            for obj in self._vault.objects(
                self._dataset,
                part_stream(manifest.snapshot_id),
                system_id=manifest.system_id,
                timeline=manifest.timeline,
                as_of=self._as_of,
            )
        }
        missing = [part.key for part in manifest.parts if part.key not in listed]
        if missing:
            raise VaultError(
                "restore.part_missing",
                f"{len(missing)} of {len(manifest.parts)} parts are not in the vault, the first is {missing[0]}",
                "run `dr-assets vault verify`; restore from another vault",
            )
        return tuple(listed[part.key] for part in manifest.parts)

    def _chain(self, manifest: BaseManifest) -> Chain:
        begin = segment_begin(manifest.start_lsn, manifest.segment_bytes)
        pieces = self._vault.objects(
            self._dataset,
            WAL,
            system_id=manifest.system_id,
            timeline=manifest.timeline,
            start_after_position=max(0, begin - _PIECE_MAX_BYTES),
            as_of=self._as_of,
        )
        return linked(self._vault, resolve(pieces, self._vault.header, begin))

    def _pieces(self, manifest: BaseManifest, chain: Chain) -> Sequence[StoredObject] | None:
        """What leads to the target, on the source's own history; None when a restore point isn't in this chain."""
        vault, dataset = self._vault, self._dataset
        left = find_departure(vault, dataset, manifest.system_id, manifest.timeline, as_of=self._as_of)
        if self._target.kind == "latest":
            anchor = latest_anchor(vault, dataset, as_of=self._as_of)
            self._notes.extend(require_whole(vault, chain, _stored(anchor, manifest)))
            require_current(manifest, chain, anchor, left)
            return chain.segments
        if others := other_systems(vault, dataset, manifest.system_id):
            self._note(f"this is system {manifest.system_id}; WAL of {', '.join(others)} is stored as well")
        if left is None:
            return needed_pieces(vault, manifest, chain, self._target)
        return self._pieces_before(left, manifest, chain)

    def _pieces_before(self, left: Departure, manifest: BaseManifest, chain: Chain) -> Sequence[StoredObject] | None:
        """The same when the source has left this timeline: nothing behind that moment is handed out."""
        require_common(left, manifest)
        self._note(left.describe(manifest.timeline))
        vault, target, common = self._vault, self._target, left.common(chain)
        if target.xid is not None:
            # Nobody knows where a transaction lies before it was replayed, so the replay finds nothing but the common.
            require_before(left, manifest, chain, target, is_before=common.end >= manifest.stop_lsn)
            return common.segments
        pieces = needed_pieces(vault, manifest, chain, target)
        if pieces is None:
            return None
        if target.lsn is not None:
            is_before = target.lsn <= left.position
        elif target.name is not None:
            is_before = needed_pieces(vault, manifest, common, target) is not None
        else:
            is_before = target.kind == "immediate" or pieces[-1].key.last <= left.position
        require_before(left, manifest, chain, target, is_before=is_before)
        return pieces

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def _require_usable(self, manifest: BaseManifest, chain: Chain) -> None:
        if chain.end >= manifest.stop_lsn:
            return
        needed = f"[{format_lsn(manifest.start_lsn)}, {format_lsn(manifest.stop_lsn)})"
        if chain.holes:
            hole = chain.holes[0]
            raise VaultError(
                "restore.hole",
                f"base backup {manifest.snapshot_id} needs the WAL of {needed}, and "
                f"[{format_lsn(hole.begin)}, {format_lsn(hole.end)}) is missing",
                "run `dr-assets vault verify`; restore from another vault",
            )
        raise VaultError(
            "restore.not_usable_yet",
            f"base backup {manifest.snapshot_id} needs the WAL of {needed}, the vault's chain ends at "
            f"{format_lsn(chain.end)}",
            "let `dr-assets capture` catch up, then try again",
        )

    def _as_of_text(self) -> str:
        return "" if self._as_of is None else f" as of {self._as_of.isoformat()}"


def _stored(anchor: Anchor | None, manifest: BaseManifest) -> int | None:
    """How far the newest capture of this timeline once said that everything is stored; None if it said nothing."""
    if anchor is None or (anchor.system_id, anchor.timeline) != (manifest.system_id, manifest.timeline):
        return None
    return anchor.stored


def _is_before(target: Target, manifest: BaseManifest) -> bool:
    """Whether `target` lies before the moment at which this base backup was consistent."""
    if target.at is not None:
        return target.at < manifest.end_at
    if target.lsn is not None:
        return target.lsn < manifest.stop_lsn
    if target.xid is not None:
        return _full_xid(target.xid, manifest.next_xid) < manifest.next_xid
    return False


def _full_xid(xid: int, near: int) -> int:
    """The 64-bit id that a 32-bit one means: the one within half an epoch of `near`. 64-bit ones mean themselves."""
    if xid >= _EPOCH_XIDS:
        return xid
    full = near - near % _EPOCH_XIDS + xid
    if full < near - _EPOCH_XIDS // 2:
        return full + _EPOCH_XIDS
    if full > near + _EPOCH_XIDS // 2 and full >= _EPOCH_XIDS:
        return full - _EPOCH_XIDS
    return full
