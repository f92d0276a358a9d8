"""What a source had written to a timeline beyond the place where it was left: whose commits those were.

What belongs here: finding them in the vault, reading the commits out of the WAL, the fact that lists them. What stays
out: following the source (follow.py).

Their clients may have been told that they were committed, and the new primary doesn't know them: a work-list for
people. The vault keeps the bytes. They were authenticated when they were opened, so no record's CRC is computed here.

Source of the rules: PostgreSQL's xlogrecord.h, xact.h, xactdesc.c (ParseCommitRecord), alike in 15 to 18 but for the
size of a dropped statistics entry.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.follow import pieces_around
from dr_assets.stores.postgres.history import History
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.protocol import POSTGRES_EPOCH, SystemIdentity
from dr_assets.stores.postgres.wal import (
    CONTINUES_RECORD,
    OVERWRITES_RECORD,
    PAGE_BYTES,
    RECORD_HEAD,
    RECORD_HEADER_BYTES,
    RM_XACT,
    RM_XLOG,
    XLOG_SWITCH,
    aligned,
    header_bytes,
    page_begin,
    parse_page_header,
    segment_ceil,
)
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import StoredObject, Vault

DIVERGED: Final = "diverged"
COMMITS_LISTED: Final = 1000

_FAR: Final = 1 << 64
_OPERATION, _HAS_INFO = 0x70, 0x80
_COMMIT, _COMMIT_PREPARED = 0x00, 0x30
_ORIGIN_ID, _TOPLEVEL_ID, _LONG_DATA, _SHORT_DATA = 253, 252, 254, 255
_RELFILE_BYTES, _INVALIDATION_BYTES = 12, 16
# Page magic of version 18, from which on an entry of dropped statistics is longer.
_MAGIC_18 = 0xD118
_STATS_BYTES, _STATS_BYTES_18 = 12, 16
_HAS_DATABASE, _HAS_SUBTRANSACTIONS, _HAS_RELFILES, _HAS_INVALIDATIONS, _HAS_TWOPHASE = 1, 2, 4, 8, 16
_HAS_DROPPED_STATS = 256


class UnreadableWalError(Exception):
    """What stands at `position` is no commit record, though it is marked as one. Stays within this room."""

    def __init__(self, position: int) -> None:
        super().__init__(format_lsn(position))
        self.position = position


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit record: where it begins, the transaction's id, the source's clock."""

    lsn: int
    xid: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Diverged:
    """What is stored of `timeline` beyond `switch`: `commits` up to a limit of `commits_total`.

    `examined_to` is where reading ended; before `stored` where a piece can't be opened.
    """

    system_id: str
    timeline: int
    next_timeline: int
    switch: int
    stored: int
    commits: tuple[Commit, ...]
    commits_total: int
    examined_to: int

    def __str__(self) -> str:
        return (
            f"{self.commits_total} commits of timeline {self.timeline} lie beyond {format_lsn(self.switch)}, where it "
            f"was left for {self.next_timeline}: the new primary does not have them"
        )


def record_diverged(vault: Vault, dataset: str, system_id: str, history: History, segment_bytes: int) -> list[Diverged]:
    """Seal a fact for each timeline of `history` of which more is stored than was gone on with, once.

    Returns what was recorded now. Raises VaultError.
    """
    known = [fact.body for fact in facts(vault, dataset, DIVERGED)]
    recorded = []
    for timeline, switch in history.switches:
        pieces = pieces_around(vault, dataset, SystemIdentity(system_id, timeline, switch), switch, _FAR)
        stored = pieces[-1].key.last if pieces else switch
        of: dict[str, Json] = {
            "system_id": system_id, "timeline": timeline, "switch_lsn": format_lsn(switch),
            "stored": format_lsn(stored),
        }  # fmt: skip
        if stored <= switch or any(of.items() <= body.items() for body in known):
            continue
        commits, total, reached = _examine(vault, pieces, switch, segment_bytes)
        following = history.legs_from(timeline)[1].timeline
        found = Diverged(system_id, timeline, following, switch, stored, commits, total, reached)
        record_fact(vault, dataset, DIVERGED, {**of, **_body(found)})
        recorded.append(found)
    return recorded


def find_commits(pieces: Iterable[tuple[int, bytes]], begin: int, segment_bytes: int) -> Iterator[Commit]:
    """The commits in WAL from `begin`, where a record or a page begins; `pieces` are (position, bytes), in order.

    A record that the last piece cuts is none. Raises UnreadableWalError for what is no WAL.
    """
    walk = _Walk(segment_bytes)
    for position, data in pieces:
        start, end = max(position, begin), position + len(data)
        while start < end:
            page = page_begin(start)
            page_end = min(page + PAGE_BYTES, end)
            yield from walk.take(start, data[start - position : page_end - position])
            start = page_end


