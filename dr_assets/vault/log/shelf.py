"""Where proofs from outside lie: write-once files beside the checkpoints they vouch for.

What belongs here: the port, names of proofs. What stays out: the vault's log folder that implements it (store.py), an
export's (offline.py), and what proofs say.
"""

import hashlib
import re
from typing import Final, Protocol

WITNESSED: Final = "witnessed"
TIMESTAMP: Final = "timestamp"
ANCHOR: Final = "anchor"
SIZE_DIGITS: Final = 20
_PROOF: Final = re.compile(r"(witnessed|timestamp|anchor)/([0-9]{20})/([a-z0-9._-]{1,120})", re.ASCII)
_PLAIN: Final = re.compile(r"[^a-z0-9.-]+", re.ASCII)
_PLAIN_LIMIT: Final = 40


class ProofShelf(Protocol):
    """Proofs by path, e.g. `witnessed/00000000000000000512/…`."""

    def put(self, path: str, data: bytes) -> None:
        """Write once, locked like the checkpoint; the same bytes again are no error.

        Raises VaultError `vault.key_conflict` when other bytes lie there, and what the store raises.
        """
        ...

    def get(self, path: str) -> bytes | None:
        """The bytes that were first written there."""
        ...

    def names(self, folder: str) -> list[str]:
        """Every path that begins with `folder`, in text order."""
        ...


def proof_path(kind: str, size: int, name: str) -> str:
    """Where a proof about the checkpoint of this size lies. `name` is made of a-z, 0-9, `.`, `_` and `-`."""
    return f"{kind}/{size:0{SIZE_DIGITS}d}/{name}"


def parse_proof_path(path: str) -> tuple[str, int, str] | None:
    """Kind, size and name of a proof; None for a path that is none."""
    found = _PROOF.fullmatch(path)
    return (found[1], int(found[2]), found[3]) if found else None


def plain_name(name: str, key_id: bytes) -> str:
    """A file name for what was made by this key: readable, and no two keys' alike."""
    readable = _PLAIN.sub("-", name.lower())[:_PLAIN_LIMIT].strip("-.") or "key"
    return f"{readable}-{key_id.hex()}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
