import platform
import subprocess
import sys

import pytest

_TURNS = """
import threading
from pathlib import Path
from dr_assets.stores.postgres.host import keep_freed_memory

keep_freed_memory()
turns = [threading.Event() for _ in range(9)]

def take_turn(number):
    bytes(1 << 20)  # each thread has its place in a heap before any of them needs much
    turns[number].wait()
    pieces = [bytes(bytearray(1 << 20)) for _ in range(40)]
    pieces.clear()
    turns[number + 1].set()
    turns[8].wait()

threads = [threading.Thread(target=take_turn, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
turns[0].set()
for thread in threads:
    thread.join()
status = Path("/proc/self/status").read_text()
print(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other C library knows these settings")
def test_what_one_thread_lets_go_the_next_one_uses() -> None:
    """Eight threads that hold 40 MiB one after the other take room for one of them, not for eight."""
    ran = subprocess.run([sys.executable, "-c", _TURNS], capture_output=True, text=True, check=True, timeout=300)
    assert int(ran.stdout) < 160
