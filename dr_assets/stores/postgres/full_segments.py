"""The WAL of one stream as stored: full segments first, then the micro-segments that continue the last of them.

What belongs here: choosing which pieces of both kinds make the longest chain. What stays out: making fulls
(rollup.py), what they say (vault/full_segment.py), which of the chain a target needs (clip.py).

Any run of micros may stand for a full and the other way round, for each says what comes before and after in terms of
micros. So where a full can't be believed, or is left out, the micros beneath it take its place while they are there.
"""

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from dr_assets.vault.believed import believed
from dr_assets.vault.chain import Chain, Hole, resolve
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import WAL, ObjectKey, prefix_of
from dr_assets.vault.full_segment import FULL, FULL_LIMIT_BYTES, continued_by, continues, joins
from dr_assets.vault.vault import StoredObject, Vault

_READERS: Final = 8
_TAIL_PIECES: Final = 64


def stored_wal(
    vault: Vault,
    dataset: str,
    system_id: str,
    timeline: int,
    begin: int,
    *,
    as_of: datetime | None = None,
    without: Collection[ObjectKey] = (),
) -> Chain:
    """The longest chain from position `begin`; `segments` are fulls and micros, in order, each joined to the next.

    Micros beneath a full are not listed. `without` are pieces that were found damaged when they were read: a full
    among them is replaced by its micros where these are still there. Raises VaultError when the store can't be read.
    """
    stream = _Stream(vault, dataset, system_id, timeline, as_of, frozenset(without))
    walk = _Walk(stream, begin)
    fulls = stream.fulls(begin)
    walk.follow(fulls)
    return walk.tail(fulls)


def micros_beneath(vault: Vault, full: StoredObject, *, as_of: datetime | None = None) -> list[StoredObject]:
    """The micro-segments whose WAL `full` holds, in order; empty when they are not all there any more."""
    key = full.key
    stream = _Stream(vault, key.dataset, key.system_id, key.timeline, as_of, frozenset({key}))
    header = believed(vault.header, full)
    joint = None if header is None else continues(header)
    return stream.micros_between(key.first, key.last, joint) or []


def first_stored(
    vault: Vault, dataset: str, system_id: str, timeline: int, *, as_of: datetime | None = None
) -> StoredObject | None:
    """The piece with the lowest position that can be believed, full or micro; None when nothing is stored."""
    found = [
        obj
        for stream in (FULL, WAL)
        if (obj := _first_believed(vault, dataset, stream, system_id, timeline, as_of)) is not None
    ]
    return min(found, key=lambda obj: obj.key.first, default=None)


def stored_timelines(vault: Vault, dataset: str, system_id: str) -> list[int]:
    """Numbers of the timelines of which WAL is stored in either form, by the folders' names alone."""
    numbers: set[int] = set()
    for stream in (FULL, WAL):
        prefix = prefix_of(vault.estate, dataset, stream, system_id)
        for name in _folders(vault, prefix):
            if len(name) == 8 and not set(name) - set("0123456789ABCDEF"):  # noqa: PLR2004 - as docs/format.md has it
                numbers.add(int(name, 16))
    return sorted(numbers)


def stored_systems(vault: Vault, dataset: str) -> list[str]:
    """Ids of the systems of which WAL is stored in either form, by the folders' names alone."""
    prefixes = [prefix_of(vault.estate, dataset, stream) for stream in (FULL, WAL)]
    return sorted({name for prefix in prefixes for name in _folders(vault, prefix)})


def _folders(vault: Vault, prefix: str) -> list[str]:
    return [folder.rstrip("/").rpartition("/")[2] for folder in vault.store.list_level(prefix).folders]


def _first_believed(
    vault: Vault, dataset: str, stream: str, system_id: str, timeline: int, as_of: datetime | None
) -> StoredObject | None:
    listed = vault.objects(dataset, stream, system_id=system_id, timeline=timeline, as_of=as_of)
    return next((obj for obj in listed if believed(vault.header, obj) is not None), None)


@dataclass(frozen=True, slots=True)
class _Link:
    """As `chain.Link`, in terms of micro-segments for either kind of piece."""

    digest: str
    previous: str | None
    writer_epoch: int


