"""What may be removed from a dataset: what no kept recovery point needs and whose lock is over.

What belongs here: choosing, and why. What stays out: removing (expire.py), the rule of what is kept
(recovery_window.py).

An object whose lock holds is never chosen. The stages are in the order in which they are worked off: manifests before
parts and before the WAL, so that nothing is left that looks like a whole base backup and isn't.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Protocol

from dr_assets.stores.postgres.beneath_fulls import Fulls, Prover, fulls_over
from dr_assets.stores.postgres.capture_facts import CAPTURE, latest_anchor
from dr_assets.stores.postgres.full_put import Stream
from dr_assets.stores.postgres.recovery_window import (
    BaseBackup,
    WalNeeds,
    base_backups,
    carrier_of,
    damage_of,
    is_usable,
    kept_backups,
)
from dr_assets.stores.postgres.rollup import streams_of
from dr_assets.stores.postgres.rollup_run import ROLL_UP
from dr_assets.vault.expiry_list import EXPIRY, EXPIRY_LIST, Doomed
from dr_assets.vault.facts import SYSTEM_ID, facts
from dr_assets.vault.format.keys import WAL, ObjectKey, fact_stream, part_stream, prefix_of
from dr_assets.vault.full_segment import FULL, FULL_LIST
from dr_assets.vault.inventory import INVENTORY
from dr_assets.vault.retention import MICRO_LOCK
from dr_assets.vault.retention.holds import Hold, earliest_held, holds_in_force
from dr_assets.vault.storage.versions import Name
from dr_assets.vault.vault import Vault

LIMIT: Final = 20_000  # names of one list: what a kill leaves to be done again, and what is in memory
MANIFEST: Final = "manifest of a base backup outside the recovery window"
PART: Final = "part of a base backup outside the recovery window"
LEFT_PART: Final = "part that no manifest lists"
MICRO: Final = "micro-segment beneath a full segment that was read back"
OLD_WAL: Final = "micro-segment below the oldest base backup that is kept"
OLD_FULL: Final = "full segment below the oldest base backup that is kept"
OLD_LIST: Final = "list of a full segment that is gone"
FACT: Final = "fact older than the recovery window"
EXPIRY_RECORD: Final = "expiry list older than the recovery window"

_WORKERS: Final = 16
_CHUNK: Final = 256
_REPEATED_FACTS: Final = (CAPTURE, INVENTORY, ROLL_UP, EXPIRY)  # all others are evidence, few, and stay


class Kept(Protocol):
    """A recovery point's manifest: a base backup, or a run of another kind of store."""

    @property
    def key(self) -> ObjectKey:
        """Its name."""
        ...


