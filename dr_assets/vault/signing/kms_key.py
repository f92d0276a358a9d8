"""An Ed25519 signing key in AWS KMS (key spec ECC_NIST_EDWARDS25519).

What belongs here: pure Ed25519 over raw messages. What stays out: the client and what its answers mean
(keys/kms_provider.py).
"""

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.kms_provider import answers

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

MESSAGE_LIMIT_BYTES: Final = 4096  # KMS's own, for raw messages


class KmsSigningKey:
    """A SigningKey over one KMS key by id, ARN or alias."""

    def __init__(self, client: "KMSClient", key: str) -> None:
        self._client = client
        self._key = key
        with answers(self._who):
            public = load_der_public_key(client.get_public_key(KeyId=key)["PublicKey"])
        if not isinstance(public, Ed25519PublicKey):
            raise PolicyError(
                "keys.bad_signing_key", f"KMS key {key} is no Ed25519 key", "make one of spec ECC_NIST_EDWARDS25519"
            )
        self.public_key: bytes = public.public_bytes_raw()

    def __repr__(self) -> str:
        return f"KmsSigningKey({self._key}, {self.public_key.hex()})"

    @property
    def _who(self) -> str:
        return f"signer {self._key}"

    def sign(self, message: bytes) -> bytes:
        """As the port says; raises ValueError for a message over 4096 bytes, which KMS doesn't take as it is."""
        if len(message) > MESSAGE_LIMIT_BYTES:
            raise ValueError(f"KMS signs raw messages of at most {MESSAGE_LIMIT_BYTES} bytes, not {len(message)}")
        with answers(self._who):
            answer = self._client.sign(
                KeyId=self._key, Message=message, MessageType="RAW", SigningAlgorithm="ED25519_SHA_512"
            )
        return answer["Signature"]
