"""Wrapping with a key-encryption key that is at hand: AES-256-GCM, a random nonce in front, the context bound in.

What belongs here: what the providers with plain keys share. What stays out: where the key lies.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.keys.refusals import wrong_key

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
        raise wrong_key(context, f"{wrapping.kek_id} wrapped it, at hand is {', '.join(sorted(keks))}")
    try:
        return AESGCM(kek).decrypt(wrapping.wrapped[:NONCE_BYTES], wrapping.wrapped[NONCE_BYTES:], context.encoded())
    except (InvalidTag, ValueError):
        raise wrong_key(context, "the wrapping fails authentication") from None
