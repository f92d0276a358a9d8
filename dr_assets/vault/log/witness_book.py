"""What a witness remembers: the newest checkpoint it cosigned of each log, one file each, safe against crashes.

What belongs here: those files, durable before anyone is answered, and proofs of a log's lie. What stays out: when to
cosign (witness_protocol.py).
"""

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Final, Self

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.log.note import NOTE_LIMIT_BYTES

COSIGNED: Final = "cosigned"
EVIDENCE: Final = "evidence"
# Anybody could fill the disk with a signed checkpoint and invented proofs; the first ones of a kind say enough.
EVIDENCE_LIMIT: Final = 64


def origin_hash(origin: str) -> str:
    """How a log is named in files and addresses: the SHA-256 of its origin in hex."""
    return hashlib.sha256(origin.encode()).hexdigest()


class WitnessBook:
    """The folder of one witness, held exclusively while open unless it is only `shared` to read. A context manager."""

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        """Raises PolicyError `witness.not_set_up` where no book was begun, `witness.in_use` when another has it.

        A lost book is not begun anew by itself: a witness that forgot would cosign a second history.
        """
        if not (folder / COSIGNED).is_dir():
            raise PolicyError(
                "witness.not_set_up",
                f"{folder} is no witness's folder",
                "`dr-assets witness init`; a witness whose folder was lost needs a new key, too",
            )
        self._folder = folder
        self._held = os.open(folder / COSIGNED, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not shared:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._held)
            raise PolicyError(
                "witness.in_use", f"another process has {folder}", "run one witness for each folder"
            ) from None

    @classmethod
    def begin(cls, folder: Path) -> None:
        """Make an empty book; FileExistsError where there is one."""
        (folder / COSIGNED).mkdir(parents=True)
        (folder / EVIDENCE).mkdir(exist_ok=True)
        sync_folder(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._held)

    def read(self, named: str) -> bytes | None:
        """The cosigned note of the log with that `origin_hash`; None when none was cosigned."""
        try:
            with (self._folder / COSIGNED / named).open("rb") as file:
                return file.read(NOTE_LIMIT_BYTES + 1)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """The origin hashes of all logs cosigned so far."""
        return sorted(path.name for path in (self._folder / COSIGNED).iterdir() if not path.name.endswith(".draft"))

    def write(self, named: str, note: bytes) -> None:
        """Replace what was remembered in one step; on return it outlives a power cut."""
        folder = self._folder / COSIGNED
        _write_synced(folder / f"{named}.draft", note)
        (folder / f"{named}.draft").replace(folder / named)
        sync_folder(folder)

    def keep_evidence(self, kind: str, request: bytes) -> Path | None:
        """File what shows or hints that a log has two histories; None when enough of that kind is there."""
        folder = self._folder / EVIDENCE
        path = folder / f"{kind}-{hashlib.sha256(request).hexdigest()}"
        if not path.exists():
            if sum(1 for _ in folder.glob(f"{kind}-*")) >= EVIDENCE_LIMIT:
                return None
            _write_synced(path, request)
            sync_folder(folder)
        return path


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
