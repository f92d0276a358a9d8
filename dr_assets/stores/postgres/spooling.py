"""Pieces that the vault can't take yet: out of memory onto the spool, and back to the putters in their order.

What belongs here: when a piece goes to the disk, which comes back first, how much memory that frees. What stays out:
the files (spool.py), the puts (putters.py), the cut (capture_loop.py).

Only the capture's loop calls this; sealing and writing happen in one thread of its own, oldest first, so what lies on
the disk always continues what the vault holds.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dr_assets.stores.postgres.pieces import PIECE_CAP_BYTES, Piece
from dr_assets.stores.postgres.spool import SpoolFolder
from dr_assets.stores.sealing.linked import Linked
from dr_assets.stores.sealing.putters import Putters
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import Sealed

SPOOL_AFTER_S = 2.0
_DISK_RETRY_S = 5.0
_YELLOW_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class _Written:
    """A piece that the disk took (`key`), or did not."""

    piece: Piece
    linked: Linked
    key: ObjectKey | None


class Spooling:
    """The loop's view of one spool. `after_s` is how old a put must be before pieces go to the disk."""

    def __init__(self, folder: SpoolFolder, putters: Putters[Piece], *, after_s: float = SPOOL_AFTER_S) -> None:
        self.folder = folder
        self._putters = putters
        self._after_s = after_s
        self._queue: deque[tuple[Piece, ObjectKey]] = deque()
        self._homeless: tuple[Linked, Piece] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._job: Future[_Written | None] | None = None
        self._spilling: list[Sealed] = []
        self._disk_due_s = 0.0

    @property
    def queued_bytes(self) -> int:
        """WAL that is on the disk and not in memory."""
        return sum(piece.size_bytes for piece, _ in self._queue)

    def warning(self) -> str | None:
        """What to tell before the spool is full, None while there is room."""
        used, allowed = self.folder.size_bytes, self.folder.max_bytes
        if self.folder.trouble:
            return self.folder.trouble
        if self._is_full():
            full = "full: no more is read, and the source's slot grows"
        elif used >= allowed * _YELLOW_SHARE:
            full = "filling"
        else:
            return None
        return f"the spool is {full}, {used >> 20} of {allowed >> 20} MiB"

    def can_take(self) -> bool:
        """Whether a piece may go to the disk now; what is under way goes there first."""
        now_s = time.monotonic()
        if self._job is not None or self._homeless is not None or not self._is_wanted(now_s) or self._is_full():
            return False
        if self.folder.trouble and now_s < self._disk_due_s:
            return False
        under_way = self._putters.sealed_pieces()
        if under_way is None:
            return False
        missing = [sealed for sealed in under_way if not self.folder.holds(sealed.key)]
        if missing:
            self._spilling = missing
            self._start(lambda: self._spill(missing))
            return False
        return True

    def take(self, linked: Linked, piece: Piece) -> None:
        """Seal a piece and write it to the disk. Only after `can_take`."""
        self._start(lambda: self._write(linked, piece))

    def stored(self, key: ObjectKey) -> None:
        """The vault holds that piece: its file, if it has one, is of no more use."""
        self._forget([key])

    def _forget(self, keys: list[ObjectKey]) -> None:
        for key in keys:
            if self.folder.holds(key):
                self.folder.drop(key)

    def feed(self) -> None:
        """Give the idle putters what has waited longest."""
        self._collect()
        while self._putters.has_idle and self._queue:
            piece, key = self._queue.popleft()
            self._putters.submit_spooled(piece, key, self.folder)
        if self._putters.has_idle and self._homeless is not None:
            linked, piece = self._homeless
            self._homeless = None
            self._putters.submit(linked, piece)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits here, on the disk or for it."""
        return not self._queue and self._job is None and self._homeless is None

    def close(self) -> None:
        """End the thread; what lies on the disk stays there."""
        self._pool.shutdown(wait=True)

    def _is_wanted(self, now_s: float) -> bool:
        stuck = self._putters.trouble is not None or self._putters.slowest_put_s(now_s) > self._after_s
        return bool(self._queue) or stuck

    def _is_full(self) -> bool:
        return not self.folder.has_room(PIECE_CAP_BYTES)

    def _start(self, work: Callable[[], _Written | None]) -> None:
        self._job = self._pool.submit(work)
        self._job.add_done_callback(lambda _: self._putters.wake())

    def _collect(self) -> None:
        if self._job is None or not self._job.done():
            return
        written, self._job = self._job.result(), None
        if self.folder.trouble:
            self._disk_due_s = time.monotonic() + _DISK_RETRY_S
        if written is None:
            self._forget([sealed.key for sealed in self._spilling if not self._putters.has_under_way(sealed.key.first)])
        elif written.key is None:
            self._homeless = (written.linked, written.piece)
        else:
            self._queue.append((written.piece, written.key))

    def _spill(self, missing: list[Sealed]) -> None:
        for sealed in missing:
            if self.folder.has_room(len(sealed.data)) and not self.folder.keep(sealed):
                return

    def _write(self, linked: Linked, piece: Piece) -> _Written:
        sealed = linked.seal()
        return _Written(piece, linked, sealed.key if self.folder.keep(sealed) else None)
