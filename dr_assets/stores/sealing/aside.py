"""Work that must not hold up the stream: a thread that runs the newest of what it was given.

What belongs here: one worker, one waiting place. What stays out: what the work is. A report that takes longer than
the time to the next one is simply overtaken.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

Work = Callable[[], None]


class Aside:
    """Runs one piece of work at a time; a waiting one is replaced by a newer.

    As a context it ends within a minute, and what work raised is raised there, or noted on what is raised already.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._mutex = threading.Condition()
        self._waiting: Work | None = None
        self._running = False
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._join(60)
        own = self.error
        if own is None or own is error:
            return
        if error is None:
            raise own
        error.add_note(f"and {self._name} failed: {own!r}")

    def give(self, work: Work) -> None:
        """Run `work` soon, instead of what waits. What it raises is in `error`."""
        with self._mutex:
            self._waiting = work
            self._mutex.notify_all()

    @property
    def error(self) -> BaseException | None:
        """What work raised first, if any did."""
        with self._mutex:
            return self._error

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        with self._mutex:
            return not self._running and self._waiting is None

    def close(self, timeout_s: float) -> None:
        """Finish what runs and waits, within `timeout_s`. Raises what it raised."""
        self._join(timeout_s)
        if (error := self.error) is not None:
            raise error

    def _join(self, timeout_s: float) -> None:
        with self._mutex:
            self._closing = True
            self._mutex.notify_all()
        self._thread.join(timeout_s)

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
                    self._error = self._error or error
