"""The port to the mutable stores that people's keys lie in: versioned, never locked, one in each region.

What belongs here: what such a store must be able to do, and one in memory. What stays out: S3 (s3_shelf.py) and what
the records mean (records.py).
"""

import threading
from collections.abc import Iterator
from typing import Protocol


class Shelf(Protocol):
    """One region's store of people's keys; threads may share it.

    Every method may raise VaultError `vault.unreachable`, `vault.refused_credentials` or `vault.no_bucket`.
    """

    @property
    def region(self) -> str:
        """The name of the vault beside which it lies, for facts and messages."""
        ...

    def put_new(self, name: str, data: bytes) -> bool:
        """Store under a name that is free; False, and nothing changed, when something is there."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Store on top of what is there, which stays beneath until `trim`."""
        ...

    def trim(self, name: str) -> int:
        """Remove every version but the current one, if there is a current one; how many were."""
        ...

    def get(self, name: str) -> bytes | None:
        """The current bytes; None when there are none or a delete marker hides them."""
        ...

    def versions(self, name: str) -> list[bytes]:
        """All bytes that ever lay under the name and are still there, hidden or not, newest first."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """Every name with something current under it, in text order."""
        ...

    def erase(self, name: str) -> None:
        """Remove every version and every delete marker; that nothing is there is no error."""
        ...


class MemoryShelf:
    """A Shelf without a server."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.rows: dict[str, list[bytes | None]] = {}
        self._mutex = threading.Lock()

    def put_new(self, name: str, data: bytes) -> bool:
        """As the port says."""
        with self._mutex:
            rows = self.rows.setdefault(name, [])
            if rows and rows[-1] is not None:
                return False
            rows.append(data)
            return True

    def replace(self, name: str, data: bytes) -> None:
        """As the port says."""
        with self._mutex:
            self.rows.setdefault(name, []).append(data)

    def trim(self, name: str) -> int:
        """As the port says."""
        with self._mutex:
            rows = self.rows.get(name, [])
            if not rows or rows[-1] is None:
                return 0
            self.rows[name] = rows[-1:]
            return len(rows) - 1

    def get(self, name: str) -> bytes | None:
        """As the port says."""
        rows = self.rows.get(name)
        return rows[-1] if rows else None

    def versions(self, name: str) -> list[bytes]:
        """As the port says."""
        return [row for row in reversed(self.rows.get(name, [])) if row is not None]

    def names(self, prefix: str) -> Iterator[str]:
        """As the port says."""
        return iter(sorted(name for name in self.rows if name.startswith(prefix) and self.get(name) is not None))

    def erase(self, name: str) -> None:
        """As the port says."""
        self.rows.pop(name, None)

    def hide(self, name: str) -> None:
        """Lay a delete marker on a name: what a plain delete does in a versioned store."""
        self.rows.setdefault(name, []).append(None)
