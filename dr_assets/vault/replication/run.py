"""One pass: everything that the source holds is proven in the other region, or named.

What belongs here: the order of a pass, what it skips, samples and puts on record. What stays out: judging one object
(proof.py), copying one (copying.py), when to pass (cli/, components/).

A pass lists both vaults and asks for nothing that it proved before, as long as both listings are what they were then.
It keeps the state of its places in memory, and of names a stretch at most. On the way it puts its state on record, so
that whoever goes on after a kill does not begin anew. Passes at once prove and put the same: nothing breaks by it.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.keys import ObjectKey, fact_stream
from dr_assets.vault.replication.copying import Copier
from dr_assets.vault.replication.ordered import in_order
from dr_assets.vault.replication.overlaid import Overlaid
from dr_assets.vault.replication.proof import Left, Proven, Unproven, Verdict, prove
from dr_assets.vault.replication.remembered import Stretch, Stretches, total_of, value_of
from dr_assets.vault.replication.routes import SHARED
from dr_assets.vault.replication.standing import (
    DATASET,
    SHOWN_UNPROVEN,
    Named,
    PlaceStanding,
    Standing,
    replication_kind,
    standing,
)
from dr_assets.vault.replication.walk import Pair, Place, pairs, places
from dr_assets.vault.vault import Vault

SETTLED: Final = timedelta(seconds=60)  # puts run in parallel: a name may still come before one that is there
RECORD_EVERY: Final = timedelta(minutes=10)
HOLD_TAKES: Final = timedelta(hours=1)  # until all that a hold covers is flagged
CLOCK_SLACK: Final = timedelta(seconds=15)  # facts are dated by their writers' clocks
WORKERS: Final = 16
SAMPLES: Final = 16

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOLDS: Final = fact_stream("legal_hold")

Listener = Callable[["Tally"], None]


@dataclass(frozen=True, slots=True)
class Options:
    """`copy`: bring there what lacks, as our own replicator. `full`: go through all names, else only what is new.

    `samples`: how many of those proven before are read in full once more, in a full pass. `record`: put the standing
    on record, for which the source is opened with a signing key.
    """

    copy: bool = False
    full: bool = True
    samples: int = SAMPLES
    record: bool = True
    workers: int = WORKERS


@dataclass(slots=True)
class Tally:
    """What a pass did so far; counts of objects, `copied_bytes` of sealed bytes."""

    listed: int = 0
    asked: int = 0
    copied: int = 0
    copied_bytes: int = 0
    extended: int = 0
    sampled: int = 0
    strangers: int = 0
    unproven: int = 0

    def counts(self) -> dict[str, int]:
        """As a fact holds them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Pass:
    """A finished pass: how the replica stands, and what was done. `recent` spares the next one in this process."""

    standing: Standing
    tally: Tally
    recent: Mapping[str, tuple[int, datetime | None]] = field(default_factory=dict, repr=False)


def replicate(
    source: Vault,
    replica: Vault,
    datasets: tuple[str, ...],
    options: Options | None = None,
    *,
    before: Pass | None = None,
    listener: Listener | None = None,
) -> Pass:
    """Prove (and with `copy` bring) everything of `datasets`, of what the estate shares and of the log.

    `before` is this process's pass before this one; without it the newest fact is asked, if it shall record. Raises
    VaultError when one of the stores can't be read or written, PolicyError `vault.read_only` without a signing key
    when it shall record.
    """
    return _Pass(source, replica, datasets, options or Options(), before, listener).run()


@dataclass(frozen=True, slots=True)
class _Known:
    """A stretch of which both listings are as they were when it was proven."""

    stretch: Stretch


_Step = _Known | Pair


