"""Running a tool as its user does: how long it took, and how much memory it and its children held at most.

What belongs here: one command's or one resident process's life. What stays out: which tool, and what it does.
"""

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from dr_assets.engines.placement import RunAs

_SAMPLE_EVERY_S = 0.1
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished command.

    `peak_bytes` is the memory of its process tree without database servers, 0 if not watched. `cpu_s` is the processor
    time of it and its children, if nothing else that we started ended meanwhile.
    """

    duration_s: float
    output: str
    peak_bytes: int
    cpu_s: float


class ToolError(Exception):
    """A tool failed; the text ends with what it said."""


class Process:
    """A command under way in a session of its own, so that it can be ended with all it started."""

    def __init__(
        self,
        args: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        user: RunAs | None = None,
        cwd: Path | None = None,
        watch_memory: bool = False,
    ) -> None:
        self.args = [str(arg) for arg in args]
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        other = None if user is None or user.uid == os.geteuid() else user
        ids: dict[str, Any] = {"user": other.uid, "group": other.gid, "extra_groups": []} if other else {}
        self._cpu_before_s = _cpu_of_children_s()
        self.begin_s = time.monotonic()
        self.process = subprocess.Popen(
            self.args,
            env=dict(env),
            cwd=cwd or "/",
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **ids,
        )
        self._memory = _MemoryWatch(self.process.pid) if watch_memory else None

    @property
    def pid(self) -> int:
        """The command's process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def said(self) -> str:
        """What it printed so far."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def finished(self, *, timeout_s: float = 900.0, allowed: Sequence[int] = (0,)) -> Ran:
        """Wait for its end. Raises ToolError for a return code that is not allowed, and for none in time."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.end()
            raise ToolError(f"{self.args[0]} took over {timeout_s} s: {self.said()[-3000:]}") from None
        except BaseException:  # Ctrl-C too: no tool outlives its run
            self.end()
            raise
        duration_s = time.monotonic() - self.begin_s
        peak_bytes = self._memory.stop() if self._memory else 0
        output = self.said()
        if code not in allowed:
            raise ToolError(f"{' '.join(self.args)} returned {code}: {output[-3000:]}")
        return Ran(duration_s, output, peak_bytes, _cpu_of_children_s() - self._cpu_before_s)

    def stop(self, *, timeout_s: float = 120.0) -> Ran:
        """Ask it to end (SIGTERM) and wait."""
        self.process.terminate()
        return self.finished(timeout_s=timeout_s)

    def end(self) -> None:
        """Kill it with all it started, if it lives."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
        if self._memory:
            self._memory.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def run(
    args: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    user: RunAs | None = None,
    cwd: Path | None = None,
    timeout_s: float = 900.0,
    watch_memory: bool = False,
) -> Ran:
    """Run a command to its end. Raises ToolError."""
    process = Process(args, env=env, user=user, cwd=cwd, watch_memory=watch_memory)
    return process.finished(timeout_s=timeout_s)


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _MemoryWatch:
    """Samples the proportional set size of a process tree; servers that the tool starts are not the tool."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End sampling; the highest sum seen."""
        self._done.set()
        self._thread.join()
        return self._peak_bytes

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_EVERY_S):
            total = sum(_memory_bytes(pid) for pid in _tree(self._pid))
            self._peak_bytes = max(self._peak_bytes, total)


def _tree(root: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting.extend(children.get(pid, ()))


def _memory_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        if (_PROC / str(pid) / "comm").read_text().strip() in {"postgres", "postmaster"}:
            return 0
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0
