"""Planning a restore: from which run, which versions, who is left out.

What belongs here: choosing, and the reasons why it can't be. What stays out: bringing things back (restore.py).

A moment lies between two listings. What was last modified before it and not yet known to be gone was there: exact for
what is written, and a removal that leaves no trace counts from the listing that missed it.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.bucket.inventory import Row
from dr_assets.stores.bucket.manifest import Tally
from dr_assets.stores.bucket.picked import ERASED, Picked
from dr_assets.stores.bucket.position import CopyPoint, recovery_point
from dr_assets.stores.bucket.runs import Run, chain_to, microseconds, moment, read_run, rows_of, stored_runs
from dr_assets.stores.bucket.site import Site
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.subjects.erased import ErasureList, read_list
from dr_assets.vault.vault import StoredObject

_FOREVER_US = (1 << 62) - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to bring back. `to` None is everything that is known; `person` a subject id; `prefix` of names.

    `versions` "current" brings the newest version of each name then, "all" every version and delete marker in order.
    """

    to: datetime | None = None
    prefix: str = ""
    person: str | None = None
    versions: Literal["current", "all"] = "current"


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What will be brought back, chosen and counted; the rows lie in `picked`.

    `point_at` is the moment that comes back: everything last modified before it. `picked_tally` counts all that was
    there then, `erased` what of it belongs to people who are erased (`erased_people`, as subject ids), which no restore
    brings. `parts` are read, `fetch_bytes` sealed bytes. With a prefix that ends within a name they are of its folder.
    """

    dataset: str
    wanted: Wanted
    run: Run
    point_at: datetime | None
    picked_tally: Tally
    erased: Tally
    erased_people: tuple[str, ...]
    parts: int
    fetch_bytes: int
    identity: str
    erasures: ErasureList
    picked: Picked
    is_resumed: bool
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """For `--dry-run`."""
        manifest = self.run.manifest
        return {
            "dataset": self.dataset,
            "to": "latest" if self.wanted.to is None else format_time(self.wanted.to),
            "versions": self.wanted.versions,
            "person": self.wanted.person,
            "run": str(self.run.key),
            "run_kind": "full" if manifest is not None and manifest.is_full else "incremental",
            "point_at": None if self.point_at is None else format_time(self.point_at),
            "picked": self.picked_tally.to_json(),
            "erased": self.erased.to_json(),
            "erased_people": list[Json](self.erased_people),
            "erasures_known": len(self.erasures),
            "erasures_from": list[Json](self.erasures.sources),
            "parts": self.parts,
            "fetch_bytes": self.fetch_bytes,
            "resumed": self.is_resumed,
            "notes": list[Json](self.notes),
        }


def plan_restore(
    site: Site, wanted: Wanted, erasures: ErasureList, *, target: str = "", as_of: datetime | None = None
) -> RestorePlan:
    """The plan; an unfinished one of the same kind into the same `target` (any text that tells it) is gone on with.

    `erasures` is the newest list from every vault that answers. `as_of`: the vault as it was then by the store's clock;
    never the erasures. Raises PolicyError `restore.no_copy`, `restore.target_beyond`, `restore.target_too_old`,
    `erasure.list_stale`, `bucket.other_names_key`, `bucket.busy`; VaultError for what is missing or damaged of
    manifests and inventories.
    """
    erasures.require_newest(read_list(site.vault))
    point = recovery_point(site.vault, site.name, as_of=as_of)
    run, between = _run_for(site, wanted.to, point, as_of)
    manifest = run.manifest
    if manifest is None:
        raise VaultError("backup.bad_manifest", f"{run.key}: {run.trouble}", "restore to an earlier time: --to")
    if manifest.names_check != site.names.check:
        raise PolicyError(
            "bucket.other_names_key",
            f"{site.name} was copied under another key of subject ids than the one at hand",
            "bring back the key of subject ids from its copy or the escrow",
        )
    identity = _identity(site, wanted, run, target)
    with ExitStack() as stack:
        picked = stack.enter_context(Picked(site.folder / f"{site.name}.restore.sqlite"))
        is_resumed = picked.meta("identity") == identity
        if not is_resumed:
            _choose(site, wanted, (*between, run), picked, as_of)
            picked.set_meta("identity", identity)
        picked.erase(who for who in picked.people() if who in erasures.people)
        parts = picked.parts()
        fetch_bytes = _sealed_bytes(site, parts)
        stack.pop_all()  # from now on whoever carries the plan out closes it
    return RestorePlan(
        dataset=site.name,
        wanted=wanted,
        run=run,
        point_at=wanted.to or (None if point is None else point.at),
        picked_tally=picked.tally(),
        erased=picked.tally(ERASED),
        erased_people=tuple(picked.erased_people()),
        parts=len(parts),
        fetch_bytes=fetch_bytes,
        identity=identity,
        erasures=erasures,
        picked=picked,
        is_resumed=is_resumed,
        notes=() if manifest.is_complete else (f"run {manifest.snapshot_id} could not read everything that it listed",),
    )


def _run_for(
    site: Site, to: datetime | None, point: CopyPoint | None, as_of: datetime | None
) -> tuple[Run, tuple[Run, ...]]:
    """The run whose inventory tells that moment: the first whole listing that began at or behind it.

    And the runs in between, which saw single names or couldn't read everything: what they saw go, a full behind them
    knows nothing of.
    """
    stored = [one for one in stored_runs(site.vault, site.name, as_of=as_of) if one.key.system_id == site.system_id]
    if not stored:
        raise PolicyError(
            "restore.no_copy",
            f"the vault holds no copy of {site.dataset.bucket}/{site.dataset.prefix} under {site.name}",
            "`dr-assets bucket status` tells what there is; `dr-assets bucket copy` makes one",
        )
    if to is None:
        return _read(site, stored[-1]), ()
    _require_within(site, to, point, moment(stored[0].key.first))
    between: list[Run] = []
    for one in stored:
        if one.key.first >= microseconds(to):
            run = _read(site, one)
            if run.manifest is not None and run.manifest.is_whole_listing and run.manifest.is_complete:
                return run, tuple(between)
            between.append(run)
    # A later listing found that nothing had changed since.
    return (between.pop(), tuple(between)) if between else (_read(site, stored[-1]), ())


def _read(site: Site, stored: StoredObject) -> Run:
    run = read_run(site.vault, stored)
    if run is None or run.manifest is None:
        found = "none of ours sealed it" if run is None else run.trouble
        raise VaultError(
            "backup.bad_manifest",
            f"{stored.key}: {found}",
            "run `dr-assets vault verify`; restore from another vault, or --to a moment before",
        )
    return run


def _require_within(site: Site, to: datetime, point: CopyPoint | None, first_at: datetime) -> None:
    if point is None or point.at is None or to > point.at:
        newest = "nothing is complete yet" if point is None or point.at is None else f"{point.at.isoformat()}"
        raise PolicyError(
            "restore.target_beyond",
            f"{to.isoformat()} lies beyond the recovery point of {site.name}: {newest}",
            "restore to `latest`, or to a moment before the recovery point",
        )
    if to < first_at:
        raise PolicyError(
            "restore.target_too_old",
            f"{to.isoformat()} lies before the first listing that is kept, which began at {first_at.isoformat()}",
            "choose a later moment; older versions come back with --versions all",
        )


def _choose(site: Site, wanted: Wanted, runs: Iterable[Run], picked: Picked, as_of: datetime | None) -> None:
    """What `runs` tell with all that they build on; what a later one says of a version holds."""
    picked.begin()
    read: set[str] = set()
    for run in runs:
        chain = [one for one in chain_to(site.vault, run, as_of=as_of) if str(one.key) not in read]
        read.update(str(one.key) for one in chain)
        for rows in rows_of(site.vault, chain):
            picked.find(_fitting(site, wanted, rows))
    at_us = _FOREVER_US if wanted.to is None else microseconds(wanted.to)
    picked.pick(at_us, all_versions=wanted.versions == "all")


def _fitting(site: Site, wanted: Wanted, rows: Iterable[Row]) -> Iterator[Row]:
    """By whose they are, and by their folder as far as digests tell; the rest of a prefix shows when a name is open."""
    folder = wanted.prefix[: wanted.prefix.rfind("/") + 1]
    within = site.names.folder_id(folder) if folder else None
    for row in rows:
        if wanted.person is not None and row.subject_id != wanted.person:
            continue
        if within is None or within in row.folders:
            yield row


def _identity(site: Site, wanted: Wanted, run: Run, target: str) -> str:
    fields: dict[str, Json] = {
        "run": str(run.key),
        "to": None if wanted.to is None else format_time(wanted.to),
        "prefix": wanted.prefix,
        "person": wanted.person,
        "versions": wanted.versions,
        "target": target,
        "vault": site.vault.name,
    }
    return hashlib.sha256(canonical.encode(fields)).hexdigest()


def _sealed_bytes(site: Site, parts: Iterable[str]) -> int:
    """What the store says of the sizes of these parts; one that is missing shows when it is read."""
    wanted = {key for text in parts if (key := ObjectKey.parse(text)) is not None}
    streams = sorted({key.stream for key in wanted})
    return sum(
        obj.size_bytes for stream in streams for obj in site.vault.objects(site.name, stream) if obj.key in wanted
    )
