"""A process that is killed while it writes, played in this one.

What belongs here: where the kill falls. What stays out: what a test kills, and what has to hold afterwards.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest


class KilledError(BaseException):
    """Ends something as a kill would: nothing is done any more, connections fall."""


class Killer:
    """Ends the process at the n-th call of `places` (owner, name), before it is made or after its answer was lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, str]) -> None:
        self._mutex = threading.Lock()
        self.calls, self.at, self.after = 0, -1, False
        for owner, name in places:
            monkeypatch.setattr(owner, name, self._deadly(getattr(owner, name)))

    def aim(self, at: int, *, after: bool) -> None:
        """Kill at this call, counted from now; -1: at none."""
        self.calls, self.at, self.after = 0, at, after

    def _deadly(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self._mutex:
                now = self.calls
                self.calls += 1
            if self.at >= 0 and now > self.at:
                raise KilledError  # other threads of a killed process do nothing either
            if now == self.at and not self.after:
                raise KilledError
            answer = real(*args, **options)
            if now == self.at:
                raise KilledError
            return answer

        return call
