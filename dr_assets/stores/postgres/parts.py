"""Parts of a base backup on their way into the vault: cut, sealed and put in parallel, in bounded memory.

What belongs here: cutting archives into parts, the pool, the order. What stays out: where the bytes come from
(snapshot.py) and what the parts mean (base_manifest.py). Nothing touches a disk.

Memory: a few buffers go round between the one that fills them and the threads that seal them. What is sealed waits for
the store without its plaintext. Buffers are used again and again, because memory touched for the first time costs as
much as hashing it.
"""

import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from dr_assets.stores.postgres.base_manifest import Archive, Part
from dr_assets.stores.postgres.patience import patiently
from dr_assets.vault.format.keys import part_stream
from dr_assets.vault.format.segment import Sealed
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Vault

PART_BYTES = 32 << 20
# Sealing is CPU, putting is waiting: more threads than cores keep both busy. One buffer is filled while two are sealed,
# which is faster than a server sends. What zstd can't make smaller takes twice its size while it is sealed and once
# while it is put: 352 MiB with the buffers, at the very most.
_WORKERS_MIN, _WORKERS_MAX = 4, 6
_BUFFERS = 3


@dataclass(frozen=True, slots=True)
class PartsPlace:
    """Where one base backup's parts go."""

    dataset: str
    snapshot_id: str
    system_id: str
    timeline: int
    lock: Lock


@dataclass(slots=True)
class _Open:
    """The archive that is being received."""

    name: str
    oid: int | None
    location: str | None
    first_part: int
    size_bytes: int = 0


class PartWriter:
    """Takes archives as a stream and puts them as parts. Leaving the context waits for the threads.

    One thread feeds it; `add` blocks while enough parts are in flight, so that memory stays bounded whatever the
    store's speed. The first failure of a part is raised by the next call.
    """

    def __init__(self, vault: Vault, place: PartsPlace, *, part_bytes: int = PART_BYTES) -> None:
        self._vault = vault
        self._place = place
        self._part_bytes = part_bytes
        workers = min(_WORKERS_MAX, max(_WORKERS_MIN, os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="part")
        self._room = threading.BoundedSemaphore(workers + 1)
        self._futures: list[Future[Part]] = []
        self._checked = 0
        self._buffers: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._buffers.put(memoryview(bytearray(part_bytes)))
        self._filling: memoryview | None = None
        self._filled_bytes = 0
        self._begin_at: datetime | None = None
        self._open: _Open | None = None
        self._archives: list[Archive] = []
        self._stored_bytes = 0
        self._counting = threading.Lock()
        self._abandoned = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandoned.set()
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        # Now, and not when the collector next looks for cycles: an hour's process takes one backup after the other.
        self._filling, self._buffers = None, queue.SimpleQueue()

    @property
    def stored_bytes(self) -> int:
        """Sealed bytes that the vault has so far."""
        return self._stored_bytes

    def begin(self, name: str, oid: int | None = None, location: str | None = None) -> None:
        """A new archive begins; the one before it is whole."""
        self.end()
        self._open = _Open(name, oid, location, len(self._futures))

    def add(self, data: bytes | memoryview) -> None:
        """Bytes of the archive that began last; the caller may use the buffer again."""
        assert self._open is not None, "no archive began"  # noqa: S101 - a bug of ours if it fails
        size_bytes = len(data)
        self._open.size_bytes += size_bytes
        if self._filling is not None and self._filled_bytes + size_bytes < self._part_bytes:  # nearly always
            self._filling[self._filled_bytes : self._filled_bytes + size_bytes] = data
            self._filled_bytes += size_bytes
            return
        view = memoryview(data)
        while view:
            view = view[self._fill(view) :]

    def _fill(self, view: memoryview) -> int:
        """Take what has room in the buffer; a full one goes on its way."""
        if self._filling is None:
            self._filling = self._buffers.get()
            self._begin_at = self._vault.clock()
        taken = min(len(view), self._part_bytes - self._filled_bytes)
        self._filling[self._filled_bytes : self._filled_bytes + taken] = view[:taken]
        self._filled_bytes += taken
        if self._filled_bytes == self._part_bytes:
            self._submit()
        return taken

    def end(self) -> None:
        """The archive that began last is whole."""
        if self._open is None:
            return
        self._submit()
        self._archives.append(
            Archive(
                self._open.name,
                self._open.oid,
                self._open.location,
                self._open.size_bytes,
                self._open.first_part,
                len(self._futures),
            )
        )
        self._open = None

    def finish(self) -> tuple[Sequence[Archive], tuple[Part, ...]]:
        """Wait until the vault has every part; the archives and all parts, in order. Raises VaultError."""
        self.end()
        return self._archives, tuple(future.result() for future in self._futures)

    def _submit(self) -> None:
        buffer, size_bytes, begin_at = self._filling, self._filled_bytes, self._begin_at
        if buffer is None:
            return
        self._filling, self._filled_bytes = None, 0
        assert begin_at is not None  # noqa: S101 - for the type checker: set with the buffer's first byte
        self._room.acquire()
        self._raise_failure()
        future = self._pool.submit(self._put, len(self._futures), buffer, size_bytes, begin_at)
        future.add_done_callback(lambda _: self._room.release())
        self._futures.append(future)

    def _raise_failure(self) -> None:
        while self._checked < len(self._futures) and self._futures[self._checked].done():
            self._futures[self._checked].result()
            self._checked += 1

    def _put(self, ordinal: int, buffer: memoryview, size_bytes: int, begin_at: datetime) -> Part:
        try:
            sealed = self._seal(ordinal, buffer[:size_bytes], begin_at)
        finally:
            self._buffers.put(buffer)
        receipt = patiently(lambda: self._vault.put(sealed, self._place.lock), self._abandoned)
        with self._counting:
            self._stored_bytes += receipt.size_bytes
        return Part(str(receipt.key), receipt.sha256, receipt.size_bytes)

    def _seal(self, ordinal: int, plaintext: memoryview, begin_at: datetime) -> Sealed:
        place = self._place
        prepared = self._vault.prepare(
            dataset=place.dataset,
            stream=part_stream(place.snapshot_id),
            kind="part",
            system_id=place.system_id,
            timeline=place.timeline,
            first=ordinal,
            last=ordinal + 1,
            begin_at=begin_at,
            end_at=self._vault.clock(),
            plaintext=plaintext,
        )
        return prepared.seal()
