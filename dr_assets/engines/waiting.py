"""Waiting with a deadline, the only way anything in this room waits."""

import time
from collections.abc import Callable
from typing import Final

from dr_assets.engines.errors import EngineError

# A start takes seconds, and minutes on a machine that is short of everything: only what hangs should be given up.
START_TIMEOUT_S: Final = 180.0
# Nor is an orderly stop cut short there: what is killed instead has to recover.
STOP_TIMEOUT_S: Final = 180.0


def wait_until(condition: Callable[[], bool], *, timeout_s: float, what: str, every_s: float = 0.02) -> None:
    """Return once `condition()` holds; raise EngineError `engine.timeout` if it doesn't within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise EngineError(
                "engine.timeout",
                f"{what} did not happen within {timeout_s:g} s",
                "look at the server's log; a busy machine may need a longer time-out",
            )
        time.sleep(every_s)
