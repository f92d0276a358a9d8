"""Writing files that are there after a crash, and reading back what the disk holds.

What belongs here: fsync, rename, digests. What stays out: what the files mean.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20


def write_whole(path: Path, data: bytes) -> None:
    """`data` under `path`, or nothing: written aside, synchronised, renamed, and the folder synchronised."""
    aside = path.with_name(f"{path.name}.part")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """See that the folder's names outlive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_on_disk(path: Path) -> str:
    """The SHA-256 of what the disk gives back, not of what memory still holds of it, as far as the system does so."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
