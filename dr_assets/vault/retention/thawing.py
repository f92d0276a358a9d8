"""Objects in a cold class: which of those that are needed are frozen, how long they take to thaw, asking for it.

What belongs here: asking the store, and the numbers. What stays out: what is needed (stores/), and waiting: nobody
waits hours inside a command, it is run again.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.estate.keeping import thaw_time
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.storage import COLD_CLASSES, ThawTier
from dr_assets.vault.storage.versions import Name, authentic
from dr_assets.vault.vault import StoredObject, Vault

THAWED_DAYS: Final = 7  # how long a thawed copy can be read: a restore, and a second one if the first fails
_WORKERS: Final = 16


@dataclass(frozen=True, slots=True)
class ColdPart:
    """What of the needed objects nobody can read now. `thawing` was asked for already, `frozen` was not."""

    frozen: tuple[StoredObject, ...] = ()
    thawing: tuple[StoredObject, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether everything can be read at once."""
        return not self.frozen and not self.thawing

    @property
    def size_bytes(self) -> int:
        """Stored bytes of all of them."""
        return sum(obj.size_bytes for obj in (*self.frozen, *self.thawing))

    def takes(self, tier: ThawTier = "Standard") -> timedelta:
        """The most that it may take until all can be read, from the asking on: what AWS says of class and tier."""
        classes = {obj.storage_class for obj in (*self.frozen, *self.thawing)}
        return max((thaw_time(one, tier) for one in classes), default=timedelta())

    def describe(self, tier: ThawTier = "Standard") -> str:
        """For people, with numbers."""
        hours = self.takes(tier).total_seconds() / 3600
        count = len(self.frozen) + len(self.thawing)
        asked = f", of which {len(self.thawing)} are being thawed" if self.thawing else ""
        classes = " and ".join(sorted({obj.storage_class for obj in (*self.frozen, *self.thawing)}))
        return (
            f"{count} objects ({self.size_bytes / 1e6:.1f} MB) lie in {classes}{asked}: {tier} takes up to {hours:g} h"
        )

    def to_json(self, tier: ThawTier = "Standard") -> dict[str, Json]:
        """For `--dry-run` and facts."""
        return {
            "frozen": len(self.frozen),
            "thawing": len(self.thawing),
            "size_bytes": self.size_bytes,
            "thaw_s": int(self.takes(tier).total_seconds()),
        }


NOTHING_COLD: Final = ColdPart()


def cold_among(vault: Vault, objects: Iterable[StoredObject]) -> ColdPart:
    """Of these, what can't be read now. Costs a request for each object that a listing showed in a cold class."""
    cold = [obj for obj in objects if obj.storage_class in COLD_CLASSES]
    if not cold:
        return NOTHING_COLD
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="cold") as pool:
        heads = list(pool.map(lambda obj: vault.store.head(str(obj.key), obj.version_id or None), cold))
    closed = [(obj, head) for obj, head in zip(cold, heads, strict=True) if head is not None and head.is_frozen]
    return ColdPart(
        tuple(obj for obj, head in closed if head.thaw is None), tuple(obj for obj, head in closed if head.thaw)
    )


def is_frozen(vault: Vault, name: Name) -> bool:
    """Whether the sealed version of a name can't be read now. What somebody laid on top of it counts for nothing."""
    if not any(row.storage_class in COLD_CLASSES for row in name.versions):
        return False
    version = authentic(vault.store, name)
    if version is None or version.storage_class not in COLD_CLASSES:
        return False
    head = vault.store.head(name.text, version.version_id or None)
    return head is not None and head.is_frozen


def ask_thaw(vault: Vault, part: ColdPart, tier: ThawTier, *, days: int = THAWED_DAYS) -> int:
    """Ask for every frozen object, sixteen at a time; how many that were. Raises what `ObjectStore.thaw` raises."""

    def ask(obj: StoredObject) -> None:
        try:
            vault.store.thaw(str(obj.key), obj.version_id, days=days, tier=tier)
        except VaultError as error:
            if error.code != "vault.not_cold":  # it thawed since we looked
                raise

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="thaw") as pool:
        list(pool.map(ask, part.frozen))
    return len(part.frozen)


def require_thawed(part: ColdPart, tier: ThawTier = "Standard") -> None:
    """Raise VaultError `restore.cold` before anything is fetched if something could not be."""
    if not part.is_empty:
        hint = (
            "add --thaw to ask the store for them; then run it again when they are there"
            if part.frozen
            else "they were asked for: run it again when they are there, or restore from a replica that isn't cold"
        )
        raise VaultError("restore.cold", part.describe(tier), hint)
