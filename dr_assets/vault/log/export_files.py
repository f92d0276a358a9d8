"""An exported log as files in a folder, read as if whoever wrote it were hostile.

What belongs here: reading one file, listing all. What stays out: what the files say (offline.py).
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import PolicyError, VaultError

DEPTH_LIMIT: Final = 10
FILES_LIMIT: Final = 5_000_000


class Export:
    """The folder. Nothing outside of it is ever read, whatever links say."""

    def __init__(self, root: Path) -> None:
        """Raises PolicyError `log.no_export`."""
        if not root.is_dir():
            raise PolicyError(
                "log.no_export", f"{root} is no folder", "name a folder that `dr-assets log export` wrote"
            )
        self._root = root.resolve()

    def read(self, path: str, *, limit_bytes: int) -> bytes | None:
        """A file's bytes, None without one. Raises VaultError `log.hostile_export` for what is no plain file."""
        whole = self._root / path
        try:
            if whole.resolve() != whole:
                raise _hostile(path, "leads elsewhere by a link")
            # What blocks when opened (a pipe) must not hang the check.
            descriptor = os.open(whole, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, RuntimeError) as error:
            raise _hostile(path, f"can't be read: {type(error).__name__}") from None
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise _hostile(path, "is no plain file")
            if state.st_size > limit_bytes:
                raise _hostile(path, f"has {state.st_size} bytes, at most {limit_bytes} can be right")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(limit_bytes)
        finally:
            os.close(descriptor)

    def paths(self, folder: str = "") -> Iterator[str]:
        """Every file below a folder, in text order within each; links and such are listed as they are.

        Raises VaultError `log.hostile_export` for more files or deeper folders than any log has.
        """
        waiting, total = [folder.rstrip("/")], 0
        while waiting:
            at = waiting.pop()
            if at.count("/") >= DEPTH_LIMIT:
                raise _hostile(at, "lies deeper than any file of a log")
            for entry in self._entries(at):
                total += 1
                if total > FILES_LIMIT:
                    raise _hostile(at, f"more than {FILES_LIMIT} files")
                path = f"{at}/{entry.name}" if at else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                else:
                    yield path

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        whole = self._root / folder
        try:
            if whole.is_symlink():
                return []
            with os.scandir(whole) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _hostile(folder, f"can't be listed: {type(error).__name__}") from None


def _hostile(path: str, what: str) -> VaultError:
    return VaultError("log.hostile_export", f"{path[:200]!r} {what}", "no export of ours holds that: take another copy")
