"""A key-encryption key that lives and dies with the process.

What belongs here: what a throwaway vault wraps with. What stays out: anything that must be opened tomorrow.
"""

import os

from dr_assets.vault.keys.aead_wrap import kek_id_of, unwrap, wrap
from dr_assets.vault.keys.derive import KEY_BYTES
from dr_assets.vault.keys.provider import WrapContext, Wrapping


class MemoryKeyProvider:
    """A KeyProvider without a file."""

    def __init__(self, kek: bytes | None = None, *, name: str = "memory") -> None:
        self.name = name
        self._kek = kek or os.urandom(KEY_BYTES)

    @property
    def kek_id(self) -> str:
        """As the port says."""
        return kek_id_of(self._kek)

    def wrap(self, secret: bytes, context: WrapContext) -> Wrapping:
        """As the port says."""
        return wrap(self._kek, secret, context)

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """As the port says."""
        return unwrap({self.kek_id: self._kek}, wrapping, context)
