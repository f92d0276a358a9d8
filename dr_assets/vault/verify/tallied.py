"""What a verification keeps of much that goes by: names in few bytes, positions as ranges.

What belongs here: these two. What stays out: what is kept in them, and why (rolled.py, beneath.py, said.py).
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from dr_assets.vault.chain import Hole


class HashBag:
    """Hashes of texts, eight bytes each; Python salts them anew in each process, so nobody can prepare collisions."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._is_sorted = True

    def add(self, text: str) -> None:
        """Take one down."""
        self._hashes.append(hash(text))
        self._is_sorted = False

    def __contains__(self, text: str) -> bool:
        """Whether it was added."""
        if not self._is_sorted:
            self._hashes = array("q", sorted(self._hashes))
            self._is_sorted = True
        wanted = hash(text)
        at = bisect_left(self._hashes, wanted)
        return at < len(self._hashes) and self._hashes[at] == wanted

    def __iter__(self) -> Iterator[int]:
        """The hashes."""
        return iter(self._hashes)


@dataclass(slots=True)
class Covered:
    """Positions that something else accounts for; ranges that touch are one."""

    _ranges: list[tuple[int, int]] = field(default_factory=list)

    def add(self, begin: int, end: int) -> None:
        """[begin, end) is accounted for."""
        at = bisect_left(self._ranges, (begin, end))
        while at > 0 and self._ranges[at - 1][1] >= begin:
            at -= 1
        while at < len(self._ranges) and self._ranges[at][0] <= end:
            known = self._ranges.pop(at)
            begin, end = min(begin, known[0]), max(end, known[1])
        insort(self._ranges, (begin, end))

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Begin and end of each range, in order; no two touch."""
        return tuple(self._ranges)

    def holds(self, begin: int, end: int) -> bool:
        """Whether all of [begin, end) is."""
        return not self.missing_of(Hole(begin, end))

    def missing_of(self, hole: Hole) -> list[Hole]:
        """What of `hole` isn't; nothing of an empty one that lies at a covered position."""
        left: list[Hole] = []
        at = hole.begin
        for begin, end in self._ranges:
            if end <= at or begin >= hole.end:
                continue
            if begin > at:
                left.append(Hole(at, begin))
            at = end
        if at < hole.end:
            left.append(Hole(at, hole.end))
        return left
