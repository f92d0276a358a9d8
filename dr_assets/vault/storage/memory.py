"""A store in memory with the semantics that matter: versions, delete markers, conditional puts, enforced locks.

What belongs here: what the contract tests hold it and S3 to. What stays out: tampering (tests do that to `rows`).
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from dr_assets.vault.storage import (
    COLD_CLASSES,
    Blob,
    BucketState,
    Head,
    Level,
    Lock,
    Put,
    Thaw,
    ThawTier,
    Version,
)
from dr_assets.vault.storage.refusals import cold, key_conflict, lock_refused, missing, not_cold, too_large


@dataclass(slots=True)
class Row:
    """One version or delete marker, oldest first in its key's list. `data` is None for a delete marker."""

    version_id: str
    modified_at: datetime
    data: bytes | None = field(repr=False)
    sha256: str | None = None
    lock: Lock | None = None
    held: bool = False
    storage_class: str = ""
    thaw: Thaw | None = None


class MemoryStore:
    """An ObjectStore without a server; threads may share it."""

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or (lambda: datetime.now(UTC))
        self._mutex = threading.Lock()
        self._count = 0
        self.rows: dict[str, list[Row]] = {}

    def put(self, key: str, data: bytes, sha256: str, lock: Lock) -> Put:
        """As the port says; a delete marker on top makes the key free again, as S3 has it."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("the digest given is not that of the bytes: a bug of the caller")
        with self._mutex:
            current = self._current(key)
            if current is not None:
                if current.sha256 != sha256:
                    raise key_conflict(key)
                return Put(current.version_id, existed=True, store_at=self._clock())
            return Put(self.add(key, data, lock).version_id, existed=False, store_at=self._clock())

    def add(self, key: str, data: bytes | None, lock: Lock | None = None) -> Row:
        """Put a version (or a delete marker) on top, unconditionally: what an overwrite or a delete does."""
        self._count += 1
        digest = None if data is None else hashlib.sha256(data).hexdigest()
        row = Row(f"v{self._count:08d}", self._clock(), data, digest, lock)
        self.rows.setdefault(key, []).append(row)
        return row

    def head(self, key: str, version_id: str | None = None) -> Head | None:
        """As the port says."""
        row = self._find(key, version_id)
        return None if row is None else self._head(key, row)

    def get(self, key: str, version_id: str | None = None, *, limit_bytes: int | None = None) -> Blob:
        """As the port says."""
        row = self._find(key, version_id)
        if row is None or row.data is None:
            raise missing(key, version_id)
        if limit_bytes is not None and len(row.data) > limit_bytes:
            raise too_large(key, len(row.data), limit_bytes)
        if self._head(key, row).is_frozen:
            raise cold(key)
        return Blob(self._head(key, row), row.data)

    def get_range(self, key: str, version_id: str, begin: int, end: int) -> bytes:
        """As the port says."""
        return self.get(key, version_id).data[begin:end]

    def list_versions(self, prefix: str, start_after: str = "") -> Iterator[Version]:
        """As the port says, newest version first as S3 does."""
        with self._mutex:
            keys = sorted(
                key for key in list(self.rows) if key.startswith(prefix) and key > start_after
            )  # threads put meanwhile
        for key in keys:
            yield from self.list_name(key)

    def list_name(self, key: str) -> Iterator[Version]:
        """As the port says."""
        for row in reversed(self.rows.get(key, [])):
            size_bytes, is_marker = len(row.data or b""), row.data is None
            yield Version(key, row.version_id, size_bytes, row.modified_at, is_marker, row.storage_class)

    def list_level(self, prefix: str) -> Level:
        """As the port says."""
        rows = list(self.list_versions(prefix))
        inner = {row.key[len(prefix) :].partition("/")[0] for row in rows if "/" in row.key[len(prefix) :]}
        direct = tuple(row for row in rows if "/" not in row.key[len(prefix) :])
        return Level(tuple(sorted(f"{prefix}{name}/" for name in inner)), direct)

    def extend(self, key: str, version_id: str, lock: Lock) -> None:
        """As the port says."""
        row = self._find(key, version_id)
        if row is None:
            raise missing(key, version_id)
        old = row.lock
        if old and (lock.retain_until < old.retain_until or (old.mode, lock.mode) == ("COMPLIANCE", "GOVERNANCE")):
            raise lock_refused(key, "the store does not shorten or weaken a lock")
        row.lock = lock

    def delete_version(self, key: str, version_id: str) -> None:
        """As the port says."""
        with self._mutex:
            for row in self.rows.get(key, []):
                if row.version_id == version_id:
                    if row.lock is not None and row.lock.retain_until > self._clock():
                        raise lock_refused(key, "the version is locked")
                    if row.held:
                        raise lock_refused(key, "the version is under legal hold")
                    self.rows[key].remove(row)
                    break
            if not self.rows.get(key, True):
                del self.rows[key]

    def set_hold(self, key: str, version_id: str, *, held: bool) -> None:
        """As the port says."""
        row = self._find(key, version_id)
        if row is None:
            raise missing(key, version_id)
        row.held = held

    def thaw(self, key: str, version_id: str, *, days: int, tier: ThawTier) -> None:
        """As the port says; it stays under way until a test sets `Row.thaw` to a time."""
        del days, tier
        row = self._find(key, version_id)
        if row is None:
            raise missing(key, version_id)
        if row.storage_class not in COLD_CLASSES:
            raise not_cold(key)
        row.thaw = row.thaw or Thaw(None)

    def now(self) -> datetime:
        """As the port says."""
        return self._clock().replace(microsecond=0)

    def recent_now(self) -> datetime:
        """As the port says; asking costs nothing here."""
        return self.now()

    def bucket_state(self) -> BucketState:
        """Always protected; there is no other kind."""
        return BucketState(versioned=True, object_lock=True, default_mode="GOVERNANCE", default_lock_days=14)

    def copy(self) -> "MemoryStore":
        """The same contents, independent from now on."""
        twin = MemoryStore(self._clock)
        twin._count = self._count
        twin.rows = {key: [replace(row) for row in rows] for key, rows in self.rows.items()}
        return twin

    def _current(self, key: str) -> Row | None:
        rows = self.rows.get(key)
        return rows[-1] if rows and rows[-1].data is not None else None

    def _find(self, key: str, version_id: str | None) -> Row | None:
        if version_id is None:
            return self._current(key)
        found = [row for row in self.rows.get(key, []) if row.version_id == version_id]
        return found[0] if found and found[0].data is not None else None

    @staticmethod
    def _head(key: str, row: Row) -> Head:
        return Head(
            key, row.version_id, len(row.data or b""), row.sha256, row.lock, row.modified_at, row.held,
            row.storage_class, row.thaw,
        )  # fmt: skip
