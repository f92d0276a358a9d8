"""Backups of the ring: sealed into the vault, locked for exactly the erasure grace, removed as soon as that is over.

What belongs here: taking, reading, removing, and laying back what vanished. What stays out: deletion.

Exactly that long, because a shorter lock would let somebody destroy ring and backups together, and a longer one would
keep a person's key for longer than the law lets it be kept. What was soft-deleted is left out of later backups, so that
the newest one that still holds it ends with its grace.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import was_ours
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import malformed
from dr_assets.vault.format.sizes import SEGMENT_LIMIT_BYTES
from dr_assets.vault.storage import STORE_AWAY, Lock
from dr_assets.vault.subjects.history import read_history, record
from dr_assets.vault.subjects.records import DATASET, key_id_in, key_name, parse_person_key, subject_of
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.subjects.shelf import Shelf
from dr_assets.vault.vault import StoredObject, Vault

STREAM: Final = "ring"
SYSTEM_ID: Final = "0"
PEOPLE_A_PART: Final = 20_000  # of at most 2 KiB each: far below what one object may hold
DECIDING: Final = timedelta(hours=1)  # between the moment of a deletion and its fact in the vault
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup: when it was begun, and each person's record as it lay in the store, by subject id.

    `subject id/digest` names a key that the person had before another one took its place.
    """

    at: datetime
    records: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What a backup took. `carried` had a key in the one before that is in no region now, though nobody deleted it."""

    at: datetime
    people: int
    carried: tuple[str, ...]


def back_up(ring: SubjectRing) -> BackedUp:
    """Seal all live people's keys, and those that vanished without a decision, into every vault."""
    ring.vault.check_clock()
    at = ring.vault.clock()
    live, decided = live_records(ring), decided_people(ring, at)
    before = newest(ring)
    carried = {} if before is None else _gone(before.records, live)
    records = {name: data for name, data in (live | carried).items() if _person(name) not in decided}
    for vault in ring.vaults:
        _seal(vault, at, ring, records)
    lost = sorted({_person(name) for name in carried} - decided)
    people = len({_person(name) for name in records})
    record(ring.vault, "backed_up", lost, people=people, at=canonical.format_time(at))
    return BackedUp(at, people, tuple(lost))


def _gone(before: Mapping[str, bytes], live: Mapping[str, bytes]) -> dict[str, bytes]:
    """What was backed up and no region has now: also the key of somebody who was given another one since.

    Somebody erases all keys, a capture makes new ones: what is sealed under the old ones opens by these alone.
    """
    return {
        name if name not in live else f"{name}/{hashlib.sha256(data).hexdigest()[:16]}": data
        for name, data in before.items()
        if not _is_same(live.get(_person(name)), data)
    }


def _is_same(one: bytes | None, other: bytes) -> bool:
    """Whether both hold one key, however it is wrapped: what was wrapped anew is no other key."""
    return one == other or (one is not None and (key_id := key_id_in(one)) is not None and key_id == key_id_in(other))


def _person(name: str) -> str:
    """Whose record it is, of a name in a backup: a subject id, with a digest behind it for a key that was replaced."""
    return name.partition("/")[0]


def backed_up_people(backup: Backup) -> frozenset[str]:
    """Who has a key in a backup."""
    return frozenset(map(_person, backup.records))


def replaced_people(backup: Backup | None, live: Mapping[str, set[bytes]]) -> frozenset[str]:
    """Who has another key now than a backup holds, or two: what is sealed under the one doesn't open by the other."""
    backed_up = {} if backup is None else backup.records
    two = {who for who, found in live.items() if len({key_id_in(data) for data in found}) > 1}
    other = {
        _person(who)
        for who, data in backed_up.items()
        if not any(_is_same(one, data) for one in live.get(_person(who), {data}))
    }
    return frozenset(two | other)


def live_records(ring: SubjectRing) -> dict[str, bytes]:
    """Every person's record that any region holds and one of ours signed."""
    found: dict[str, bytes] = {}
    for shelf in ring.shelves:
        for name in shelf.names(f"{ring.estate}/"):
            subject = subject_of(name)
            if subject is None or subject[1] != "key" or subject[0] in found:
                continue
            data = shelf.get(name)
            if data is not None and is_ours(ring, subject[0], data):
                found[subject[0]] = data
    return found


def is_ours(ring: SubjectRing, subject_id: str, data: bytes) -> bool:
    """Whether one of ours signed this record for this person."""
    try:
        parse_person_key(data, estate=ring.estate, subject_id=subject_id, trust=ring.vault.trust)
    except VaultError:
        return False
    return True


def decided_people(ring: SubjectRing, now: datetime) -> frozenset[str]:
    """Whose key is deleted, softly or for good, by the vault's facts."""
    history = read_history(ring.vault, now)
    return history.erased | frozenset(history.soft)


def newest(ring: SubjectRing, *, before: datetime | None = None) -> Backup | None:
    """The newest whole backup that any vault holds, begun before `before` if given."""
    best: Backup | None = None
    for vault in ring.vaults:
        found = _newest_of(vault, before)
        if found is not None and (best is None or found.at > best.at):
            best = found
    return best


