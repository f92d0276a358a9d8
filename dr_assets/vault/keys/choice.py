"""The port by which a key ring learns what has been decided about its keys: which one writes, which may not be used.

What belongs here: the port. What stays out: who decides (life/, by facts in the vault) and the ring itself.
"""

from typing import Protocol


class KeyChoice(Protocol):
    """What the vault's facts say of its keys; threads may share it.

    Either method may raise VaultError as opening a fact does.
    """

    def writing_key_id(self, dataset: str) -> str | None:
        """The data key that the dataset's latest rotation named, None when there was none."""
        ...

    def retired_keks(self) -> frozenset[str]:
        """Ids of key-encryption keys under which nothing may be wrapped or written any more."""
        ...
