"""Threads that look at something again and again beside the stream, until they are told to end.

What belongs here: such a thread's life, and a session that is opened again after its server was away. What stays out:
what is looked at, and work that is handed over (aside.py).
"""

import threading
from collections.abc import Callable
from typing import Final

from dr_assets.stores.postgres.session import Connection

_END_WITHIN_S: Final = 15.0


class Beside:
    """A thread that does `_watch` until `stop`; what nobody foresaw ends it and is in `error` for whoever began it."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.error: BaseException | None = None

    def stop(self) -> None:
        """End, within the sessions' own time limits; one that never began has nothing to end."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=_END_WITHIN_S)

    def _watch(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException as error:  # noqa: BLE001 - a thread's bug must end the capture, so it crosses over
            self.error = error


def keep_looking(
    stop: threading.Event,
    interval_s: float,
    *,
    connect: Callable[[], Connection],
    look: Callable[[Connection], None],
    failed: Callable[[Exception], None],
    passing: tuple[type[Exception], ...],
    after: Callable[[], None] = lambda: None,
) -> None:
    """`look` every `interval_s` until `stop`, on one session as long as it lasts, and `after` each time.

    Of the errors in `passing` `failed` is told, and the next time begins with a new session; all others are raised.
    """
    connection: Connection | None = None
    try:
        while not stop.is_set():
            try:
                connection = connection or connect()
                look(connection)
            except passing as error:
                failed(error)
                if connection is not None:
                    connection.close()
                connection = None
            after()
            stop.wait(interval_s)
    finally:
        if connection is not None:
            connection.close()
