"""What full segments and expiry lists account for: WAL held twice, and what was removed on record.

What belongs here: lists, digests of slices, removals. What stays out: what lies beneath a full (beneath.py), judging
chains (chains.py) and everything else that is tallied (tally.py).
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.vault.believed import believed
from dr_assets.vault.expiry_list import parse_expiry_list
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.sizes import plaintext_limit
from dr_assets.vault.full_segment import FULL, FULL_LIST, MICRO_KEYS, FullList, are_contiguous, parse_full_list
from dr_assets.vault.inventory import digest_of
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify.beneath import Beneath, Made, micro_place
from dr_assets.vault.verify.report import Finding
from dr_assets.vault.verify.tallied import HashBag


@dataclass(slots=True)
class Removal:
    """One expiry list: whose names may be gone. `done` once a fact says that it was worked off."""

    name: str
    names: HashBag = field(default_factory=HashBag)
    counts: Counter[str] = field(default_factory=Counter)
    done_at: datetime | None = None


@dataclass(slots=True)
class Expired:
    """Everything that expiry lists name."""

    removals: dict[str, Removal] = field(default_factory=dict)
    names: HashBag = field(default_factory=HashBag)

    def add(self, name: str, body: Mapping[str, Json]) -> Iterator[ObjectKey]:
        """Take a list down; its names, one by one. Raises VaultError `vault.malformed`."""
        removal = self.removals.setdefault(name, Removal(name))
        for row in parse_expiry_list(body, name=name):
            text = str(row.key)
            self.names.add(text)
            removal.names.add(text)
            removal.counts[row.key.place] += 1
            yield row.key

    def note_fact(self, body: Mapping[str, Json], at: datetime) -> None:
        """An expiry's word that a list was worked off."""
        name = body.get("list")
        if body.get("event") == "done" and isinstance(name, str):
            self.removals.setdefault(name, Removal(name)).done_at = at

    def unfinished(self, there: Collection[int]) -> Iterator[tuple[str, int]]:
        """Lists that no fact calls worked off, with how many of their names are still `there`, by their hashes."""
        for removal in self.removals.values():
            if removal.done_at is None:
                left = sum(1 for value in removal.names if value in there)
                if left:
                    yield removal.name, left

    def since(self, place: str, at: datetime) -> int:
        """How many names of a place may have gone since `at`: those of lists not worked off before."""
        return sum(
            removal.counts[place]
            for removal in self.removals.values()
            if removal.done_at is None or removal.done_at >= at
        )


@dataclass(slots=True)
class Rolled:
    """Fulls and their lists: each full has one, and what lists say of micros holds for those that are there."""

    beneath: Beneath = field(default_factory=Beneath)
    _listed: set[Made] = field(default_factory=set)
    _names: HashBag = field(default_factory=HashBag)
    _pairs: HashBag = field(default_factory=HashBag)

    def note_list(self, name: str, key: ObjectKey, body: Mapping[str, Json]) -> Iterator[Finding]:
        """A list; `malformed` when it is none."""
        try:
            listed = parse_full_list(body, name=name)
        except VaultError as error:
            yield Finding("malformed", name, None, error.found)
            return
        if not are_contiguous([row.key for row in listed.covered], key.first, key.last):
            yield Finding("malformed", name, None, "the micro-segments on it don't cover its positions")
            return
        micro_keys = micro_keys_of(listed)
        self._listed.add(Made(micro_place(key), key.first, key.last, micro_keys))
        for row in listed.covered:
            self._names.add(str(row.key))
            self._pairs.add(f"{row.key} {row.plaintext_sha256}")
            self.beneath.note_listed(row.key, micro_keys)

    def agrees(self, name: str, plaintext_sha256: str) -> bool:
        """Whether a micro is on no list, or on one with this digest."""
        return name not in self._names or f"{name} {plaintext_sha256}" in self._pairs

    def findings(self) -> Iterator[Finding]:
        """Fulls without a list, and fulls of other micro-segments than those that were captured."""
        return self.beneath.findings(self._listed)


class Slices:
    """Digests of consecutive slices of a plaintext that comes in pieces of other sizes."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes
        self._digest = hashlib.sha256()
        self._left = sizes[0] if sizes else 0
        self.digests: list[str] = []

    def update(self, data: bytes) -> None:
        """The next bytes."""
        view = memoryview(data)
        while view and len(self.digests) < len(self._sizes):
            self._digest.update(view[: self._left])
            taken = min(self._left, len(view))
            self._left, view = self._left - taken, view[taken:]
            if self._left == 0:
                self.digests.append(self._digest.hexdigest())
                self._digest = hashlib.sha256()
                self._left = self._sizes[len(self.digests)] if len(self.digests) < len(self._sizes) else 0


def list_of(vault: Vault, full: ObjectKey, header: Header) -> FullList | None:
    """The list of the full with this header: its own, else that of a full of the same micro-segments.

    None if there is none to be believed: one of other micro-segments than the full's header counted is none of its.
    Raises VaultError.
    """

    def read(obj: StoredObject) -> FullList:
        body = canonical.decode(vault.open(obj).plaintext, limit_bytes=plaintext_limit(FULL), what=str(obj.key))
        return parse_full_list(body, name=str(obj.key))

    same: FullList | None = None
    for obj in vault.objects(
        full.dataset, FULL_LIST, system_id=full.system_id, timeline=full.timeline, start_after_position=full.first
    ):
        if obj.key.first != full.first:
            break
        if obj.key.last != full.last:
            continue
        listed = believed(read, obj)
        if listed is not None and micro_keys_of(listed) == header.extra.get(MICRO_KEYS):
            if listed.full == full:
                return listed
            same = same or listed
    return same


def micro_keys_of(listed: FullList) -> str:
    """What the header of the full with this list says under `MICRO_KEYS`."""
    return digest_of(str(row.key) for row in listed.covered)


def slices_of(listed: FullList) -> Slices:
    """For the plaintext of the full with this list."""
    return Slices([row.key.last - row.key.first for row in listed.covered])
