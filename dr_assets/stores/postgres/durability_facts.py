"""The fact kind "durability": from when on commits waited for the vault, and from when on they did not.

What belongs here: sealing the source's log of changes, once each, and reading it back. What stays out: making changes
(sync_standby.py), when (sync_guard.py).
"""

import threading
from collections.abc import Callable
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.sync_standby import Change, Sealed
from dr_assets.stores.sealing.aside import Aside
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.format.canonical import Json, format_time, parse_time
from dr_assets.vault.vault import Vault

DURABILITY: Final = "durability"


class DurabilityFacts:
    """Seals changes in the order they were made; what the vault can't take now is given again by the next look."""

    def __init__(self, vault: Vault, dataset: str, system_id: str, aside: Aside) -> None:
        self._vault = vault
        self._dataset = dataset
        self._system_id = system_id
        self._aside = aside
        self._mutex = threading.Lock()
        self._sealed = _newest(vault, dataset)
        self.trouble: str | None = None

    @property
    def error(self) -> BaseException | None:
        """What sealing raised that is not the vault's being away."""
        return self._aside.error

    def sealed(self) -> Sealed:
        """Up to which number and time changes are facts, and the newest's mode."""
        with self._mutex:
            return self._sealed

    def seal(self, changes: list[Change]) -> None:
        """Seal these soon, unless it is being done."""
        if self._aside.is_idle:
            self._aside.give(self._work(changes))

    def _work(self, changes: list[Change]) -> Callable[[], None]:
        def work() -> None:
            try:
                for change in changes:
                    self._record(change)
            except VaultError as error:
                self.trouble = f"a change of durability is not sealed yet: {error.code}: {error.found}"
            else:
                self.trouble = None

        return work

    def _record(self, change: Change) -> None:
        body: dict[str, Json] = {
            "seq": change.seq,
            "mode": change.mode,
            "since": format_time(change.since),
            "lsn": change.lsn,
            "reason": change.reason,
            "told_by": change.told_by,
            "system_id": self._system_id,
        }
        record_fact(self._vault, self._dataset, DURABILITY, body)
        with self._mutex:
            # The number follows a server that was set back; a time that fell behind would give older rows again.
            self._sealed = Sealed(change.seq, max(change.since, self._sealed.since), change.mode)


def _newest(vault: Vault, dataset: str) -> Sealed:
    fact = latest_fact(vault, dataset, DURABILITY)
    if fact is None:
        return Sealed()
    seq, since = fact.body.get("seq"), fact.body.get("since")
    if not isinstance(seq, int):
        return Sealed()
    return Sealed(seq, parse_time(since, f"{fact.key}: since"), str(fact.body.get("mode")))
