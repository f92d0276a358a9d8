"""Parts of a base backup on their way into the vault: cut, sealed and put in parallel, in bounded memory.

What belongs here: cutting archives into parts, the pool, the order. What stays out: where the bytes come from
(snapshot.py) and what the parts mean (base_manifest.py). Nothing touches a disk.
"""

import os
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
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Vault

PART_BYTES = 16 << 20
# Sealing is CPU, putting is waiting: more threads than cores keep both busy; each holds about three parts' memory.
_WORKERS_MIN, _WORKERS_MAX = 4, 8


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
        self._gathered: list[bytes | memoryview] = []
        self._gathered_bytes = 0
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

    @property
    def stored_bytes(self) -> int:
        """Sealed bytes that the vault has so far."""
        return self._stored_bytes

    def begin(self, name: str, oid: int | None = None, location: str | None = None) -> None:
        """A new archive begins; the one before it is whole."""
        self.end()
        self._open = _Open(name, oid, location, len(self._futures))

    def add(self, data: bytes | memoryview) -> None:
        """Bytes of the archive that began last; the buffer must stay as it is."""
        assert self._open is not None, "no archive began"  # noqa: S101 - a bug of ours if it fails
        if not self._gathered:
            self._begin_at = self._vault.clock()
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        self._open.size_bytes += len(data)
        if self._gathered_bytes >= self._part_bytes:
            self._submit()

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
        if not self._gathered:
            return
        plaintext, begin_at = b"".join(self._gathered), self._begin_at
        self._gathered, self._gathered_bytes = [], 0
        assert begin_at is not None  # noqa: S101 - for the type checker: set with the first piece
        self._room.acquire()
        self._raise_failure()
        future = self._pool.submit(self._put, len(self._futures), plaintext, begin_at)
        future.add_done_callback(lambda _: self._room.release())
        self._futures.append(future)

    def _raise_failure(self) -> None:
        while self._checked < len(self._futures) and self._futures[self._checked].done():
            self._futures[self._checked].result()
            self._checked += 1

    def _put(self, ordinal: int, plaintext: bytes, begin_at: datetime) -> Part:
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
        sealed = prepared.seal()
        receipt = patiently(lambda: self._vault.put(sealed, place.lock), self._abandoned)
        with self._counting:
            self._stored_bytes += receipt.size_bytes
        return Part(str(receipt.key), receipt.sha256, receipt.size_bytes)