class _Pass:
    """One run of `replicate`."""

    def __init__(
        self,
        source: Vault,
        replica: Vault,
        datasets: tuple[str, ...],
        options: Options,
        before: Pass | None,
        listener: Listener | None,
    ) -> None:
        self._source = source
        self._replica = replica
        self._datasets = tuple(dict.fromkeys((*datasets, *SHARED)))
        self._options = options
        self._listener = listener
        self._tally = Tally()
        self._recent_before = {} if before is None else before.recent
        self._recent: dict[str, tuple[int, datetime | None]] = {}
        self._known = None if before is None else before.standing
        if before is None and self._options.record:
            self._known = standing(source, replica.name)
        self._suspects = {each.name for each in self._known.unproven if each.why == "rotten"} if self._known else set()
        self._places: dict[str, PlaceStanding] = {}
        self._unproven: list[Named] = []
        self._anew = self._held_since()
        self._overlaid = Overlaid(source)
        self._copier = Copier(source.store, replica.store, source.clock) if options.copy else None
        self._now = source.clock()
        self._recorded_at = self._now
        stretches = sum(len(place.stretches) for place in self._known_places.values())
        self._odds = options.samples / max(1, stretches)

    @property
    def _known_places(self) -> Mapping[str, PlaceStanding]:
        return {} if self._known is None else self._known.places

    @property
    def _is_full(self) -> bool:
        return self._options.full or self._known is None or self._known.full_at is None

    def _held_since(self) -> frozenset[str]:
        """Datasets of which holds were placed or released of late: their objects are compared anew. By names alone.

        A hold is on record before its objects are flagged, so a full pass looks back farther than to the one before.
        """
        if self._known is None or self._known.full_at is None:
            return frozenset()
        since = self._known.full_at - HOLD_TAKES if self._is_full else self._known.as_of - CLOCK_SLACK
        begin = int((since - _EPOCH) / timedelta(microseconds=1))
        return frozenset(
            name
            for name in self._datasets
            if any(self._source.objects(name, _HOLDS, system_id="0", timeline=0, start_after_position=begin))
        )

    def run(self) -> Pass:
        """Place by place; then the word of it."""
        # Stores tell whole seconds: of the second that is not over, a fact could be listed and what it claims not.
        as_of = self._source.store.now() - timedelta(seconds=1)
        self._now = self._source.clock()
        with ThreadPoolExecutor(self._options.workers, thread_name_prefix="replicate") as pool:
            for place in places(self._source.store, self._source.estate, self._datasets):
                self._places[place.prefix] = self._go_through(pool, place, as_of)
        full_at = as_of if self._is_full or self._known is None else self._known.full_at
        done = Standing(
            self._replica.name, as_of, full_at, self._copier is not None, self._places, tuple(self._unproven),
            self._tally.counts(),
        )  # fmt: skip
        self._record(done)
        return Pass(done, self._tally, self._recent)

    def _go_through(self, pool: ThreadPoolExecutor, place: Place, as_of: datetime) -> PlaceStanding:
        known = self._known_places.get(place.prefix, PlaceStanding(place.dataset))
        is_anew = place.dataset in self._anew
        start = "" if self._is_full or is_anew or not place.resumes else known.open_from
        carried = [stretch for stretch in known.stretches if stretch.last <= start]
        ahead = [] if is_anew else [stretch for stretch in known.stretches if stretch.last > start]
        found = _Found(place, carried, start, known.proven_to if start else None)
        steps = self._steps(place, ahead, start, as_of)
        for step, verdict in in_order(pool, steps, self._work, self._weight):
            if isinstance(step, _Known):
                found.note_known(step.stretch)
            else:
                self._note(found, step, verdict, as_of)
            self._tell(found, ahead)
        return found.standing()

    # -- what is to be asked ----------------------------------------------------------------------------------------

    def _steps(self, place: Place, ahead: list[Stretch], start: str, as_of: datetime) -> Iterator[_Step]:
        """Stretches that stand, and every other pair, in order; of names, those of one stretch are in memory."""
        todo = list(reversed(ahead))
        inside: list[Pair] = []
        after = f"{place.prefix}{start}" if start else ""
        for listed in pairs(self._source.store, self._replica.store, place, after, as_of):
            self._tally.listed += 1
            pair = self._overlaid.settled(listed)
            if pair is None:
                self._tally.strangers += 1
                continue
            name = pair.text.removeprefix(place.prefix)
            while todo and name > todo[-1].last:
                yield from self._settle(todo.pop(), inside)
                inside = []
            if todo and name >= todo[-1].first:
                inside.append(pair)
                if len(inside) > todo[-1].count:  # more than were proven: it can't stand
                    yield from inside
                    inside = []
                    todo.pop()
            else:
                yield pair
        while todo:
            yield from self._settle(todo.pop(), inside)
            inside = []

    def _settle(self, stretch: Stretch, inside: list[Pair]) -> Iterator[_Step]:
        stands = len(inside) == stretch.count and total_of(inside) == stretch.total
        if not inside:
            return
        if not stands or stretch.is_due(self._now) or not self._sample(inside):
            yield from inside
        else:
            yield _Known(stretch)

    def _sample(self, inside: list[Pair]) -> bool:
        """Whether one of these, drawn by chance, is still there to the byte; true as well if none was drawn."""
        if not self._is_full or secrets.randbelow(1 << 20) >= self._odds * (1 << 20):
            return True
        drawn = secrets.choice(inside)
        self._tally.sampled += 1
        if isinstance(prove(self._source.store, self._replica.store, drawn, self._now, deep=True), Proven):
            return True
        self._suspects.add(drawn.text)
        return False

    # -- asking -----------------------------------------------------------------------------------------------------

    def _weight(self, step: _Step) -> int:
        """How many bytes it may take to judge it."""
        if isinstance(step, _Known):
            return 0
        return step.size_bytes if self._copier is not None else step.size_bytes // WORKERS

    def _work(self, step: _Step) -> Verdict | None:
        if isinstance(step, _Known):
            return None
        value, until = self._recent_before.get(step.text, (0, None))
        if value and value == value_of(step):
            return Proven(step, until)
        verdict = prove(
            self._source.store, self._replica.store, step, self._now,
            deep=step.text in self._suspects, ask=self._copier is None,
        )  # fmt: skip
        if self._copier is not None and isinstance(verdict, Unproven):
            return self._copier.mend(verdict, self._now)
        return verdict

    # -- what came of it --------------------------------------------------------------------------------------------

    def _note(self, found: "_Found", pair: Pair, verdict: Verdict | None, as_of: datetime) -> None:
        self._tally.asked += 1
        if isinstance(verdict, Proven):
            self._tally.copied += verdict.copied_bytes > 0
            self._tally.copied_bytes += verdict.copied_bytes
            self._tally.extended += verdict.extended
            is_settled = pair.put_at <= as_of - SETTLED
            if not is_settled:
                self._recent[pair.text] = value_of(verdict.pair), verdict.locked_until
            found.note_proven(verdict, self._now, is_settled=is_settled)
        elif isinstance(verdict, Unproven):
            self._tally.unproven += 1
            found.note_unproven(pair)
            if len(self._unproven) < SHOWN_UNPROVEN:
                self._unproven.append(Named(pair.text, verdict.why, verdict.detail))
        elif isinstance(verdict, Left):
            self._tally.strangers += 1
            found.note_left()

    def _tell(self, found: "_Found", ahead: list[Stretch]) -> None:
        if self._listener is not None:
            self._listener(self._tally)
        now = self._source.clock()
        if not self._options.record or now - self._recorded_at < RECORD_EVERY:
            return
        # Of a pass that is not over, only what it proved is on record; what it judges stays as it was told before.
        so_far = found.standing()
        rest = (
            [stretch for stretch in ahead if stretch.first > so_far.stretches[-1].last] if so_far.stretches else ahead
        )
        known = self._known_places.get(found.place.prefix, PlaceStanding(found.place.dataset))
        kept = {prefix: self._resumable(prefix, place) for prefix, place in self._places.items()}
        kept[found.place.prefix] = replace(known, stretches=(*so_far.stretches, *rest))
        base = self._known or Standing(self._replica.name, _EPOCH, None, self._copier is not None, {})
        self._record(replace(base, places={**base.places, **kept}))

    def _resumable(self, prefix: str, place: PlaceStanding) -> PlaceStanding:
        known = self._known_places.get(prefix, PlaceStanding(place.dataset))
        return replace(known, stretches=place.stretches)

    def _record(self, told: Standing) -> None:
        if self._options.record:
            record_fact(self._source, DATASET, replication_kind(self._replica.name), told.to_json())
            self._recorded_at = self._source.clock()


