"""Files that hold a secret: read only when nobody else can, written once.

What belongs here: modes and exclusive creation. What stays out: what the secret is for.
"""

import os
import stat
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import PolicyError

SECRET_LIMIT_BYTES: Final = 64 * 1024
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_secret(path: Path, what: str) -> bytes:
    """The bytes of `path`; raises PolicyError when it is absent, unreadable or open to group or world."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & OTHERS:
                raise PolicyError(
                    "keys.readable_by_others",
                    f"{path} ({what}) can be read by others than its owner",
                    f"chmod 600 {path}",
                )
            return file.read(SECRET_LIMIT_BYTES)
    except FileNotFoundError:
        raise PolicyError(
            "keys.missing_file", f"{path} ({what}) does not exist", "`dr-assets vault init` creates it for a new vault"
        ) from None
    except OSError as error:
        raise PolicyError(
            "keys.unreadable_file", f"{path} ({what}): {error.strerror}", "run as the user who owns it"
        ) from None


def write_secret(path: Path, secret: bytes) -> None:
    """Create `path` with mode 0600, whole or not at all, durable on return; FileExistsError when it is there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        _create(half, secret)
        try:
            path.hardlink_to(half)
        except FileExistsError:
            raise
        except OSError:  # a disk that knows no links
            _create(path, secret)
    finally:
        half.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _create(path: Path, secret: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """A file whose name is lost with the power is lost: what is sealed under that key would be too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
