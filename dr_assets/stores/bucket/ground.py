"""What a run builds on: the newest stored run, the index brought to it, what an interrupted run has sealed already.

What belongs here: those three, and whether the next run has to be a full. What stays out: the run (copy.py).
"""

import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.bucket.index import Index
from dr_assets.stores.bucket.manifest import Parent
from dr_assets.stores.bucket.packing import RunPlace
from dr_assets.stores.bucket.runs import Run, chain_to, newest_run, rows_of
from dr_assets.stores.bucket.site import Site
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.format.keys import part_stream
from dr_assets.vault.storage import Lock

DEPTH_MAX: Final = 288  # a day of runs that each found something; a restore reads two objects for each
PENDING: Final = "pending"


@dataclass(frozen=True, slots=True)
class Ground:
    """The newest stored run, None before the first; `why_full` tells why the next can't be an incremental."""

    base: Run | None
    why_full: str | None

    @property
    def key(self) -> str | None:
        """The base's manifest."""
        return None if self.base is None else str(self.base.key)

    def parent(self) -> Parent | None:
        """As an incremental's manifest names it; None for a full."""
        manifest = None if self.base is None or self.why_full else self.base.manifest
        if manifest is None or self.key is None:
            return None
        return Parent(manifest.snapshot_id, self.key, manifest.full_snapshot_id, manifest.depth + 1)


def find_ground(site: Site, index: Index, now: datetime, lock: Lock, *, full: bool) -> Ground:
    """The ground, with the index knowing all that it holds.

    Raises VaultError where the vault can't be read, PolicyError `bucket.other_names_key`.
    """
    base = newest_run(site.vault, site.name, site.system_id)
    _drop_sealed(index, base)
    if base is None or base.manifest is None:
        if index.meta("base") is not None:
            index.forget(keep_fresh=True)
        return Ground(None, "nothing of this bucket is stored yet")
    if base.manifest.names_check != site.names.check:
        raise PolicyError(
            "bucket.other_names_key",
            f"{site.name} was copied under another key of subject ids than the one at hand",
            "bring back the key of subject ids from its copy or the escrow: under another one nothing stored is found",
        )
    if index.meta("base") != str(base.key):
        _rebuild(site, index, base)
    return Ground(base, _why_full(site, index, base, now, lock, full=full))


def _why_full(site: Site, index: Index, base: Run, now: datetime, lock: Lock, *, full: bool) -> str | None:
    manifest = base.manifest
    if full:
        return "a full was asked for"
    if manifest is None or manifest.depth >= DEPTH_MAX:
        return f"{DEPTH_MAX} incrementals follow the last full"
    began, locked = index.meta("full_at"), index.meta("full_locked")
    if began is None or locked is None:
        return "nobody knows when the last full was"
    if now - parse_time(began, "full_at") >= site.dataset.full_every:
        return f"the last full began {began[:16]}Z"
    if parse_time(locked, "full_locked") < lock.retain_until:
        return "the last full is locked for less long than what would build on it"
    return None


def _drop_sealed(index: Index, base: Run | None) -> None:
    """A run whose manifest was sealed and that was killed before it said so here: its inventory tells it all."""
    pending = _pending(index)
    if pending and base is not None and base.manifest is not None and base.manifest.snapshot_id == pending:
        index.forget(keep_fresh=False)
        index.set_meta(PENDING, None)


def _rebuild(site: Site, index: Index, base: Run) -> None:
    """The index as the vault's inventories tell it; what an interrupted run has sealed stays."""
    chain = chain_to(site.vault, base)
    index.forget(keep_fresh=True)
    for run in chain:
        if run.manifest is not None:
            index.note_parts((part, 0, run.manifest.snapshot_id) for part in run.manifest.parts)
    for rows in rows_of(site.vault, chain):
        index.learn(rows)
    full = chain[0].manifest
    assert full is not None  # noqa: S101 - for the type checker: chain_to has read it
    index.drop_gone()
    remember_full(index, full.listing_begin_at, full.policy.get("retain_until", ""))
    index.set_meta("base", str(base.key))


def remember_full(index: Index, began_at: datetime, locked_until: str) -> None:
    """When the chain's full began, and until when it is locked."""
    index.set_meta("full_at", began_at.isoformat(timespec="microseconds").replace("+00:00", "Z"))
    index.set_meta("full_locked", locked_until)


def begin_run(site: Site, index: Index, now: datetime, lock: Lock) -> RunPlace:
    """The interrupted run, gone on with, or a new one; what the vault does not hold of it is forgotten."""
    snapshot_id = _pending(index) or f"{now:%Y%m%dt%H%M%Sz}-{secrets.token_hex(4)}"
    stored = {
        str(obj.key): obj.key.last
        for obj in site.vault.objects(site.name, part_stream(snapshot_id), system_id=site.system_id, timeline=0)
    }
    index.drop_parts([part.key for part in index.parts_of(snapshot_id) if part.key not in stored])
    index.set_meta(PENDING, json.dumps(snapshot_id))
    return RunPlace(site.name, snapshot_id, site.system_id, lock, max(stored.values(), default=0))


def _pending(index: Index) -> str | None:
    text = index.meta(PENDING)
    return None if text is None else str(json.loads(text))
