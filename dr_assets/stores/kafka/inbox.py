"""What the threads of a capture hand to its loop, in order, and how much of it may wait.

What belongs here: the queue and its bound. What stays out: what is in it.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from dr_assets.stores.kafka.fetcher import Brought
from dr_assets.stores.kafka.keeper import Kept

_LOOK_AGAIN_S: Final = 0.5


class Inbox:
    """`cap_bytes` bounds what was fetched and is not stored yet; fetchers wait at it. `wake` tells the loop."""

    def __init__(self, cap_bytes: int, wake: Callable[[], None]) -> None:
        self._cap_bytes = cap_bytes
        self._wake = wake
        self._room = threading.Condition()
        self._items: deque[Brought | Kept] = deque()
        self._held_bytes = 0
        self._closed = False

    @property
    def held_bytes(self) -> int:
        """Fetched and not stored yet."""
        return self._held_bytes

    def deliver(self, brought: Brought) -> None:
        """From a fetcher: waits while memory is full, unless nothing is in it."""
        size_bytes = brought.size_bytes
        with self._room:
            while self._held_bytes and self._held_bytes + size_bytes > self._cap_bytes and not self._closed:
                self._room.wait(_LOOK_AGAIN_S)
            if self._closed:
                return
            self._held_bytes += size_bytes
            self._items.append(brought)
        self._wake()

    def tell(self, kept: Kept) -> None:
        """From the keeper: never waits."""
        with self._room:
            self._items.append(kept)
        self._wake()

    def take(self) -> Brought | Kept | None:
        """The oldest; None when there is none."""
        with self._room:
            return self._items.popleft() if self._items else None

    def free(self, size_bytes: int) -> None:
        """So much was stored."""
        with self._room:
            self._held_bytes -= size_bytes
            self._room.notify_all()

    def close(self) -> None:
        """Nobody takes anything any more: whoever waits is let go, and what they bring is dropped."""
        with self._room:
            self._closed = True
            self._room.notify_all()
