"""What is derived from a data key: each object's frame key with its commitment, and the data key's own id.

What belongs here: HKDF-SHA256 with its labels. What stays out: where data keys come from.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32

_OBJECT_LABEL: Final = b"dr_assets v1 object"
_KEY_ID_LABEL: Final = b"dr_assets v1 key id"


@dataclass(frozen=True, slots=True)
class DataKey:
    """A dataset's data key: 32 secret bytes that never appear in a repr, and the id that headers name."""

    secret: bytes = field(repr=False)
    key_id: str

    @classmethod
    def of(cls, secret: bytes) -> "DataKey":
        """The id follows from the secret, so that two wrappings of one key can't disagree about which it is."""
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes")
        return cls(secret, _hkdf(secret, salt=None, label=_KEY_ID_LABEL, size_bytes=16).hex())


@dataclass(frozen=True, slots=True)
class FrameKey:
    """One object's AES-256 key and the public commitment to it."""

    secret: bytes = field(repr=False)
    commitment: str


def derive_frame_key(data_key: DataKey, salt: bytes) -> FrameKey:
    """64 bytes of HKDF-SHA256: the first half encrypts, the second is the commitment that the header shows."""
    output = _hkdf(data_key.secret, salt=salt, label=_OBJECT_LABEL, size_bytes=2 * KEY_BYTES)
    return FrameKey(output[:KEY_BYTES], output[KEY_BYTES:].hex())


def _hkdf(secret: bytes, *, salt: bytes | None, label: bytes, size_bytes: int) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=size_bytes, salt=salt, info=label).derive(secret)
