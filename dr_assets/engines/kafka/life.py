"""The life of one broker process, whichever program it is.

What belongs here: stopping, crashing, starting again, its log. What stays out: how each is started (server, noida).
"""

from pathlib import Path
from typing import ClassVar, Self

from dr_assets.engines.errors import EngineError
from dr_assets.engines.supervise import Child, tail


class Life:
    """One child process and its log; leaving the context crashes it (a throwaway broker has nothing to finish)."""

    stop_grace_s: ClassVar[float]
    name: str
    log_path: Path
    child: Child | None

    def start(self) -> None:
        """Start it and wait until it serves."""
        raise NotImplementedError  # each program's own

    def stop(self, *, timeout_s: float | None = None) -> None:
        """Stop it in order, so that it writes its data; killed after `timeout_s` seconds."""
        if self.child is not None:
            self.child.stop(grace_s=self.stop_grace_s if timeout_s is None else timeout_s)
            self.child = None

    def kill(self) -> None:
        """Crash it with SIGKILL."""
        if self.child is not None:
            self.child.kill()
            self.child = None

    def restart(self) -> None:
        """Stop, then start on the same data and ports."""
        self.stop()
        self.start()

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self.child is not None and self.child.alive

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.child is not None, "the broker was not started"  # noqa: S101 - a bug of ours if it fails
        return self.child.pid

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its log."""
        return tail(self.log_path, lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _did_not_start(self, found: str) -> EngineError:
        return EngineError(
            "engine.did_not_start", f"{found}; its log ends:\n{self.log_tail()}", f"the whole log is {self.log_path}"
        )
