"""Free loopback ports for servers that will be restarted on the same one.

What belongs here: picking, and picking again: between picking and a server's bind another process may take a port, so
whoever starts a server does it by `start_on_free_ports`. What stays out: holding a port, starting anything.
"""

import secrets
import socket
from collections.abc import Callable

from dr_assets.engines.errors import EngineError

LOOPBACK = "127.0.0.1"
# Below Linux' usual range for outgoing connections (32768 and up): a port of ours must still be free after a restart,
# and any connection on the machine could take one from that range meanwhile.
LOWEST, HIGHEST = 10_240, 32_000
_ATTEMPTS = 200
_STARTS = 5
_given: set[int] = set()


def is_free(port: int) -> bool:
    """Tell whether a server could bind the loopback port now (lingering closed connections don't count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Pick `count` different free ports at random, so that parallel pickers seldom collide.

    None is given twice by a process: a server of ours that is down for a moment finds its own free when it comes back.
    """
    picked: set[int] = set()
    for _ in range(_ATTEMPTS * count):
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        if port not in picked and port not in _given and is_free(port):
            picked.add(port)
        if len(picked) == count:
            _given.update(picked)
            return sorted(picked)
    raise RuntimeError(f"no {count} free loopback ports between {LOWEST} and {HIGHEST}")


def free_port() -> int:
    """Pick one free port."""
    return free_ports(1)[0]


def start_on_free_ports(start: Callable[[], None], clean_up: Callable[[], None], moved: Callable[[], bool]) -> None:
    """Start a server, and again on other ports while one of its own was taken meanwhile.

    `clean_up` follows every start that failed; then `moved` says whether a port was to blame and the server has others
    now. Raises the EngineError of the last start.
    """
    for left in reversed(range(_STARTS)):
        try:
            start()
        except EngineError:
            clean_up()
            if left == 0 or not moved():
                raise
        else:
            return
