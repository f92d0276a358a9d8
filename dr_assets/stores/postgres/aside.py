"""Work that must not hold up the stream: a thread that runs the newest of what it was given.

What belongs here: one worker, one waiting place. What stays out: what the work is. A report that takes longer than
the time to the next one is simply overtaken.
"""

import threading
from collections.abc import Callable

Work = Callable[[], None]


class Aside:
    """Runs one piece of work at a time; a waiting one is replaced by a newer."""

    def __init__(self, name: str) -> None:
        self._mutex = threading.Condition()
        self._waiting: Work | None = None
        self._running = False
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def give(self, work: Work) -> None:
        """Run `work` soon, instead of what waits. Raises what earlier work raised."""
        with self._mutex:
            self._raise_error()
            self._waiting = work
            self._mutex.notify_all()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        with self._mutex:
            return not self._running and self._waiting is None

    def close(self, timeout_s: float) -> None:
        """Finish what runs and waits, within `timeout_s`. Raises what it raised."""
        with self._mutex:
            self._closing = True
            self._mutex.notify_all()
        self._thread.join(timeout_s)
        with self._mutex:
            self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while True:
            with self._mutex:
                self._running = False
                while self._waiting is None and not self._closing:
                    self._mutex.wait()
                if self._waiting is None:
                    return
                work, self._waiting, self._running = self._waiting, None, True
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it belongs to the thread that gave the work
                with self._mutex:
                    self._error = error
