"""Cosignatures (C2SP tlog-cosignature, `cosignature/v1`): a witness signs a checkpoint and the time it saw it.

What belongs here: the signed message, signature type 0x04. What stays out: when a witness may cosign
(witness_protocol.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log.note import (
    PUBLIC_KEY_BYTES,
    NoteSignature,
    VerifierKey,
    bad_verifier_key,
    ed25519_holds,
    is_key_name,
)

COSIGNATURE_V1: Final = 0x04
TIME_BYTES: Final = 8
SIGNATURE_BYTES: Final = 64
TIME_LIMIT: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """Believes the cosignatures of one witness."""

    name: str
    public_key: bytes

    @property
    def key(self) -> VerifierKey:
        """As a verifier key; `str` of it is what to hand on."""
        return VerifierKey(self.name, COSIGNATURE_V1, self.public_key)

    @property
    def key_id(self) -> bytes:
        """4 bytes."""
        return self.key.key_id

    @classmethod
    def parse(cls, text: str) -> "CosignatureVerifier":
        """From a verifier key of type 0x04; raises PolicyError `log.bad_verifier_key`."""
        key = VerifierKey.parse(text)
        if key.kind != COSIGNATURE_V1 or len(key.public_key) != PUBLIC_KEY_BYTES:
            raise bad_verifier_key(text)
        return cls(key.name, key.public_key)

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether this witness cosigned this checkpoint's text at the time in the signature."""
        if len(signature) != TIME_BYTES + SIGNATURE_BYTES:
            return False
        seconds = int.from_bytes(signature[:TIME_BYTES], "big")
        if seconds >= TIME_LIMIT:
            return False
        return ed25519_holds(self.public_key, signature[TIME_BYTES:], cosigned_message(text, seconds))


@dataclass(frozen=True, slots=True)
class CosignatureSigner:
    """Cosigns with an Ed25519 key, at the time that `clock` tells."""

    name: str
    public_key: bytes
    sign_raw: Callable[[bytes], bytes]
    clock: Callable[[], datetime]

    @classmethod
    def of(cls, name: str, private_key: Ed25519PrivateKey, clock: Callable[[], datetime]) -> "CosignatureSigner":
        """With a key in memory. Raises PolicyError `log.bad_key_name`."""
        if not is_key_name(name):
            raise PolicyError("log.bad_key_name", f"{name!r} can't name a key of notes", "no spaces, no plus sign")
        return cls(name, private_key.public_key().public_bytes_raw(), private_key.sign, clock)

    @property
    def verifier(self) -> CosignatureVerifier:
        """Who believes it."""
        return CosignatureVerifier(self.name, self.public_key)

    @property
    def key_id(self) -> bytes:
        """4 bytes."""
        return self.verifier.key_id

    def sign(self, text: bytes) -> bytes:
        """8 bytes of time, 64 of signature."""
        seconds = int(self.clock().timestamp())
        return seconds.to_bytes(TIME_BYTES, "big") + self.sign_raw(cosigned_message(text, seconds))


def cosigned_message(text: bytes, seconds: int) -> bytes:
    """What a witness signs: a header line, the time (seconds since 1970) and the checkpoint's text."""
    return b"cosignature/v1\ntime %d\n" % seconds + text


def cosigned_at(signature: NoteSignature) -> datetime:
    """When a (verified) cosignature says it was made. Raises VaultError `log.malformed_note` for what is none."""
    seconds = int.from_bytes(signature.signature[:TIME_BYTES], "big")
    if len(signature.signature) == TIME_BYTES + SIGNATURE_BYTES:
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, ValueError, OSError):
            pass
    raise VaultError(
        "log.malformed_note", f"the signature by {signature.name} holds no time", "it is no cosignature/v1"
    )
