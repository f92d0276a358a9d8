"""Trying again while a store is away for a moment.

What belongs here: which errors another try may change, and for how long. What stays out: the SDK's own retries, which
come before this, and the capture's, which must go on streaming meanwhile (putters.py).
"""

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from dr_assets.estate.errors import VaultError

# A base backup or a restore that ran for an hour should outlive a store's restart.
GIVE_UP_S: Final = 120.0
_TRANSIENT: Final = frozenset({"vault.unreachable"})
_BACKOFF_BEGIN_S, _BACKOFF_END_S = 0.5, 8.0

T = TypeVar("T")


def patiently(call: Callable[[], T], abandoned: threading.Event, *, give_up_s: float = GIVE_UP_S) -> T:
    """What `call` returns, tried again while the store is unreachable, for at most `give_up_s` or until `abandoned`.

    Raises what `call` raised last.
    """
    deadline, backoff_s = time.monotonic() + give_up_s, _BACKOFF_BEGIN_S
    while True:
        try:
            return call()
        except VaultError as error:
            if error.code not in _TRANSIENT or time.monotonic() > deadline or abandoned.wait(backoff_s):
                raise
            backoff_s = min(2 * backoff_s, _BACKOFF_END_S)
