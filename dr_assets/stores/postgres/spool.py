"""The spool: sealed pieces on the capture's own disk, for as long as the vault can't take them.

What belongs here: one dataset's folder, its files and their limit. What stays out: which pieces go there and come back
(spooling.py), what a new start does with what it finds (spool_recovery.py).

A file is the sealed object itself, named by its key and written once: encrypted and signed as it will lie in the vault.
The key ends in the object's digest, so a file that a crash tore is told from a whole one without any record beside it.
Nothing here is acknowledged to anybody: only the vault counts.
"""

import fcntl
import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.format.envelope import split_head
from dr_assets.vault.format.header import PREFIX_BYTES, Header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import Sealed

_SUFFIX: Final = ".sealed"
_UNFINISHED: Final = ".unfinished"
_HEAD_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Spooled:
    """One file of the spool: the object's key and its size on disk."""

    key: ObjectKey
    size_bytes: int


class SpoolFolder:
    """One dataset's pieces under `root`; threads may share it, processes may not (`spool.in_use`).

    Raises PolicyError `spool.unusable` when the folder can't be made, written or locked.
    """

    def __init__(self, root: Path, dataset: str, max_bytes: int) -> None:
        self.folder = root / dataset
        self.max_bytes = max_bytes
        self.trouble: str | None = None
        self._mutex = threading.Lock()
        self._sizes: dict[ObjectKey, int] = {}
        self._lock_file = self._open()

    @property
    def size_bytes(self) -> int:
        """What lies there now."""
        with self._mutex:
            return sum(self._sizes.values())

    def has_room(self, size_bytes: int) -> bool:
        """Whether so much more is allowed."""
        return self.size_bytes + size_bytes <= self.max_bytes

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._lock_file)

    def keep(self, sealed: Sealed) -> bool:
        """Write a piece through to the disk; False (and `trouble`) when the disk doesn't take it.

        A crash leaves either the whole file or none of that name: written aside, synced, then renamed.
        """
        with self._mutex:
            if sealed.key in self._sizes:
                return True
        path = self._path(sealed.key)
        unfinished = path.with_suffix(_UNFINISHED)
        try:
            file = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
            try:
                _write(file, sealed.data)
                os.fsync(file)
            finally:
                os.close(file)
            unfinished.rename(path)
            self._sync_folder()
        except OSError as error:
            self.trouble = f"the spool's disk took nothing: {error.strerror}"
            with suppress(OSError):  # a disk that takes nothing may let nothing go; the next start removes it
                unfinished.unlink(missing_ok=True)
            return False
        with self._mutex:
            self._sizes[sealed.key] = len(sealed.data)
        self.trouble = None
        return True

    def holds(self, key: ObjectKey) -> bool:
        """Whether that piece lies here."""
        with self._mutex:
            return key in self._sizes

    def load(self, key: ObjectKey) -> Sealed:
        """The very bytes that were sealed. Raises VaultError `spool.torn` when the file is not whole or gone."""
        try:
            data = self._path(key).read_bytes()
        except OSError as error:
            raise _torn(key, error.strerror or "unreadable") from None
        sha256 = hashlib.sha256(data).hexdigest()
        if not sha256.startswith(key.digest):
            raise _torn(key, f"{len(data)} bytes with another digest")
        return Sealed(key, data, sha256, split_head(data)[0])

    def header(self, key: ObjectKey) -> Header:
        """A piece's header, from a file that `scan` found whole. Raises VaultError."""
        with self._path(key).open("rb") as file:
            head = file.read(PREFIX_BYTES + _HEAD_BYTES)
        return split_head(head)[0]

    def drop(self, key: ObjectKey) -> None:
        """Remove a piece that the vault holds, or that is of no use; `trouble` when the disk doesn't let go of it.

        What stays still counts as used, and the next start looks at it again.
        """
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            self.trouble = f"the spool's disk let go of nothing: {error.strerror}"
            return
        with self._mutex:
            self._sizes.pop(key, None)

    def names(self) -> list[ObjectKey]:
        """The names of what lies there, whole or not; no file is read. Raises OSError."""
        found = (path.name.removesuffix(_SUFFIX) for path in self.folder.glob(f"*{_SUFFIX}"))
        return sorted(key for name in found if (key := ObjectKey.parse(name.replace(",", "/"))) is not None)

    def scan(self) -> tuple[list[Spooled], list[Spooled]]:
        """What an earlier run left: whole pieces in the order of their keys, and torn ones."""
        whole, torn = [], []
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            key = ObjectKey.parse(path.name.removesuffix(_SUFFIX).replace(",", "/"))
            if key is None:
                continue
            found = Spooled(key, path.stat().st_size)
            try:
                self.load(key)
            except VaultError:
                torn.append(found)
            else:
                whole.append(found)
        with self._mutex:
            self._sizes = {found.key: found.size_bytes for found in (*whole, *torn)}
        return sorted(whole, key=lambda found: found.key), torn

    def _path(self, key: ObjectKey) -> Path:
        return self.folder / (str(key).replace("/", ",") + _SUFFIX)

    def _open(self) -> int:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_private()
            lock_file = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
            for left in self.folder.glob(f"*{_UNFINISHED}"):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self.folder, error.strerror or "") from None
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock_file)
            raise PolicyError(
                "spool.in_use", f"{self.folder} is another capture's spool", "one dataset has one capture on a host"
            ) from None
        return lock_file

    def _require_private(self) -> None:
        """Before anything is written there: an owner may change what others can't."""
        found = self.folder.stat()
        if found.st_uid != os.geteuid():
            raise _unusable(self.folder, f"user {found.st_uid} owns it, the capture runs as {os.geteuid()}")
        if found.st_mode & 0o022:
            raise _unusable(self.folder, "others may write there")

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(file: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _torn(key: ObjectKey, found: str) -> VaultError:
    return VaultError(
        "spool.torn", f"the spooled piece {key}: {found}", "the source's slot still has these bytes while it lives"
    )


def _unusable(folder: Path, found: str) -> PolicyError:
    return PolicyError(
        "spool.unusable",
        f"the spool's folder {folder}: {found}",
        "make it a folder on a disk with room, owned by the capture's user, mode 0700",
    )
