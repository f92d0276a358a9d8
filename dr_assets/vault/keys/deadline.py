"""A call that may never come back, given up in time.

What belongs here: the one way to bound a foreign library that knows no time-out. What stays out: what is called.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def within(timeout_s: float, call: Callable[[], Result]) -> Result:
    """What `call` returns or raises; raises TimeoutError after `timeout_s` seconds, and leaves the call to its fate."""
    results: list[Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as failure:  # noqa: BLE001 - raised again below, in the thread that asked
            failures.append(failure)

    thread = threading.Thread(target=run, name="deadline", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError
    return results[0]
