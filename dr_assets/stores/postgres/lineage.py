"""The lives of a source: which system and timeline it is on now, and where it left an earlier timeline.

What belongs here: telling that from capture facts, names and history files in the vault; what follows for a restore.
What stays out: the choice of a base backup and of WAL (plan.py).

A server that was upgraded, or loaded from a dump, is another system; one that was failed over to, or restored, goes on
with a new timeline. What a source wrote to the old one after that moment was abandoned, and nobody must get it back
without having asked for it.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dr_assets.estate.errors import PolicyError, SourceError, VaultError
from dr_assets.stores.postgres import base_manifest
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.capture_facts import Anchor
from dr_assets.stores.postgres.clip import STORE_TROUBLE
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.chain import Chain
from dr_assets.vault.format.keys import BASE, TIMELINE_END, WAL, prefix_of
from dr_assets.vault.vault import StoredObject, Vault

_STORE_CLOCK_STEP = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Departure:
    """Where the source left a timeline for `timeline`: what lies before `position` is common to both.

    `is_exact` when a history file says so; else `position` is where the vault's WAL of the newer timeline begins: a
    WAL segment's begin just before, unless the capture of it was started long after the switch. `before` is the newest
    `as_of` (store's clock) that does not know of it yet.
    """

    timeline: int
    position: int
    is_exact: bool
    before: datetime

    def describe(self, timeline: int) -> str:
        """In words, for people; `timeline` is the one that was left."""
        where = f"at {format_lsn(self.position)}"
        if not self.is_exact:
            where = f"near {format_lsn(self.position)}; only a base backup of the newer one can tell where exactly"
        return f"the source has left timeline {timeline} for {self.timeline} {where}"

    def common(self, chain: Chain) -> Chain:
        """`chain` up to the last piece that lies wholly in what both timelines have."""
        kept = tuple(obj for obj in chain.segments if obj.key.last <= self.position)
        return replace(chain, segments=kept, end=kept[-1].key.last if kept else chain.begin)


def find_departure(
    vault: Vault, dataset: str, system_id: str, timeline: int, *, as_of: datetime | None = None
) -> Departure | None:
    """Where the source left `timeline`, None while the vault holds no WAL of a newer one. Raises VaultError.

    Costs one listing of a folder, one header and perhaps a manifest, however much WAL there is.
    """
    first = {
        number: piece
        for number in _timelines(vault, dataset, system_id)
        if number > timeline and (piece := _first_piece(vault, dataset, system_id, number, as_of)) is not None
    }
    if not first:
        return None
    newest = max(first)
    before = min(piece.modified_at for piece in first.values()) - _STORE_CLOCK_STEP
    history = _history(vault, dataset, system_id, newest, as_of)
    if history is not None:
        return Departure(newest, _switch_position(history, timeline), is_exact=True, before=before)
    begins = min(piece.key.first for piece in first.values())
    return Departure(newest, begins, is_exact=False, before=before)


def other_systems(vault: Vault, dataset: str, system_id: str) -> list[str]:
    """The ids of all other systems of which WAL is stored, by name alone. Raises VaultError."""
    level = vault.store.list_level(prefix_of(vault.estate, dataset, WAL))
    names = [folder.rstrip("/").rpartition("/")[2] for folder in level.folders]
    return [name for name in names if name != system_id]


def require_current(manifest: BaseManifest, chain: Chain, anchor: Anchor | None, left: Departure | None) -> None:
    """`latest` must not quietly mean the end of a life that the source has left. Raises PolicyError.

    `restore.other_system` and `restore.newer_timeline`; `anchor` is what the newest capture says it captures.
    """
    if anchor is not None and anchor.system_id != manifest.system_id:
        raise PolicyError(
            "restore.other_system",
            f"the newest usable base backup is of system {manifest.system_id}, but what is captured now is system "
            f"{anchor.system_id}: the source was upgraded or loaded anew, and no base backup of it is usable yet",
            "take one if the source lives, and let `dr-assets capture` catch up; to get the old system back, ask for a "
            f"time or for lsn:{format_lsn(chain.end)}",
        )
    timeline = max(0 if left is None else left.timeline, 0 if anchor is None else anchor.timeline)
    if timeline > manifest.timeline:
        raise PolicyError(
            "restore.newer_timeline",
            f"the newest usable base backup is of timeline {manifest.timeline}, but WAL of timeline {timeline} is "
            "stored: the source failed over and no base backup was taken since",
            f"take one if the source lives; {_old_end(chain, left)}",
        )
    if anchor is not None and anchor.timeline != manifest.timeline:
        raise PolicyError(
            "restore.older_timeline",
            f"the newest usable base backup is of timeline {manifest.timeline}, but what is captured now is timeline "
            f"{anchor.timeline}: the source was set back",
            f"find out which of the two is the true one; ask for a time, or for lsn:{format_lsn(chain.end)}",
        )


def require_before(left: Departure, manifest: BaseManifest, chain: Chain, target: Target, *, is_before: bool) -> None:
    """Refuse a target that may lie on what was abandoned. Raises PolicyError (`restore.abandoned_timeline`)."""
    if is_before:
        return
    raise PolicyError(
        "restore.abandoned_timeline",
        f"{target} is not shown to lie before what was abandoned: {left.describe(manifest.timeline)}",
        f"choose a target before that, or one after the first base backup of timeline {left.timeline}; "
        f"{_old_end(chain, left)}",
    )


def require_common(left: Departure, manifest: BaseManifest) -> None:
    """A base backup that holds what was abandoned leads nowhere. Raises VaultError (`restore.abandoned_timeline`)."""
    if manifest.stop_lsn > left.position:
        raise VaultError(
            "restore.abandoned_timeline",
            f"base backup {manifest.snapshot_id} ends at {format_lsn(manifest.stop_lsn)} of timeline "
            f"{manifest.timeline}, which the source left for {left.timeline} at {format_lsn(left.position)}",
            f"choose a target after the first base backup of timeline {left.timeline}; to look at what was abandoned, "
            f"add --as-of {left.before.isoformat()}",
        )


def _old_end(chain: Chain, left: Departure | None) -> str:
    as_of = "" if left is None else f" with --as-of {left.before.isoformat()}"
    return f"to restore the old timeline's end all the same, ask for lsn:{format_lsn(chain.end)}{as_of}"


def _timelines(vault: Vault, dataset: str, system_id: str) -> list[int]:
    """By the folders' names: listing what is in them would take minutes, and anybody may make one."""
    level = vault.store.list_level(prefix_of(vault.estate, dataset, WAL, system_id))
    names = [folder.rstrip("/").rpartition("/")[2] for folder in level.folders]
    numbers = [_number(name) for name in names]
    return [number for number in numbers if number is not None]


def _number(name: str) -> int | None:
    try:
        number = int(name, 16)
    except ValueError:
        return None
    return number if name == f"{number:08X}" and number < TIMELINE_END else None


def _first_piece(
    vault: Vault, dataset: str, system_id: str, timeline: int, as_of: datetime | None
) -> StoredObject | None:
    """The first piece that can be believed: rubbish under a fitting name must not stop a restore."""
    for obj in vault.objects(dataset, WAL, system_id=system_id, timeline=timeline, as_of=as_of):
        try:
            vault.header(obj)
        except VaultError as error:
            if error.code in STORE_TROUBLE:
                raise
        else:
            return obj
    return None


def _history(vault: Vault, dataset: str, system_id: str, timeline: int, as_of: datetime | None) -> str | None:
    """The history file of a timeline, from any base backup of it that can be believed."""
    for obj in vault.objects(dataset, BASE, system_id=system_id, timeline=timeline, as_of=as_of):
        try:
            manifest = base_manifest.decode(vault.open(obj).plaintext, name=str(obj.key))
        except VaultError as error:
            if error.code in STORE_TROUBLE:
                raise
        else:
            return manifest.history
    return None


def _switch_position(history: str, timeline: int) -> int:
    """Where `timeline` was left, by the history file of a later one; 0 when it is no ancestor of that at all."""
    for line in history.splitlines():
        fields = line.split()
        if len(fields) > 1 and fields[0] == str(timeline):
            try:
                return parse_lsn(fields[1])
            except SourceError:
                return 0
    return 0