@dataclass(slots=True)
class ExpiryPlan:
    """What to remove, in order, and what was seen on the way.

    `kept` are the base backups (or runs) of the window that begins at `window_begin`. `locked` counts what would go but
    for its lock, of which the first ends at `next_at`, `held` those under legal hold, by the holds of `hold_ids`.
    `has_more`: the plan was cut at its limit. `begins`: at which position what stays at a place begins; on record with
    the list, so that nobody takes what went before it for a hole.
    """

    dataset: str
    now: datetime
    window_begin: datetime
    kept: tuple[Kept, ...] = ()
    rows: list[Doomed] = field(default_factory=list)
    locked: int = 0
    held: int = 0
    hold_ids: frozenset[str] = frozenset()
    next_at: datetime | None = None
    troubles: list[str] = field(default_factory=list)
    has_more: bool = False
    begins: dict[str, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Stored bytes of all that goes."""
        return sum(row.size_bytes for row in self.rows)

    def by_stage(self) -> dict[str, tuple[int, int]]:
        """Objects and bytes, in the order of the work."""
        found: dict[str, tuple[int, int]] = {}
        for row in self.rows:
            count, size_bytes = found.get(row.stage, (0, 0))
            found[row.stage] = count + 1, size_bytes + row.size_bytes
        return found


class EnoughError(Exception):
    """The plan is as long as it may be."""


class Planner:
    """Plans again and again while an expiry works its plans off; what was seen locked is not asked for again."""

    def __init__(self, vault: Vault, dataset: str, *, limit: int = LIMIT, micro_age: timedelta = MICRO_LOCK) -> None:
        self._vault = vault
        self._dataset = dataset
        self._limit = limit
        self._micro_age = micro_age  # no micro can be younger when its lock ends, so none younger is asked for it
        self._locked: dict[int, datetime] = {}
        self._opened: set[ObjectKey] = set()
        self._damaged: set[ObjectKey] = set()
        self._unproven: set[int] = set()
        self._doubts: list[str] = []  # why, over all plans
        self._chosen: set[int] = set()
        self._holds: list[Hold] = []
        self._held: set[int] = set()
        self._plan = ExpiryPlan(dataset, vault.clock(), vault.clock())

    def plan(self) -> ExpiryPlan:
        """The next at most `limit` names. Raises VaultError when the store can't be read."""
        vault, now = self._vault, self._vault.clock()
        self._chosen = set()
        holds = holds_in_force(vault, self._dataset)
        plan = self._plan = ExpiryPlan(self._dataset, now, _window_begin(vault, self._dataset, holds, now))
        plan.troubles += [f"legal hold {hold.hold_id} ({hold.reason}): nothing it covers goes" for hold in holds]
        plan.hold_ids = frozenset(hold.hold_id for hold in holds)
        self._holds = holds
        try:
            self._choose()
        except EnoughError:
            plan.has_more = True
        plan.troubles += dict.fromkeys(self._doubts)
        return plan

    def _choose(self) -> None:
        """What of a database goes; stores of other kinds choose by rules of their own."""
        vault, plan = self._vault, self._plan
        backups = base_backups(vault, self._dataset)
        kept = self._kept(backups)
        plan.kept = tuple(kept)
        plan.troubles += [f"{one.key} can't be read and is kept: {one.trouble}" for one in backups if one.trouble]
        self._backups([backup for backup in backups if backup not in kept])
        self._left_parts(backups)
        streams = streams_of(vault, self._dataset)
        for stream in streams:
            self._beneath_fulls(stream)
        if any(backup.manifest is not None for backup in kept):
            anchor = latest_anchor(vault, self._dataset)
            needs = WalNeeds(tuple(kept), None if anchor is None else anchor.system_id)
            self._old_wal(streams, needs)
        self._lists_alone(streams)
        self._facts()

    # -- base backups -----------------------------------------------------------------------------------------------

    def _kept(self, backups: list[BaseBackup]) -> list[BaseBackup]:
        """Before any goes, the one on the strength of which it goes is opened whole, once in all plans."""
        plan, damaged = self._plan, self._damaged

        def is_sound(one: BaseBackup) -> bool:
            return one.key not in damaged and is_usable(self._vault, self._dataset, one, backups)

        while True:
            kept = kept_backups(backups, plan.window_begin, is_sound, damaged=damaged)
            carrier = carrier_of(kept, plan.window_begin, damaged)
            gone = [one for one in backups if one not in kept]
            if carrier is None or carrier.key in self._opened or not any(map(self._is_free, gone)):
                return kept
            trouble = damage_of(self._vault, self._dataset, carrier, backups)
            if trouble is None:
                self._opened.add(carrier.key)
                return kept
            damaged.add(carrier.key)
            self._doubts.append(f"{carrier.key} can't be restored from, so an older base backup is kept: {trouble}")

    def _is_free(self, backup: BaseBackup) -> bool:
        """Whether the lock of its manifest is over."""
        names = self._vault.names(backup.key.place, _before(backup))
        name = next((name for name in names if name.text == str(backup.key)), None)
        until = None if name is None else self._locked_until(name)
        return until is None or until <= self._plan.now

    def _backups(self, gone: Iterable[BaseBackup]) -> None:
        """Whole sets only: one part under lock keeps all of it, and its manifest."""
        parts: list[Doomed] = []
        for backup in gone:
            assert backup.manifest is not None  # noqa: S101 - for the type checker: what can't be read is kept
            place = backup.key.place
            manifests = [name for name in self._vault.names(place, _before(backup)) if name.text == str(backup.key)]
            names = list(self._names(part_stream(backup.manifest.snapshot_id)))
            rows = self._unlocked(PART, names)
            first = self._unlocked(MANIFEST, manifests[:1])
            if len(rows) == len(names) and first:
                self._plan.rows += first
                parts += rows
        self._plan.rows += parts
        if len(self._plan.rows) >= self._limit:
            raise EnoughError

    def _left_parts(self, backups: Iterable[BaseBackup]) -> None:
        """What an interrupted base backup, or an interrupted expiry, left without a manifest."""
        if any(backup.manifest is None for backup in backups):
            return  # it may be the one that lists them
        listed = {part_stream(backup.manifest.snapshot_id) for backup in backups if backup.manifest is not None}
        level = self._vault.store.list_level(prefix_of(self._vault.estate, self._dataset))
        streams = [folder.rstrip("/").rpartition("/")[2] for folder in level.folders]
        for stream in streams:
            if stream.startswith(part_stream("")) and stream not in listed:
                self._take(LEFT_PART, self._names(stream), before=self._plan.window_begin)

    # -- WAL --------------------------------------------------------------------------------------------------------

    def _beneath_fulls(self, stream: Stream) -> None:
        """Micros that are proven, just now, to be held by a full that can be opened."""
        micros = iter(self._names(WAL, stream))
        name = next(micros, None)
        for fulls in () if name is None else fulls_over(self._vault, stream, _first(name), self._doubts):
            beneath: list[Name] = []
            while name is not None and _first(name) < fulls.last:
                if _first(name) >= fulls.first and _last(name) <= fulls.last:
                    beneath.append(name)
                name = next(micros, None)
            self._take_held(fulls, beneath)
            if len(self._plan.rows) >= self._limit:
                raise EnoughError
            if name is None:
                return

    def _take_held(self, fulls: Fulls, beneath: Iterable[Name]) -> None:
        """What isn't proven stays until the WAL there is no longer needed; in this run nobody asks for it again."""
        aged = [
            one
            for one in beneath
            if self._plan.now - _put_at(one) >= self._micro_age and hash(one.text) not in self._unproven
        ]
        rows = self._unlocked(MICRO, aged)
        if not rows:
            return
        free = {row.key for row in rows}
        held = Prover(self._vault, self._doubts).held(fulls, [name for name in aged if name.key in free])
        self._plan.rows += [row for row in rows if row.key in held]
        left = {hash(str(key)) for key in free - held}
        self._chosen -= left
        self._unproven |= left

    def _old_wal(self, streams: Iterable[Stream], needs: WalNeeds) -> None:
        for stage, kind in ((OLD_WAL, WAL), (OLD_FULL, FULL)):
            for stream in streams:
                floor = needs.floor(stream.system_id, stream.timeline)
                below = (name for name in self._names(kind, stream) if floor is None or _last(name) <= floor)
                self._take(stage, below, before=self._plan.window_begin)

    def _lists_alone(self, streams: Iterable[Stream]) -> None:
        for stream in streams:
            fulls = {
                (obj.key.first, obj.key.last)
                for obj in self._vault.objects(
                    stream.dataset, FULL, system_id=stream.system_id, timeline=stream.timeline
                )
            }
            fulls -= {(row.key.first, row.key.last) for row in self._plan.rows if _is_of(row, stream)}
            alone = (
                name
                for name in self._names(FULL_LIST, stream)
                if name.key is not None and (name.key.first, name.key.last) not in fulls
            )
            self._take(OLD_LIST, alone, before=self._plan.window_begin)

    # -- facts ------------------------------------------------------------------------------------------------------

    def _facts(self) -> None:
        """Those that only repeat what newer ones say; of captures, the newest word on every chain stays."""
        for kind in _REPEATED_FACTS:
            names = list(self._names(fact_stream(kind), Stream(self._dataset, SYSTEM_ID, 0)))
            last = self._last_words() if kind == CAPTURE else set()
            old = (name for name in names[:-1] if name.text not in last)
            self._take(FACT, old, before=self._plan.window_begin)
        lists = self._names(EXPIRY_LIST, Stream(self._dataset, SYSTEM_ID, 0))
        self._take(EXPIRY_RECORD, lists, before=self._plan.window_begin)

    def _last_words(self) -> set[str]:
        newest: dict[tuple[str, str, str], str] = {}
        for fact in facts(self._vault, self._dataset, CAPTURE, end=self._plan.window_begin):
            chain = tuple(str(fact.body.get(part)) for part in ("system_id", "timeline", "begin"))
            newest[chain[0], chain[1], chain[2]] = str(fact.key)
        return set(newest.values())

    # -- locks ------------------------------------------------------------------------------------------------------

    def _take(self, stage: str, names: Iterable[Name], *, before: datetime) -> None:
        """Of these, all that were put before a moment and whose lock is over. Raises EnoughError at the limit."""
        old = (name for name in names if _put_at(name) < before)
        while chunk := list(islice(old, _CHUNK)):
            self._plan.rows += self._unlocked(stage, chunk)
            if len(self._plan.rows) >= self._limit:
                raise EnoughError

    def _unlocked(self, stage: str, names: list[Name]) -> list[Doomed]:
        """Rows for those of which no version is locked; the others are counted, and none is chosen twice."""
        names = [name for name in names if hash(name.text) not in self._chosen]
        rows = []
        for name, until in zip(names, self._locked_untils(names), strict=True):
            if hash(name.text) in self._held:
                self._plan.held += 1
            elif until is not None and until > self._plan.now:
                self._locked[hash(name.text)] = until
                self._plan.locked += 1
                self._plan.next_at = min(until, self._plan.next_at or until)
            elif name.key is not None:
                self._chosen.add(hash(name.text))
                ids = tuple(row.version_id for row in (*name.versions, *name.markers))
                rows.append(Doomed(name.key, ids, stage, sum(row.size_bytes for row in name.versions)))
        return rows

    def _locked_untils(self, names: list[Name]) -> list[datetime | None]:
        if len(names) == 1:  # mostly it is one: a thread would take longer to start than to look
            return [self._locked_until(names[0])]
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="locks") as pool:
            return list(pool.map(self._locked_until, names))

    def _locked_until(self, name: Name) -> datetime | None:
        known = self._locked.get(hash(name.text))
        if known is not None and known > self._plan.now:
            return known
        heads = [self._vault.store.head(name.text, row.version_id or None) for row in name.versions]
        covered = name.key is not None and any(hold.covers(name.key, _put_at(name)) for hold in self._holds)
        if covered or any(head.held for head in heads if head):  # the fact keeps what nobody has flagged yet
            self._held.add(hash(name.text))
        return max((head.lock.retain_until for head in heads if head and head.lock), default=None)

    def _names(self, kind: str, stream: Stream | None = None) -> Iterator[Name]:
        prefix = (
            prefix_of(self._vault.estate, self._dataset, kind)
            if stream is None
            else prefix_of(self._vault.estate, self._dataset, kind, stream.system_id, stream.timeline)
        )
        return (name for name in self._vault.names(prefix) if name.key is not None and name.versions)


def _window_begin(vault: Vault, dataset: str, holds: Sequence[Hold], now: datetime) -> datetime:
    """Where the recovery window begins: earlier than the policy's days where a legal hold wants what lies before."""
    begin, held = now - vault.locks.kept_for(dataset), earliest_held(holds)
    return begin if held is None else min(begin, held)


def _before(backup: BaseBackup) -> str:
    return f"{backup.key.place}{backup.key.first:016X}"


def _put_at(name: Name) -> datetime:
    """When the newest version was put: nobody is in a hurry with what somebody touched lately."""
    return max(row.modified_at for row in name.versions)


def _first(name: Name) -> int:
    return 0 if name.key is None else name.key.first


def _last(name: Name) -> int:
    return 0 if name.key is None else name.key.last


def _is_of(row: Doomed, stream: Stream) -> bool:
    return row.stage == OLD_FULL and (row.key.system_id, row.key.timeline) == (stream.system_id, stream.timeline)
