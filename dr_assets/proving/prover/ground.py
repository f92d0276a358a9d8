"""Where a dataset's prover has its sandboxes and clones: one folder, one prover at a time, nothing left behind.

What belongs here: taking that folder, clearing what a killed prover left, how much lies in it. What stays out: what is
in a sandbox.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from dr_assets.engines.placement import engine_home, engine_user
from dr_assets.estate.errors import PolicyError
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.clone_shelf import wait_server_gone
from dr_assets.proving.prover.image import size_of

_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Ground:
    """The folder of one prover. `new` names a place for the next sandbox or clone, which doesn't exist yet."""

    root: Path
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def new(self, what: str) -> Path:
        """A path that was never used."""
        return self.root / f"{what}-{next(self._numbers)}"

    def used_bytes(self) -> int:
        """What everything of it takes on disk, wherever the engine's user made it lie elsewhere."""
        places = [path for path in self.root.iterdir() if path.is_dir()]
        homes = {engine_home(path).path for path in places}
        return size_of(*homes, *(path for path in places if path not in homes))


@contextmanager
def ground_of(dataset: str, env: Mapping[str, str]) -> Iterator[Ground]:
    """Take the folder below DR_ASSETS_WORK_DIR (or the system's for temporary files); leaving the block empties it.

    What a prover left that was killed is removed first: its server went with it, and a half-written sandbox is never
    continued. Raises PolicyError `prover.runs_already`, `prover.unsafe_place`.
    """
    parent = Path(env.get(WORK_DIR_ENV) or tempfile.gettempdir())
    root = parent / f"dr_assets-prover-{dataset}"
    parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=0o700, exist_ok=True)
    _require_ours(root)
    # Another user's server has to pass through; what it has in there is its own alone.
    root.chmod(0o700 if engine_user().uid == os.geteuid() else 0o711)
    with (root / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PolicyError(
                "prover.runs_already",
                f"another prover of {dataset} has its sandbox in {root}",
                f"one is enough; to run a second one on this host set {WORK_DIR_ENV} to another folder",
            ) from None
        _clear(root)
        try:
            yield Ground(root)
        finally:
            _clear(root)
            (root / _LOCK).unlink(missing_ok=True)
            root.rmdir()


def _require_ours(root: Path) -> None:
    """Anybody may make a folder of that name below /tmp, and would own what is laid in it."""
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PolicyError(
            "prover.unsafe_place",
            f"{root} is there and is not a folder of this user",
            f"find out who made it and remove it, or set {WORK_DIR_ENV} to a folder that only this user may write to",
        )


def _clear(root: Path) -> None:
    for path in root.iterdir():
        if path.is_dir():
            home = engine_home(path).path
            wait_server_gone(home / "data")
            for folder in (home, path):
                shutil.rmtree(folder, ignore_errors=True)
