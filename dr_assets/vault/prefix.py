"""The contiguous prefix: how far everything before is done, while pieces finish in any order.

What belongs here: the arithmetic that decides what may be acknowledged upstream. What stays out: what a piece is.
"""

import re
import threading
from collections import deque
from typing import Final

# In a piece's header: up to where everything was stored when the piece was made (docs/format.md).
ACKNOWLEDGED_TO: Final = "acknowledged_to"
_POSITION: Final = re.compile(r"[0-9A-F]{16}", re.ASCII)


def format_position(position: int) -> str:
    """A position as headers write it: 16 upper-case hex digits, so that text order is position order."""
    return f"{position:016X}"


def parse_position(text: str) -> int | None:
    """What `format_position` wrote; None for anything else."""
    return int(text, 16) if _POSITION.fullmatch(text) else None


class ContiguousPrefix:
    """Tracks ranges that begin in order and finish in any; threads may share it.

    `begin` announces [first, last); `done` says that the vault was seen to hold it. `acknowledged` only ever grows,
    and everything below it is done.
    """

    def __init__(self, position: int) -> None:
        self._mutex = threading.Lock()
        self._acknowledged = position
        self._announced = position
        self._in_flight: deque[tuple[int, int]] = deque()
        self._done: set[int] = set()

    @property
    def acknowledged(self) -> int:
        """The position below which nothing is missing."""
        with self._mutex:
            return self._acknowledged

    @property
    def announced(self) -> int:
        """The end of the last range announced."""
        with self._mutex:
            return self._announced

    @property
    def in_flight(self) -> int:
        """How many ranges are announced and not yet acknowledged, finished behind a slower one or not."""
        with self._mutex:
            return len(self._in_flight)

    def begin(self, first: int, last: int) -> None:
        """Announce the next range. A gap, an overlap or an empty range is a bug of the caller: ValueError."""
        with self._mutex:
            if first != self._announced or last <= first:
                raise ValueError(f"[{first}, {last}) does not continue at {self._announced}")
            self._in_flight.append((first, last))
            self._announced = last

    def done(self, first: int) -> int:
        """The range that begins at `first` is stored; returns the new acknowledged position.

        ValueError if no such range is in flight: acknowledging what was never announced would be a lie.
        """
        with self._mutex:
            if first in self._done or not any(begin == first for begin, _ in self._in_flight):
                raise ValueError(f"no range begins at {first}, or it was done before")
            self._done.add(first)
            while self._in_flight and self._in_flight[0][0] in self._done:
                begin, self._acknowledged = self._in_flight.popleft()
                self._done.remove(begin)
            return self._acknowledged
