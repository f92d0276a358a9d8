"""What objects say of each other, tallied as they go by: manifests of parts, facts of anything, inventories, chains.

What belongs here: keeping as little as possible of each object, and the judgement at the end. What stays out: reading.

Of a piece of WAL, of which there may be millions, nothing stays but a 64-bit hash of its name: Python salts it anew in
each process, so nobody can prepare names that collide.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.chain import Hole
from dr_assets.vault.expiry_list import EXPIRY, EXPIRY_LIST, begins_of
from dr_assets.vault.facts import PREVIOUS_KEY, is_misdated
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import KEYS, PACKS, ObjectKey, fact_stream, part_stream
from dr_assets.vault.format.pack_list import PACK_LIST
from dr_assets.vault.full_segment import FULL, FULL_LIST, continued_by
from dr_assets.vault.inventory import INVENTORY, Shelf, digest_of, parse_inventory
from dr_assets.vault.retention import Kind, LockRules
from dr_assets.vault.retention.judged import LOCK_TOLERANCE
from dr_assets.vault.verify.beneath import micro_place
from dr_assets.vault.verify.by_names import NameWatch
from dr_assets.vault.verify.chains import ChainWatch
from dr_assets.vault.verify.examine import LOCK_EXPIRED, Examined
from dr_assets.vault.verify.packs import CataloguedPacks, PackWatch
from dr_assets.vault.verify.report import Finding
from dr_assets.vault.verify.rolled import Expired, Rolled
from dr_assets.vault.verify.said import WAL, Said, place_spoken_of
from dr_assets.vault.witness import Witness

CLAIM_DEPTH: Final = 32


@dataclass(slots=True)
class _Counted:
    """Names of a large place that an inventory spoke of, counted and digested as they go by."""

    shelf: Shelf
    count: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)


class Tally:
    """Add every examined name, WAL after everything else; then ask for findings."""

    def __init__(self, rules: LockRules, now: datetime, *, by_names: bool = False) -> None:
        self.findings: list[Finding] = []
        self.objects_total = 0
        self.objects_locked = 0
        self.size_bytes = 0
        self.read_bytes = 0
        self.plaintext_bytes = 0
        self.newest: dict[str, ObjectKey] = {}
        self._rules = rules
        self._now = now
        self._by_names = by_names  # headers are known of some only, so chains are judged by positions
        self._there: set[int] = set()
        self._damaged: set[str] = set()
        self._misplaced: list[tuple[str, str]] = []
        self._parts: dict[str, tuple[str, int]] = {}
        self._listed: list[tuple[str, str, str, int]] = []
        self._referred: dict[str, str] = {}
        self._claims: dict[str, tuple[datetime, str]] = {}
        self._inventories: dict[str, Examined] = {}
        self._names: defaultdict[str, list[str]] = defaultdict(list)
        self._counted: dict[str, _Counted] = {}
        self._expired = Expired()
        self._rolled = Rolled()
        self._catalogued = CataloguedPacks()
        self._ended: list[tuple[ObjectKey, Finding]] = []
        self._said: defaultdict[str, Said] = defaultdict(Said)
        self._watches: dict[str, ChainWatch | NameWatch] = {}

    def add(self, item: Examined) -> None:
        """Take down what others will be held to."""
        self.findings += item.findings
        if item.key is None:
            return
        if item.key.stream == WAL and any(finding.kind == LOCK_EXPIRED for finding in item.findings):
            self._note_ended(item, item.key)
        self.objects_total += 1
        self.objects_locked += item.locked
        self.size_bytes += item.size_bytes
        self.read_bytes += item.read_bytes
        self.plaintext_bytes += item.plaintext_bytes
        if item.listed:
            self._there.add(hash(item.name))
            self._shelve(item.key, item.name)
        if item.belongs is not None:
            self._misplaced.append((item.name, str(item.belongs)))
        if item.obj is None:
            self._damaged.add(item.name)
        else:
            self._add_sound(item, item.key)

    def account_for(self, item: Examined) -> None:
        """Something put after the moment that is judged: it tells where WAL of then is now, and nothing else."""
        key, header = item.key, item.header
        if key is None or header is None or item.obj is None:
            return
        if key.stream == FULL:
            self._said[micro_place(key)].covered.add(key.first, key.last)
        elif key.stream == EXPIRY_LIST:
            self._note_removals(item)
        else:
            self._note_expiry(item.body or {}, header.begin_at)

    def lacks(self, key: ObjectKey, stored_at: datetime | None) -> bool:
        """Whether something that was stored then is gone, and may not have left at the end of its lock.

        Where nobody says when it was stored, it counts as stored now: better one alarm too many.
        """
        if self._is_accounted_for(key):
            return False
        return stored_at is None or self._now < stored_at + self._rules.length(key.dataset, kind_of(key.stream))

    def judge(self, witness: Witness | None, estate: str, dataset: str | None) -> list[Finding]:
        """All findings, those of the single objects included."""
        findings = [*self.findings, *self._repeated(), *self._sets(), *self._missing_claims(), *self._counts()]
        findings += [*self._rolled.findings(), *self._unfinished_expiries()]
        for place in sorted(self._watches.keys() | self._said.keys()):
            findings += self._watch(place).findings(self._rules, self._now)
        findings += self._unprotected(findings)
        for key in witness.newest.values() if witness else ():
            if key.estate == estate and dataset in {None, key.dataset} and not self._is_accounted_for(key):
                detail = "was witnessed in this vault: the vault is older than the witness"
                findings.append(Finding("missing", str(key), None, detail))
        return findings

    def _is_there(self, name: str) -> bool:
        """Damaged or not: damage has its own finding."""
        return hash(name) in self._there

    def _is_accounted_for(self, key: ObjectKey) -> bool:
        """There, removed on record, a micro-segment beneath a full, or a pack before its chain's begin on record."""
        name = str(key)
        if self._is_there(name) or name in self._expired.names:
            return True
        if key.stream not in {WAL, PACKS} or key.place not in self._said:
            return False
        return self._said[key.place].covered.holds(key.first, key.last)

    def _add_sound(self, item: Examined, key: ObjectKey) -> None:
        known = self.newest.get(key.place)
        if known is None or (known.last, known.digest) < (key.last, key.digest):
            self.newest[key.place] = key
        header = item.header
        if header is None or (self._by_names and key.stream in {WAL, FULL, PACKS}):
            self._add_named(item, key)
        elif header.kind == "pack":
            self._watch(key.place).add(item)
            self.findings += self._catalogued.disagreements(item)
        elif header.kind == "wal":
            self._watch(key.place).add(item)
            self._join(key, item, header)
        elif header.kind == "part":
            self._parts[item.name] = (item.sha256, item.size_bytes)
        elif key.stream == FULL_LIST:
            self.findings += self._rolled.note_list(item.name, key, item.body or {})
        elif key.stream == PACK_LIST:
            self.findings += self._catalogued.note_list(key, item.body or {})
        elif key.stream == EXPIRY_LIST:
            self._note_removals(item)
        elif header.kind == "manifest":
            self._listed += [(item.name, *part) for part in _parts_of(item.body)]
            self._referred |= dict.fromkeys(_refers_of(item.body), item.name)
        else:
            self._hear(item, key, header.begin_at, header.extra.get(PREVIOUS_KEY, ""))

    def _add_named(self, item: Examined, key: ObjectKey) -> None:
        """Of what was not read the name tells the positions, and the store the digest of what was put."""
        if key.stream in {WAL, FULL, PACKS}:
            self._watch(key.place).add(item)
        elif key.stream.startswith(part_stream("")):
            self._parts[item.name] = (item.sha256, item.size_bytes)
        if key.stream == FULL:
            self._said[micro_place(key)].covered.add(key.first, key.last)
            self._rolled.beneath.note_named(key)

    def _join(self, key: ObjectKey, item: Examined, header: Header) -> None:
        """A full accounts for the positions of its micros; a micro is held to what its full's list says of it."""
        if key.stream == FULL:
            said = self._said[micro_place(key)]
            said.covered.add(key.first, key.last)
            said.joints.setdefault(key.last, set()).add(continued_by(header))
            self._rolled.beneath.note_full(item.name, key, header)
            return
        self._rolled.beneath.note_micro(item.name, key)
        if not self._rolled.agrees(item.name, header.plaintext_sha256):
            detail = "its full segment's list has another digest of its bytes"
            self.findings.append(Finding("rolled_wrong", item.name, None, detail))

    def _note_ended(self, item: Examined, key: ObjectKey) -> None:
        """A micro whose short lock is over, though its WAL has to be locked for longer and no full holds it."""
        if item.obj is None or self._rolled.beneath.is_covered(key):
            return
        sealed_at = item.obj.modified_at if item.header is None else item.header.sealed_at
        until = self._rules.lock(key.dataset, "wal", sealed_at).retain_until
        if self._now < until - LOCK_TOLERANCE:
            version_id = item.obj.version_id
            detail = (
                f"its lock is over, no full segment holds it, and its WAL is due to be locked until {until:%Y-%m-%d}"
            )
            self._ended.append((key, Finding("unlocked", item.name, version_id, detail)))

    def _unprotected(self, findings: Sequence[Finding]) -> Iterator[Finding]:
        """Those of which recovery may depend: no roller holds what lost a fork, was left over, or lies in a gap."""
        unused = {finding.key for finding in findings if finding.kind in {"fork", "orphan"}}
        for key, finding in self._ended:
            in_gap = self._said[key.place].is_gap(Hole(key.first, key.last))
            if finding.key not in unused and not in_gap and finding.key not in self._expired.names:
                yield finding

    def _note_removals(self, item: Examined) -> None:
        """What was removed on record is nowhere missed."""
        for key in self._expired.add(item.name, item.body or {}):
            if key.stream in {WAL, FULL, PACKS}:
                self._said[key.place].covered.add(key.first, key.last)
            if key.stream in {WAL, FULL}:
                self._said[micro_place(key)].covered.add(key.first, key.last)
            if key.stream == WAL:
                self._rolled.beneath.note_removed(key)

    def _note_expiry(self, body: dict[str, Json], at: datetime) -> None:
        """That a list was worked off, and where streams begin now: the lists themselves expire one day."""
        self._expired.note_fact(body, at)
        for place, begin in begins_of(body).items():
            self._said[place].covered.add(0, begin)

    def _unfinished_expiries(self) -> Iterator[Finding]:
        for name, left in self._expired.unfinished(self._there):
            yield Finding("unfinished", name, None, f"{left} objects on this list are still there: expire goes on")

    def _watch(self, place: str) -> ChainWatch | NameWatch:
        if place not in self._watches:
            chain = PackWatch if place.split("/")[2:3] == [PACKS] else ChainWatch
            watch = NameWatch if self._by_names else chain
            self._watches[place] = watch(place, self._said[place])
        return self._watches[place]

    def _hear(self, item: Examined, key: ObjectKey, at: datetime, previous: str) -> None:
        """A fact that spells out one of our names says that it was stored then; its predecessor is such a claim."""
        for claimed in filter(None, map(ObjectKey.parse, [*_texts(item.body), previous])):
            if claimed.estate == key.estate:
                self._claims[str(claimed)] = max(self._claims.get(str(claimed), (at, item.name)), (at, item.name))
        place = place_spoken_of(key, item.body or {})
        if place is not None:
            self._said[place].note_fact(key.stream, item.body or {}, at)
            self._said[place.replace(f"/{WAL}/", f"/{FULL}/", 1)].note_gap(key.stream, item.body or {})
        if key.stream == fact_stream(EXPIRY):
            self._note_expiry(item.body or {}, at)
        if key.stream == fact_stream(INVENTORY) and not (item.obj and is_misdated(key.first, item.obj.modified_at)):
            known = self._inventories.get(key.dataset)
            if known is None or known.name < item.name:
                self._inventories[key.dataset] = item

    def _shelve(self, key: ObjectKey, name: str) -> None:
        if key.stream not in {WAL, PACKS}:
            self._names[key.place].append(name)
            return
        if key.place not in self._counted:
            shelf = self._shelf_of(key)
            if shelf is None:
                return
            self._counted[key.place] = _Counted(shelf)
        counted = self._counted[key.place]
        if key <= counted.shelf.last:
            counted.count += 1
            counted.digest.update(name.encode("ascii") + b"\n")

    def _shelf_of(self, key: ObjectKey) -> Shelf | None:
        inventory = self._inventories.get(key.dataset)
        if inventory is None:
            return None
        try:
            return parse_inventory(inventory.body or {}, name=inventory.name).get(key.place)
        except VaultError:
            return None  # told by `_counts`

    def _repeated(self) -> Iterator[Finding]:
        """Bytes under a wrong name are `repeated` when their right name holds them too."""
        for name, belongs in self._misplaced:
            if self._is_there(belongs) and belongs not in self._damaged:
                yield Finding("repeated", name, None, f"repeats {belongs}")

    def _sets(self) -> Iterator[Finding]:
        """Every part that a manifest lists is there as listed; parts on no list belong to a set that never ended."""
        for manifest, name, sha256, size_bytes in self._listed:
            if not self._is_there(name):
                yield Finding("missing", name, None, f"a part that {manifest} lists")
            elif name in self._parts and self._parts[name] not in {(sha256, size_bytes), ("", size_bytes)}:
                yield Finding("swapped", name, None, f"has not the digest that {manifest} lists")
        for name, manifest in self._referred.items():
            if not self._is_there(name):
                yield Finding("missing", name, None, f"a part that {manifest} refers to")
        for name in self._parts.keys() - {name for _, name, _, _ in self._listed} - self._referred.keys():
            yield Finding("unfinished", name, None, "no manifest lists this part")

    def _missing_claims(self) -> Iterator[Finding]:
        """What was claimed is there, unless it may have left at the end of its lock.

        It may be older than the claim and have left earlier than that; what is certain is the rule's length from its
        seal, and of that the claim's time is the latest there is.
        """
        for name, (at, fact) in self._claims.items():
            key = ObjectKey.parse(name)
            if key is None or self._is_accounted_for(key):
                continue
            if self._now < at + self._rules.length(key.dataset, kind_of(key.stream)):
                yield Finding("missing", name, None, f"{fact} says it was stored")

    def _counts(self) -> Iterator[Finding]:
        """Each dataset's newest inventory against what went by."""
        for item in self._inventories.values():
            try:
                shelves = parse_inventory(item.body or {}, name=item.name)
            except VaultError as error:
                yield Finding("malformed", item.name, None, error.found)
                continue
            at = item.header.begin_at if item.header else self._now
            for place, shelf in shelves.items():
                yield from self._compare(item.name, place, shelf, self._expired.since(place, at))

    def _compare(self, inventory: str, place: str, shelf: Shelf, expired: int) -> Iterator[Finding]:
        """`expired` is how many names expiry lists account for since."""
        if place in self._counted:
            count, digest = self._counted[place].count, self._counted[place].digest.hexdigest()
        else:
            names = [name for name in self._names[place] if name <= str(shelf.last)]
            count, digest = len(names), digest_of(sorted(names))
        if (count, digest) == (shelf.count, shelf.digest):
            return
        if shelf.keys:  # what lacks is told name by name: the inventory claims it
            if all(self._is_there(str(key)) for key in shelf.keys):
                yield Finding("changed", place, None, f"holds more than {inventory} counted")
        elif count > shelf.count:
            yield Finding("changed", place, None, f"holds {count}, {inventory} counted {shelf.count}")
        elif shelf.count - count > expired:
            detail = f"{shelf.count} were counted by {inventory} up to {shelf.last}, {count} of these are there"
            yield Finding("missing", place, None, detail)


def kind_of(stream: str) -> Kind:
    """Which rule keeps a stream's objects."""
    if stream == KEYS:
        return "key"
    if stream.startswith(fact_stream("")):
        return "fact"
    if stream == PACKS:
        return "pack"
    return "wal" if stream == WAL else "part"


def _parts_of(body: dict[str, Json] | None) -> Iterator[tuple[str, str, int]]:
    parts = (body or {}).get("parts")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict):
            key, sha256, size_bytes = part.get("key"), part.get("sha256"), part.get("size_bytes")
            if isinstance(key, str) and isinstance(sha256, str) and isinstance(size_bytes, int):
                yield key, sha256, size_bytes


def _refers_of(body: dict[str, Json] | None) -> Iterator[str]:
    """Parts of earlier runs that a bucket's full rests on; their own manifests may have expired."""
    refers = (body or {}).get("refers")
    yield from (name for name in (refers if isinstance(refers, list) else []) if isinstance(name, str))


def _texts(value: Json, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list) and depth < CLAIM_DEPTH:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner, depth + 1)
