"""The port to whatever keeps key-encryption keys.

What belongs here: wrap and unwrap, and the context that binds a wrapping. What stays out: any one provider.
"""

from dataclasses import dataclass
from typing import Protocol

from dr_assets.vault.format import canonical


@dataclass(frozen=True, slots=True)
class WrapContext:
    """What a wrapping is for. It is authenticated with it: a wrapping can't be carried to another dataset."""

    estate: str
    dataset: str
    key_id: str
    generation: int
    purpose: str = "data-key"

    def encoded(self) -> bytes:
        """Canonical JSON, given to the cipher as associated data."""
        return canonical.encode(
            {
                "dataset": self.dataset,
                "estate": self.estate,
                "generation": self.generation,
                "key_id": self.key_id,
                "purpose": self.purpose,
            }
        )


@dataclass(frozen=True, slots=True)
class Wrapping:
    """A wrapped key and the id of the key-encryption key that wrapped it."""

    kek_id: str
    wrapped: bytes


class KeyProvider(Protocol):
    """Wraps and unwraps 32-byte data keys; threads may share it."""

    @property
    def name(self) -> str:
        """As key objects name it: the kind, or `kind/declared name` (`openbao/second`)."""
        ...

    @property
    def kek_id(self) -> str:
        """Id (hex of 16 bytes) of the key-encryption key that wraps now; raises VaultError `keys.unreachable`."""
        ...

    def wrap(self, secret: bytes, context: WrapContext) -> Wrapping:
        """Encrypt `secret` under the provider's current key-encryption key.

        Raises VaultError `keys.unreachable` (no answer in time), PolicyError `keys.refused` (not allowed to).
        """
        ...

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """The secret.

        Raises VaultError `vault.wrong_key` when the provider answered and can't open the wrapping in this context,
        `keys.unreachable` when it gave no answer in time, PolicyError `keys.refused` when it won't let us.
        """
        ...
