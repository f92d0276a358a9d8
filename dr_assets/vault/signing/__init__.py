"""Ed25519 signatures: who sealed an object, and whom a reader believes.

What belongs here: signing keys, their ids, the trust file, domain separation. What stays out: what is signed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.keys.secret_file import read_secret, write_secret
from dr_assets.vault.signing.key import MemoryKey, SigningKey

__all__ = ["SIGNATURE_BYTES", "MemoryKey", "Signer", "SigningKey", "Trust", "signer_id_of"]

SIGNATURE_BYTES: Final = 64
TRUST_LIMIT_BYTES: Final = 1 << 20


def signer_id_of(public_key: bytes) -> str:
    """First 16 bytes of the SHA-256 of the raw public key, in hex."""
    return hashlib.sha256(public_key).hexdigest()[:32]


class Signer:
    """Signs as this vault's objects are signed, with a key that lies wherever `key` keeps it; threads may share it."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self.public_key: bytes = key.public_key
        self.signer_id: str = signer_id_of(self.public_key)

    def __repr__(self) -> str:
        return f"Signer({self.signer_id})"

    @classmethod
    def generate(cls) -> "Signer":
        """A new random key."""
        return cls(MemoryKey(Ed25519PrivateKey.generate()))

    @classmethod
    def from_seed(cls, seed: bytes) -> "Signer":
        """The key of a 32-byte seed: golden vectors and tests are repeatable with it."""
        return cls(MemoryKey(Ed25519PrivateKey.from_private_bytes(seed)))

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """The PEM (PKCS #8) key in `path`; refuses a file that others may read."""
        try:
            key = serialization.load_pem_private_key(read_secret(path, "signing key"), password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise PolicyError("keys.bad_signing_key", f"{path} holds no Ed25519 key in PEM", "see docs/format.md, Keys")
        return cls(MemoryKey(key))

    def save(self, path: Path) -> None:
        """Write the key to a new file of mode 0600; an existing file is never overwritten.

        Raises PolicyError `keys.not_exportable` for a key that isn't in this process.
        """
        if not isinstance(self._key, MemoryKey):
            raise PolicyError("keys.not_exportable", f"{self} signs with a key that can't be read", "back it up there")
        pem = self._key.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_secret(path, pem)

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """64 bytes over `domain`, a zero byte and `message`."""
        return self.sign_raw(domain + b"\0" + message)

    def sign_raw(self, message: bytes) -> bytes:
        """64 bytes over `message` as it is: for formats of others that tell themselves apart (DSSE, signed notes)."""
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class Trust:
    """The public keys a reader believes, by signer id."""

    public_keys: Mapping[str, bytes]

    @classmethod
    def of(cls, *signers: Signer) -> "Trust":
        """Believe these."""
        return cls({signer.signer_id: signer.public_key for signer in signers})

    @classmethod
    def load(cls, path: Path) -> "Trust":
        """Read `{"signers": [{"name": …, "public_key": hex}, …]}`; raises PolicyError `keys.bad_trust_file`."""
        try:
            with path.open("rb") as file:
                raw = json.loads(file.read(TRUST_LIMIT_BYTES))
            keys = [bytes.fromhex(entry["public_key"]) for entry in raw["signers"]]
            for key in keys:
                Ed25519PublicKey.from_public_bytes(key)
        except FileNotFoundError:
            raise PolicyError(
                "keys.no_trust_file",
                f"{path} does not exist",
                "`dr-assets vault init` writes one; or copy the writers'",
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise PolicyError(
                "keys.bad_trust_file",
                f"{path} is no list of trusted signers",
                'expected {"signers": [{"name": "…", "public_key": "64 hex digits"}]}',
            ) from None
        return cls({signer_id_of(key): key for key in keys})

    def save(self, path: Path, name: str) -> None:
        """Write a new trust file in which every key is called `name`."""
        signers = [{"name": name, "public_key": key.hex()} for key in self.public_keys.values()]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(json.dumps({"signers": signers}, indent=2) + "\n")

    def verify(self, signer_id: str, signature: bytes, domain: bytes, message: bytes, *, name: str) -> None:
        """Pass, or raise VaultError `vault.untrusted_signer` or `vault.bad_signature` that names the object."""
        public_key = self.public_keys.get(signer_id)
        if public_key is None:
            raise VaultError(
                "vault.untrusted_signer",
                f"{name} is signed by {signer_id}, which the trust file does not list",
                "if that writer is yours, add its public key to the trust file; else a stranger writes here",
            )
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, domain + b"\0" + message)
        except InvalidSignature:
            raise VaultError(
                "vault.bad_signature",
                f"{name}: the signature does not fit header and content",
                "the object was altered after it was sealed; restore from a replica of this vault",
            ) from None
