"""Laying the vault's WAL into pg_wal, ahead of any server and in one process.

What belongs here: verifying the chain piece by piece, writing segment files, keeping the authenticated tail in
memory so that its end can be found independently of what lies on the disk. What stays out: fetching (fetch.py), record
arithmetic (wal.py), which pieces (plan.py).
"""

import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dr_assets.engines.placement import RunAs
from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.host import allocate
from dr_assets.stores.postgres.lay import give_open
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.wal import (
    PAGE_BYTES,
    Record,
    last_complete_record,
    segment_begin,
    segment_name,
)
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.full_segment import joins

# Enough for the last records in all but odd cases; beyond it the search reads the laid files.
_TAIL_BYTES: Final = 2 << 20


@dataclass(frozen=True, slots=True)
class WalFrame:
    """What a timeline's WAL pieces must agree with: [begin, end) and whose it is."""

    system_id: str
    timeline: int
    begin: int
    end: int
    segment_bytes: int


def frame_holding(frames: Sequence[WalFrame], position: int) -> WalFrame:
    """The newest timeline's frame of whose files one holds `position`: its first file has the bytes before it, too."""
    for frame in reversed(frames):
        if segment_begin(frame.begin, frame.segment_bytes) <= position:
            return frame
    return frames[0]


class WalLayer:
    """Writes pieces, in order, into segment files of full size, zero behind the last byte.

    Timelines follow one another as `frames` do. A server looks for the segment in which a timeline begins under that
    timeline's name, so there it has, as on the server that made it, the older one's bytes before that.
    """

    def __init__(self, folder: Path, frames: Sequence[WalFrame], user: RunAs) -> None:
        self._folder = folder
        self._frames = frames
        self._index = 0
        self._user = user
        self._position = frames[0].begin
        self._previous: Header | None = None
        self._descriptor: int | None = None
        self._tail: deque[tuple[int, memoryview]] = deque()
        self._tail_bytes = 0
        self.size_bytes = 0

    def lay(self, pieces: Iterable[Opened]) -> None:
        """Write every piece. Raises VaultError (`wal.chain_broken`) for one that doesn't continue the one before."""
        try:
            for piece in pieces:
                if self._position == self._frame.end:
                    if piece.header.timeline == self._frame.timeline:
                        continue  # written after the timeline was left
                    self._switch()
                self._check(piece.header, piece.header.size_bytes)
                first = piece.header.first
                for data in piece.frames:
                    view = memoryview(data)[: max(0, self._frame.end - first)]
                    self._write(first, view)
                    self._keep(first, view)
                    first += len(data)
        finally:
            self._close()
        if self._position < self._frames[-1].end:
            raise self._broken(self._position, f"nothing is stored up to {format_lsn(self._frames[-1].end)}")

    def last_record(self) -> Record | None:
        """The last complete record before the end of what was laid; None when there is none."""
        return last_complete_record(self._page, self._frames[0].begin, self._position, self._frame.segment_bytes)

    @property
    def end(self) -> int:
        """Behind the last byte laid."""
        return self._position

    @property
    def last_header(self) -> Header | None:
        """The header of the last piece laid: what comes next has to follow it."""
        return self._previous

    @property
    def _frame(self) -> WalFrame:
        return self._frames[self._index]

    def _switch(self) -> None:
        """Go on with the next timeline: its first file begins with what the older one wrote to that segment."""
        self._close()
        if self._index + 1 == len(self._frames):
            raise self._broken(self._position, "a piece of yet another timeline follows")
        begin = segment_begin(self._position, self._frame.segment_bytes)
        shared = b"" if begin == self._position else self._path(begin).read_bytes()[: self._position - begin]
        self._index += 1
        self._previous = None
        if shared:
            self._open(begin)
            os.pwrite(self._open_descriptor, shared, 0)

    def _check(self, header: Header, size_bytes: int) -> None:
        frame = self._frame
        if (header.kind, header.system_id, header.timeline) != ("wal", frame.system_id, frame.timeline):
            raise self._broken(header.first, f"a {header.kind} of timeline {header.timeline} stands in the chain")
        # The first piece may begin before the first byte that is needed.
        if header.first != self._position and not (self._previous is None and header.first <= self._position):
            raise self._broken(self._position, f"the next piece begins at {format_lsn(header.first)}")
        if header.last - header.first != size_bytes:
            raise self._broken(
                header.first, f"a piece of {size_bytes} bytes says that it ends {format_lsn(header.last)}"
            )
        if self._previous is not None and not joins(self._previous, header):
            raise self._broken(header.first, "the piece there was not made to follow the one before it")
        self._previous = header

    def _write(self, first: int, data: memoryview) -> None:
        view = data[max(0, self._position - first) :]
        while view:
            begin = segment_begin(self._position, self._frame.segment_bytes)
            if self._descriptor is None:
                self._open(begin)
            room = begin + self._frame.segment_bytes - self._position
            written = os.pwrite(self._open_descriptor, view[:room], self._position - begin)
            self._position += written
            self.size_bytes += written
            view = view[written:]
            if written == room:
                self._close()

    @property
    def _open_descriptor(self) -> int:
        assert self._descriptor is not None  # noqa: S101 - for the type checker: `_write` has just opened it
        return self._descriptor

    def _open(self, begin: int) -> None:
        path = self._path(begin)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        give_open(self._descriptor, self._user)
        allocate(self._descriptor, self._frame.segment_bytes)
        # A short segment file is fatal for the server; zeros behind the end are what it expects of an unfinished one.
        os.ftruncate(self._descriptor, self._frame.segment_bytes)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _path(self, begin: int, frame: WalFrame | None = None) -> Path:
        frame = frame or self._frame
        return self._folder / segment_name(frame.timeline, begin, frame.segment_bytes)

    def _keep(self, first: int, data: memoryview) -> None:
        self._tail.append((first, data))
        self._tail_bytes += len(data)
        while len(self._tail) > 1 and self._tail_bytes - len(self._tail[0][1]) >= _TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft()[1])

    def _page(self, position: int) -> bytes:
        """A page from the authenticated pieces in memory; an older one from the laid file."""
        end = min(position + PAGE_BYTES, self._position)
        if not self._tail or position < self._tail[0][0]:
            begin = segment_begin(position, self._frame.segment_bytes)
            with self._path(begin, frame_holding(self._frames, position)).open("rb") as file:
                return os.pread(file.fileno(), end - position, position - begin)
        pieces = [
            data[max(0, position - first) : max(0, end - first)]
            for first, data in self._tail
            if first < end and first + len(data) > position
        ]
        return b"".join(pieces)

    def _broken(self, position: int, found: str) -> VaultError:
        return VaultError(
            "wal.chain_broken",
            f"the WAL chain of timeline {self._frame.timeline} breaks at {format_lsn(position)}: {found}",
            "run `dr-assets vault verify`; restore to a target before that position, or from another vault",
        )
