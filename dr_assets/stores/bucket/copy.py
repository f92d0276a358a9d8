"""One run of copying a bucket: list, compare, copy what is new, then the inventory, then the manifest.

What belongs here: the order of the steps, and what a run leaves on record. What stays out: each step's own work:
ground.py, listing.py, index.py, copying.py, packing.py, inventory.py, manifest.py; when to run (follow.py).

Whatever a kill interrupts, the next run goes on: what was packed and sealed is in the index, the source is listed anew,
and only what isn't stored is asked for. A run without a manifest counts for nothing, and nothing points to it.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import SourceError
from dr_assets.stores.bucket.copying import Copying, Counts
from dr_assets.stores.bucket.fetching import require_readable
from dr_assets.stores.bucket.ground import PENDING, Ground, begin_run, find_ground, remember_full
from dr_assets.stores.bucket.index import Index, discard, is_damage
from dr_assets.stores.bucket.inventory import SHARD_ROWS, Row, encode_shard
from dr_assets.stores.bucket.listing import Listed, listing, of_name
from dr_assets.stores.bucket.manifest import RunManifest, Tally
from dr_assets.stores.bucket.packing import Packer, RunPlace
from dr_assets.stores.bucket.position import BUCKET_COPY, point_before
from dr_assets.stores.bucket.runs import microseconds
from dr_assets.stores.bucket.site import Site
from dr_assets.stores.bucket.source import Place
from dr_assets.stores.postgres.measured import measured
from dr_assets.stores.postgres.patience import patiently
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.format.keys import BASE, ObjectKey
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Vault

LEAST_LIVE: Final = 0.5  # a full copies anew what lies in parts of which less than this is still there
_LOOKS_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far a run is: `listing` counts rows, `copying` versions; `total` is None while nobody knows."""

    phase: str
    done: int
    total: int | None
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What a run came to. `kind` is `full`, `incremental` or `unchanged`, which writes no manifest of its own."""

    snapshot_id: str | None
    kind: str
    manifest_key: str | None
    listing_begin_at: datetime
    is_complete: bool
    is_whole_listing: bool
    listed: Tally
    held: Tally
    counts: Counts
    gone: int
    parts: int
    stored_bytes: int
    duration_s: float
    why_full: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to do: only `names` (those of `retagged` copied anew), or everything; a full, or as it comes."""

    full: bool = False
    names: Collection[str] | None = None
    retagged: Collection[str] = ()


Progress = Callable[[CopyProgress], None]


def copy(site: Site, place: Place, asked: Asked | None = None, *, progress: Progress | None = None) -> CopyResult:
    """Make the vault hold what the source's listing shows now.

    Raises SourceError `bucket.unreachable`, `bucket.refused`, `bucket.missing` (run it again: it goes on), and
    `bucket.unread`, `bucket.not_complete` behind a run whose manifest is sealed; VaultError; PolicyError `bucket.busy`.
    """
    asked = asked or Asked()
    site.vault.check_clock()
    path, tell = site.folder / f"{site.name}.copy.sqlite", progress or (lambda _: None)
    with site.alone("copy"):
        try:
            result = _with_index(site, place, path, asked, tell)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            discard(path)  # it only saves time
            result = _with_index(site, place, path, asked, tell)
    counts = result.counts
    require_readable(counts.unread, counts.reasons, place)
    if not result.is_complete and result.is_whole_listing:
        raise SourceError(
            "bucket.not_complete",
            f"the listing of {place.bucket} showed {result.listed.versions} versions and {result.listed.markers} "
            f"delete markers, of which {result.held.versions} and {result.held.markers} are stored",
            "what is stored can be restored; run `dr-assets bucket copy` again, and report it if it stays",
        )
    return result


def _with_index(site: Site, place: Place, path: Path, asked: Asked, tell: Progress) -> CopyResult:
    """The run; however it ends, no name stays in the index."""
    try:
        with Index(path) as index:
            return _Copy(site, place, index, asked, tell).run()
    except BaseException:
        with suppress(sqlite3.DatabaseError), Index(path) as index:  # a full disk: the next run does it
            index.clear_listing()
        raise


