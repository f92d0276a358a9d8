"""The feed: which objects of a vault are not in its log yet, and what the log will say of them.

What belongs here: listing from where the last batch left off, believing what is found, statements. What stays out:
appending them (sequencer.py). Nobody who puts something into a vault tells the log.

Every manifest, fact and key object is a leaf. Of pieces (WAL, full segments, packs, parts) one leaf speaks of all that
a look found new at a place: how many, from where to where, and the digest over their sorted names.

A look lists each place from its mark on. The mark stays behind what came in the last minutes, since puts run in
parallel and may land out of order. What lands later still, far below its place's mark, is found by a sweep, which
compares everything with everything that is logged.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import is_misdated
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import KEYS, LOG, PACKS, WAL, ObjectKey, fact_stream, part_stream, prefix_of
from dr_assets.vault.format.segment import check_belongs, open_sealed, verify_envelope
from dr_assets.vault.format.sizes import FACT_LIMIT_BYTES, stored_limit
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.keys.key_object import parse_key_object
from dr_assets.vault.log.batch import Mark, Names
from dr_assets.vault.log.statement import NAMES, OBJECT, SAYS, STORED_AT, Statement, plain_words
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.storage.versions import Name, authentic, look, scan
from dr_assets.vault.vault import StoredObject, Vault

OVERLAP: Final = timedelta(minutes=5)
CLOSED_AFTER: Final = timedelta(days=2)  # a base backup takes hours; its parts' folder is not listed for ever
LEAVES_LIMIT: Final = 16384
NAMES_LIMIT: Final = 65536
WORKERS: Final = 4
CHUNK: Final = 16  # names that are examined at once; as many may go into a batch beyond its limit
SEEN_HEX: Final = 16

GOVERNANCE: Final = frozenset(
    fact_stream(kind) for kind in ("key_rotation", "key_retired", "approval", "expiry", "policy_change", "legal_hold")
)
# Copies of people's keys, which must be forgotten in time: no word of them may outlive them.
_UNSPOKEN: Final = frozenset({("subjects", "ring")})
_PARTS: Final = re.compile(rf"{re.escape(part_stream(''))}(\d{{8}}t\d{{6}}z)-", re.ASCII)


@dataclass(frozen=True, slots=True)
class Said:
    """One leaf to be: the statement, and the names behind it if it speaks of many."""

    statement: Statement
    names: Names | None = None


@dataclass(slots=True)
class Look:
    """What one look found. `passed_over` are names that nobody of ours sealed; `caught_up`, that nothing is left.

    `oldest_at` is when the first of what is new was stored, by the store's clock.
    """

    at: datetime
    said: list[Said] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    names_total: int = 0
    passed_over: int = 0
    caught_up: bool = True
    oldest_at: datetime | None = None

    @property
    def room(self) -> int:
        """How many more names fit into the batch."""
        return min(NAMES_LIMIT - self.names_total, LEAVES_LIMIT - len(self.said))


def look_for_new(
    vault: Vault,
    marks: Mapping[str, Mark],
    closed: Mapping[str, str],
    *,
    known: Callable[[str], bool] | None = None,
) -> Look:
    """What lies in the vault and is not logged, as far as it fits into one batch.

    `known` tells of a whole name whether it is logged; with it everything is listed from the start: a sweep. Raises
    VaultError when the store can't be read.
    """
    found = Look(vault.store.now(), marks=dict(marks), closed=dict(closed))
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="log-feed") as pool:
        for folder in _folders(vault, found, sweep=known is not None):
            if found.room <= 0:
                found.caught_up = False
                break
            for place, names in _by_place(vault, folder, found.marks, sweep=known is not None):
                _take(vault, place, names, found, known, pool)
    return found


def is_single(stream: str) -> bool:
    """Whether each object of a stream has a leaf of its own; the others are pieces, logged by the batch."""
    return stream not in {WAL, FULL, PACKS} and not stream.startswith(part_stream(""))


def _folders(vault: Vault, found: Look, *, sweep: bool) -> Iterator[str]:
    """The streams' folders; those of base backups that ended days ago are left out and noted as closed."""
    _, datasets = look(vault.store, prefix_of(vault.estate))
    for place in datasets:
        dataset = place.split("/")[1]
        if dataset == LOG:
            continue
        closed = "" if sweep else found.closed.get(dataset, "")
        _, folders = look(vault.store, place)
        for folder in folders:
            stream = folder.split("/")[2]
            if (dataset, stream) not in _UNSPOKEN and not (_PARTS.match(stream) and stream <= closed):
                yield folder
        done = [stream for stream in (folder.split("/")[2] for folder in folders) if _is_closed(stream, found.at)]
        if done and found.caught_up and found.room > 0:
            found.closed[dataset] = max(*done, found.closed.get(dataset, ""))
            for mark in [place for place in found.marks if _is_below(place, dataset, found.closed[dataset])]:
                del found.marks[mark]


def _is_below(place: str, dataset: str, closed: str) -> bool:
    parts = place.split("/")
    return parts[1] == dataset and bool(_PARTS.match(parts[2])) and parts[2] <= closed


def _is_closed(stream: str, now: datetime) -> bool:
    """By the time in its name, which the snapshot's writer chose: what is named after the future never closes."""
    named = _PARTS.match(stream)
    if named is None:
        return False
    try:
        begun = datetime.strptime(named[1], "%Y%m%dt%H%M%Sz").replace(tzinfo=UTC)
    except ValueError:
        return False
    return begun + CLOSED_AFTER < now


