"""Wrapping with a key-encryption key that is at hand: AES-256-GCM, a random nonce in front, the context bound in.

What belongs here: what the providers with plain keys share. What stays out: where the key lies.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dr_assets.estate.errors import VaultError
from dr_assets.vault.keys.provider import WrapContext, Wrapping

NONCE_BYTES: Final = 12
_KEK_ID_LABEL: Final = b"dr_assets v1 kek id\0"


def kek_id_of(kek: bytes) -> str:
    """First 16 bytes of the labelled SHA-256 of the key, in hex."""
    return hashlib.sha256(_KEK_ID_LABEL + kek).hexdigest()[:32]


def wrap(kek: bytes, secret: bytes, context: WrapContext) -> Wrapping:
    """Encrypt `secret` for `context`."""
    nonce = os.urandom(NONCE_BYTES)
    return Wrapping(kek_id_of(kek), nonce + AESGCM(kek).encrypt(nonce, secret, context.encoded()))


def unwrap(keks: Mapping[str, bytes], wrapping: Wrapping, context: WrapContext) -> bytes:
    """The secret, by whichever of `keks` wrapped it; raises VaultError `vault.wrong_key`."""
    kek = keks.get(wrapping.kek_id)
    if kek is None:
        raise _wrong_key(context, f"{wrapping.kek_id} wrapped it, at hand is {', '.join(sorted(keks))}")
    try:
        return AESGCM(kek).decrypt(wrapping.wrapped[:NONCE_BYTES], wrapping.wrapped[NONCE_BYTES:], context.encoded())
    except (InvalidTag, ValueError):
        raise _wrong_key(context, "the wrapping fails authentication") from None


def _wrong_key(context: WrapContext, why: str) -> VaultError:
    return VaultError(
        "vault.wrong_key",
        f"data key {context.key_id} of {context.dataset} can't be unwrapped: {why}",
        "the keys folder must be the one of the estate that wrote this vault",
    )
