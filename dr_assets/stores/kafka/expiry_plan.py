"""What of a cluster's packs may be removed: what no kept recovery point needs and whose lock is over.

What belongs here: choosing. What stays out: removing, lists, words and approvals, which all kinds of stores share
(stores/postgres/expire.py).

Packs go from the front of their chain only, so that what is left is a chain still; where it begins then is in the
expiry's facts. What a restore to the begin of the window needs stays: the newest table of all streams from before it,
of a topic what its log still held then, of a compacted one all since the newest export began that was whole by then.
The window is reckoned from the newest pack: when a capture stands still, nothing runs out.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dr_assets.stores.kafka.capture_facts import CAPTURE, TIMELINE, latest_anchor
from dr_assets.stores.kafka.catalogue import catalogued
from dr_assets.stores.kafka.expired import begin_on_record
from dr_assets.stores.kafka.resume import ChainEnd, find_chain_end
from dr_assets.stores.kafka.survey import TOPICS
from dr_assets.stores.postgres.expiry_plan import EXPIRY_RECORD, FACT, ExpiryPlan, Planner
from dr_assets.stores.postgres.full_put import Stream as Place
from dr_assets.vault.chain import resolve
from dr_assets.vault.expiry_list import EXPIRY, EXPIRY_LIST
from dr_assets.vault.facts import SYSTEM_ID, facts
from dr_assets.vault.format.keys import PACKS, ObjectKey, fact_stream, prefix_of
from dr_assets.vault.format.pack import Slice, Stream
from dr_assets.vault.format.pack_list import PACK_LIST, PackRow
from dr_assets.vault.inventory import INVENTORY

OLD_PACK: Final = "pack before all that the recovery window needs"
OLD_CATALOGUE: Final = "catalogue of packs before all that the recovery window needs"
_PUT_LATE: Final = timedelta(hours=1)
_REPEATED_FACTS: Final = (INVENTORY, EXPIRY)  # what a survey sealed is needed as of then, and is few


@dataclass(slots=True)
class _Known:
    """A stream up to the begin of the window. `live` are its slices that its log still held, oldest first."""

    first: int
    is_complete: bool = False
    log_start: int = 0
    live: deque[tuple[int, int]] = field(default_factory=deque)

    def add(self, pack: int, each: Slice) -> None:
        """The next slice."""
        self.is_complete = self.is_complete or each.next >= each.high_watermark
        self.live.append((pack, each.next))
        self.starts_at(each.log_start)

    def starts_at(self, log_start: int) -> None:
        """What the leader said last."""
        self.log_start = max(self.log_start, log_start)
        while self.live and self.live[0][1] <= self.log_start:
            self.live.popleft()


@dataclass(slots=True)
class _Needs:
    """What was there when the window began: gathered pack by pack from the front of a chain."""

    streams: dict[Stream, _Known] = field(default_factory=dict)
    carrier: PackRow | None = None
    alive: frozenset[Stream] = frozenset()

    def take(self, pack: PackRow) -> None:
        """The next pack that was cut before the window."""
        number = pack.key.first
        for row in pack.index.table or ():
            known = self.streams.setdefault(row.stream, _Known(number))
            known.is_complete = known.is_complete or row.complete
        for each in pack.index.slices:
            self.streams.setdefault(each.stream, _Known(number)).add(number, each)
        for row in pack.index.table or ():
            self.streams[row.stream].starts_at(row.log_start)
        if pack.index.table is not None:
            self.carrier, self.alive = pack, frozenset(row.stream for row in pack.index.table)

    def floor(self, plain: frozenset[str]) -> int | None:
        """The first pack that is needed; None where nothing carries the window. `plain`: topics without compaction."""
        if self.carrier is None:
            return None
        needed = {self.carrier.key.first}
        for where in {stream[:2] for stream in self.alive}:
            own = [known for stream, known in sorted(self.streams.items()) if stream[:2] == where]
            newest_whole = max((at for at, known in enumerate(own) if known.is_complete), default=0)
            if where[0] in plain:
                needed |= {known.live[0][0] for known in own[newest_whole:] if known.live}
            else:
                needed.add(own[newest_whole].first)
        return min(needed)


class PackPlanner(Planner):
    """As the database's planner; only what is kept differs."""

    def plan(self) -> ExpiryPlan:
        """As the database's, with where each chain begins once the list is worked off."""
        plan = super().plan()
        for row in plan.rows:
            if row.stage == OLD_PACK:
                plan.begins[row.key.place] = max(plan.begins.get(row.key.place, 0), row.key.last)
        return plan

    def _choose(self) -> None:
        vault, plan = self._vault, self._plan
        anchor = latest_anchor(vault, self._dataset)
        if anchor is None:
            return
        level = vault.store.list_level(prefix_of(vault.estate, self._dataset, PACKS))
        systems = sorted(folder.rstrip("/").rpartition("/")[2] for folder in level.folders)
        floor, carrier = self._floor(anchor.system_id)
        floors = {anchor.system_id: floor}
        for system_id in systems:
            if system_id != anchor.system_id:
                floors[system_id] = self._floor_of_left(system_id, is_carried=carrier is not None)
        plan.kept = () if carrier is None else (carrier,)
        for system_id in floors:
            if recorded := begin_on_record(vault, self._dataset, system_id):
                plan.begins[prefix_of(vault.estate, self._dataset, PACKS, system_id, TIMELINE)] = recorded
        for stage, stream in ((OLD_PACK, PACKS), (OLD_CATALOGUE, PACK_LIST)):
            for system_id, number in floors.items():
                self._below(stage, stream, system_id, number)
        self._old_facts()

    def _below(self, stage: str, stream: str, system_id: str, floor: int) -> None:
        names = self._names(stream, Place(self._dataset, system_id, TIMELINE))
        below = (name for name in names if name.key is not None and name.key.last <= floor)
        self._take(stage, below, before=self._plan.window_begin)

    def _floor(self, system_id: str) -> tuple[int, PackRow | None]:
        """The first pack that is needed of a chain (what is on record where nothing tells), and what carries that."""
        vault, plan = self._vault, self._plan
        recorded = begin_on_record(vault, self._dataset, system_id)
        end = find_chain_end(vault, self._dataset, system_id)
        last = None if end is None else self._end_at(end)
        if last is None:
            return recorded, None
        begin = plan.window_begin - max(timedelta(0), plan.now - last)
        objects = [
            obj
            for obj in vault.objects(self._dataset, PACKS, system_id=system_id, timeline=TIMELINE)
            if obj.key.first >= recorded and obj.modified_at < begin + _PUT_LATE
        ]
        if not objects:
            return recorded, None
        known = catalogued(vault, self._dataset, system_id, objects)
        chain = resolve(objects, known.link, objects[0].key.first, strict=True)
        if chain.holes and known.link(chain.segments[-1]).end_at < begin:  # else it was put late
            plan.troubles.append(f"{PACKS} of {system_id}: a hole at {chain.end}: nothing behind it goes")
        needs = _Needs()
        for row in known.rows([obj for obj in chain.segments if known.link(obj).end_at < begin]):
            needs.take(row)
        floor = needs.floor(self._plain(begin))
        return max(recorded, floor or 0), needs.carrier

    def _floor_of_left(self, system_id: str, *, is_carried: bool) -> int:
        """Of a cluster that is captured no more: all of it once the window lies in the next one's packs."""
        end = find_chain_end(self._vault, self._dataset, system_id)
        last = None if end is None else self._end_at(end)
        if end is None or last is None or not is_carried or last >= self._plan.window_begin:
            return begin_on_record(self._vault, self._dataset, system_id)
        return end.end

    def _end_at(self, end: ChainEnd) -> datetime | None:
        """When the last pack was cut."""
        key = None if end.segment is None else ObjectKey.parse(end.segment)
        return None if key is None else self._vault.header(self._vault.find(key)).end_at

    def _plain(self, begin: datetime) -> frozenset[str]:
        """Topics of which every survey since the begin of the window says that nothing compacts them."""
        policies: dict[str, set[str]] = {}
        for fact in facts(self._vault, self._dataset, TOPICS):
            listed = fact.body.get("topics")
            if fact.at < begin:
                policies = {}
            for raw in listed.values() if isinstance(listed, dict) else ():
                if isinstance(raw, dict):
                    policies.setdefault(str(raw.get("topic_id")), set()).add(str(raw.get("cleanup_policy", "")))
        return frozenset(topic for topic, said in policies.items() if said <= {"delete"})

    def _old_facts(self) -> None:
        """Those that only repeat what newer ones say; of captures, the newest word on every cluster stays."""
        own = Place(self._dataset, SYSTEM_ID, 0)
        newest = {
            str(fact.body.get("system_id")): str(fact.key)
            for fact in facts(self._vault, self._dataset, CAPTURE, end=self._plan.window_begin)
        }
        said = list(self._names(fact_stream(CAPTURE), own))[:-1]
        last = set(newest.values())
        self._take(FACT, (name for name in said if name.text not in last), before=self._plan.window_begin)
        for kind in _REPEATED_FACTS:
            self._take(FACT, list(self._names(fact_stream(kind), own))[:-1], before=self._plan.window_begin)
        self._take(EXPIRY_RECORD, self._names(EXPIRY_LIST, own), before=self._plan.window_begin)
