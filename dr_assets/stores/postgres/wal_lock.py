"""Which lock a piece of WAL gets: the short one of a micro-segment, or that of a base backup.

What belongs here: asking whether a roller is at work, and remembering the answer for a while. What stays out: locks'
lengths (vault/retention.py).

The short lock is only safe while somebody extends it. So it is given only as long as a roller put it on record that
it is at work; whoever never starts one keeps the long lock.
"""

import threading
import time
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.rollup_run import is_roller_alive
from dr_assets.vault.retention import Kind
from dr_assets.vault.storage import Lock
from dr_assets.vault.vault import Vault

ASK_EVERY_S: Final = 900.0


class WalLock:
    """Callable by many threads: the lock for what is put now."""

    def __init__(self, vault: Vault, dataset: str, *, ask_every_s: float = ASK_EVERY_S) -> None:
        self._vault = vault
        self._dataset = dataset
        self._ask_every_s = ask_every_s
        self._mutex = threading.Lock()
        self._asked_s: float | None = None
        self._kind: Kind = "wal"

    def __call__(self) -> Lock:
        """The lock; never the short one where the vault can't tell that a roller lives."""
        return self._vault.locks.lock(self._dataset, self._known_kind(), self._vault.clock())

    def _known_kind(self) -> Kind:
        with self._mutex:
            now_s = time.monotonic()
            if self._asked_s is not None and now_s - self._asked_s < self._ask_every_s:
                return self._kind
            self._asked_s = now_s
        try:
            kind: Kind = "micro" if is_roller_alive(self._vault, self._dataset) else "wal"
        except VaultError:
            kind = "wal"
        with self._mutex:
            self._kind = kind
        return kind
