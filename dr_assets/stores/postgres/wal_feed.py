"""Single WAL files out of the vault, as a standby's `restore_command` asks for them.

What belongs here: which bytes make up a file of that name, also an unfinished one, and when there is none to give.
What stays out: exit codes (cli/wal.py), restoring (restore.py), which lays whole stretches and proves them.

A standby that lacks the last WAL of a dead primary gets it here before it is promoted. What the source wrote to a
timeline after it had left it is never given: a standby would follow into what nobody else has.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.capture_facts import anchor_of
from dr_assets.stores.postgres.clip import require_whole
from dr_assets.stores.postgres.course import Course, find_course
from dr_assets.stores.postgres.fetch import opened_wal
from dr_assets.stores.postgres.full_segments import first_stored, stored_timelines
from dr_assets.stores.postgres.history import History, Leg
from dr_assets.stores.postgres.lineage import known_histories
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.wal import parse_long_header
from dr_assets.vault.format.keys import TIMELINE_END
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.view import Listing, View

_SEGMENT: Final = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history")
_PER_ID: Final = 1 << 32
_LONG_HEADER_BYTES: Final = 40
# What a chain is chosen by lies behind the segment as well: of two pieces the one that leads on is taken.
_BEYOND_BYTES: Final = 16 << 20


class NotStoredError(Exception):
    """The vault has no such file (yet)."""


class WalFeed:
    """Files of one system's pg_wal. LSNs are byte positions; `segment_bytes` is the cluster's WAL segment size."""

    def __init__(self, vault: Vault, dataset: str, system_id: str, *, segment_bytes: int) -> None:
        self._vault = vault
        self._dataset = dataset
        self._system_id = system_id
        self._segment_bytes = segment_bytes

    def fetch(self, name: str, into: Path) -> int:
        """Write the file `name` to `into`; how many of its bytes are stored WAL, the rest are zeros.

        Raises NotStoredError, and VaultError `restore.hole` when WAL is missing that was acknowledged or lies before
        some that is stored, `wal.unknown_history` when a newer timeline may have begun before the file's end,
        `wal.other_segment_size`, and whatever the vault says of damage. Nothing is left at `into` then.
        """
        segment, history = _SEGMENT.fullmatch(name), _HISTORY.fullmatch(name)
        partial = into.with_name(f"{into.name}.dr_assets")
        try:
            if segment is not None:
                timeline, high, low = (int(part, 16) for part in segment.groups())
                stored_bytes = self._segment(partial, timeline, high * _PER_ID + low * self._segment_bytes)
            elif history is not None:
                text = self._history(int(history[1], 16)).text.encode()
                stored_bytes = partial.write_bytes(text)
            else:
                raise NotStoredError(f"{name} is neither a WAL segment nor a timeline's history")
            partial.replace(into)
        finally:
            partial.unlink(missing_ok=True)
        return stored_bytes

    def _history(self, timeline: int) -> History:
        history = known_histories(self._vault, self._dataset, self._system_id).get(timeline)
        if history is None or not history.text:
            raise NotStoredError(f"no history of timeline {timeline} is stored")
        return history

    def _segment(self, path: Path, timeline: int, begin: int) -> int:
        end = begin + self._segment_bytes
        course = self._course(timeline, begin, end)
        if course.chain.end <= begin:
            raise NotStoredError(f"nothing is stored of timeline {timeline} from {format_lsn(begin)} on")
        position = begin
        with path.open("wb") as file:
            os.ftruncate(file.fileno(), self._segment_bytes)
            for first, data in course.plaintexts(self._opened(course, end)):
                piece = memoryview(data)[: end - first]
                if position == begin:
                    self._check_head(piece)
                os.pwrite(file.fileno(), piece, first - begin)
                position = first + len(piece)
        return position - begin

    def _opened(self, course: Course, end: int) -> Iterator[Opened]:
        return opened_wal(self._vault, [obj for obj in course.chain.segments if obj.key.first < end])

    def _course(self, timeline: int, begin: int, end: int) -> Course:
        """What is stored of [begin, end) on the way to `timeline`; looks farther when that is not all."""
        legs = self._legs(timeline, begin)
        near = _near(self._vault, end + _BEYOND_BYTES)
        course = find_course(near, self._dataset, self._system_id, legs, begin)
        wanted = end if legs[-1].end is None else min(end, legs[-1].end)
        if course.chain.end >= wanted:
            return course
        acknowledged = self._acknowledged(legs)  # before the listing, so that what it speaks of must be in that
        course = find_course(self._vault, self._dataset, self._system_id, legs, begin)
        if course.broken is not None:
            raise course.broken
        require_whole(self._vault, course.chain, acknowledged)
        return course

    def _acknowledged(self, legs: Sequence[Leg]) -> int:
        """How far along this way captures said that everything is stored; 0 when none did."""
        stored = 0
        for leg in legs:
            anchor = anchor_of(self._vault, self._dataset, self._system_id, leg.timeline)
            if anchor is not None:
                stored = max(stored, anchor.stored if leg.end is None else min(anchor.stored, leg.end))
        return stored

    def _legs(self, timeline: int, begin: int) -> list[Leg]:
        """The timelines whose bytes the file of `timeline` at `begin` holds, the last one cut where it was left."""
        histories = known_histories(self._vault, self._dataset, self._system_id)
        own = histories.get(timeline, History(timeline, (), ""))
        legs = [Leg(number, end) for number, end in own.switches if begin < end < begin + self._segment_bytes]
        self._require_known(timeline, begin + self._segment_bytes, histories)
        left = _left_at(timeline, histories.values())
        if left is not None and left <= begin:
            raise NotStoredError(
                f"the source left timeline {timeline} at {format_lsn(left)}, before {format_lsn(begin)}"
            )
        return [*legs, Leg(timeline, left)]

    def _require_known(self, timeline: int, end: int, histories: Mapping[int, History]) -> None:
        """Refuse what may be abandoned: a newer timeline is stored from before `end` on, and where it came from isn't.

        A known history of a still newer one tells it all the same, and a first timeline has none.
        """
        known = max([1, timeline, *histories])
        for number in stored_timelines(self._vault, self._dataset, self._system_id):
            if not known < number < TIMELINE_END:
                continue
            first = first_stored(self._vault, self._dataset, self._system_id, number)
            if first is not None and first.key.first < end:
                raise VaultError(
                    "wal.unknown_history",
                    f"WAL of timeline {number} is stored from {format_lsn(first.key.first)} on, and no history, or two "
                    f"that contradict one another, of where it left timeline {timeline}",
                    f"take a base backup of timeline {number}: it brings the history along; `dr-assets vault verify`",
                )

    def _check_head(self, piece: memoryview) -> None:
        if len(piece) < _LONG_HEADER_BYTES:
            return
        _, segment_bytes, _ = parse_long_header(piece)
        if segment_bytes != self._segment_bytes:
            raise VaultError(
                "wal.other_segment_size",
                f"this system's WAL segments have {segment_bytes} bytes, {self._segment_bytes} were expected",
                f"add --segment-bytes {segment_bytes}",
            )


def _left_at(timeline: int, histories: Iterable[History]) -> int | None:
    """Where the source left `timeline` on its way to its newest one; None when nothing says that it did.

    0 when that way never led over it.
    """
    newest = max(histories, key=lambda history: history.timeline, default=None)
    if newest is None or newest.timeline <= timeline:
        return None
    return newest.left_at(timeline) or 0


def _near(vault: Vault, end: int) -> Vault:
    """`vault`, of which nothing that begins at `end` or later is listed: the tail may be months of pieces."""

    def select(listed: Listing, _: str | None, as_of: datetime | None) -> Iterator[StoredObject]:
        return takewhile(lambda obj: obj.key.first < end, listed(as_of))

    return View(vault, select)


def system_of(data_dir: Path) -> str | None:
    """The system identifier of the cluster in `data_dir`: the first eight bytes of its control file; None without."""
    try:
        with (data_dir / "global" / "pg_control").open("rb") as file:
            return str(int.from_bytes(file.read(8), "little"))
    except FileNotFoundError:
        return None
