"""Checkpoints: how many leaves a log has, and the root over them, as C2SP tlog-checkpoint writes it.

What belongs here: the text and who may have written it. What stays out: signatures (note.py), where checkpoints lie.
"""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.merkle import HASH_BYTES
from dr_assets.vault.log.note import Ed25519Signer, Ed25519Verifier, is_key_name, sign_note, strict_base64, verify_note
from dr_assets.vault.signing import Signer, Trust

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_LINES: Final = 3


def origin_of(estate: str, vault_name: str) -> str:
    """The log's name, and that of its key in notes: one log an estate, made where this vault lies."""
    return f"dr-assets/{estate}/{vault_name}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's state: `size` leaves with `root` (32 bytes) over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed: three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """The checkpoint of a note's text; lines of extensions are passed over. Raises VaultError `log.malformed`."""
        lines = text.split("\n")
        if len(lines) <= _LINES or lines[-1] or "" in lines[:-1]:
            raise malformed("a checkpoint has an origin, a size and a root, each on a line of its own")
        origin, size, encoded = lines[:_LINES]
        root = strict_base64(encoded)
        if not is_key_name(origin) or not _SIZE.fullmatch(size) or root is None or len(root) != HASH_BYTES:
            raise malformed("a checkpoint's origin, size or root is not of its form")
        return cls(origin, int(size), root)


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint with the note that it was read from, or goes into."""

    checkpoint: Checkpoint
    note: bytes


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> Signed:
    """The note, signed under the log's own name. Ed25519 gives the same bytes each time."""
    key = Ed25519Signer(checkpoint.origin, signer.public_key, signer.sign_raw)
    return Signed(checkpoint, sign_note(checkpoint.text(), [key]))


def verify_checkpoint(note: bytes, trust: Trust) -> Signed:
    """A checkpoint that one of the trusted signers signed under the name that it bears.

    Raises VaultError `log.malformed`, `log.malformed_note`, `log.bad_note_signature`, `log.unsigned_note`.
    """
    origin = note.partition(b"\n")[0].decode("ascii", errors="replace")
    verified = verify_note(note, verifiers_of(origin, trust))
    return Signed(Checkpoint.parse(verified.text), note)


def verifiers_of(origin: str, trust: Trust) -> Iterable[Ed25519Verifier]:
    """Every trusted signer, as the key of the log of this name."""
    return [Ed25519Verifier(origin, public_key) for public_key in trust.public_keys.values()]


def malformed(what: str) -> VaultError:
    """The error of bytes that no log of ours wrote."""
    return VaultError(
        "log.malformed", what, "the log was damaged or something else lies under its name: take another copy"
    )
