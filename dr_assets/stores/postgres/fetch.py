"""Sealed objects fetched and opened in parallel, handed out in order, in bounded memory.

What belongs here: the pool and its window. What stays out: what the objects hold. Opening verifies digest, signature,
key and plaintext; it is the expensive part and releases the GIL, so threads are enough.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.full_segments import micros_beneath
from dr_assets.stores.postgres.patience import patiently
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.vault import StoredObject, Vault

# Plaintext in flight, whatever it was compressed to; but always two objects, so that one is opened as one is laid.
_WINDOW_BYTES: Final = 96 << 20
_WINDOW_OBJECTS: Final = 64
_WORKERS_MIN, _WORKERS_MAX = 4, 16


def opened_in_order(
    vault: Vault,
    objects: Sequence[StoredObject],
    *,
    plaintext_bytes: int | None = None,
    plaintext_digest: bool = True,
) -> Iterator[Opened]:
    """Every object, opened, in the order given.

    `plaintext_bytes` is about what each holds; without it, an object's positions tell, as WAL's do. `plaintext_digest`
    as for `open_sealed`. Raises VaultError for the first object (in order) that is missing, damaged or not ours.
    """
    # Small objects wait for the store more than for the processor; large ones are the other way round.
    workers = (
        _WORKERS_MAX if plaintext_bytes is None else min(_WORKERS_MAX, max(_WORKERS_MIN, 2 * (os.cpu_count() or 1)))
    )
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fetch")
    waiting: deque[tuple[Future[Opened], int]] = deque()
    in_flight_bytes = 0
    abandoned = threading.Event()
    try:
        for stored in objects:
            size_bytes = plaintext_bytes or stored.key.last - stored.key.first
            while len(waiting) > 1 and (
                in_flight_bytes + size_bytes > _WINDOW_BYTES or len(waiting) >= _WINDOW_OBJECTS
            ):
                in_flight_bytes -= waiting[0][1]
                yield waiting.popleft()[0].result()
            waiting.append((pool.submit(_open, vault, stored, abandoned, plaintext_digest), size_bytes))
            in_flight_bytes += size_bytes
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        abandoned.set()
        pool.shutdown(wait=True, cancel_futures=True)


def opened_wal(vault: Vault, objects: Sequence[StoredObject]) -> Iterator[Opened]:
    """Pieces of WAL, opened, in order; micro-segments stand in for a full one that can't be opened.

    Raises VaultError for the first piece that is damaged and has no such substitute.
    """
    rest = objects
    while rest:
        opened = opened_in_order(vault, rest)
        count = 0
        try:
            for piece in opened:
                yield piece
                count += 1
        except VaultError as error:
            micros = _beneath(vault, rest[count], error)
            yield from opened_in_order(vault, micros)
            rest = rest[count + 1 :]
        else:
            return


def _beneath(vault: Vault, damaged: StoredObject, error: VaultError) -> Sequence[StoredObject]:
    """The micro-segments beneath a damaged full one; raises `error` when there are none."""
    micros = micros_beneath(vault, damaged) if damaged.key.stream == FULL and error.code not in STORE_AWAY else ()
    if not micros:
        raise error
    return micros


def _open(vault: Vault, stored: StoredObject, abandoned: threading.Event, plaintext_digest: bool) -> Opened:  # noqa: FBT001 - a pool passes it on
    return patiently(lambda: vault.open(stored, plaintext_digest=plaintext_digest), abandoned)
