"""Packs in a row: their chain as any other, and in it every stream's offsets, one slice after the other.

What belongs here: holding each slice to where its stream's last one ended, and each pack to its catalogue. What stays
out: the chain itself (chains.py), what a slice is (format/pack.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.vault.chain import Chain, Link
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.pack import PackIndex, Slice, Stream
from dr_assets.vault.format.pack_list import parse_pack_list
from dr_assets.vault.retention import LockRules
from dr_assets.vault.vault import StoredObject
from dr_assets.vault.verify.chains import ChainWatch
from dr_assets.vault.verify.examine import Examined
from dr_assets.vault.verify.report import Finding
from dr_assets.vault.verify.said import Said
from dr_assets.vault.verify.tallied import HashBag


@dataclass(slots=True)
class CataloguedPacks:
    """What catalogues say of packs, a hash for each: a pack that goes by later is held to it."""

    _names: HashBag = field(default_factory=HashBag)
    _rows: HashBag = field(default_factory=HashBag)

    def note_list(self, key: ObjectKey, body: Mapping[str, Json]) -> Iterator[Finding]:
        """A catalogue; `malformed` when it is none."""
        try:
            rows = parse_pack_list(body, key)
        except VaultError as error:
            yield Finding("malformed", str(key), None, error.found)
            return
        for row in rows:
            self._names.add(str(row.key))
            self._rows.add(_said(str(row.key), row, row.index))

    def disagreements(self, item: Examined) -> Iterator[Finding]:
        """A pack of which a catalogue says something else; one that no catalogue has is none the worse."""
        if item.header is None or item.index is None or item.name not in self._names:
            return
        if _said(item.name, item.header, item.index) not in self._rows:
            yield Finding("rolled_wrong", item.name, None, "a catalogue says something else of this pack")


def _said(name: str, link: Link, index: PackIndex) -> str:
    return f"{name} {link.digest} {link.previous} {link.writer_epoch} {index.encoded()!r}"


class PackWatch(ChainWatch):
    """As ChainWatch, for packs. Of packs that lost a fork, or were left over, the offsets are not judged."""

    def __init__(self, place: str, said: Said) -> None:
        super().__init__(place, said)
        self._indices: dict[str, PackIndex] = {}
        self._ends: dict[Stream, int] = {}
        self._judged_to = -1
        self._jumps: list[Finding] = []

    def add(self, item: Examined) -> None:
        """The next pack; it is whole and believed."""
        super().add(item)
        assert item.obj is not None  # noqa: S101 - for the type checker: only whole packs are added
        if item.index is not None:
            self._indices[item.obj.key.digest] = item.index

    def findings(self, rules: LockRules, now: datetime) -> Iterator[Finding]:
        """What is wrong with the chain, then with the offsets."""
        yield from super().findings(rules, now)
        yield from self._jumps

    def _settle(self) -> None:
        super()._settle()
        kept = {obj.key.digest for obj in self._buffer}
        self._indices = {digest: index for digest, index in self._indices.items() if digest in kept}

    def _note(self, chain: Chain, begin: int, *, continues: bool) -> None:
        super()._note(chain, begin, continues=continues)
        if not continues:
            self._ends = {}  # behind a hole nobody can say where a stream goes on
        for obj in chain.segments:
            if obj.key.first > self._judged_to:
                self._judged_to = obj.key.first
                self._judge(obj, self._indices.get(obj.key.digest))

    def _judge(self, obj: StoredObject, index: PackIndex | None) -> None:
        if index is None:
            self._ends = {}
            return
        for each in index.slices:
            self._judge_slice(obj, each)
            self._ends[each.stream] = each.next
        if index.table is None:
            return
        for row in index.table:
            known = self._ends.get(row.stream)
            if known is not None and known != row.next:
                detail = f"its table says {row.next} of {_name(index, row.stream)}, its slices end at {known}"
                self._jumps.append(Finding("hole", str(obj.key), obj.version_id, detail))
        self._ends = {row.stream: row.next for row in index.table}

    def _judge_slice(self, obj: StoredObject, each: Slice) -> None:
        end, stream = self._ends.get(each.stream), f"{each.topic_id}/{each.partition}"
        if each.broken is not None:
            detail = f"{stream} was stored up to {each.broken.was} and goes on at {each.first}: {each.broken.why}"
            self._jumps.append(Finding("gap", str(obj.key), obj.version_id, detail))
            end = each.first if end == each.broken.was else end
        if end is not None and end != each.first:
            detail = f"{stream} was stored up to offset {end} and goes on at {each.first}, without a word why"
            self._jumps.append(Finding("hole", str(obj.key), obj.version_id, detail))


def _name(index: PackIndex, stream: Stream) -> str:
    return f"{index.topics.get(stream[0], stream[0])}/{stream[1]}"