@dataclass(slots=True)
class _Copy:
    """One run under way."""

    site: Site
    place: Place
    index: Index
    asked: Asked
    tell: Progress
    begin_s: float = field(default_factory=time.monotonic)

    def run(self) -> CopyResult:
        """Every step, in order."""
        vault, index = self.site.vault, self.index
        lock = vault.locks.lock(self.site.name, "full", vault.clock())
        ground = self._ground()
        listed_at = self.place.now()
        scope = self._list()
        listing_end_at = self.place.now()
        gone_at = microseconds(listed_at)
        total = index.listed_all(scope=scope, gone_at=gone_at)
        total += self._copy_anew(ground)
        if not total and ground.base is not None and not ground.why_full and not self._has_news(gone_at):
            return self._unchanged(ground, listed_at)
        place = begin_run(self.site, index, vault.clock(), lock)
        # What an interrupted run sealed days ago is locked as of then, and is to be there as long as this manifest.
        hold(vault, self.site.name, [part.key for part in index.parts_of(place.snapshot_id)], lock)
        with Packer(vault, place) as packer:
            counts = self._copy(packer, place, total)
            inventory = self._put_inventory(packer, place, ground, gone_at)
        refers = index.referred(place.snapshot_id) if ground.why_full else []
        if ground.why_full:
            hold(vault, self.site.name, refers, lock)
        manifest = self._manifest(place, ground, listed_at, listing_end_at, counts, inventory, refers)
        key = self._seal(manifest, place)
        result = self._result(manifest, key, ground, counts, gone_at)
        self._record(result)
        if ground.why_full:
            remember_full(index, manifest.listing_begin_at, manifest.policy["retain_until"])
        index.set_meta(PENDING, None)
        index.settle(key, manifest.snapshot_id)
        return result

    def _ground(self) -> Ground:
        vault = self.site.vault
        now = vault.clock()
        return find_ground(
            self.site, self.index, now, vault.locks.lock(self.site.name, "manifest", now), full=self.asked.full
        )

    def _list(self) -> list[bytes] | None:
        """The source's listing into the index; the name ids of those that were asked for, None for all."""
        self.index.begin_listing()
        done = 0
        for rows in self._pages():
            self.index.list_rows(rows, self.site.names)
            done += len(rows)
            self.tell(CopyProgress("listing", done, None))
        return None if self.asked.names is None else [self.site.names.name_id(name) for name in self.asked.names]

    def _pages(self) -> Iterator[list[Listed]]:
        if self.asked.names is None:
            yield from listing(self.place)
            return
        for name in self.asked.names:
            if name.startswith(self.place.prefix):
                yield of_name(self.place, name)

    def _copy_anew(self, ground: Ground) -> int:
        """What is known already and copied once more: at a full, what lies in parts that are mostly of no use now.

        And what was withheld of people whose erasure was taken back since: they have a recovery point as anybody has.
        """
        is_later_full = ground.why_full is not None and ground.base is not None
        sparse = self.index.sparse_parts(LEAST_LIVE) if is_later_full else []
        retagged = map(self.site.names.name_id, self.asked.retagged)
        ring = self.site.ring
        back = [] if ring is None else [who for who in self.index.withheld_people() if not ring.is_erased(who)]
        return self.index.copy_anew(sparse, retagged, back)

    def _has_news(self, gone_at: int) -> bool:
        """Whether an interrupted run has sealed something, or something went."""
        return any(self.index.changes(gone_at))

    def _copy(self, packer: Packer, place: RunPlace, total: int) -> Counts:
        def told(counts: Counts) -> None:
            self.tell(CopyProgress("copying", counts.done, total, counts.copied_bytes))

        copying = Copying(self.index, packer, self.site.reader(self.place), place.snapshot_id, told)
        copying.versions()
        copying.markers()
        copying.finish()
        return copying.counts

    def _put_inventory(self, packer: Packer, place: RunPlace, ground: Ground, gone_at: int) -> tuple[str, ...]:
        """The shards, as parts of their own; their keys in order."""
        rows = self.index.rows(only_fresh=not ground.why_full, gone_at=gone_at)
        keys: list[str] = []
        for number, shard in enumerate(batched_rows(rows), start=1):
            packer.put_alone(encode_shard(shard))
            self.tell(CopyProgress("inventory", number * SHARD_ROWS, None))
            keys += self._noted(packer, place)
        return (*keys, *self._noted(packer, place, all_of_them=True))

    def _noted(self, packer: Packer, place: RunPlace, *, all_of_them: bool = False) -> list[str]:
        stored = list(packer.stored(all_of_them=all_of_them))
        self.index.note_parts((one.part, 0, place.snapshot_id) for one in stored)
        return [one.part.key for one in stored]

    def _manifest(
        self, place: RunPlace, ground: Ground, listed_at: datetime, listing_end_at: datetime, counts: Counts,
        inventory: tuple[str, ...], refers: Iterable[str],
    ) -> RunManifest:  # fmt: skip
        dataset = self.site.dataset
        listed, held = self.index.listing_tally(), self.index.tally()
        is_whole = self.asked.names is None
        return RunManifest(
            dataset=dataset.name,
            snapshot_id=place.snapshot_id,
            system_id=place.system_id,
            bucket=dataset.bucket,
            prefix=dataset.prefix,
            is_versioned=self.place.is_versioned(),
            is_whole_listing=is_whole,
            is_complete=not counts.unread and (not is_whole or not self._lacking(listed, held, counts)),
            listing_begin_at=listed_at,
            listing_end_at=listing_end_at,
            end_at=self.site.vault.clock(),
            names_check=self.site.names.check,
            subject_kind=dataset.subject.kind,
            listed=listed,
            held=held,
            policy=_policy(dataset.retention.days, place.lock),
            inventory=inventory,
            refers=tuple(refers),
            parts=tuple(self.index.parts_of(place.snapshot_id)),
            parent=ground.parent(),
        )

    def _lacking(self, listed: Tally, held: Tally, counts: Counts) -> int:
        """How many of the listing's rows nothing accounts for."""
        withheld = self.index.withheld().versions
        versions = listed.versions - held.versions - withheld - counts.vanished - counts.unread
        return abs(versions) + abs(listed.markers - held.markers)

    def _seal(self, manifest: RunManifest, place: RunPlace) -> str:
        vault, at = self.site.vault, microseconds(manifest.listing_begin_at)
        sealed = vault.prepare(
            dataset=manifest.dataset, stream=BASE, kind="manifest", system_id=manifest.system_id, timeline=0, first=at,
            last=at + 1, begin_at=manifest.listing_begin_at, end_at=manifest.end_at, plaintext=manifest.encode(),
            extra={"snapshot_id": manifest.snapshot_id},
        ).seal()  # fmt: skip
        lock = place.lock
        if not manifest.is_full:
            lock = vault.locks.lock(manifest.dataset, "manifest", vault.clock())
        return str(patiently(lambda: vault.put(sealed, lock), threading.Event()).key)

    def _unchanged(self, ground: Ground, listed_at: datetime) -> CopyResult:
        """Nothing came and nothing went: the word on record is all."""
        listed, held = self.index.listing_tally(), self.index.tally()
        is_whole = self.asked.names is None
        is_complete = not is_whole or not self._lacking(listed, held, Counts())
        result = CopyResult(
            None, "unchanged", ground.key, listed_at, is_complete, is_whole,
            listed, held, Counts(), 0, 0, 0, time.monotonic() - self.begin_s,
        )  # fmt: skip
        if is_whole:
            self._record(result)
        self.index.clear_listing()
        return result

    def _result(self, manifest: RunManifest, key: str, ground: Ground, counts: Counts, gone_at: int) -> CopyResult:
        return CopyResult(
            snapshot_id=manifest.snapshot_id,
            kind="full" if manifest.is_full else "incremental",
            manifest_key=key,
            listing_begin_at=manifest.listing_begin_at,
            is_complete=manifest.is_complete,
            is_whole_listing=manifest.is_whole_listing,
            listed=manifest.listed,
            held=manifest.held,
            counts=counts,
            gone=self.index.changes(gone_at)[1],
            parts=len(manifest.parts),
            stored_bytes=manifest.stored_bytes,
            duration_s=time.monotonic() - self.begin_s,
            why_full=ground.why_full,
        )

    def _record(self, result: CopyResult) -> None:
        """The sealed fact that moves the recovery point, or repeats it."""
        vault, counts = self.site.vault, result.counts
        point = point_before(vault, self.site.name)
        if result.is_whole_listing:
            point |= {"compared_at": format_time(result.listing_begin_at), "compared_complete": result.is_complete}
        if result.is_complete and result.is_whole_listing and result.manifest_key is not None:
            point |= {
                "recovery_point_at": format_time(result.listing_begin_at),
                "recovery_manifest_key": result.manifest_key,
            }
        body: dict[str, Json] = {
            "kind": result.kind,
            "snapshot_id": result.snapshot_id,
            "manifest_key": result.manifest_key,
            "listing_begin_at": format_time(result.listing_begin_at),
            "is_complete": result.is_complete,
            "is_whole_listing": result.is_whole_listing,
            "listed": result.listed.to_json(),
            "held": result.held.to_json(),
            **{name: getattr(counts, name) for name in _COUNTS},
            "gone": result.gone,
            "parts": result.parts,
            "stored_bytes": result.stored_bytes,
            "duration_s": measured(result.duration_s),
        }
        record_fact(vault, self.site.name, BUCKET_COPY, body | point)


