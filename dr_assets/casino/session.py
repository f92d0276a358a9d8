"""A connection that may come back after its server died.

What belongs here: opening, warnings, coming back. What stays out: what is said over it.
"""

import threading
from typing import Any

import psycopg
from psycopg.types.numeric import Int8Dumper

from dr_assets.casino.source import connect
from dr_assets.estate.errors import SourceError

_RECONNECT_EVERY_S = 0.2


class Session:
    """A connection that knows whether to come back after the server died (`reconnect`)."""

    def __init__(self, dsn: str, stop: threading.Event, *, reconnect: bool) -> None:
        self._dsn = dsn
        self._stop = stop
        self._reconnect = reconnect
        self._warnings: list[str] = []
        self.connection = self._open()

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection = connect(self._dsn)
        # One statement, one parameter type: else each size of number would be prepared anew.
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.prepare_threshold = 0
        connection.add_notice_handler(self._notice)
        return connection

    def _notice(self, said: psycopg.errors.Diagnostic) -> None:
        if (said.severity_nonlocalized or said.severity) == "WARNING":
            self._warnings.append(said.message_primary or "")

    def take_warnings(self) -> list[str]:
        """What the server warned of since the last call: an answer with one of these is no promise."""
        taken, self._warnings = self._warnings, []
        return taken

    @property
    def alive(self) -> bool:
        """Whether the server has not hung up."""
        return not self.connection.closed

    def revive(self) -> bool:
        """Connect again until it works or the workload stops; False when it is not to be or not to continue."""
        self.connection.close()
        while self._reconnect and not self._stop.wait(_RECONNECT_EVERY_S):
            try:
                self.connection = self._open()
            except SourceError:
                continue
            return True
        return False

    def cancel(self) -> None:
        """Ask the server to end the running statement (from another thread)."""
        self.connection.cancel_safe(timeout=2)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()
