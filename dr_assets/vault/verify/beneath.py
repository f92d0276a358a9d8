"""Micro-segments beneath full segments: whether a full is made of what was captured, or stands for something else.

What belongs here: which micros lie beneath which full and are on its list. What stays out: the digests of their bytes
(rolled.py), which of several micros won a fork (chains.py).

Full and list are words of the same hand, and a restore believes them. The micros are another hand's word. So a micro
beneath a full has to be on its list, unless one that is on it was seen at its positions, or was removed from there on
record: then it lost a fork.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dr_assets.vault.chain import Hole
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import WAL, ObjectKey, prefix_of
from dr_assets.vault.full_segment import MICRO_KEYS
from dr_assets.vault.verify.report import Finding
from dr_assets.vault.verify.tallied import Covered, HashBag

STRANGERS_NOTED: Final = 1000  # of each full: one is enough for a finding


class Made(NamedTuple):
    """What a full was made of, by its own word: positions in the place of its micros, and the digest of their names."""

    place: str
    first: int
    last: int
    micro_keys: str


@dataclass(slots=True)
class _Full:
    """The first full that says so, the bytes of all that do, what of its list was seen, and what is not on it."""

    name: str
    plaintexts: set[str] = field(default_factory=set)
    seen: Covered = field(default_factory=Covered)
    strangers: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(slots=True)
class Beneath:
    """All fulls and lists first, then micros in the order of their names; then ask for findings."""

    _fulls: dict[Made, _Full] = field(default_factory=dict)
    _on_lists: HashBag = field(default_factory=HashBag)
    _covered: defaultdict[str, Covered] = field(default_factory=lambda: defaultdict(Covered))
    _removed: defaultdict[str, Covered] = field(default_factory=lambda: defaultdict(Covered))
    _place: str = ""
    _ahead: list[Made] = field(default_factory=list)
    _open: list[Made] = field(default_factory=list)

    def note_full(self, name: str, key: ObjectKey, header: Header) -> None:
        """A full that is whole and believed."""
        made = Made(micro_place(key), key.first, key.last, header.extra.get(MICRO_KEYS, ""))
        self._fulls.setdefault(made, _Full(name)).plaintexts.add(header.plaintext_sha256)
        self._covered[made.place].add(key.first, key.last)

    def note_named(self, key: ObjectKey) -> None:
        """A full of which only the name is known: it covers positions, and nothing more is said of it."""
        self._covered[micro_place(key)].add(key.first, key.last)

    def note_listed(self, micro: ObjectKey, micro_keys: str) -> None:
        """A micro on the list of a full that was made of names with this digest."""
        self._on_lists.add(f"{micro} {micro_keys}")

    def note_removed(self, micro: ObjectKey) -> None:
        """A micro that was removed on record."""
        self._removed[micro.place].add(micro.first, micro.last)

    def note_micro(self, name: str, key: ObjectKey) -> None:
        """A micro that is whole and believed."""
        for made in self._over(key):
            full = self._fulls[made]
            if f"{name} {made.micro_keys}" in self._on_lists:
                full.seen.add(key.first, key.last)
            elif len(full.strangers) < STRANGERS_NOTED:
                full.strangers.append((key.first, key.last, name))

    def is_covered(self, key: ObjectKey) -> bool:
        """Whether fulls hold all of a micro's positions."""
        return key.place in self._covered and self._covered[key.place].holds(key.first, key.last)

    def findings(self, listed: Collection[Made]) -> Iterator[Finding]:
        """`listed` are those of which a list was seen; without it a full is `unfinished`."""
        for made, full in self._fulls.items():
            if made not in listed:
                yield Finding(
                    "unfinished", full.name, None, "no list names the micro-segments it holds: roll-up goes on"
                )
                continue
            if len(full.plaintexts) > 1:
                yield Finding(
                    "rolled_wrong", full.name, None, "another full of the same micro-segments has other bytes"
                )
            for first, last, name in full.strangers:
                if not self._lost_a_fork(made.place, full, Hole(first, last)):
                    detail = f"stands for {name}, which is on no list of it: restore without it"
                    yield Finding("rolled_wrong", full.name, None, detail)
                    break

    def _lost_a_fork(self, place: str, full: _Full, at: Hole) -> bool:
        return any(covered.missing_of(at) != [at] for covered in (full.seen, self._removed[place]))

    def _over(self, key: ObjectKey) -> list[Made]:
        """The fulls beneath which a micro lies; micros come in order, so each full is looked at once."""
        if key.place != self._place:
            self._place, self._open = key.place, []
            self._ahead = sorted((made for made in self._fulls if made.place == key.place), reverse=True)
        while self._ahead and self._ahead[-1].first <= key.first:
            self._open.append(self._ahead.pop())
        self._open = [made for made in self._open if made.last > key.first]
        return [made for made in self._open if made.last >= key.last]


def micro_place(key: ObjectKey) -> str:
    """The place of the micro-segments beneath a full segment or its list."""
    return prefix_of(key.estate, key.dataset, WAL, key.system_id, key.timeline)
