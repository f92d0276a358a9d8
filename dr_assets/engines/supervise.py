"""Starting children that cannot outlive us, whatever ends us.

What belongs here: the guard's outer half (see guard.py), for engines under another user and for plain children
under ours. What stays out: what a child is and when it is ready.

A child is stopped when our end of its pipe closes. A process forked from ours without exec (`multiprocessing` with
"fork") holds that end as well, so a child lives until the last such fork has gone too.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from dr_assets.engines.errors import EngineError
from dr_assets.engines.placement import RunAs

_GUARD = Path(__file__).with_name("guard.py")
_KILL_TIMEOUT_S = 120.0  # the kernel is quick, a machine that is short of time may not be


class Child:
    """A guarded process. `pid` is the program's own, so that a test can kill the real thing.

    Its log, if it has one, is at `log_path`. May be used from several threads.
    """

    def __init__(self, guard: "subprocess.Popen[bytes]", control: int, report: int, pid: int, name: str) -> None:
        self.pid = pid
        self.name = name
        self.log_path: Path | None = None
        self._guard = guard
        self._control = control
        self._report = report
        self._lock = threading.Lock()
        self._return_code: int | None = None

    @property
    def alive(self) -> bool:
        """Whether anything of the child's process tree may still run."""
        return self.poll() is None

    def poll(self) -> int | None:
        """The return code (negative: the signal that ended it) once the whole tree has gone, else None."""
        with self._lock:
            if self._return_code is None and self._guard.poll() is not None:
                self._return_code = self._collect()
            return self._return_code

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end of the whole tree; raises EngineError `engine.timeout` after `timeout_s` seconds."""
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise EngineError(
                "engine.timeout",
                f"{self.name} (pid {self.pid}) still runs after {timeout_s:g} s",
                "look at its log, or stop it with a shorter grace",
            ) from None
        return_code = self.poll()
        assert return_code is not None  # noqa: S101 - for the type checker: the guard has ended
        return return_code

    def send_signal(self, number: int) -> None:
        """Send a signal to the program itself; nothing happens if it has gone."""
        self._order(f"signal {int(number)}")

    def stop(self, number: int = signal.SIGTERM, grace_s: float = 10.0) -> int:
        """Ask it to end, kill the whole tree after `grace_s` seconds; returns the return code."""
        self._order(f"stop {int(number)} {grace_s}")
        return self.wait(grace_s + _KILL_TIMEOUT_S)

    def kill(self) -> int:
        """Kill the program and all its descendants in one instant, as a crash would; returns the return code."""
        self._order("kill")
        return self.wait(_KILL_TIMEOUT_S)

    def log_tail(self, lines: int = 30) -> str:
        """The last lines it wrote, or an empty string if it has no log."""
        return tail(self.log_path, lines) if self.log_path else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive:
            self.stop()

    def _order(self, line: str) -> None:
        with self._lock:
            if self._return_code is not None:
                return
            try:
                os.write(self._control, f"{line}\n".encode())
            except BrokenPipeError:
                return  # the guard has gone, and so has its child

    def _collect(self) -> int:
        """Read the guard's last report and close both pipes (the lock is held)."""
        with os.fdopen(self._report) as report:
            lines = report.read().split()
        os.close(self._control)
        # A guard that was killed reports nothing; the kernel then killed the child.
        return int(lines[-1]) if "exited" in lines else -signal.SIGKILL


def start_child(
    args: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log_path: Path | None = None,
    user: RunAs | None = None,
    stop_signal: int = signal.SIGTERM,
    grace_s: float = 10.0,
) -> Child:
    """Start a program under a guard that ends it when we end, even by SIGKILL.

    Output is appended to `log_path` (opened by us, so the child needs no right to it), or goes where ours goes.
    `user` None means our own. When we are gone it gets `stop_signal`, and SIGKILL after `grace_s` seconds.
    Raises EngineError `engine.not_started` if the program can't be executed.
    """
    if log_path is None:
        return _start(args, cwd=cwd, env=env, user=user, stop_signal=stop_signal, grace_s=grace_s)
    with log_path.open("ab") as log:
        child = _start(args, cwd=cwd, env=env, user=user, stop_signal=stop_signal, grace_s=grace_s, output=log)
    child.log_path = log_path
    return child


def run_child(
    args: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    user: RunAs | None = None,
    timeout_s: float = 600.0,
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end under a guard; its output is in the result, whose return code the caller judges.

    Raises EngineError `engine.timeout` (and kills it) after `timeout_s` seconds, `engine.not_started` if it can't run.
    """
    read_out, write_out = os.pipe()
    read_err, write_err = os.pipe()
    with os.fdopen(read_out) as out, os.fdopen(read_err) as err:
        with os.fdopen(write_out, "wb") as out_end, os.fdopen(write_err, "wb") as err_end:
            child = _start(args, cwd=cwd, env=env, user=user, output=out_end, error=err_end)
        texts: dict[str, str] = {}
        readers = [
            threading.Thread(target=lambda name=name, pipe=pipe: texts.update({name: pipe.read()}), daemon=True)
            for name, pipe in (("out", out), ("err", err))
        ]
        for reader in readers:
            reader.start()
        try:
            return_code = child.wait(timeout_s)
        finally:
            if child.alive:
                child.kill()
            for reader in readers:
                reader.join()
    return subprocess.CompletedProcess([str(arg) for arg in args], return_code, texts["out"], texts["err"])


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file that may be missing (then empty); reads at most 64 KiB."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65_536))
            return b"\n".join(file.read().splitlines()[-lines:]).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _start(
    args: Sequence[str | Path],
    *,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    user: RunAs | None,
    stop_signal: int = signal.SIGTERM,
    grace_s: float = 10.0,
    output: IO[bytes] | None = None,
    error: IO[bytes] | None = None,
) -> Child:
    control_read, control_write = os.pipe()
    report_read, report_write = os.pipe()
    other = user if user is not None and user.uid != os.geteuid() else None
    ids = [str(other.uid), str(other.gid)] if other else ["-", "-"]
    try:
        guard = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(_GUARD), str(control_read), str(report_write), *ids),
                *(str(int(stop_signal)), str(grace_s), str((cwd or Path("/")).absolute()), "--", *map(str, args)),
            ],
            cwd="/",  # a guard must not hold on to a folder that is to be removed
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=error if error is not None else (subprocess.STDOUT if output is not None else None),
            env=None if env is None else dict(env),
            pass_fds=(control_read, report_write),
            start_new_session=True,  # a Ctrl-C in our terminal must reach us, not the guard
        )
    except BaseException:  # whatever kept the guard from starting, its ends of the pipes are nobody's
        os.close(control_write)
        os.close(report_read)
        raise
    finally:
        os.close(control_read)
        os.close(report_write)
    return _introduced(guard, control_write, report_read, Path(args[0]).name)


def _introduced(guard: "subprocess.Popen[bytes]", control: int, report: int, name: str) -> Child:
    """Read the guard's first report: the child, or why there is none."""
    first = b""
    while not first.endswith(b"\n") and (byte := os.read(report, 1)):
        first += byte
    word, _, rest = first.decode().strip().partition(" ")
    if word == "started":
        return Child(guard, control, report, int(rest), name)
    os.close(control)
    os.close(report)
    guard.wait()
    raise EngineError(
        "engine.not_started",
        f"{name} could not be executed: {rest or 'its guard ended'}",
        "check that the program and its working folder exist and that the engine's user can reach them",
    )