def recover(ring: SubjectRing, *, before: datetime | None = None) -> tuple[str, ...]:
    """Lay back what the newest backup holds, the regions lack and nobody decided to delete; who that was.

    Raises VaultError `subjects.no_backup`.
    """
    backup = newest(ring, before=before)
    if backup is None:
        raise VaultError(
            "subjects.no_backup",
            "no vault holds a whole backup of the ring of people's keys",
            "they are kept for the erasure grace only; without one, what a region holds is all there is",
        )
    decided = decided_people(ring, ring.vault.clock())
    laid: set[str] = set()
    for who, data in sorted(backup.records.items()):
        if who in decided or not is_ours(ring, who, data):
            continue
        for shelf in ring.shelves:
            if _lay(ring, shelf, who, data):
                laid.add(who)
    if laid:
        record(ring.vault, "recovered", sorted(laid), backup=canonical.format_time(backup.at))
    return tuple(sorted(laid))


def _lay(ring: SubjectRing, shelf: Shelf, who: str, data: bytes) -> bool:
    """Put a record back where none of ours is; rubbish that somebody laid there goes. Whether it had to be."""
    name = key_name(ring.estate, who)
    there = shelf.get(name)
    if there is not None:
        if is_ours(ring, who, there):
            return False
        shelf.erase(name)
    return shelf.put_new(name, data)


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup that is still there after a purge, and how long its lock holds."""

    vault: Vault
    obj: StoredObject
    at: datetime
    until: datetime


def purge(ring: SubjectRing, now: datetime) -> tuple[tuple[Kept, ...], tuple[str, ...]]:
    """Remove the backups whose time is over, from every vault; those of ours that remain, and the vaults away."""
    kept: list[Kept] = []
    away: list[str] = []
    for vault in ring.vaults:
        try:
            kept += _purged(vault, ring.policy.grace, now)
        except VaultError as error:
            if error.code not in STORE_AWAY:
                raise
            away.append(vault.name)
    return tuple(kept), tuple(away)


def _purged(vault: Vault, grace: timedelta, now: datetime) -> list[Kept]:
    kept: list[Kept] = []
    for obj in _objects(vault):
        if not was_ours(vault, obj):  # a stranger's, locked for years, must not keep anybody from being forgotten
            continue
        at = _begun_at(obj)
        if at + grace > now or not _remove(vault, obj):
            head = vault.store.head(str(obj.key), obj.version_id or None)
            until = at + grace if head is None or head.lock is None else head.lock.retain_until
            kept.append(Kept(vault, obj, at, until))
    return kept


def held_until(kept: Iterable[Kept], subject_id: str, deleted_at: datetime) -> datetime | None:
    """When the last backup goes that may hold the person's key; None when none does.

    Those begun after the deletion leave him out; one that was begun while it was being decided is looked into.
    """
    ends: list[datetime] = []
    for backup in kept:
        if backup.at > deleted_at + DECIDING:
            continue
        if backup.at <= deleted_at or subject_id in map(_person, _opened(backup.vault, [backup.obj])[0]):
            ends.append(backup.until)
    return max(ends, default=None)


def _remove(vault: Vault, obj: StoredObject) -> bool:
    """Every version of the name; False while a lock holds."""
    for row in list(vault.store.list_name(str(obj.key))):
        try:
            vault.store.delete_version(row.key, row.version_id)
        except VaultError as error:
            if error.code != "vault.lock_refused":
                raise
            return False
    return True


def _seal(vault: Vault, at: datetime, ring: SubjectRing, records: Mapping[str, bytes]) -> None:
    people = sorted(records)
    parts = [people[start : start + PEOPLE_A_PART] for start in range(0, len(people), PEOPLE_A_PART)] or [[]]
    mode = vault.locks.lock(DATASET, "fact", at).mode
    lock = Lock(mode, (at + ring.policy.grace).replace(microsecond=0))
    first = (at - _EPOCH) // _MICROSECOND
    for number, part in enumerate(parts):
        plaintext = canonical.encode({who: records[who].decode("ascii") for who in part})
        prepared = vault.prepare(
            dataset=DATASET,
            stream=STREAM,
            kind=STREAM,
            system_id=SYSTEM_ID,
            timeline=number,
            first=first,
            last=first + 1,
            begin_at=at,
            end_at=at,
            plaintext=plaintext,
            extra={"parts": str(len(parts))},
        )
        vault.put(prepared.seal(), lock)


def _objects(vault: Vault) -> Iterator[StoredObject]:
    return vault.objects(DATASET, STREAM, system_id=SYSTEM_ID)


def _begun_at(obj: StoredObject) -> datetime:
    return _EPOCH + obj.key.first * _MICROSECOND


def _newest_of(vault: Vault, before: datetime | None) -> Backup | None:
    """The newest backup in one vault of which every part is there and opens."""
    runs: dict[int, list[StoredObject]] = {}
    for obj in _objects(vault):
        if before is None or _begun_at(obj) < before:
            runs.setdefault(obj.key.first, []).append(obj)
    for first in sorted(runs, reverse=True):
        try:
            records, parts = _opened(vault, runs[first])
        except VaultError as error:
            if error.code in {"vault.unreachable", "vault.refused_credentials", "keys.unreachable"}:
                raise
            continue  # cut short by a kill, damaged, or a stranger's: the one before holds
        if parts == len(runs[first]):
            return Backup(_begun_at(runs[first][0]), records)
    return None


def _opened(vault: Vault, objects: list[StoredObject]) -> tuple[dict[str, bytes], int]:
    records: dict[str, bytes] = {}
    parts = 0
    for obj in objects:
        opened = vault.open(obj)
        parts = int(opened.header.extra.get("parts", "0"))
        raw = canonical.decode(opened.plaintext, limit_bytes=SEGMENT_LIMIT_BYTES, what=str(obj.key))
        for who, text in raw.items():
            if not isinstance(text, str):
                raise malformed(f"{obj.key}: no backup of the ring")
            records[who] = text.encode("ascii")
    return records, parts
