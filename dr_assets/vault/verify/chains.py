"""Streams of contiguous pieces: holes where something was stored, orphans where nothing was acknowledged.

What belongs here: watching one place's pieces go by in order, in bounded memory, and the judgement at the end. What
stays out: what was said of the place (said.py).

A hole is damage when something signed says that the vault had everything up to beyond it: a capture's fact
(`stored`), or a header's `acknowledged_to`. Where nothing was ever said, a hole is damage too. Only pieces beyond
everything that was said are what a crash leaves behind: orphans.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.vault.chain import Chain, Hole, resolve
from dr_assets.vault.prefix import ACKNOWLEDGED_TO
from dr_assets.vault.retention import LockRules
from dr_assets.vault.vault import StoredObject
from dr_assets.vault.verify.examine import Examined
from dr_assets.vault.verify.report import Finding
from dr_assets.vault.verify.said import Said, position_of

CHUNK: Final = 1000
SHOWN_ORPHANS: Final = 1000


@dataclass(frozen=True, slots=True)
class _Link:
    """As `chain.Link`, without the rest of the header."""

    digest: str
    previous: str | None
    writer_epoch: int


@dataclass(slots=True)
class _Island:
    """Positions [begin, end) that one chain covers, `before` it a hole; `orphans` names them if they are left over.

    `continues` is what the first piece names as the one before it.
    """

    begin: int
    end: int
    before: Hole | None
    continues: str | None = None
    orphans: list[Finding] = field(default_factory=list)

    def note(self, chain: Chain) -> None:
        """The chain goes on to here; what it begins with may have been carried over from before."""
        known, self.end = self.end, chain.end
        new = [obj for obj in chain.segments if obj.key.last > known]
        for obj in new[: SHOWN_ORPHANS - len(self.orphans)]:
            detail = "beyond the chain's end, never acknowledged, unused"
            self.orphans.append(Finding("orphan", str(obj.key), obj.version_id, detail))


class ChainWatch:
    """One place's pieces, added in the order of their names, judged at the end.

    Pieces are settled a chunk at a time. A chunk ends where nothing overlaps and only one piece ends, so that whatever
    comes later can't change what was settled; the piece that ends there is carried over to vouch for the next.
    """

    def __init__(self, place: str, said: Said) -> None:
        self.place = place
        self.said = said
        self._islands: list[_Island] = []
        self._forks: list[Finding] = []
        self._buffer: list[StoredObject] = []
        self._links: dict[str, _Link] = {}
        self._end = 0
        self._ending_there = 0
        self._carried: StoredObject | None = None

    def add(self, item: Examined) -> None:
        """The next piece; it is whole and believed."""
        obj, header = item.obj, item.header
        assert obj is not None  # noqa: S101 - for the type checker: only whole pieces are added
        assert header is not None  # noqa: S101 - as above
        self.said.note_stored(position_of(header.extra.get(ACKNOWLEDGED_TO)))
        key = obj.key
        if self._buffer and key.first >= self._end:
            apart = key.first > self._end
            if apart or (self._ending_there == 1 and len(self._buffer) >= CHUNK):
                self._settle()
        self._buffer.append(obj)
        self._links[key.digest] = _Link(item.header_sha256, header.previous, header.writer_epoch)
        if key.last > self._end:
            self._end, self._ending_there = key.last, 0
        self._ending_there += key.last == self._end

    def findings(self, rules: LockRules, now: datetime) -> Iterator[Finding]:
        """All that is wrong with the place, once everything was added and everything said."""
        if self._buffer:
            self._settle()
        began = self.said.began(rules.length(self.place.split("/")[1], "wal"), now)
        if began is not None and not self._islands and self.said.stored is not None:
            yield from self._lost(began, self.said.stored, "the whole chain is gone")
        if began is not None and self._islands and began < self._islands[0].begin:
            self._islands[0].before = Hole(began, self._islands[0].begin)
        yield from self._forks
        end = None
        for number, island in enumerate(self._islands):
            yield from self._disjointed(island)
            if island.before is not None:
                left_over, holes = self._judge_before(island.before)
                if left_over:
                    for orphan in self._islands[number:]:
                        yield from orphan.orphans
                    return
                yield from holes
            end = island.end
        if end is not None and self.said.stored is not None:
            yield from self._lost(
                end, self.said.stored, f"ends at {end:X}, all up to {self.said.stored:X} was acknowledged once"
            )

    def _lost(self, begin: int, end: int, detail: str) -> Iterator[Finding]:
        """What of the end of a chain nothing else accounts for."""
        for hole in self.said.covered.missing_of(Hole(begin, end)) if begin < end else ():
            yield Finding("hole", self._name(hole.begin, hole.end), None, detail)

    def _disjointed(self, island: _Island) -> Iterator[Finding]:
        """Micro-segments behind a full segment have to continue what that holds."""
        known, at = self.said.joints.get(island.begin), island.begin
        if known is not None and island.continues not in known and not self.said.covered.holds(at, at + 1):
            detail = "the piece that begins here does not continue the full segment that ends here"
            yield Finding("hole", self._name(island.begin, island.begin), None, detail)

    def _judge_before(self, hole: Hole) -> tuple[bool, list[Finding]]:
        """Whether what lies beyond is only left over; else what of the hole is missing."""
        if hole.begin >= hole.end:
            left_over, finding = self._judge_hole(hole)
            return left_over, [finding]
        judged = [self._judge_hole(missing) for missing in self.said.covered.missing_of(hole)]
        return any(left_over for left_over, _ in judged), [finding for _, finding in judged]

    def _settle(self) -> None:
        """Resolve the buffer, island by island; keep only what the next chunk must continue."""
        carried, pieces = self._carried, self._buffer
        begin = pieces[0].key.first
        continues = carried is not None
        while True:
            chain = resolve(pieces, lambda obj: self._links[obj.key.digest], begin, strict=True)
            self._note(chain, begin, continues=continues)
            beyond = [obj.key.first for obj in chain.orphans]
            if not beyond:
                break
            begin, continues = min(beyond), False
        last = chain.segments[-1] if chain.segments else None
        keeps = last is not None and last.key.last == self._end
        self._carried = last if keeps else None
        self._buffer = [last] if keeps and last is not None else []
        self._links = {obj.key.digest: self._links[obj.key.digest] for obj in self._buffer}

    def _note(self, chain: Chain, begin: int, *, continues: bool) -> None:
        if not continues:
            before = Hole(self._islands[-1].end, begin) if self._islands else None
            first = self._links[chain.segments[0].key.digest].previous if chain.segments else None
            self._islands.append(_Island(begin, begin, before, first))
        self._islands[-1].note(chain)
        self._forks += [
            Finding("fork", str(obj.key), obj.version_id, "competes with the chain and lost")
            for obj in chain.forks
            if obj.key.first >= begin
        ]

    def _judge_hole(self, hole: Hole) -> tuple[bool, Finding]:
        """Whether what lies beyond is only left over; else what the hole is."""
        name = self._name(hole.begin, hole.end)
        if hole.begin < hole.end and self.said.is_gap(hole):
            return False, Finding("gap", name, None, "was never captured, as a gap fact says")
        if not self.said.is_damage(hole):
            return True, Finding("orphan", name)
        if hole.begin >= hole.end:
            return False, Finding("unvouched", name, None, "the piece that begins here continues another one")
        detail = f"positions {hole.begin:X} to {hole.end:X} are gone, pieces beyond are there"
        return False, Finding("hole", name, None, detail)

    def _name(self, begin: int, end: int) -> str:
        """The name of what would lie there, but for its digest."""
        return f"{self.place}{begin:016X}-{end:016X}-"
