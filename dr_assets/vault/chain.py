"""Which pieces of a stream form the longest valid chain from a position, and which are left over.

What belongs here: pure judgement over listed names and, only where names leave a choice, headers. What stays out:
reading either.

A writer that crashes with puts in flight leaves pieces beyond a hole, and a late put may land after its successor
went on from before it. So several pieces may begin, or end, at one position. Two pieces belong together when one ends
where the other begins and, where there is a choice, the later one's `previous` is the digest of the earlier one's
header. Of all chains the one that reaches farthest is taken; then the higher writer epoch, then the smaller digest.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from dr_assets.estate.errors import VaultError
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import StoredObject


class Link(Protocol):
    """What of a header joins pieces."""

    @property
    def digest(self) -> str:
        """Of the header itself."""
        ...

    @property
    def previous(self) -> str | None:
        """The digest of the header before it; None where a chain begins."""
        ...

    @property
    def writer_epoch(self) -> int:
        """Rises with every start of a writer."""
        ...


HeaderOf = Callable[[StoredObject], Link]
_Order = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Hole:
    """Positions [begin, end) that no piece covers, though there are pieces beyond."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Chain:
    """`segments` cover [begin, end) without a gap; the first may begin before `begin`.

    `orphans` lie beyond `end` and are never used; `forks` compete with the chain below `end` and lost; `unreadable`
    are pieces whose header could not be believed where it was needed, with the reason.
    """

    segments: tuple[StoredObject, ...]
    begin: int
    end: int
    holes: tuple[Hole, ...]
    orphans: tuple[StoredObject, ...]
    forks: tuple[StoredObject, ...]
    unreadable: tuple[tuple[StoredObject, str], ...] = ()


def resolve(objects: Iterable[StoredObject], header_of: HeaderOf, begin: int, *, strict: bool = False) -> Chain:
    """The longest valid chain from position `begin` over the pieces of one stream, system and timeline.

    Anybody who may write can put rubbish under a fitting name. So the chain's last piece is always believed by its
    header, never by its name. `strict` reads every header and joins no two pieces of which the later one doesn't name
    the earlier: a writer must resume by the strict chain, since a piece that a crashed writer left behind may fit by
    accident. A reader, who opens every piece anyway, may take the lazy one; it never ends before the strict one.
    ValueError when pieces of several streams are mixed: their positions mean different things. What `header_of`
    raises is passed on if the store can't be read, and makes the piece unreadable otherwise.
    """
    pieces = sorted((obj for obj in objects if obj.key.last > begin), key=_order)
    if len({obj.key.place for obj in pieces}) > 1:
        raise ValueError("pieces of several streams, systems or timelines")
    headers = _Headers(header_of)
    if strict:
        pieces = [obj for obj in pieces if headers.of(obj) is not None]
    segments = _believable(pieces, headers, begin, strict=strict)
    end = segments[-1].key.last if segments else begin
    used = set(map(_order, segments)) | headers.unreadable.keys()
    rest = [obj for obj in pieces if _order(obj) not in used]
    orphans = tuple(obj for obj in rest if obj.key.first >= end)
    return Chain(
        segments=tuple(segments),
        begin=begin,
        end=end,
        holes=_holes(end, orphans),
        orphans=orphans,
        forks=tuple(obj for obj in rest if obj.key.first < end),
        unreadable=tuple(headers.unreadable.values()),
    )


def _believable(pieces: list[StoredObject], headers: "_Headers", begin: int, *, strict: bool) -> list[StoredObject]:
    """The longest chain whose last piece has a header to believe; what has none is left out, the rest judged anew."""
    while True:
        segments = _Graph(pieces, headers, strict=strict).longest_from(begin)
        if not segments or headers.of(segments[-1]) is not None:
            return segments
        for obj in reversed(segments):
            if headers.of(obj) is not None:
                break
        pieces = [obj for obj in pieces if _order(obj) not in headers.unreadable]


def _order(obj: StoredObject) -> _Order:
    return obj.key.first, obj.key.last, obj.key.digest


def _holes(end: int, orphans: tuple[StoredObject, ...]) -> tuple[Hole, ...]:
    """What is missing between the chain's end and each island of pieces beyond it."""
    holes: list[Hole] = []
    for obj in orphans:
        if obj.key.first > end:
            holes.append(Hole(end, obj.key.first))
        end = max(end, obj.key.last)
    return tuple(holes)


class _Headers:
    """Headers, each read at most once; `unreadable` collects those that can't be believed."""

    def __init__(self, header_of: HeaderOf) -> None:
        self.unreadable: dict[_Order, tuple[StoredObject, str]] = {}
        self._header_of = header_of
        self._known: dict[_Order, tuple[str, str | None, int]] = {}

    def of(self, obj: StoredObject) -> tuple[str, str | None, int] | None:
        """Digest, `previous` and writer epoch; None if the header can't be believed."""
        name = _order(obj)
        if name not in self._known and name not in self.unreadable:
            try:
                header = self._header_of(obj)
            except VaultError as error:
                if error.code in STORE_AWAY:
                    raise
                self.unreadable[name] = (obj, str(error))
            else:
                self._known[name] = (header.digest, header.previous, header.writer_epoch)
        return self._known.get(name)


class _Graph:
    """Pieces as nodes, "continues" as edges; unless `strict`, headers are read only where names leave a choice."""

    def __init__(self, pieces: list[StoredObject], headers: _Headers, *, strict: bool) -> None:
        self.pieces = pieces
        self._headers = headers
        self._strict = strict
        self._starts: defaultdict[int, list[StoredObject]] = defaultdict(list)
        self._ends: defaultdict[int, int] = defaultdict(int)
        for obj in pieces:
            self._starts[obj.key.first].append(obj)
            self._ends[obj.key.last] += 1
        self._reach: dict[_Order, int] = {}
        self._next: dict[_Order, StoredObject | None] = {}

    def longest_from(self, begin: int) -> list[StoredObject]:
        """The best chain whose first piece holds `begin`."""
        for obj in reversed(self.pieces):  # a successor begins later, so it is known before it is asked for
            later = self._starts.get(obj.key.last, [])
            successor = self._best([other for other in later if self._continues(obj, other)])
            self._next[_order(obj)] = successor
            self._reach[_order(obj)] = self._reach[_order(successor)] if successor else obj.key.last
        step = self._best([obj for obj in self.pieces if obj.key.first <= begin])
        chain: list[StoredObject] = []
        while step is not None:
            chain.append(step)
            step = self._next[_order(step)]
        return chain

    def _best(self, candidates: list[StoredObject]) -> StoredObject | None:
        """Longest reach, then higher epoch, then smaller digest."""
        if not candidates:
            return None
        farthest = max(self._reach[_order(obj)] for obj in candidates)
        tied = [obj for obj in candidates if self._reach[_order(obj)] == farthest]
        if len(tied) == 1:
            return tied[0]
        return min(tied, key=lambda obj: (-self._epoch(obj), obj.key.digest))

    def _continues(self, earlier: StoredObject, later: StoredObject) -> bool:
        at = later.key.first
        if not self._strict and len(self._starts[at]) == 1 and self._ends[at] == 1:
            return True  # no choice: whoever reads the pieces verifies them
        first, second = self._headers.of(earlier), self._headers.of(later)
        if first is None or second is None:
            return False
        return second[1] is None or second[1] == first[0]

    def _epoch(self, obj: StoredObject) -> int:
        header = self._headers.of(obj)
        return -1 if header is None else header[2]
