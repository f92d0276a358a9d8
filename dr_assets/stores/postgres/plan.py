"""Planning a restore: which base backup, which WAL, and whether the target can be reached at all.

What belongs here: reading names, headers and manifests in the vault, and refusing before a byte is fetched. What stays
out: fetching (fetch.py), laying, replaying. A plan never leads over a hole.

Times in targets and of base backups are the source's clock; `as_of` is the store's.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.stores.postgres import base_manifest
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.capture_facts import Anchor, latest_anchor
from dr_assets.stores.postgres.clip import needed_pieces, reachable_at, require_whole
from dr_assets.stores.postgres.course import Course, Stretch, find_course
from dr_assets.stores.postgres.lay_wal import WalFrame
from dr_assets.stores.postgres.layers import BaseLayer, layers_of
from dr_assets.stores.postgres.lineage import (
    Departure,
    Way,
    find_way,
    other_systems,
    require_before,
    require_common,
    require_current,
)
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.one_history import require_one_history
from dr_assets.stores.postgres.target import Target
from dr_assets.stores.postgres.wal import segment_begin
from dr_assets.vault.chain import Chain
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.format.keys import BASE, WAL
from dr_assets.vault.full_segment import FULL, FULL_LIST
from dr_assets.vault.retention.thawing import NOTHING_COLD, ColdPart, cold_among
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import StoredObject, Vault

_EPOCH_XIDS: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Everything a restore will read. `reachable_at` is the newest instant (source's clock) that the chain reaches.

    `base` is the newest of `layers`: a full alone, or a full, first, and the incrementals that lead to it. `parts` are
    those of all layers in that order. `stretches` is the WAL, timeline by timeline; `histories` are the texts of the
    history files that the vault can tell. `fetch_bytes` are sealed bytes, `base_bytes` and `wal_bytes` what they become
    on disk. `notes` is for people: what was passed over, and why. `cold` has to be thawed before a restore.
    """

    dataset: str
    target: Target
    as_of: datetime | None
    base: BaseManifest
    base_key: str
    parts: tuple[StoredObject, ...]
    layers: tuple[BaseLayer, ...]
    stretches: tuple[Stretch, ...]
    histories: Mapping[int, str]
    chain_end: int
    reachable_at: datetime | None
    duration_s: float
    notes: tuple[str, ...]
    cold: ColdPart = NOTHING_COLD

    @property
    def frame(self) -> WalFrame:
        """All the WAL that will be laid; its timeline is the last one."""
        first, last = self.stretches[0].frame, self.stretches[-1].frame
        return replace(last, begin=first.begin)

    @property
    def pieces(self) -> tuple[StoredObject, ...]:
        """All pieces of WAL, in order."""
        return tuple(piece for stretch in self.stretches for piece in stretch.pieces)

    @property
    def fetch_bytes(self) -> int:
        """Sealed bytes that will be read."""
        return sum(obj.size_bytes for obj in (*self.parts, *self.pieces))

    @property
    def base_bytes(self) -> int:
        """Plaintext of all layers."""
        return sum(layer.manifest.size_bytes for layer in self.layers)

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
                "layers": [layer.manifest.snapshot_id for layer in self.layers],
                "tablespaces": len(base.archives) - 1,
            },
            "wal": {
                "timeline": frame.timeline,
                "timelines": [_stretch_json(stretch) for stretch in self.stretches],
                "begin": format_lsn(frame.begin),
                "end": format_lsn(frame.end),
                "chain_end": format_lsn(self.chain_end),
                "pieces": len(self.pieces),
            },
            "reachable_at": None if self.reachable_at is None else format_time(self.reachable_at),
            "fetch_bytes": self.fetch_bytes,
            "base_bytes": self.base_bytes,
            "wal_bytes": self.wal_bytes,
            "cold": self.cold.to_json(),
            "notes": list(self.notes),
        }


def _stretch_json(stretch: Stretch) -> Json:
    frame = stretch.frame
    return {
        "timeline": frame.timeline,
        "begin": format_lsn(frame.begin),
        "end": format_lsn(frame.end),
        "pieces": len(stretch.pieces),
    }


def plan_restore(
    vault: Vault, dataset: str, target: Target, *, as_of: datetime | None = None, timeline: int | None = None
) -> RestorePlan:
    """The plan that reaches `target` from the newest usable base backup before it.

    It follows the source over every switch of timeline that a stored history proves; `timeline` asks for another one,
    also for what was written to it after the source had left it.

    Raises PolicyError: `restore.no_base_backup`, `restore.target_too_old`, `restore.target_beyond`, and when the source
    has left what would come back: `restore.other_system`, `restore.newer_timeline`, `restore.older_timeline`,
    `restore.abandoned_timeline`. VaultError: `restore.not_usable_yet` (the WAL up to a backup's stop LSN is not
    stored), `restore.hole`, `restore.layers_apart`, `restore.no_such_timeline`, and what the vault says of a damaged
    manifest when no other base backup can be used; `restore.cold` where there is none and something has to be thawed.
    """
    search = _Search(vault, dataset, target, as_of, timeline)
    for stored in search.base_backups():
        try:
            plan = search.plan_from(stored)
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            search.passed_over(stored, error)
        else:
            if plan is not None:
                return plan
    failure, cold = search.failure(), cold_material(vault, dataset, as_of)
    if not cold.is_empty:
        raise VaultError(
            "restore.cold",
            f"{cold.describe()}; without them there is no plan: {failure.found}",
            "add --thaw to ask the store for them; then run it again when they are there",
        )
    raise failure


