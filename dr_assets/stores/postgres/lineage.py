"""The lives of a source: which system and timeline it is on now, and where it left an earlier timeline.

What belongs here: telling that from capture facts, names and history files in the vault; what follows for a restore.
What stays out: the choice of a base backup and of WAL (plan.py).

A server that was upgraded, or loaded from a dump, is another system; one that was failed over to, or restored, goes on
with a new timeline. What a source wrote to the old one after that moment was abandoned, and nobody must get it back
without having asked for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres import base_manifest
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.capture_facts import Anchor
from dr_assets.stores.postgres.full_segments import first_stored, stored_systems, stored_timelines
from dr_assets.stores.postgres.history import History, Leg, parse_history
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.target import Target
from dr_assets.stores.postgres.timeline import TIMELINE
from dr_assets.vault.chain import Chain
from dr_assets.vault.facts import facts
from dr_assets.vault.format.keys import BASE, TIMELINE_END
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import Vault

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


@dataclass(frozen=True, slots=True)
class Way:
    """Which timelines lead on from a base backup, in order, and whose histories are known (text by timeline).

    `left` is set when the source left the base backup's timeline in a way that nothing stored shows to lead on.
    """

    legs: tuple[Leg, ...]
    histories: Mapping[int, History]
    left: Departure | None = None


def find_way(
    vault: Vault, dataset: str, manifest: BaseManifest, *, timeline: int | None = None, as_of: datetime | None = None
) -> Way:
    """The way from a base backup to the newest timeline of its system, or to `timeline` if a person asks for that one.

    A history that a capture sealed as a fact, or that a base backup brought along, is believed; contradicting ones are
    not. Raises VaultError: `restore.no_such_timeline` when `timeline` is unknown or doesn't come from this base backup.
    """
    own = manifest.timeline
    lineage = _Lineage(vault, dataset, manifest.system_id, as_of)
    histories = lineage.histories(manifest)
    if timeline is not None:
        return Way(_asked(timeline, manifest, histories), histories)
    left = lineage.departure(own, histories)
    if left is None:
        return Way((Leg(own, None),), histories)
    history = histories.get(left.timeline)
    switch = None if history is None else history.left_at(own)
    if history is None or switch is None or switch < manifest.stop_lsn:
        return Way((Leg(own, None),), histories, left)
    return Way(history.legs_from(own), histories)


def known_histories(vault: Vault, dataset: str, system_id: str, *, as_of: datetime | None = None) -> dict[int, History]:
    """Every timeline's history that something believable in the vault tells. Raises VaultError."""
    return _Lineage(vault, dataset, system_id, as_of).histories()


def _asked(timeline: int, manifest: BaseManifest, histories: Mapping[int, History]) -> tuple[Leg, ...]:
    if timeline == manifest.timeline:
        return (Leg(timeline, None),)
    history = histories.get(timeline)
    switch = None if history is None else history.left_at(manifest.timeline)
    if history is not None and switch is not None and switch >= manifest.stop_lsn:
        return history.legs_from(manifest.timeline)
    known = ", ".join(map(str, sorted({manifest.timeline, *histories})))
    found = "is not known to the vault" if history is None else "was not begun behind it"
    raise VaultError(
        "restore.no_such_timeline",
        f"no way leads from base backup {manifest.snapshot_id} of timeline {manifest.timeline} to timeline {timeline}, "
        f"which {found}",
        f"the timelines of system {manifest.system_id} whose history is known from there on: {known}",
    )


def other_systems(vault: Vault, dataset: str, system_id: str) -> list[str]:
    """The ids of all other systems of which WAL is stored, by name alone. Raises VaultError."""
    return [name for name in stored_systems(vault, dataset) if name != system_id]


def require_current(manifest: BaseManifest, chain: Chain, anchor: Anchor | None, way: Way) -> None:
    """`latest` must not quietly mean the end of a life that the source has left. Raises PolicyError.

    `restore.other_system`, `restore.newer_timeline` and `restore.older_timeline`; `anchor` is what the newest capture
    says it captures.
    """
    if anchor is not None and anchor.system_id != manifest.system_id:
        raise PolicyError(
            "restore.other_system",
            f"the newest usable base backup is of system {manifest.system_id}, but what is captured now is system "
            f"{anchor.system_id}: the source was upgraded or loaded anew, and no base backup of it is usable yet",
            "take one if the source lives, and let `dr-assets capture` catch up; to get the old system back, ask for a "
            f"time or for lsn:{format_lsn(chain.end)}",
        )
    last, left = way.legs[-1].timeline, way.left
    timeline = max(0 if left is None else left.timeline, 0 if anchor is None else anchor.timeline)
    if timeline > last:
        raise PolicyError(
            "restore.newer_timeline",
            f"the newest usable base backup leads to timeline {last}, but WAL of timeline {timeline} is stored, and "
            "nothing stored shows that the one continues the other: the source failed over and no base backup was "
            "taken since",
            f"take one if the source lives; {_old_end(last, chain, left)}",
        )
    if anchor is not None and not _is_on(way, anchor):
        raise PolicyError(
            "restore.older_timeline",
            f"the newest usable base backup leads to timeline {last}, but what is captured now is timeline "
            f"{anchor.timeline}: the source was set back",
            f"find out which of the two is the true one, and ask for it with --timeline; or ask for a time, or for "
            f"lsn:{format_lsn(chain.end)}",
        )


