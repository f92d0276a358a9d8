"""Key-encryption keys in files: for demos and tests, where whoever reads the disk reads the vault.

What belongs here: `kek-0001.hex`, `kek-0002.hex` … in one folder; the highest number wraps, all unwrap. What stays
out: providers that keep the key where it can't be copied.
"""

import os
import re
from pathlib import Path
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.aead_wrap import kek_id_of, unwrap, wrap
from dr_assets.vault.keys.derive import KEY_BYTES
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.keys.secret_file import read_secret, write_secret

DEMO_ONLY: Final = (
    "key-encryption keys lie in plain files: good for a demo, NOT for production. "
    "Whoever can read the keys folder can read every backup."
)
_FILE: Final = re.compile(r"kek-(\d{4})\.hex", re.ASCII)


class FileKeyProvider:
    """A KeyProvider over a folder that only its owner may read. DEMO_ONLY says what it is not for."""

    def __init__(self, folder: Path, *, name: str = "file") -> None:
        self.name = name
        self.folder = folder
        self._keks: dict[str, bytes] = {}
        self.kek_id = ""
        self._read()

    def _read(self) -> None:
        folder = self.folder
        paths = sorted(path for path in folder.glob("kek-*.hex") if _FILE.fullmatch(path.name))
        if not paths:
            raise PolicyError(
                "keys.no_kek",
                f"{folder} holds no kek-0001.hex",
                "put back its copy: nothing that is stored opens without it; only a new vault gets one by `vault init`",
            )
        keks = [_parse(path) for path in paths]
        self._keks = {kek_id_of(kek): kek for kek in keks}
        self.kek_id = kek_id_of(keks[-1])

    @classmethod
    def create(cls, folder: Path) -> "FileKeyProvider":
        """Add the folder's next key-encryption key (the first, if there is none) and use it from now on."""
        numbers = [int(found[1]) for path in folder.glob("kek-*.hex") if (found := _FILE.fullmatch(path.name))]
        path = folder / f"kek-{max(numbers, default=0) + 1:04d}.hex"
        write_secret(path, os.urandom(KEY_BYTES).hex().encode("ascii") + b"\n")
        return cls(folder)

    def wrap(self, secret: bytes, context: WrapContext) -> Wrapping:
        """As the port says."""
        return wrap(self._keks[self.kek_id], secret, context)

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """As the port says; the folder is read again for a key that was added since: nobody restarts for it."""
        if wrapping.kek_id not in self._keks:
            self._read()
        return unwrap(self._keks, wrapping, context)


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
