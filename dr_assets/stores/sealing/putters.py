"""The pool that seals pieces and puts them into the vault, in parallel and in no order.

What belongs here: threads, tries and their end. What stays out: which pieces count (pieces.Prefix), what is
acknowledged (capture.py).

A put that failed is tried again with the *same sealed bytes*, so that a try which reached the store after all is
recognised there instead of becoming a second object.
"""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from dr_assets.estate.errors import VaultError
from dr_assets.stores.sealing.linked import Linked
from dr_assets.stores.sealing.metrics import PutMetrics
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import Sealed
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Receipt, Vault

# Answers that another try may change. Everything else (credentials, a missing lock, a name that is taken) is final.
_TRANSIENT = frozenset({"vault.unreachable", "vault.refused", "vault.missing"})
_BACKOFF_BEGIN_S = 0.2
_BACKOFF_END_S = 2.0
HANGS_AFTER_S = 10.0


class Cut(Protocol):
    """A piece of a stream that was cut: where it begins there, and how much it holds."""

    @property
    def begin(self) -> int:
        """Its first position: no other piece of the stream has it."""
        ...

    @property
    def size_bytes(self) -> int:
        """Plaintext bytes."""
        ...


class Loads(Protocol):
    """Where sealed pieces wait for the vault (postgres/spool.py)."""

    def load(self, key: ObjectKey) -> Sealed:
        """One of them. Raises VaultError."""
        ...


P = TypeVar("P", bound=Cut)


@dataclass(frozen=True, slots=True)
class Stored(Generic[P]):
    """A piece that the vault has read back, with its lock. `took_s` is seal and put together."""

    piece: P
    header_digest: str
    receipt: Receipt
    seal_s: float
    took_s: float


@dataclass(frozen=True, slots=True)
class Failed(Generic[P]):
    """A piece that was given up, and why."""

    piece: P
    error: VaultError


class Putters(Generic[P]):
    """`count` threads. A piece is only taken while a thread is idle, so what is in flight stays bounded.

    A piece that may be the only copy of its bytes (`is_only_copy`: the source is away) is not given up for lateness.
    """

    def __init__(
        self, vault: Vault, *, dataset: str, lock_of: Callable[[], Lock], count: int, give_up_s: float,
        is_only_copy: Callable[[], bool], metrics: PutMetrics,
    ) -> None:  # fmt: skip
        self._vault = vault
        self._dataset = dataset
        self._lock_of = lock_of
        self._give_up_s = give_up_s
        self._is_only_copy = is_only_copy
        self._metrics = metrics
        self._count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=f"put-{dataset}")
        self._outcomes: SimpleQueue[Stored[P] | Failed[P] | BaseException] = SimpleQueue()
        self._since: dict[int, float] = {}
        self._sealed: dict[int, Sealed] = {}
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._abandoned = threading.Event()
        self.upload_errors = 0
        self.trouble: str | None = None

    def silence(self) -> str | None:
        """What to tell when a put has been under way for so long that the store seems to hang, without any error."""
        if self.slowest_put_s(time.monotonic()) < HANGS_AFTER_S:
            return None
        return f"the vault has left a put without an answer for over {HANGS_AFTER_S:g} s"

    def fileno(self) -> int:
        """Becomes readable when an outcome is there, for select."""
        return self._wake_reader.fileno()

    @property
    def has_idle(self) -> bool:
        """Whether a piece would be taken at once."""
        return len(self._since) < self._count

    @property
    def busy(self) -> int:
        """Pieces taken whose outcome was not handed out yet."""
        return len(self._since)

    def slowest_put_s(self, now_s: float) -> float:
        """Age of the oldest piece under way, 0 when there is none."""
        return max((now_s - since for since in self._since.values()), default=0.0)

    def submit(self, linked: Linked, piece: P) -> None:
        """Seal and put a piece. Only while `has_idle`."""
        self._start(piece, linked.seal)

    def submit_spooled(self, piece: P, key: ObjectKey, spool: Loads) -> None:
        """Put a piece that waits on the spool. Only while `has_idle`."""
        self._start(piece, lambda: spool.load(key))

    def sealed_pieces(self) -> list[Sealed] | None:
        """The sealed bytes of all that is under way, oldest first; None while one is still being sealed."""
        sealed = [self._sealed.get(begin) for begin in sorted(self._since)]
        return None if None in sealed else [each for each in sealed if each is not None]

    def has_under_way(self, begin: int) -> bool:
        """Whether the piece that begins there was taken and its outcome not handed out yet."""
        return begin in self._since

    def wake(self) -> None:
        """Make `fileno` readable."""
        self._wake_writer.send(b"\0")

    def _start(self, piece: P, seal: Callable[[], Sealed]) -> None:
        self._since[piece.begin] = time.monotonic()
        self._pool.submit(self._run, seal, piece)

    def outcomes(self) -> list[Stored[P] | Failed[P]]:
        """What has ended since the last call. An error that is a bug of ours is raised here."""
        self._drain_wakeups()
        ended: list[Stored[P] | Failed[P]] = []
        while True:
            try:
                outcome = self._outcomes.get_nowait()
            except Empty:
                return ended
            if isinstance(outcome, BaseException):
                raise outcome
            self._since.pop(outcome.piece.begin)
            self._sealed.pop(outcome.piece.begin, None)
            ended.append(outcome)

    def close(self) -> None:
        """Give up what is still under way and end the threads."""
        self._abandoned.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._wake_reader.close()
        self._wake_writer.close()

    def _run(self, seal: Callable[[], Sealed], piece: P) -> None:
        try:
            self._outcomes.put(self._store(seal, piece))
        except BaseException as error:  # noqa: BLE001 - a thread's bug must crash the capture, so it crosses over
            self._outcomes.put(error)
        self.wake()

    def _store(self, seal: Callable[[], Sealed], piece: P) -> Stored[P] | Failed[P]:
        began_s = time.monotonic()
        try:
            sealed = seal()
        except VaultError as error:  # a torn file of the spool, no key: the slot has the bytes for the next start
            return Failed(piece, error)
        self._sealed[piece.begin] = sealed
        seal_s = time.monotonic() - began_s
        lock = self._lock_of()
        backoff_s = _BACKOFF_BEGIN_S
        while True:
            try:
                receipt = self._vault.put(sealed, lock)
            except VaultError as error:
                self._count_failure(error)
                late = time.monotonic() - began_s > self._give_up_s and not self._is_only_copy()
                if error.code not in _TRANSIENT or late or self._abandoned.wait(backoff_s):
                    return Failed(piece, error)
                backoff_s = min(backoff_s * 2, _BACKOFF_END_S)
            else:
                self._count_success(sealed, piece)
                return Stored(piece, sealed.header.digest, receipt, seal_s, time.monotonic() - began_s)

    def _count_failure(self, error: VaultError) -> None:
        self.upload_errors += 1
        self.trouble = f"{error.code}: {error.found}"
        self._metrics.upload_failed(self._dataset)

    def _count_success(self, sealed: Sealed, piece: P) -> None:
        self.trouble = None
        self._metrics.stored(self._dataset, piece.size_bytes, len(sealed.data))

    def _drain_wakeups(self) -> None:
        try:
            while self._wake_reader.recv(4096):
                pass
        except BlockingIOError:
            return
