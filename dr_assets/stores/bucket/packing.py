"""Records on their way into the vault: packed into parts of up to 16 MiB, sealed and put in parallel.

What belongs here: cutting, the pool, telling in order what is stored; all in bounded memory. What stays out: what a
record is (document.py), and remembering where it lies (index.py).

One thread adds. A record's place is known at once, its part's name only when that is sealed, so rows are handed out
together with their part, in the order in which they were added: when a row comes out, everything before it is stored.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from dr_assets.stores.bucket.inventory import Row, Spot
from dr_assets.stores.bucket.manifest import Part
from dr_assets.stores.postgres.patience import patiently
from dr_assets.vault.format.keys import part_stream
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Vault

PACK_BYTES: Final = 16 << 20
OPEN_S: Final = 15.0  # what a kill may cost: a part is sealed after so long, full or not
_WORKERS: Final = 3


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where one run's parts go. `next_ordinal` is beyond all that an earlier attempt put."""

    dataset: str
    snapshot_id: str
    system_id: str
    lock: Lock
    next_ordinal: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """A part that the vault was seen to hold, with the rows whose last record lies in it."""

    part: Part
    plain_bytes: int
    rows: tuple[Row, ...]


@dataclass(slots=True)
class _Open:
    """The part that is being filled."""

    begin_at: datetime
    begin_s: float = field(default_factory=time.monotonic)
    records: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    rows: list[Row] = field(default_factory=list)


class Packer:
    """Leaving the context waits for the threads. The first failure of a part is raised by the next call."""

    def __init__(self, vault: Vault, place: RunPlace, *, pack_bytes: int = PACK_BYTES) -> None:
        self._vault = vault
        self._place = place
        self._pack_bytes = pack_bytes
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="part")
        self._abandoned = threading.Event()
        self._ordinal = place.next_ordinal
        self._open: _Open | None = None
        self._waiting: deque[tuple[int, Future[Part], int, list[Row]]] = deque()
        self._keys: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandoned.set()
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)

    def add(self, record: bytes) -> Spot:
        """Take a record; where it will lie, its part named by a number until it is sealed."""
        if self._open is not None and (
            self._open.size_bytes + len(record) > self._pack_bytes or time.monotonic() - self._open.begin_s > OPEN_S
        ):
            self.flush()
        if self._open is None:
            self._open = _Open(self._vault.clock())
        spot = Spot(str(self._ordinal), self._open.size_bytes, len(record))
        self._open.records.append(record)
        self._open.size_bytes += len(record)
        return spot

    def note(self, row: Row) -> None:
        """A row whose records were all added; its last one just now."""
        assert self._open is not None, "no record was added"  # noqa: S101 - a bug of ours if it fails
        self._open.rows.append(row)

    def flush(self) -> None:
        """Seal what was gathered, on a thread; waits while enough parts are on their way."""
        opened, self._open = self._open, None
        if opened is None:
            return
        while sum(1 for _, future, _, _ in self._waiting if not future.done()) >= _WORKERS:
            next(future for _, future, _, _ in self._waiting if not future.done()).result()
        future = self._pool.submit(self._put, self._ordinal, b"".join(opened.records), opened.begin_at)
        self._waiting.append((self._ordinal, future, opened.size_bytes, opened.rows))
        self._ordinal += 1

    def put_alone(self, plaintext: bytes) -> None:
        """A part of its own that no row lies in: a shard of the inventory."""
        self.flush()
        self.add(plaintext)
        self.flush()

    def stored(self, *, all_of_them: bool = False) -> Iterator[Stored]:
        """What came to be stored since the last call, in order; with `all_of_them` everything, waited for.

        Raises VaultError.
        """
        if all_of_them:
            self.flush()
        while self._waiting and (all_of_them or self._waiting[0][1].done()):
            ordinal, future, plain_bytes, rows = self._waiting.popleft()
            part = future.result()
            self._keys[str(ordinal)] = part.key
            yield Stored(part, plain_bytes, tuple(self._named(row) for row in rows))

    def _named(self, row: Row) -> Row:
        def named(spot: Spot) -> Spot:
            return Spot(self._keys[spot.part], spot.offset, spot.length)

        return replace(
            row, head=None if row.head is None else named(row.head), pieces=tuple(named(one) for one in row.pieces)
        )

    def _put(self, ordinal: int, plaintext: bytes, begin_at: datetime) -> Part:
        place = self._place
        sealed = self._vault.prepare(
            dataset=place.dataset,
            stream=part_stream(place.snapshot_id),
            kind="part",
            system_id=place.system_id,
            timeline=0,
            first=ordinal,
            last=ordinal + 1,
            begin_at=begin_at,
            end_at=self._vault.clock(),
            plaintext=plaintext,
        ).seal()
        del plaintext
        receipt = patiently(lambda: self._vault.put(sealed, place.lock), self._abandoned)
        return Part(str(receipt.key), receipt.sha256, receipt.size_bytes)
