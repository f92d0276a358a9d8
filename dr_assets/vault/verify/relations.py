"""What objects say of each other: manifests of parts, facts of anything, chains of their neighbours.

What belongs here: pure judgement over examined objects. What stays out: reading.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import PREVIOUS_KEY
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import KEYS, ObjectKey, fact_stream
from dr_assets.vault.inventory import INVENTORY, Shelf, digest_of, parse_inventory
from dr_assets.vault.retention import Kind, LockRules
from dr_assets.vault.verify.examine import Examined
from dr_assets.vault.verify.report import Finding

CLAIM_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Whole:
    """All examined names, and the rules that tell how long each had to stay."""

    examined: Sequence[Examined]
    rules: LockRules
    now: datetime

    def sound(self) -> Iterator[Examined]:
        """Those that are whole and believed."""
        return (item for item in self.examined if item.obj is not None)

    def names(self) -> frozenset[str]:
        """Every name that holds something, damaged or not: damage has its own finding."""
        return frozenset(item.name for item in self.examined if item.listed)


def judge_relations(whole: Whole) -> list[Finding]:
    """All findings about relations, save those of chains."""
    return [*_misplaced(whole), *_manifests(whole), *_claims(whole), *_inventories(whole)]


def _misplaced(whole: Whole) -> Iterator[Finding]:
    """Bytes under a wrong name are `repeated` when their right name holds them too."""
    sound = {str(item.obj.key) for item in whole.sound() if item.obj}
    for item in whole.examined:
        if item.belongs is not None and str(item.belongs) in sound:
            yield Finding("repeated", item.name, None, f"repeats {item.belongs}")


def _manifests(whole: Whole) -> Iterator[Finding]:
    """Every part that a manifest lists is there as listed; parts on no list belong to a set that never ended."""
    parts = {item.name: item for item in whole.sound() if item.header and item.header.kind == "part"}
    names, listed = whole.names(), set[str]()
    for manifest in whole.sound():
        if manifest.header is None or manifest.header.kind != "manifest":
            continue
        for text, sha256, size_bytes in _parts_of(manifest.body or {}):
            listed.add(text)
            if text not in names:
                yield Finding("missing", text, None, f"a part that {manifest.name} lists")
            elif text in parts and (parts[text].sha256, parts[text].size_bytes) != (sha256, size_bytes):
                yield Finding("swapped", text, None, f"has not the digest that {manifest.name} lists")
    for text in parts.keys() - listed:
        yield Finding("unfinished", text, None, "no manifest lists this part")


def _parts_of(body: Mapping[str, Json]) -> Iterator[tuple[str, str, int]]:
    parts = body.get("parts")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict):
            key, sha256, size_bytes = part.get("key"), part.get("sha256"), part.get("size_bytes")
            if isinstance(key, str) and isinstance(sha256, str) and isinstance(size_bytes, int):
                yield key, sha256, size_bytes


def _claims(whole: Whole) -> Iterator[Finding]:
    """A fact that spells out one of our names says that it was stored then; its predecessor's name is such a claim."""
    names = whole.names()
    said: set[str] = set()
    for fact in whole.sound():
        if fact.header is None or fact.header.kind != "fact":
            continue
        texts = [*_texts(fact.body), fact.header.extra.get(PREVIOUS_KEY, "")]
        for key in filter(None, map(ObjectKey.parse, texts)):
            text = str(key)
            if text in names or text in said or key.estate != fact.header.estate:
                continue
            if _still_due(whole, key, fact.header.begin_at):
                said.add(text)
                yield Finding("missing", text, None, f"{fact.name} says it was stored")


def _texts(value: Json, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list) and depth < CLAIM_DEPTH:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner, depth + 1)


def _still_due(whole: Whole, key: ObjectKey, stored_by: datetime) -> bool:
    """Whether an object that was there at `stored_by` may not have left yet by the end of its lock.

    It may be older than the claim, so its own lock may have ended earlier: what is certain is the rule's length from
    its seal, and a fact's position tells that; of anything else the claim's time is the best there is.
    """
    return whole.now < stored_by + whole.rules.length(key.dataset, kind_of(key.stream))


def kind_of(stream: str) -> Kind:
    """Which rule keeps a stream's objects."""
    if stream == KEYS:
        return "key"
    if stream.startswith(fact_stream("")):
        return "fact"
    return "wal" if stream == "wal" else "part"


def _inventories(whole: Whole) -> Iterator[Finding]:
    """Each dataset's newest inventory against what is there."""
    newest: dict[str, Examined] = {}
    for item in whole.sound():
        if item.obj is not None and item.obj.key.stream == fact_stream(INVENTORY):
            known = newest.get(item.obj.key.dataset)
            if known is None or known.name < item.name:
                newest[item.obj.key.dataset] = item
    if not newest:
        return
    names = whole.names()
    places: defaultdict[str, list[ObjectKey]] = defaultdict(list)
    for key in filter(None, map(ObjectKey.parse, names)):
        places[key.place].append(key)
    for item in newest.values():
        try:
            shelves = parse_inventory(item.body or {}, name=item.name)
        except VaultError as error:
            yield Finding("malformed", item.name, None, error.found)
            continue
        for place, shelf in shelves.items():
            yield from _compare(item.name, shelf, places[place])


def _compare(inventory: str, shelf: Shelf, there: Iterable[ObjectKey]) -> Iterator[Finding]:
    texts = sorted(str(key) for key in there if key <= shelf.last)
    if len(texts) == shelf.count and digest_of(texts) == shelf.digest:
        return
    if shelf.keys:  # what lacks is told name by name: the inventory claims it
        if {str(key) for key in shelf.keys} <= set(texts):
            yield Finding("changed", shelf.last.place, None, f"holds more than {inventory} counted")
    elif len(texts) > shelf.count:
        yield Finding("changed", shelf.last.place, None, f"holds {len(texts)}, {inventory} counted {shelf.count}")
    else:
        detail = f"{shelf.count} were counted by {inventory} up to {shelf.last}, {len(texts)} of these are there"
        yield Finding("missing", shelf.last.place, None, detail)
