"""The port to whatever keeps an Ed25519 signing key, and the key that lies in this process's memory.

What belongs here: signing bytes as they are, the public half. What stays out: domain separation and ids (the package's
own module), keys in tokens and key services (pkcs11_key.py, kms_key.py).
"""

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class SigningKey(Protocol):
    """One Ed25519 key; threads may share it."""

    @property
    def public_key(self) -> bytes:
        """The public half, 32 raw bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes of pure Ed25519 over `message` (RFC 8032).

        Raises VaultError `keys.unreachable` when what keeps the key gives no answer in time, PolicyError
        `keys.refused` when it won't sign.
        """
        ...


class MemoryKey:
    """A key that this process holds: whoever reads its memory, or the file it came from, can sign."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self.private_key = private_key
        self.public_key: bytes = private_key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"MemoryKey({self.public_key.hex()})"

    def sign(self, message: bytes) -> bytes:
        """As the port says."""
        return self.private_key.sign(message)