@dataclass(slots=True)
class _Stream:
    """One stream's pieces and their headers, each read at most once."""

    vault: Vault
    dataset: str
    system_id: str
    timeline: int
    as_of: datetime | None
    without: frozenset[ObjectKey]
    _known: dict[ObjectKey, Header] = field(default_factory=dict)

    def listed(self, stream: str, begin: int, end: int | None = None) -> list[StoredObject]:
        """Pieces of one kind with begin <= first, and last <= end."""
        found: list[StoredObject] = []
        for obj in self.vault.objects(
            self.dataset, stream, system_id=self.system_id, timeline=self.timeline,
            start_after_position=begin, as_of=self.as_of,
        ):  # fmt: skip
            if end is not None and obj.key.first >= end:
                break
            if obj.key not in self.without and (end is None or obj.key.last <= end):
                found.append(obj)
        return found

    def header(self, obj: StoredObject) -> Header:
        """Verified. Raises VaultError."""
        if obj.key not in self._known:
            self._known[obj.key] = self.vault.header(obj)
        return self._known[obj.key]

    def link(self, obj: StoredObject) -> _Link:
        """For `chain.resolve`."""
        header = self.header(obj)
        return _Link(continued_by(header), continues(header), header.writer_epoch)

    def read(self, objects: Iterable[StoredObject]) -> None:
        """Headers of all of them, several at a time; what can't be believed is met again by whoever asks for it."""
        unread = [obj for obj in objects if obj.key not in self._known]
        if len(unread) > 1:
            with ThreadPoolExecutor(_READERS, thread_name_prefix="headers") as pool:
                list(pool.map(self._believes, unread))

    def _believes(self, obj: StoredObject) -> bool:
        return believed(self.header, obj) is not None

    def fulls(self, begin: int) -> list[StoredObject]:
        """All fulls that end behind `begin`."""
        found = self.listed(FULL, max(0, begin - FULL_LIMIT_BYTES))
        fulls = [obj for obj in found if obj.key.last > begin]
        self.read(fulls)
        return fulls

    def follow(self, pieces: Sequence[StoredObject], position: int, joint: str | None) -> Chain:
        """The strict chain of `pieces` from `position`, of which the first continues `joint` if that is known."""
        if joint is not None:
            at = [obj for obj in pieces if obj.key.first == position and self._continues(obj, joint)]
            pieces = [*at, *(obj for obj in pieces if obj.key.first > position)]
        self.read(pieces)
        return resolve(pieces, self.link, position, strict=True)

    def _continues(self, obj: StoredObject, joint: str) -> bool:
        return self._believes(obj) and continues(self.header(obj)) == joint

    def micros_between(self, begin: int, end: int, joint: str | None) -> list[StoredObject] | None:
        """Micros that cover [begin, end) without a break; None when they don't. `begin` may lie inside the first."""
        start = begin if joint is not None else max(0, begin - FULL_LIMIT_BYTES)
        listed = [obj for obj in self.listed(WAL, start, end) if obj.key.last > begin]
        chain = self.follow(listed, begin, joint)
        return list(chain.segments) if chain.segments and chain.end == end else None

    def tail(self, position: int, joint: str | None) -> Chain:
        """The micros from `position` on: by position where that leaves no choice, by their links at the end."""
        if joint is None:
            listed = [obj for obj in self.listed(WAL, max(0, position - FULL_LIMIT_BYTES)) if obj.key.last > position]
        else:
            found = self.listed(WAL, position)
            at = [obj for obj in found if obj.key.first == position and self._continues(obj, joint)]
            listed = [*at, *(obj for obj in found if obj.key.first > position)]
        chain = resolve(listed, self.link, position)
        last = chain.segments[-_TAIL_PIECES:]
        self.read(last)
        if all(self._believes(obj) for obj in last) and all(
            joins(self.header(one), self.header(other)) for one, other in pairwise(last)
        ):
            return chain
        # A piece that was in flight as its writer died fits by position only; it may have won a fork before, too.
        return self._relinked(chain, listed)

    def _relinked(self, chain: Chain, listed: Sequence[StoredObject]) -> Chain:
        sure = chain.segments[: max(0, len(chain.segments) - _TAIL_PIECES) + 1]
        end = sure[-1].key.last
        rest = self.follow([obj for obj in listed if obj.key.first >= end], end, continued_by(self.header(sure[-1])))
        return Chain(
            (*sure, *rest.segments), chain.begin, rest.end, rest.holes, rest.orphans,
            (*chain.forks, *rest.forks), (*chain.unreadable, *rest.unreadable),
        )  # fmt: skip


class _Walk:
    """Goes along fulls, over micros where one lacks, as far as fulls lead."""

    def __init__(self, stream: _Stream, begin: int) -> None:
        self._stream = stream
        self._begin = begin
        self._position = begin
        self._joint: str | None = None
        self._segments: list[StoredObject] = []
        self._forks: list[StoredObject] = []
        self._unreadable: dict[ObjectKey, tuple[StoredObject, str]] = {}

    def follow(self, fulls: Sequence[StoredObject]) -> None:
        """Take what fulls hold, and micros between two of them."""
        while True:
            chain = self._stream.follow([obj for obj in fulls if obj.key.last > self._position],
                                        self._position, self._joint)  # fmt: skip
            self._forks += [obj for obj in chain.forks if obj not in self._forks]
            self._unreadable |= {obj.key: (obj, why) for obj, why in chain.unreadable}
            self._take(chain.segments)
            if not self._bridge(chain.orphans):
                return

    def _bridge(self, beyond: Sequence[StoredObject]) -> bool:
        """Over micros to the first full that can be reached."""
        if not beyond:
            return False
        end = min(obj.key.first for obj in beyond)
        if end <= self._position:
            return False
        micros = self._stream.micros_between(self._position, end, self._joint)
        if not micros:
            return False
        joint = continued_by(self._stream.header(micros[-1]))
        if not any(obj.key.first == end and continues(self._stream.header(obj)) == joint for obj in beyond):
            return False
        self._take(micros)
        return True

    def _take(self, pieces: Sequence[StoredObject]) -> None:
        if pieces:
            self._segments += pieces
            self._position = pieces[-1].key.last
            self._joint = continued_by(self._stream.header(pieces[-1]))

    def tail(self, fulls: Sequence[StoredObject]) -> Chain:
        """The whole chain, ending in micros."""
        tail = self._stream.tail(self._position, self._joint)
        beyond = [obj for obj in fulls if obj.key.first >= tail.end and obj.key not in self._unreadable]
        orphans = tuple(sorted((*tail.orphans, *beyond), key=lambda obj: (obj.key.first, obj.key.last)))
        holes = tail.holes
        if beyond and not holes and beyond[0].key.first > tail.end:
            holes = (Hole(tail.end, beyond[0].key.first),)
        return Chain(
            segments=(*self._segments, *tail.segments),
            begin=self._begin,
            end=tail.end,
            holes=holes,
            orphans=orphans,
            forks=(*self._forks, *tail.forks),
            # A full that can't be believed is no loss as long as micros lead beyond it.
            unreadable=(*(row for row in self._unreadable.values() if row[0].key.last > tail.end), *tail.unreadable),
        )
