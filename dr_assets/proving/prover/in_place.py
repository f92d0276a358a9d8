"""WAL from the vault, written in place into the pg_wal of a standby that runs.

What belongs here: holding each piece to the one before it, looking through its records before a byte is written,
files of full size with zeros behind the end, the step to another timeline. What stays out: fetching (follow.py), the
server (sandbox.py), record arithmetic (stores/postgres/wal.py).

A standby that knows no source and no command to fetch WAL looks at its pg_wal again and again. It takes an unfinished
record for the end, and goes on once the rest is there. So a piece is written where it belongs, in any order of bytes;
a short file alone would end the server, and so a file appears under its name with its full size.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dr_assets.engines.placement import RunAs
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres.host import allocate
from dr_assets.stores.postgres.lay import give_open
from dr_assets.stores.postgres.lay_wal import WalFrame
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.wal import PAGE_BYTES, Record, page_begin, records, segment_begin, segment_name
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.full_segment import joins

_RM_TABLESPACE: Final = 5
_TABLESPACE_CREATE: Final = 0x00
_DRAFT: Final = "dr_assets.draft"


class InPlaceWal:
    """The end of one sandbox's WAL. `position` is behind the last byte written, `record` the last complete one.

    Not for several threads at once.
    """

    def __init__(
        self, folder: Path, user: RunAs, frames: Sequence[WalFrame], record: Record, previous: Header | None
    ) -> None:
        frame = frames[-1]
        self.position = frame.end
        self._timelines = [each.timeline for each in frames]
        self.record = record
        self.previous = previous
        self._folder = folder
        self._user = user
        self._system_id = frame.system_id
        self._segment_bytes = frame.segment_bytes
        self._descriptor: int | None = None
        self._open_begin = -1
        self._tail_begin = page_begin(record.begin)
        self._tail = self._read(self._tail_begin, self.position) or b""

    @property
    def timeline(self) -> int:
        """The one that is written now."""
        return self._timelines[-1]

    def write(self, piece: Opened, *, end: int | None = None) -> int:
        """Write what of `piece` lies behind `position` and before `end`; how many bytes that was.

        Raises VaultError `wal.chain_broken` for what doesn't continue, `wal.diverged` for one that says something else
        of what is written already, `wal.damaged`; PolicyError `prover.tablespace_created`. Nothing is written then.
        """
        header = piece.header
        stop = header.last if end is None else min(header.last, end)
        self._require_fits(header)
        data = memoryview(piece.plaintext)
        if header.first < self.position:
            self._require_same(header, data)
        elif self.previous is not None and not joins(self.previous, header):
            raise self._broken("the piece there was not made to follow the one before it")
        fresh = data[self.position - header.first : stop - header.first]
        if fresh:
            last = self._look_through(fresh)
            self._lay(fresh)
            self.record = last  # only now, for whoever copies the files goes by it
        if stop == header.last:
            self.previous = header
        return len(fresh)

    def switch(self, timeline: int, history: str) -> None:
        """Go on with `timeline`, which begins at `position`: its first file has the older one's bytes before that.

        The history comes last: with it the server begins to look for that file.
        """
        begin = segment_begin(self.position, self._segment_bytes)
        shared = self._read(begin, self.position) or b""
        self.close()
        self._timelines.append(timeline)
        self.previous = None
        if shared:
            self._open(begin)
            os.pwrite(self._opened, shared, 0)
        path = self._folder / f"{timeline:08X}.history"
        if not path.exists():
            self._publish(path, history.encode())

    def close(self) -> None:
        """Close the open file; again is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor, self._open_begin = None, -1

    def _require_fits(self, header: Header) -> None:
        if (header.kind, header.system_id, header.timeline) != ("wal", self._system_id, self.timeline):
            raise self._broken(f"a {header.kind} of timeline {header.timeline} stands in the chain")
        if header.first > self.position:
            raise self._broken(f"the next piece begins at {format_lsn(header.first)}")

    def _require_same(self, header: Header, data: memoryview) -> None:
        """What two pieces both hold was written once by the source; if they differ, the source has gone back."""
        begin = header.first
        while begin < self.position:
            stop = min(self.position, segment_begin(begin, self._segment_bytes) + self._segment_bytes)
            known = self._read(begin, stop)
            if known is not None and known != data[begin - header.first : stop - header.first]:
                raise VaultError(
                    "wal.diverged",
                    f"between {format_lsn(begin)} and {format_lsn(stop)} of timeline {self.timeline} the vault's chain "
                    "holds other bytes than were replayed: the source was set back",
                    "the prover begins anew from the newest base backup; if this stays, look at `dr-assets status`",
                )
            begin = stop

    def _look_through(self, fresh: memoryview) -> Record:
        """Every record that these bytes complete, its CRC checked, before the server may see one; the last of them."""
        begin, known = self._tail_begin, memoryview(self._tail + fresh)
        last = self.record

        def page(position: int) -> memoryview:
            return known[position - begin : position - begin + PAGE_BYTES]

        for record in records(page, page_begin(last.begin), begin + len(known), self._segment_bytes):
            if record.begin <= last.begin:
                continue
            _require_no_tablespace(record)
            last = record
        self._tail_begin = page_begin(last.begin)
        self._tail = bytes(known[self._tail_begin - begin :])
        return last

    def _lay(self, view: memoryview) -> None:
        while view:
            begin = segment_begin(self.position, self._segment_bytes)
            if self._open_begin != begin:
                self.close()
                self._open(begin)
            room = begin + self._segment_bytes - self.position
            written = os.pwrite(self._opened, view[:room], self.position - begin)
            self.position += written
            view = view[written:]

    @property
    def _opened(self) -> int:
        assert self._descriptor is not None  # noqa: S101 - for the type checker: the callers have just opened it
        return self._descriptor

    def _open(self, begin: int) -> None:
        path = self._path(begin)
        if not path.exists():
            self._publish(path, None)
        self._descriptor, self._open_begin = os.open(path, os.O_RDWR | os.O_NOFOLLOW), begin

    def _publish(self, path: Path, data: bytes | None) -> None:
        """A whole file under its name at once: `data`, or a segment of zeros."""
        draft = self._folder / _DRAFT
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            give_open(descriptor, self._user)
            if data is None:
                allocate(descriptor, self._segment_bytes)
                os.ftruncate(descriptor, self._segment_bytes)
            else:
                os.write(descriptor, data)
        finally:
            os.close(descriptor)
        draft.rename(path)

    def _read(self, begin: int, end: int) -> bytes | None:
        """What is written of [begin, end); None where the server has removed a file of it."""
        found = b""
        while begin < end:
            first = segment_begin(begin, self._segment_bytes)
            stop = min(end, first + self._segment_bytes)
            path = next((path for path in map(self._path_of(first), reversed(self._timelines)) if path.exists()), None)
            if path is None:
                return None
            with path.open("rb") as file:
                found += os.pread(file.fileno(), stop - begin, begin - first)
            begin = stop
        return found

    def _path_of(self, begin: int) -> Callable[[int], Path]:
        return lambda timeline: self._folder / segment_name(timeline, begin, self._segment_bytes)

    def _path(self, begin: int) -> Path:
        return self._path_of(begin)(self.timeline)

    def _broken(self, found: str) -> VaultError:
        return VaultError(
            "wal.chain_broken",
            f"the WAL chain of timeline {self.timeline} breaks at {format_lsn(self.position)}: {found}",
            "run `dr-assets vault verify`; the prover goes on from the next base backup",
        )


def _require_no_tablespace(record: Record) -> None:
    """Replay of CREATE TABLESPACE empties the folder that it names: on the source's own host, the source's data."""
    if record.resource_manager == _RM_TABLESPACE and record.info & 0xF0 == _TABLESPACE_CREATE:
        raise PolicyError(
            "prover.tablespace_created",
            f"the WAL creates a tablespace at {format_lsn(record.begin)}; replaying that would empty a folder of this "
            "host",
            "take a base backup, which brings the tablespace along: the prover begins anew from it",
        )