class _Walk:
    """Records put together from the pages they lie on; of most only the head is kept."""

    def __init__(self, segment_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        self._head = bytearray()  # of a page whose header a piece's end has cut
        self._record = bytearray()
        self._begin = 0
        self._skip = 0
        self._idle_until = 0
        self._magic = 0

    def take(self, position: int, data: bytes) -> Iterator[Commit]:
        """The commits that are complete with these bytes of one page, which begin at `position`."""
        page = page_begin(position)
        content = page + header_bytes(page, self._segment_bytes)
        if position < content:
            head = data[: content - position]
            self._head = bytearray(head) if position == page else self._head + head
            if position + len(data) < content:
                return
            self._turn_page(bytes(self._head))
            data, position = data[content - position :], content
        if position >= self._idle_until:
            yield from self._parse(position, data)

    def _turn_page(self, head: bytes) -> None:
        parsed = parse_page_header(head)
        self._magic = parsed.magic
        if parsed.info & OVERWRITES_RECORD:
            self._record.clear()
            self._skip = 0
        elif parsed.info & CONTINUES_RECORD and not self._record and not self._skip:
            self._skip = aligned(parsed.remaining)  # begun before what is known

    def _parse(self, position: int, data: bytes) -> Iterator[Commit]:
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            if not self._record:
                self._begin = position + at
            wanted = self._wanted() - len(self._record)
            self._record += data[at : at + wanted]
            at += min(wanted, len(data) - at)
            if len(self._record) < self._wanted():
                continue
            commit = self._complete()
            if commit is not None:
                yield commit
            if position + at < self._idle_until:
                return

    def _wanted(self) -> int:
        """How many bytes of the growing record are needed before anything can be decided."""
        if len(self._record) < RECORD_HEADER_BYTES:
            return RECORD_HEADER_BYTES
        total_bytes, _, _, _, manager = RECORD_HEAD.unpack_from(self._record)
        return max(int(total_bytes), RECORD_HEADER_BYTES) if manager == RM_XACT else RECORD_HEADER_BYTES

    def _complete(self) -> Commit | None:
        total_bytes, xid, _, info, manager = RECORD_HEAD.unpack_from(self._record)
        record, self._record = bytes(self._record), bytearray()
        if total_bytes < RECORD_HEADER_BYTES:  # the WAL ends here: zeros to the end of what is known
            self._idle_until = _FAR
            return None
        self._skip = aligned(total_bytes) - len(record)
        if manager == RM_XLOG and info & 0xF0 == XLOG_SWITCH:
            self._idle_until, self._skip = segment_ceil(self._begin + total_bytes, self._segment_bytes), 0
            return None
        if manager != RM_XACT or info & _OPERATION not in {_COMMIT, _COMMIT_PREPARED}:
            return None
        try:
            return self._commit(record, xid, is_prepared=info & _OPERATION == _COMMIT_PREPARED)
        except (IndexError, struct.error, OverflowError):
            raise UnreadableWalError(self._begin) from None

    def _commit(self, record: bytes, xid: int, *, is_prepared: bool) -> Commit:
        data = _main_data(record)
        (at_us,) = struct.unpack_from("<q", data)
        if is_prepared:
            xid = _prepared_xid(data, stats_bytes=_STATS_BYTES_18 if self._magic >= _MAGIC_18 else _STATS_BYTES)
        return Commit(self._begin, xid, POSTGRES_EPOCH + timedelta(microseconds=at_us))


def _main_data(record: bytes) -> bytes:
    """What a commit record says itself, behind the headers that may come first; it has no blocks."""
    at = RECORD_HEADER_BYTES
    while record[at] in {_ORIGIN_ID, _TOPLEVEL_ID}:
        at += 3 if record[at] == _ORIGIN_ID else 5
    return record[at + (2 if record[at] == _SHORT_DATA else 5) :]


def _prepared_xid(data: bytes, *, stats_bytes: int) -> int:
    """The transaction that a COMMIT PREPARED ends: named behind everything else, not in the record's head."""
    (said,) = struct.unpack_from("<I", data, 8)
    at = 12 + (8 if said & _HAS_DATABASE else 0)
    for flag, item_bytes in (
        (_HAS_SUBTRANSACTIONS, 4),
        (_HAS_RELFILES, _RELFILE_BYTES),
        (_HAS_DROPPED_STATS, stats_bytes),
        (_HAS_INVALIDATIONS, _INVALIDATION_BYTES),
    ):
        if said & flag:
            (count,) = struct.unpack_from("<i", data, at)
            at += 4 + count * item_bytes
    (xid,) = struct.unpack_from("<I", data, at) if said & _HAS_TWOPHASE else (0,)
    return int(xid)


def _examine(
    vault: Vault, pieces: list[StoredObject], switch: int, segment_bytes: int
) -> tuple[tuple[Commit, ...], int, int]:
    """The commits beyond `switch`, how many there are, and how far the pieces could be opened."""
    reached = switch

    def opened() -> Iterator[tuple[int, bytes]]:
        nonlocal reached
        for obj in pieces:
            if obj.key.last <= switch:
                continue
            try:
                data = vault.open(obj).plaintext
            except VaultError as error:
                if error.code in STORE_AWAY:
                    raise
                return
            yield obj.key.first, data
            reached = obj.key.last

    listed: list[Commit] = []
    total = 0
    try:
        for commit in find_commits(opened(), switch, segment_bytes):
            total += 1
            if len(listed) < COMMITS_LISTED:
                listed.append(commit)
    except UnreadableWalError as error:
        reached = error.position  # a list for people must not end the capture
    return tuple(listed), total, reached


def _body(found: Diverged) -> dict[str, Json]:
    return {
        "next_timeline": found.next_timeline,
        "commits": [
            {"xid": commit.xid, "at": format_time(commit.at), "lsn": format_lsn(commit.lsn)} for commit in found.commits
        ],
        "commits_total": found.commits_total,
        "examined_to": format_lsn(found.examined_to),
    }