class _Found:
    """What a pass finds in one place, name by name in order."""

    def __init__(self, place: Place, carried: list[Stretch], start: str, proven_to: int | None) -> None:
        self.place = place
        self._start = start
        self._stretches = Stretches(carried, goes_on=bool(carried) and carried[-1].last == start)
        self._open_from = start
        self._is_open = False
        self._is_broken = False
        self._proven_to = proven_to
        self._stored_to = proven_to
        self._unsettled = 0
        self._unproven = 0
        self._oldest: datetime | None = None

    def note_known(self, stretch: Stretch) -> None:
        """A stretch that stands."""
        self._stretches.add(stretch)
        self._reach(stretch.last, is_settled=True)

    def note_proven(self, verdict: Proven, now: datetime, *, is_settled: bool) -> None:
        """One name."""
        name = verdict.pair.text.removeprefix(self.place.prefix)
        if is_settled:
            self._stretches.add(Stretch(name, name, 1, value_of(verdict.pair), now, verdict.locked_until))
        else:
            self._stretches.interrupt()
            self._unsettled += 1
        self._reach(name, is_settled=is_settled)

    def note_unproven(self, pair: Pair) -> None:
        """One that is not."""
        self._stretches.interrupt()
        self._is_open = self._is_broken = True
        self._unproven += 1
        self._oldest = min(pair.put_at, self._oldest or pair.put_at)
        if pair.key is not None:
            self._stored_to = max(self._stored_to or 0, pair.key.last)

    def note_left(self) -> None:
        """One that is nobody's concern: it is looked at again in the next full pass."""
        self._stretches.interrupt()

    def standing(self) -> PlaceStanding:
        """So far."""
        return PlaceStanding(
            self.place.dataset, tuple(self._stretches.done), self._open_from, self._stored_to, self._proven_to,
            self._unsettled, self._unproven, self._oldest,
        )  # fmt: skip

    def _reach(self, name: str, *, is_settled: bool) -> None:
        if not is_settled:
            self._is_open = True
        elif not self._is_open:
            self._open_from = name
        end = _end_of(self.place.prefix + name)
        if end is not None:
            self._stored_to = max(self._stored_to or 0, end)
            if not self._is_broken:
                self._proven_to = max(self._proven_to or 0, end)


def _end_of(text: str) -> int | None:
    key = ObjectKey.parse(text)
    return None if key is None else key.last
