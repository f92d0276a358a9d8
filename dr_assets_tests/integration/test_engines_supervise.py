"""No child outlives us, whatever ends us: real processes, real signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dr_assets.engines.errors import EngineError
from dr_assets.engines.supervise import Child, run_child, start_child
from dr_assets.engines.waiting import wait_until

pytestmark = pytest.mark.integration

# A program that refuses to end: it ignores what it may, and has a child in a session of its own that does too.
STUBBORN = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
os.write(1, b"%d\\n" % os.getpid())  # in one write: print makes two of it if unbuffered, and both processes print
time.sleep(600)
"""

# A parent that starts what it is told and then waits; it prints the process ids it started.
PARENT = """
import sys, time
from pathlib import Path
from dr_assets.engines.supervise import start_child
child = start_child([sys.executable, "-c", sys.argv[1]], log_path=Path(sys.argv[2]), grace_s=0.2)
print(child.pid, flush=True)
time.sleep(600)
"""

# A parent with two real servers: their postmaster's and all their children's ids are found by the test.
SERVERS = """
import sys, time
from pathlib import Path
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import find_programs
server = PostgresServer(Path(sys.argv[1]), find_programs("postgres", 17))
server.init()
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet collected doesn't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def children_of(pid: int) -> list[int]:
    """The process ids right below one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def all_gone(pids: list[int]) -> Callable[[], bool]:
    """A condition: none of them runs."""
    return lambda: not any(runs(pid) for pid in pids)


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[Child]:
    """A guarded child that ignores requests to end, with its own child, both started up."""
    log = tmp_path / "log"
    child = start_child([sys.executable, "-c", STUBBORN], log_path=log, grace_s=0.2)
    wait_until(lambda: len(log.read_text().split()) == 2, timeout_s=180, what="both processes starting")
    yield child
    child.kill()


def family(child: Child) -> list[int]:
    """The ids that the stubborn child and its child printed."""
    return [int(word) for word in child.log_tail().split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_parent_that_was_signalled(tmp_path: Path, number: signal.Signals) -> None:
    """However our process ends, a child that ignores every polite signal and its sessions are gone soon after."""
    log = tmp_path / "log"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, STUBBORN, log], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    wait_until(lambda: len(log.read_text().split()) == 2, timeout_s=180, what="both processes starting")
    pids = [int(word) for word in log.read_text().split()]
    assert all(runs(pid) for pid in pids)

    parent.send_signal(number)
    parent.wait()
    wait_until(all_gone(pids), timeout_s=180, what="the child's end")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_postgres_outlives_its_parent(
    engine_dir: Path, postgres_programs: Callable[..., object], number: signal.Signals
) -> None:
    """A server and its background processes, which open sessions of their own, are gone after their parent's end."""
    postgres_programs(17)
    parent = subprocess.Popen([sys.executable, "-c", SERVERS, engine_dir / "pg"], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    postmaster = int(parent.stdout.readline())
    pids = [postmaster, *children_of(postmaster)]
    assert len(pids) > 3

    parent.send_signal(number)
    parent.wait()
    wait_until(all_gone(pids), timeout_s=180, what="the server's end")


def test_a_childs_signals_are_the_defaults() -> None:
    """A parent in a shell's background ignores SIGINT; its children must not inherit that, nor Python's SIGPIPE."""
    code = "import signal; print([n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN])"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = run_child(["/bin/sh", "-c", "grep SigIgn /proc/self/status"])
        own = run_child([sys.executable, "-c", code])
    finally:
        signal.signal(signal.SIGINT, before)
    # The C library keeps two signals (32 and 33) to itself: no program can change how it inherited them.
    changeable = sum(1 << (number - 1) for number in signal.valid_signals())
    assert int(result.stdout.split()[1], 16) & changeable == 0
    # Python itself ignores two at its start; SIGINT is none of them.
    assert "SIGINT" not in own.stdout


# Short sleeps: a signal that comes in the instant before `pause` or one long sleep would be handled after it.
POLITE = """
import signal, sys, time
signal.signal(15, lambda *_: sys.exit(7))
print("up", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("frozen", [False, True])
def test_a_polite_child_is_stopped_politely(tmp_path: Path, frozen: bool) -> None:
    """A child that obeys the stop signal ends with its own return code before any grace runs out, even from SIGSTOP."""
    child = start_child([sys.executable, "-c", POLITE], log_path=tmp_path / "log")
    wait_until(lambda: "up" in child.log_tail(), timeout_s=180, what="starting")
    if frozen:
        os.kill(child.pid, signal.SIGSTOP)
    assert child.stop(grace_s=60) == 7
    assert not child.alive
    assert child.stop() == child.kill() == 7


def test_a_stubborn_child_is_killed_after_the_grace(stubborn: Child) -> None:
    """A child that ignores the stop signal, and what it started, is killed when the grace is over."""
    pids = family(stubborn)
    assert stubborn.stop(grace_s=0.1) == -signal.SIGKILL
    assert all_gone(pids)()


def test_a_kill_reaches_every_descendant(stubborn: Child) -> None:
    """When `kill` returns, the program and descendants in other sessions are gone."""
    pids = family(stubborn)
    assert stubborn.kill() == -signal.SIGKILL
    assert all_gone(pids)()


def test_descendants_go_with_a_program_that_someone_else_killed(stubborn: Child) -> None:
    """`pid` is the real program's: a SIGKILL from anywhere is seen, and what it left behind is cleared away."""
    pids = family(stubborn)
    os.kill(stubborn.pid, signal.SIGKILL)
    assert stubborn.wait(180) == -signal.SIGKILL
    assert all_gone(pids)()


def test_a_child_dies_with_its_guard(stubborn: Child) -> None:
    """Even a guard that is killed itself takes its program with it."""
    guard = int(Path(f"/proc/{stubborn.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    wait_until(all_gone([stubborn.pid]), timeout_s=180, what="the program's end")
    assert stubborn.wait(180) == -signal.SIGKILL
    for pid in family(stubborn):
        if runs(pid):
            os.kill(pid, signal.SIGKILL)  # a grandchild in its own session is beyond what the kernel promises


def test_a_program_that_cannot_run_is_named(tmp_path: Path) -> None:
    """A missing program or working folder is an error that names it, not a dead child."""
    with pytest.raises(EngineError, match="no-such-program"):
        start_child([tmp_path / "no-such-program"])
    with pytest.raises(EngineError, match="no-such-folder"):
        start_child(["/bin/true"], cwd=tmp_path / "no-such-folder")


def test_a_run_gives_both_outputs_and_the_code() -> None:
    """A program run to its end leaves its two outputs apart, however long they are, and its return code."""
    code = "import sys; print('o' * 200_000); print('e' * 200_000, file=sys.stderr); sys.exit(3)"
    result = run_child([sys.executable, "-c", code])
    assert (result.returncode, len(result.stdout), len(result.stderr)) == (3, 200_001, 200_001)


def test_a_run_that_takes_too_long_is_killed() -> None:
    """A program that doesn't end within its time is killed and an error says so."""
    begin = time.monotonic()
    with pytest.raises(EngineError, match="still runs"):
        run_child(["/bin/sleep", "600"], timeout_s=0.2)
    assert time.monotonic() - begin < 300


def test_a_child_gets_its_environment_and_nothing_else() -> None:
    """What isn't given isn't seen: our environment may hold secrets."""
    result = run_child(["/usr/bin/env"], env={"ONLY": "this"})
    assert result.stdout.split() == ["ONLY=this"]
