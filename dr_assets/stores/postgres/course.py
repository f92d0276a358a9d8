"""The WAL that leads on from a base backup, over as many timelines as its way has.

What belongs here: the stored chains of a way, each cut where its timeline was left, joined to one. What stays out:
which way that is (lineage.py), which of it a target needs (clip.py), laying it (lay_wal.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.as_of import stored_wal_as_of
from dr_assets.stores.postgres.full_segments import first_stored
from dr_assets.stores.postgres.history import Leg
from dr_assets.stores.postgres.lay_wal import WalFrame
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.vault.chain import Chain
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.vault import StoredObject, Vault

_FAR: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Stretch:
    """The WAL of one timeline that a restore lays: `pieces` cover `frame`, and may go beyond it at either end."""

    frame: WalFrame
    pieces: tuple[StoredObject, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """`chain` joins the timelines' chains; its last one's holes, orphans and unreadable pieces are told.

    `begins` and `ends` are where each timeline was begun and left, absent for the first one's begin and the last one's
    end, unless what was stored as of then ends within a piece that was put later. `broken` is why the chain doesn't
    lead over a switch behind which more is stored.
    """

    chain: Chain
    begins: Mapping[int, int] = field(default_factory=dict)
    ends: Mapping[int, int] = field(default_factory=dict)
    broken: VaultError | None = None

    def end_of(self, obj: StoredObject) -> int:
        """Behind the last position of this piece that lies on the course."""
        return min(obj.key.last, self.ends.get(obj.key.timeline, _FAR))

    def is_whole(self, obj: StoredObject) -> bool:
        """Whether nothing of this piece lies beyond a switch: else its header speaks of what was abandoned, too."""
        return obj.key.last == self.end_of(obj)

    def plaintexts(self, pieces: Iterable[Opened]) -> Iterator[tuple[int, bytes]]:
        """The bytes that lie on the course, each with its position, from opened pieces in order."""
        position = self.chain.begin
        for piece in pieces:
            first, end = piece.header.first, self.ends.get(piece.header.timeline, _FAR)
            for data in piece.frames:
                kept = data[max(0, position - first) : max(0, end - first)]
                if kept:
                    yield position, kept
                    position += len(kept)
                first += len(data)

    def stretches(self, pieces: Sequence[StoredObject], system_id: str, segment_bytes: int) -> tuple[Stretch, ...]:
        """`pieces`, the first ones of the chain, by timeline."""
        found: list[Stretch] = []
        begin = self.chain.begin
        for timeline in dict.fromkeys(obj.key.timeline for obj in pieces):
            own = tuple(obj for obj in pieces if obj.key.timeline == timeline)
            end = self.end_of(own[-1])
            found.append(Stretch(WalFrame(system_id, timeline, begin, end, segment_bytes), own))
            begin = end
        return tuple(found)


def find_course(
    vault: Vault, dataset: str, system_id: str, legs: Sequence[Leg], begin: int, *, as_of: datetime | None = None
) -> Course:
    """What is stored along `legs` from position `begin` on. Raises VaultError when the store can't be read."""
    chains: list[Chain] = []
    broken: VaultError | None = None
    for index, leg in enumerate(legs):
        chain = _cut(stored_wal_as_of(vault, dataset, system_id, leg.timeline, begin, as_of), leg.end)
        if chain.segments or not index:
            chains.append(chain)
        if leg.end is not None and chain.end >= leg.end:
            begin = leg.end
            continue
        later = [other.timeline for other in legs[index + 1 :]]
        if not chain.segments and chain.orphans:
            later.insert(0, leg.timeline)
        broken = _broken(vault, dataset, system_id, later, chain.end, leg, as_of)
        break
    return Course(
        _join(chains),
        begins={later.timeline: earlier.end for earlier, later in pairwise(legs) if earlier.end is not None},
        ends={leg.timeline: leg.end for leg in legs if leg.end is not None} | _cut_ends(chains),
        broken=broken,
    )


def _cut(chain: Chain, end: int | None) -> Chain:
    """`chain` up to where its timeline was left: what was written to it later is not on the way."""
    if end is None:
        return chain
    segments = tuple(obj for obj in chain.segments if obj.key.first < end)
    if chain.end >= end:
        return replace(chain, segments=segments, end=end, holes=(), orphans=(), unreadable=())
    return replace(
        chain,
        holes=tuple(hole for hole in chain.holes if hole.begin < end),
        orphans=tuple(obj for obj in chain.orphans if obj.key.first < end),
        unreadable=tuple(row for row in chain.unreadable if row[0].key.first < end),
    )


def _cut_ends(chains: Sequence[Chain]) -> dict[int, int]:
    """Where a chain ends within its last piece."""
    lasts = ((chain.segments[-1].key, chain.end) for chain in chains if chain.segments)
    return {key.timeline: end for key, end in lasts if key.last > end}


def _join(chains: Sequence[Chain]) -> Chain:
    last = chains[-1]
    return replace(
        last,
        segments=tuple(obj for chain in chains for obj in chain.segments),
        begin=chains[0].begin,
        forks=tuple(obj for chain in chains for obj in chain.forks),
    )


def _broken(
    vault: Vault, dataset: str, system_id: str, later: Sequence[int], end: int, leg: Leg, as_of: datetime | None
) -> VaultError | None:
    """Why the way ends at `end` though something is stored of a later timeline; None when nothing is."""
    for timeline in later:
        first = first_stored(vault, dataset, system_id, timeline, as_of=as_of)
        if first is not None:
            missing = leg.end if timeline != leg.timeline and leg.end is not None else max(end, first.key.first)
            return VaultError(
                "restore.hole",
                f"the WAL of timeline {leg.timeline} from {format_lsn(end)} to {format_lsn(missing)} is missing, and "
                f"without it nothing leads on to what is stored of timeline {timeline}",
                "run `dr-assets vault verify`; restore from another vault; take a base backup if the source lives; or, "
                f"knowing that later commits are lost, restore to lsn:{format_lsn(end)}",
            )
    return None
