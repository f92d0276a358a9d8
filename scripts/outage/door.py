"""A door before an object store that can hang, be shut or let through a trickle, while the store itself lives on.

What belongs here: TCP. What stays out: when the door does what.
"""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import urlsplit

Mode = Literal["open", "dead", "hung", "slow"]
_BLOCK: Final = 64 << 10
_TICK_S: Final = 0.1


class Door:
    """Forwards to `upstream` as `mode` says.

    `dead` refuses connections and cuts those that are there, `hung` takes them and answers nothing, `slow` lets
    `slow_bytes_s` through, both ways and all connections together.
    """

    def __init__(self, upstream: str, *, slow_bytes_s: int) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 0)
        self._slow_bytes_s = slow_bytes_s
        self._mode: Mode = "open"
        self._mutex = threading.Lock()
        self._tokens_at_s = time.monotonic()
        self._sockets: set[socket.socket] = set()
        self._listener = _listening(0)
        self._port = self._listener.getsockname()[1]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._shut()
        self._cut()

    def be(self, mode: Mode) -> None:
        """Behave so from now on."""
        previous, self._mode = self._mode, mode
        if mode == "dead":
            self._shut()
            self._cut()
        elif previous == "dead":
            self._listener = _listening(self._port)

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # else who waits in accept goes on waiting, and listening
        self._listener.close()

    def _cut(self) -> None:
        with self._mutex:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream, timeout=30)
            except OSError:
                time.sleep(_TICK_S)
                continue
            for one in (client, server):
                one.settimeout(None)
                with self._mutex:
                    self._sockets.add(one)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK):
                self._hold_back(len(block))
                target.sendall(block)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            with self._mutex:
                self._sockets.discard(one)

    def _hold_back(self, size_bytes: int) -> None:
        while self._mode == "hung" and not self._closing.is_set():
            time.sleep(_TICK_S)
        if self._mode == "slow":
            with self._mutex:
                due_s = self._tokens_at_s = max(self._tokens_at_s, time.monotonic()) + size_bytes / self._slow_bytes_s
            time.sleep(max(0.0, due_s - time.monotonic()))


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener
