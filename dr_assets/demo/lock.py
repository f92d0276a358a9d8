"""One run at a time on one home folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dr_assets.estate.errors import PolicyError


@contextmanager
def run_lock(home: Path) -> Iterator[None]:
    """Holds `home` for this process; the kernel lets go when we end, however that happens.

    Raises PolicyError `demo.already_running` when another run holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PolicyError(
                "demo.already_running",
                f"another run uses {home}",
                "stop it (Ctrl-C in its terminal), or choose another folder with --home",
            ) from error
        yield