def _is_on(way: Way, anchor: Anchor) -> bool:
    """Whether what is captured lies on the way: a capture that hasn't noticed a switch yet does, one set back not."""
    ends = {leg.timeline: leg.end for leg in way.legs}
    end = ends.get(anchor.timeline)
    return anchor.timeline in ends and (end is None or anchor.stored <= end)


def require_before(left: Departure, manifest: BaseManifest, chain: Chain, target: Target, *, is_before: bool) -> None:
    """Refuse a target that may lie on what was abandoned. Raises PolicyError (`restore.abandoned_timeline`)."""
    if is_before:
        return
    raise PolicyError(
        "restore.abandoned_timeline",
        f"{target} is not shown to lie before what was abandoned: {left.describe(manifest.timeline)}",
        f"choose a target before that, or one after the first base backup of timeline {left.timeline}; "
        f"{_old_end(manifest.timeline, chain, left)}",
    )


def require_common(left: Departure, manifest: BaseManifest) -> None:
    """A base backup that holds what was abandoned leads nowhere. Raises VaultError (`restore.abandoned_timeline`)."""
    if manifest.stop_lsn > left.position:
        raise VaultError(
            "restore.abandoned_timeline",
            f"base backup {manifest.snapshot_id} ends at {format_lsn(manifest.stop_lsn)} of timeline "
            f"{manifest.timeline}, which the source left for {left.timeline} at {format_lsn(left.position)}",
            f"choose a target after the first base backup of timeline {left.timeline}; to look at what was abandoned, "
            f"add --timeline {manifest.timeline}, or --as-of {left.before.isoformat()}",
        )


def _old_end(timeline: int, chain: Chain, left: Departure | None) -> str:
    as_of = "" if left is None else f", or with --as-of {left.before.isoformat()}"
    return (
        f"to restore the old timeline's end all the same, ask with --timeline {timeline}, for latest or for "
        f"lsn:{format_lsn(chain.end)}{as_of}"
    )


class _Lineage:
    """What the vault tells of one system's timelines."""

    def __init__(self, vault: Vault, dataset: str, system_id: str, as_of: datetime | None) -> None:
        self._vault = vault
        self._dataset = dataset
        self._system_id = system_id
        self._as_of = as_of

    def histories(self, manifest: BaseManifest | None = None) -> dict[int, History]:
        """What something believable in the vault tells; of its own timeline and later ones when a manifest is given."""
        since = 0 if manifest is None else manifest.timeline
        found = {number: texts for number, texts in self._sealed().items() if number > since}
        for number in stored_timelines(self._vault, self._dataset, self._system_id):
            if number > since and number not in found:
                text = self._backed_up(number)
                if text is not None:
                    found[number] = {text}
        if manifest is not None:
            found[manifest.timeline] = {manifest.history or ""}
        known: dict[int, History] = {}
        for number, texts in found.items():
            parsed = [history for text in texts if (history := _parsed(number, text)) is not None]
            # Two servers may have been promoted to the same number: then nobody knows whose WAL is stored.
            if parsed and all(other.switches == parsed[0].switches for other in parsed):
                known[number] = parsed[0]
        return known

    def departure(self, timeline: int, histories: Mapping[int, History]) -> Departure | None:
        """Where the source left `timeline`, None while the vault knows of no newer one. Raises VaultError.

        Costs a listing of folders and one header a timeline, however much WAL there is.
        """
        first = {
            number: piece
            for number in stored_timelines(self._vault, self._dataset, self._system_id)
            if timeline < number < TIMELINE_END
            and (piece := first_stored(self._vault, self._dataset, self._system_id, number, as_of=self._as_of))
        }
        newest = max([*first, *(number for number in histories if number > timeline)], default=None)
        if newest is None:
            return None
        times = [piece.modified_at for piece in first.values()]
        before = min(times, default=self._vault.clock()) - _STORE_CLOCK_STEP
        history = histories.get(newest)
        if history is not None:
            return Departure(newest, history.left_at(timeline) or 0, is_exact=True, before=before)
        begins = min(piece.key.first for piece in first.values())
        return Departure(newest, begins, is_exact=False, before=before)

    def _sealed(self) -> dict[int, set[str]]:
        """What captures sealed. A damaged fact proves nothing, and so leaves its timeline unproven."""
        found: dict[int, set[str]] = {}
        try:
            for fact in facts(self._vault, self._dataset, TIMELINE, as_of=self._as_of):
                number, text = fact.body.get("timeline"), fact.body.get("history")
                if fact.body.get("system_id") == self._system_id and isinstance(number, int):
                    found.setdefault(number, set()).add(text if isinstance(text, str) else "")
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
        return found

    def _backed_up(self, timeline: int) -> str | None:
        """The history file of a timeline, from any base backup of it that can be believed."""
        for obj in self._vault.objects(
            self._dataset, BASE, system_id=self._system_id, timeline=timeline, as_of=self._as_of
        ):
            try:
                manifest = base_manifest.decode(self._vault.open(obj).plaintext, name=str(obj.key))
            except VaultError as error:
                if error.code in STORE_AWAY:
                    raise
            else:
                return manifest.history
        return None


def _parsed(timeline: int, text: str) -> History | None:
    try:
        return parse_history(timeline, text)
    except VaultError:
        return None
