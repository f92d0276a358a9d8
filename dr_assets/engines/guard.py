"""The small process between us and an engine, so that no engine outlives us: run it, never import it for its parts.

    python -I -S guard.py CONTROL_FD REPORT_FD UID GID STOP_SIGNAL GRACE_S CWD -- PROGRAM ARGUMENT…

It starts the program in a session of its own and holds the read end of a pipe of which only we hold the write end.
However we die, the kernel closes our end; at that end of file the guard stops the program: STOP_SIGNAL, then SIGKILL
for the whole tree after GRACE_S seconds. UID and GID are numbers, or `-` for our own user.

What belongs here: starting, watching and killing one process tree, with the standard library's cheap modules alone
(a guard starts in tens of milliseconds). What stays out: what the program is, and every import of ours.

Orders arrive on CONTROL_FD, one a line: `signal N` · `stop N GRACE_S` · `kill`.
Reports leave on REPORT_FD, one a line: `started PID` | `failed ERRNO TEXT`, then `exited RETURN_CODE` (negative: the
signal that ended it) once nothing of the tree is left.
"""

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    """Start the program, watch over it until it and all its descendants are gone; returns 0 then, 1 if it never ran."""
    control, report = int(argv[1]), int(argv[2])
    uid, gid = (None if value == "-" else int(value) for value in argv[3:5])
    stop_signal, grace_s, cwd, program = int(argv[5]), float(argv[6]), argv[7], argv[9:]
    for fd in (control, report):
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library takes it by position only
    # Whatever loses its parent below us becomes our child: servers' children open sessions of their own, so neither
    # a process group nor a session would name them all.
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake = _wake_on_signals()
    _forget_own_locale()
    pid, problem = _spawn(program, cwd, uid, gid)
    if problem:
        _tell(report, f"failed {problem}")
        return 1
    _tell(report, f"started {pid}")
    return_code = Watch(pid, control, wake, stop_signal, grace_s).run()
    kill_descendants()
    reap_all()
    _tell(report, f"exited {return_code}")
    return 0


class Watch:
    """Follows one child: obeys orders, stops it when our end of the pipe closes, returns when it has gone."""

    def __init__(self, pid: int, control: int, wake: int, stop_signal: int, grace_s: float) -> None:
        self.pid = pid
        self.control = control
        self.wake = wake
        self.stop_signal = stop_signal
        self.grace_s = grace_s
        self.deadline: float | None = None
        self.listening = True
        self.buffer = b""

    def run(self) -> int:
        """Return the child's return code (negative: the number of the signal that ended it)."""
        while True:
            return_code = reap_until(self.pid)
            if return_code is not None:
                return return_code
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.deadline = None
                kill_descendants()
            self._wait()

    def _wait(self) -> None:
        timeout_ms = None if self.deadline is None else max(0.0, self.deadline - time.monotonic()) * 1000
        # poll, because select takes no descriptor above 1023 and ours keep the numbers that our parent gave them.
        sources = select.poll()
        sources.register(self.wake, select.POLLIN)
        if self.listening:
            sources.register(self.control, select.POLLIN)
        ready = dict(sources.poll(timeout_ms))
        # SIGTERM to the guard itself is an order to stop as well; SIGCHLD only wakes us.
        if self.wake in ready and signal.SIGTERM in os.read(self.wake, 512):
            self.stop(self.stop_signal, self.grace_s)
        if self.control in ready:
            self._read_orders()

    def _read_orders(self) -> None:
        data = os.read(self.control, 4096)
        if not data:
            self.listening = False
            self.stop(self.stop_signal, self.grace_s)
            return
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            self._obey(line.decode().split())

    def _obey(self, order: list[str]) -> None:
        if order[0] == "signal":
            send(self.pid, int(order[1]))
        elif order[0] == "stop":
            self.stop(int(order[1]), float(order[2]))
        elif order[0] == "kill":
            kill_descendants()

    def stop(self, number: int, grace_s: float) -> None:
        """Ask the child to end; a later, shorter grace wins, a later, longer one doesn't prolong."""
        deadline = time.monotonic() + grace_s
        self.deadline = deadline if self.deadline is None else min(deadline, self.deadline)
        send(self.pid, number)
        send(self.pid, signal.SIGCONT)  # a frozen child could not obey


def kill_descendants() -> None:
    """Kill everything below us, as close to one instant as can be: freeze until nobody new appears, then SIGKILL."""
    frozen: list[int] = []
    while new := [pid for pid in descendants(os.getpid()) if pid not in frozen]:
        for pid in new:
            send(pid, signal.SIGSTOP)
        frozen += new
    for pid in frozen:
        send(pid, signal.SIGKILL)


def descendants(root: int) -> list[int]:
    """Process ids below `root`, parents before their children, dead ones not yet reaped included."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would double the start-up time
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123 - pathlib would double the start-up time
                # The command's name stands in brackets and may hold brackets and spaces itself.
                parent = int(stat.read().rpartition(b")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have gone, or (changed user) may no longer be ours."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def reap_until(pid: int) -> int | None:
    """Collect every dead child without waiting; the return code of `pid` if it was among them."""
    while True:
        try:
            dead, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if dead == pid:
            return os.waitstatus_to_exitcode(status)
        if dead == 0:
            return None


def reap_all() -> None:
    """Wait for every child we still have; all of them have been killed."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _spawn(program: list[str], cwd: str, uid: int | None, gid: int | None) -> tuple[int, str]:
    """Fork and execute; the pid, and why it failed (errno and text) or an empty string."""
    guard = os.getpid()
    problem_read, problem_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _become(guard, cwd, uid, gid)
            os.execvp(program[0], program)  # noqa: S606 - an argument list and no shell, as everywhere
        except OSError as error:
            os.write(problem_write, f"{error.errno} {error}".encode())
        finally:
            os._exit(127)
    os.close(problem_write)
    problem = os.read(problem_read, 4096).decode()
    os.close(problem_read)
    if problem:
        os.waitpid(pid, 0)
    return pid, problem


def _become(guard: int, cwd: str, uid: int | None, gid: int | None) -> None:
    """Turn a forked child into the program's process: own session, given user, default signals, dies with the guard."""
    os.setsid()
    if gid is not None:
        os.setgroups([])
        os.setgid(gid)
    if uid is not None:
        os.setuid(uid)
    # A shell's `&` makes SIGINT ignored and Python ignores SIGPIPE; both would be inherited over exec.
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.chdir(cwd)
    # Should the guard itself be killed, the kernel takes the program with it (set after the change of user clears it).
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(127)


def _wake_on_signals() -> int:
    """Take SIGCHLD and SIGTERM as bytes on a pipe, ignore what a terminal sends; returns the pipe's read end."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, _noted)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    return read


def _forget_own_locale() -> None:
    """Python adds LC_CTYPE to its environment when the locale is C; the program must see what it was given."""
    try:
        with open("/proc/self/environ", "rb") as given:  # noqa: PTH123 - pathlib would double the start-up time
            if not any(entry.startswith(b"LC_CTYPE=") for entry in given.read().split(b"\0")):
                os.environ.pop("LC_CTYPE", None)
    except FileNotFoundError:
        return


def _noted(_number: int, _frame: object) -> None:
    """Nothing to do: the byte on the wake-up pipe is what counts."""


def _prctl(option: int, value: int) -> None:
    """Ask the kernel (Linux only; elsewhere the tree is followed by parent ids alone)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _tell(report: int, line: str) -> None:
    try:
        os.write(report, f"{line}\n".encode())
    except BrokenPipeError:
        return  # nobody is left to be told


if __name__ == "__main__":
    sys.exit(main(sys.argv))