def cold_material(vault: Vault, dataset: str, as_of: datetime | None = None) -> ColdPart:
    """What nobody can read now of all that plans are made from: manifests and WAL, of which a plan reads the ends."""
    streams = (BASE, FULL, FULL_LIST, WAL)
    return cold_among(vault, (obj for stream in streams for obj in vault.objects(dataset, stream, as_of=as_of)))


class _Search:
    """One search over the base backups of a dataset, newest first."""

    def __init__(
        self, vault: Vault, dataset: str, target: Target, as_of: datetime | None, timeline: int | None
    ) -> None:
        self._vault = vault
        self._dataset = dataset
        self._target = target
        self._as_of = as_of
        self._timeline = timeline
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
        layers = layers_of(self._vault, manifest, stored, as_of=self._as_of)
        way = find_way(self._vault, self._dataset, manifest, timeline=self._timeline, as_of=self._as_of)
        begin = segment_begin(manifest.start_lsn, manifest.segment_bytes)
        course = find_course(self._vault, self._dataset, manifest.system_id, way.legs, begin, as_of=self._as_of)
        self._require_usable(manifest, course.chain)
        require_one_history(self._vault, self._dataset, layers, as_of=self._as_of)
        pieces = self._pieces(manifest, way, course)
        if pieces is None:
            return None
        parts = tuple(part for layer in layers for part in layer.parts)
        stretches = course.stretches(pieces, manifest.system_id, manifest.segment_bytes)
        return RestorePlan(
            dataset=self._dataset,
            target=self._target,
            as_of=self._as_of,
            base=manifest,
            base_key=str(stored.key),
            parts=parts,
            layers=layers,
            stretches=stretches,
            histories={number: history.text for number, history in way.histories.items() if history.text},
            chain_end=course.chain.end,
            reachable_at=reachable_at(self._vault, course),
            duration_s=time.monotonic() - self._begin_s,
            notes=tuple(self._notes),
            cold=cold_among(self._vault, (*parts, *(piece for stretch in stretches for piece in stretch.pieces))),
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

    def _pieces(self, manifest: BaseManifest, way: Way, course: Course) -> Sequence[StoredObject] | None:
        """What leads to the target, on the source's own history; None when a restore point isn't on it."""
        if self._target.kind == "latest":
            return self._all_pieces(manifest, way, course)
        if others := other_systems(self._vault, self._dataset, manifest.system_id):
            self._note(f"this is system {manifest.system_id}; WAL of {', '.join(others)} is stored as well")
        if way.left is not None:
            return self._pieces_before(way.left, manifest, course)
        return self._pieces_along(manifest, course)

    def _all_pieces(self, manifest: BaseManifest, way: Way, course: Course) -> Sequence[StoredObject]:
        anchor = latest_anchor(self._vault, self._dataset, as_of=self._as_of)
        if course.broken is not None:
            raise course.broken
        self._notes.extend(require_whole(self._vault, course.chain, stored_along(anchor, manifest, way)))
        if self._timeline is None:
            if way.left is not None and way.left.is_exact:
                require_common(way.left, manifest)
            require_current(manifest, course.chain, anchor, way)
        return course.chain.segments

    def _pieces_along(self, manifest: BaseManifest, course: Course) -> Sequence[StoredObject] | None:
        try:
            pieces = needed_pieces(self._vault, manifest, course, self._target)
        except PolicyError as error:
            if course.broken is None or error.code != "restore.target_beyond":
                raise
            raise course.broken from None
        if course.broken is not None:
            self._note(f"{course.broken.code}: {course.broken.found}")
        return pieces

    def _pieces_before(self, left: Departure, manifest: BaseManifest, course: Course) -> Sequence[StoredObject] | None:
        """The same when the source has left this timeline: nothing behind that moment is handed out."""
        require_common(left, manifest)
        self._note(left.describe(manifest.timeline))
        vault, target, chain = self._vault, self._target, course.chain
        common = left.common(chain)
        if target.xid is not None:
            # Nobody knows where a transaction lies before it was replayed, so the replay finds nothing but the common.
            require_before(left, manifest, chain, target, is_before=common.end >= manifest.stop_lsn)
            return common.segments
        pieces = needed_pieces(vault, manifest, course, target)
        if pieces is None:
            return None
        if target.lsn is not None:
            is_before = target.lsn <= left.position
        elif target.name is not None:
            is_before = needed_pieces(vault, manifest, Course(common), target) is not None
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


def stored_along(anchor: Anchor | None, manifest: BaseManifest, way: Way) -> int | None:
    """How far along this way the newest capture once said that everything is stored; None if it said nothing."""
    if anchor is None or anchor.system_id != manifest.system_id:
        return None
    for leg in way.legs:
        if leg.timeline == anchor.timeline:
            return anchor.stored if leg.end is None else min(anchor.stored, leg.end)
    return None


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