def _by_place(
    vault: Vault, folder: str, marks: Mapping[str, Mark], *, sweep: bool
) -> Iterator[tuple[str, Iterator[Name]]]:
    """The places of a stream's folder, each with its names from its mark on."""
    _, systems = look(vault.store, folder)
    for system in systems:
        _, places = look(vault.store, system)
        for place in places:
            mark = Mark() if sweep else marks.get(place, Mark())
            start_after = f"{place}{mark.begin:016X}" if mark.begin else ""
            yield place, scan(vault.store, place, start_after)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A name of a place: `statement` or just `obj` where it is new and ours; neither where it is logged already."""

    key: ObjectKey
    stored_at: datetime
    is_ours: bool
    is_new: bool
    statement: Statement | None = None


def _take(
    vault: Vault,
    place: str,
    names: Iterable[Name],
    found: Look,
    known: Callable[[str], bool] | None,
    pool: ThreadPoolExecutor,
) -> None:
    """Examine a place's names, some at a time, until the batch is full; note what is new and how far that went."""
    mark = found.marks.get(place, Mark())

    def examine(name: Name) -> _Seen | None:
        if name.key is None or not name.versions:
            return None
        stored_at = name.versions[0].modified_at
        if known(name.text) if known else name.key.digest[:SEEN_HEX] in mark.seen:
            return _Seen(name.key, stored_at, is_ours=True, is_new=False)
        obj = _listed(vault, name, name.key)
        statement = None if obj is None else _statement(vault, obj)
        return _Seen(name.key, stored_at, is_ours=statement is not None, is_new=True, statement=statement)

    seen: list[_Seen] = []
    room, rest = found.room, iter(names)
    while chunk := list(islice(rest, CHUNK)):
        if room <= 0:
            found.caught_up = False
            break
        rows = [row for row in pool.map(examine, chunk) if row is not None]
        room -= sum(row.is_new and row.is_ours for row in rows)
        seen += rows
    found.passed_over += sum(not row.is_ours for row in seen)
    _say(place, [row for row in seen if row.is_new and row.is_ours], found)
    if seen:
        found.marks[place] = _mark(mark, seen, found)


def _say(place: str, new: list[_Seen], found: Look) -> None:
    if not new:
        return
    found.names_total += len(new)
    earliest = min(row.stored_at for row in new)
    found.oldest_at = earliest if found.oldest_at is None else min(found.oldest_at, earliest)
    if is_single(new[0].key.stream):
        found.said += [Said(row.statement) for row in new if row.statement is not None]
        return
    keys = sorted(row.key for row in new)
    names = Names(len(found.said), place, tuple(sorted(str(key)[len(place) :] for key in keys)))
    predicate: dict[str, Json] = {
        "count": len(keys),
        "first": f"{keys[0].first:016X}",
        "last": f"{max(key.last for key in keys):016X}",
        STORED_AT: canonical.format_time(max(row.stored_at for row in new)),
    }
    found.said.append(Said(Statement(NAMES, place, names.sha256, predicate), names))


def _mark(mark: Mark, seen: list[_Seen], found: Look) -> Mark:
    """From where to list next time, and what of that is logged.

    What can't be believed moves nothing on. While it is young it is asked for again: it may have been misread.
    """
    ours = [row for row in seen if row.is_ours]
    dated = [row for row in ours if not _is_ahead(row)]
    recent = [row.key.first for row in seen if row.stored_at > found.at - OVERLAP and not _is_ahead(row)]
    newest = max((row.key.first for row in dated), default=mark.begin)
    begin = min([*recent, newest])
    logged = frozenset(row.key.digest[:SEEN_HEX] for row in ours if row.key.first >= begin)
    return Mark(begin, logged if found.caught_up else logged | mark.seen)  # what was not listed again stays known


def _is_ahead(row: _Seen) -> bool:
    """A fact of a writer whose clock ran ahead: nobody may wait for it."""
    return row.key.stream.startswith(fact_stream("")) and is_misdated(row.key.first, row.stored_at)


def _listed(vault: Vault, name: Name, key: ObjectKey) -> StoredObject | None:
    version = authentic(vault.store, name)
    if version is None or version.size_bytes > stored_limit(key.stream):
        return None
    return StoredObject(key, version.version_id, version.size_bytes, version.modified_at)


def _statement(vault: Vault, obj: StoredObject) -> Statement | None:
    """What the log says of an object by itself, None if nobody of ours sealed it; of a piece, that it may be counted.

    Raises VaultError only when the store can't be read.
    """
    try:
        if not is_single(obj.key.stream):
            vault.header(obj)
            return Statement(NAMES, str(obj.key), "")
        data = vault.fetch(obj)
        said = _believe(vault, obj.key, data)
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return None
    stored_at = canonical.format_time(obj.modified_at)
    return Statement(OBJECT, str(obj.key), hashlib.sha256(data).hexdigest(), {**said, STORED_AT: stored_at})


def _believe(vault: Vault, key: ObjectKey, data: bytes) -> dict[str, Json]:
    """What there is to say of bytes that one of ours sealed for this name; raises VaultError for any other."""
    if key.stream == KEYS:
        parsed = parse_key_object(data, key=key, trust=vault.trust)
        return {"kind": "key", "provider": parsed.provider}
    header = verify_envelope(data, vault.trust, name=str(key)).header
    check_belongs(header, key, name=str(key))
    if key.stream not in GOVERNANCE:
        return {"kind": header.kind}
    try:
        opened = open_sealed(data, trust=vault.trust, key_of=vault.keys.key_of, key=key)
        body = canonical.decode(opened.plaintext, limit_bytes=FACT_LIMIT_BYTES, what=str(key))
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return {"kind": header.kind}  # no key at hand: that it was said, and when, can be logged all the same
    words = plain_words(body)
    return {"kind": header.kind, SAYS: words} if words else {"kind": header.kind}
