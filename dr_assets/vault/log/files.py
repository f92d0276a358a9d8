"""The log's files in a vault's store: written once and locked, read by what they must be.

What belongs here: puts, look-ups, the newest checkpoint. What stays out: what goes into a file.

These names carry no digest. So a file is never taken for what it is called: whoever reads says what it must satisfy,
and of all versions under the name the oldest that does counts. What was laid over or before it changes nothing.
"""

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice, takewhile
from typing import Final, TypeVar

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import LOG
from dr_assets.vault.log.names import BATCH, CHECKPOINT, base_of, log_prefix, size_of
from dr_assets.vault.storage import STORE_AWAY, Head, Lock, Version
from dr_assets.vault.storage.write_once import LOCK_TOLERANCE, require_clock
from dr_assets.vault.vault import Vault

PAGE: Final = 1000
SIZE_END: Final = 10**19

Read = TypeVar("Read")


class LogFiles:
    """The files of one vault's log; threads may share it. `as_of` leaves out what the store took later."""

    def __init__(self, vault: Vault, as_of: datetime | None = None) -> None:
        self.vault = vault
        self.as_of = as_of

    def put(self, name: str, data: bytes) -> bool:
        """Write once, locked by the longest rule, read back; whether it was there already.

        Raises VaultError `vault.key_conflict` when other bytes have the name, `vault.not_stored`, `vault.not_locked`,
        `vault.clock_skew`, and what the store raises.
        """
        vault, sha256 = self.vault, hashlib.sha256(data).hexdigest()
        require_clock(vault.store, vault.clock)
        lock = vault.locks.lock(LOG, "log", vault.clock())
        put = vault.store.put(name, data, sha256, lock)
        head = vault.store.head(name, put.version_id or None)
        stored = None if head is None else head.sha256
        if head is not None and stored is None:  # a store without checksums of the whole
            blob = vault.store.get(name, head.version_id or None, limit_bytes=len(data))
            stored = hashlib.sha256(blob.data).hexdigest()
        if stored != sha256:
            raise VaultError(
                "vault.not_stored", f"{name} was put and is not there", "the store loses writes: don't trust it"
            )
        # What an earlier attempt put has an earlier lock; what lost half of it, or has none, nobody keeps for us.
        now = vault.clock()
        least = now + (lock.retain_until - now) / 2 if put.existed else lock.retain_until
        _require_lock(name, head, Lock(lock.mode, least))
        return put.existed

    def read(self, name: str, accept: Callable[[bytes], Read], *, limit_bytes: int) -> Read | None:
        """What `accept` makes of the oldest version that it doesn't refuse; None if there is none such.

        `accept` refuses by raising VaultError. Raises only what says that the store is away.
        """
        for data in self.versions(name, limit_bytes=limit_bytes):
            found = _accepted(data, accept)
            if found is not None:
                return found
        return None

    def read_current(self, name: str, accept: Callable[[bytes], Read], *, limit_bytes: int) -> Read | None:
        """As `read`, with one request where nobody laid anything over the file: for bytes that prove themselves."""
        data = None if self.as_of else self._bytes(name, None, limit_bytes)
        found = None if data is None else _accepted(data, accept)
        return self.read(name, accept, limit_bytes=limit_bytes) if found is None else found

    def versions(self, name: str, *, limit_bytes: int) -> Iterator[bytes]:
        """The bytes of every version that can be read, the oldest first."""
        rows = [row for row in self.vault.store.list_name(name) if not row.is_delete_marker]
        rows.reverse()  # stores list the newest first; a stable sort keeps their order within one second
        for row in sorted(rows, key=lambda row: row.modified_at):
            if self.as_of is None or row.modified_at <= self.as_of:
                data = self._bytes(name, row.version_id, limit_bytes)
                if data is not None:
                    yield data

    def _bytes(self, name: str, version_id: str | None, limit_bytes: int) -> bytes | None:
        try:
            return self.vault.store.get(name, version_id, limit_bytes=limit_bytes).data
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            return None

    def sizes_down(self, below: int = SIZE_END) -> Iterator[int]:
        """Sizes below `below` that have something under a checkpoint's name, the largest first."""
        return self._down(f"{log_prefix(self.vault.estate)}{CHECKPOINT}/", size_of, below)

    def bases_down(self, below: int = SIZE_END) -> Iterator[int]:
        """Bases below `below` that have something under a batch's name, the largest first."""
        return self._down(f"{log_prefix(self.vault.estate)}{BATCH}/", base_of, below)

    def bases_up(self, begin: int = 0) -> Iterator[int]:
        """Bases from `begin` on, the smallest first."""
        folder = f"{log_prefix(self.vault.estate)}{BATCH}/"
        before = -1
        for number in self._numbers(folder, base_of, begin):
            if number != before:
                before = number
                yield number

    def stored_since(self, base: int) -> Version | None:
        """The first row of a batch at or above `base`: it tells when that batch was put."""
        folder = f"{log_prefix(self.vault.estate)}{BATCH}/"
        return next((row for row in self._rows(folder, base) if base_of(row.key[len(folder) :]) is not None), None)

    def _rows(self, folder: str, begin: int) -> Iterator[Version]:
        start_after = f"{folder}{begin - 1:020d}~" if begin else ""
        for row in self.vault.store.list_versions(folder, start_after):
            if not row.is_delete_marker and (self.as_of is None or row.modified_at <= self.as_of):
                yield row

    def _numbers(self, folder: str, number_of: Callable[[str], int | None], begin: int) -> Iterator[int]:
        for row in self._rows(folder, begin):
            number = number_of(row.key[len(folder) :])
            if number is not None:
                yield number

    def _down(self, folder: str, number_of: Callable[[str], int | None], below: int) -> Iterator[int]:
        """Stores list upwards only, so the end is searched for: a few requests, however many names there are."""
        while below > 0:
            found = self._last_page(folder, number_of, below)
            if not found:
                return
            yield from sorted(set(found), reverse=True)
            below = min(found)

    def _last_page(self, folder: str, number_of: Callable[[str], int | None], below: int) -> list[int]:
        """The numbers of the last names below `below`: at most a page, all of them if there is no more."""
        low, step = 0, PAGE
        page = self._page(folder, number_of, low, below)
        if len(page) < PAGE:
            return page
        while (found := self._first(folder, number_of, low + step, below)) is not None:
            low, step = found, 2 * step
        high = low + step  # nothing is there or beyond
        while len(page := self._page(folder, number_of, low, below)) == PAGE:
            low = page[-1]
            found = self._first(folder, number_of, (low + high) // 2, below)
            if found is None:
                high = max((low + high) // 2, low + 1)
            else:
                low = found
        return page

    def _page(self, folder: str, number_of: Callable[[str], int | None], begin: int, below: int) -> list[int]:
        return list(islice(takewhile(lambda number: number < below, self._numbers(folder, number_of, begin)), PAGE))

    def _first(self, folder: str, number_of: Callable[[str], int | None], begin: int, below: int) -> int | None:
        number = next(self._numbers(folder, number_of, begin), None)
        return number if number is not None and number < below else None


def _accepted(data: bytes, accept: Callable[[bytes], Read]) -> Read | None:
    try:
        return accept(data)
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return None


def _require_lock(name: str, head: Head | None, lock: Lock) -> None:
    held = None if head is None else head.lock
    if held is None or held.retain_until + LOCK_TOLERANCE < lock.retain_until or _weaker(held, lock):
        raise VaultError(
            "vault.not_locked",
            f"{name}: asked for {lock.mode} until {lock.retain_until}, the store shows {held}",
            "the bucket must have been created with Object Lock (`dr-assets vault init`)",
        )


def _weaker(held: Lock, lock: Lock) -> bool:
    return (held.mode, lock.mode) == ("GOVERNANCE", "COMPLIANCE")
