"""A witness's folder: its key, its name, the logs it knows, and its book.

What belongs here: setting it up and opening it. What stays out: what it then does (witness_server.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.secret_file import write_secret
from dr_assets.vault.log.cosignature import CosignatureSigner
from dr_assets.vault.log.note import Ed25519Verifier
from dr_assets.vault.log.witness_book import WitnessBook
from dr_assets.vault.log.witness_server import Cosigner
from dr_assets.vault.signing import Signer

KEY: Final = "key.pem"
NAME: Final = "name"
LOGS: Final = "logs"


@dataclass(frozen=True, slots=True)
class WitnessFolder:
    """Where one witness keeps everything."""

    path: Path

    def begin(self, name: str, clock: Callable[[], datetime]) -> CosignatureSigner:
        """Make key and empty book. Raises PolicyError `witness.exists`, `witness.no_folder`, `log.bad_key_name`."""
        signer = CosignatureSigner.of(name, Ed25519PrivateKey.generate(), clock)
        if any((self.path / made).exists() for made in (NAME, KEY)):
            raise PolicyError(
                "witness.exists",
                f"{self.path} is a witness's already",
                "a new witness gets a new folder and a new name",
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PolicyError(
                "witness.no_folder", f"{self.path}: {error.strerror}", "name a folder that can be made"
            ) from error
        key = Signer.generate()
        key.save(self.path / KEY)
        (self.path / LOGS).write_text("# one verifier key of a log a line\n", encoding="utf-8")
        WitnessBook.begin(self.path)
        write_secret(self.path / NAME, f"{name}\n".encode())  # last: what was begun halfway is no witness
        return CosignatureSigner(signer.name, key.public_key, key.sign_raw, clock)

    def signer(self, clock: Callable[[], datetime]) -> CosignatureSigner:
        """Its key. Raises PolicyError `witness.not_set_up` and those of key files."""
        try:
            name = (self.path / NAME).read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, ValueError):
            raise PolicyError(
                "witness.not_set_up", f"{self.path} is no witness's folder", "`dr-assets witness init DIR --name NAME`"
            ) from None
        key = Signer.load(self.path / KEY)
        return CosignatureSigner(name, key.public_key, key.sign_raw, clock)

    def logs(self) -> dict[str, list[Ed25519Verifier]]:
        """The keys of the logs it knows, by origin. Raises PolicyError `log.bad_verifier_key`."""
        found: dict[str, list[Ed25519Verifier]] = {}
        for line in (self.path / LOGS).read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                verifier = Ed25519Verifier.parse(line.strip())
                found.setdefault(verifier.name, []).append(verifier)
        return found

    def add_log(self, key: str) -> Ed25519Verifier:
        """Know one more log, or one more key of a log. Raises PolicyError `log.bad_verifier_key`."""
        verifier = Ed25519Verifier.parse(key)
        if verifier not in self.logs().get(verifier.name, []):
            with (self.path / LOGS).open("a", encoding="utf-8") as file:
                file.write(f"{verifier.key}\n")
        return verifier

    def cosigner(self, book: WitnessBook, clock: Callable[[], datetime]) -> Cosigner:
        """The witness, ready to answer. Raises as `signer` and `logs`, and VaultError `witness.forgot`."""
        logs: dict[str, Sequence[Ed25519Verifier]] = dict(self.logs())
        cosigner = Cosigner(self.signer(clock), logs, book)
        cosigner.require_memory()
        return cosigner
