"""Key-encryption keys in files: for demos and tests, where whoever reads the disk reads the vault.

What belongs here: `kek-0001.hex`, `kek-0002.hex` … in one folder; the highest number wraps, all unwrap. What stays
out: providers that keep the key where it can't be copied.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.keys.derive import KEY_BYTES
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.keys.secret_file import read_secret, write_secret

DEMO_ONLY: Final = (
    "key-encryption keys lie in plain files: good for a demo, NOT for production. "
    "Whoever can read the keys folder can read every backup."
)
NONCE_BYTES: Final = 12
_FILE: Final = re.compile(r"kek-(\d{4})\.hex", re.ASCII)
_KEK_ID_LABEL: Final = b"dr_assets v1 kek id\0"


class FileKeyProvider:
    """A KeyProvider over a folder that only its owner may read."""

    name = "file"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sorted(path for path in folder.glob("kek-*.hex") if _FILE.fullmatch(path.name))
        if not paths:
            raise PolicyError(
                "keys.no_kek", f"{folder} holds no kek-0001.hex", "`dr-assets vault init` creates one for a new vault"
            )
        keks = [_parse(path) for path in paths]
        self._keks = {_kek_id(kek): kek for kek in keks}
        self._current = _kek_id(keks[-1])

    @classmethod
    def create(cls, folder: Path) -> "FileKeyProvider":
        """Add the folder's next key-encryption key (the first, if there is none) and use it from now on."""
        numbers = [int(found[1]) for path in folder.glob("kek-*.hex") if (found := _FILE.fullmatch(path.name))]
        path = folder / f"kek-{max(numbers, default=0) + 1:04d}.hex"
        write_secret(path, os.urandom(KEY_BYTES).hex().encode("ascii") + b"\n")
        return cls(folder)

    def wrap(self, secret: bytes, context: WrapContext) -> Wrapping:
        """AES-256-GCM with a random nonce in front."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._keks[self._current]).encrypt(nonce, secret, context.encoded())
        return Wrapping(self._current, nonce + sealed)

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """As the port says."""
        kek = self._keks.get(wrapping.kek_id)
        if kek is None:
            raise _wrong_key(context, f"it is wrapped by {wrapping.kek_id}, the folder holds {', '.join(self._keks)}")
        try:
            return AESGCM(kek).decrypt(
                wrapping.wrapped[:NONCE_BYTES], wrapping.wrapped[NONCE_BYTES:], context.encoded()
            )
        except (InvalidTag, ValueError):
            raise _wrong_key(context, "the wrapping fails authentication") from None


def _parse(path: Path) -> bytes:
    try:
        kek = bytes.fromhex(read_secret(path, "key-encryption key").decode("ascii").strip())
    except ValueError:
        kek = b""
    if len(kek) != KEY_BYTES:
        raise PolicyError(
            "keys.bad_kek", f"{path} does not hold {2 * KEY_BYTES} hex digits", "restore it from its copy"
        )
    return kek


def _kek_id(kek: bytes) -> str:
    return hashlib.sha256(_KEK_ID_LABEL + kek).hexdigest()[:32]


def _wrong_key(context: WrapContext, why: str) -> VaultError:
    return VaultError(
        "vault.wrong_key",
        f"data key {context.key_id} of {context.dataset} can't be unwrapped: {why}",
        "the keys folder must be the one of the estate that wrote this vault",
    )