_COUNTS: Final = (
    "copied", "copied_bytes", "markers", "vanished", "replaced", "withheld", "unread", "unassigned",
)  # fmt: skip


def batched_rows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in shards; never none for no row: an inventory may be empty."""
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) == SHARD_ROWS:
            yield held
            held = []
    if held:
        yield held


def hold(vault: Vault, dataset: str, keys: Collection[str], lock: Lock) -> int:
    """Make parts of earlier runs be locked for at least as long as what refers to them; how many had to be extended.

    Called before the manifest that refers to them is sealed. Raises VaultError `vault.missing`, `vault.not_locked`.
    """
    wanted = {key for text in keys if (key := ObjectKey.parse(text)) is not None}
    streams = sorted({key.stream for key in wanted})
    found = [obj for stream in streams for obj in vault.objects(dataset, stream) if obj.key in wanted]
    lacking = wanted - {obj.key for obj in found}
    if lacking:
        found += [vault.find(key) for key in lacking]  # raises `vault.missing`, naming it
    with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="lock") as pool:
        return sum(pool.map(lambda obj: vault.ensure_locked(obj, lock), found))


def _policy(retention_days: int, lock: Lock) -> Mapping[str, str]:
    """What the run was locked under, so that a later look at it needs no declaration."""
    return {
        "lock": lock.mode.lower(),
        "retain_until": format_time(lock.retain_until),
        "retention_days": str(retention_days),
    }
