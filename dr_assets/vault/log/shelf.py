"""Where proofs from outside lie: write-once files beside the checkpoints they vouch for.

What belongs here: their names, the port, and the port over a vault's log. What stays out: what proofs say; an export's
files (export_files.py).
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final, Protocol

from dr_assets.estate.errors import VaultError
from dr_assets.vault.log.files import LogFiles
from dr_assets.vault.log.names import log_prefix

WITNESSED: Final = "witnessed"
TIMESTAMP: Final = "timestamp"
ANCHOR: Final = "anchor"
PROOF_LIMIT_BYTES: Final = 256 * 1024
_PROOF: Final = re.compile(r"(witnessed|timestamp|anchor)/([0-9]{20})/([a-z0-9._-]{1,80})-([0-9a-f]{16})", re.ASCII)
_PLAIN: Final = re.compile(r"[^a-z0-9.-]+", re.ASCII)
_PLAIN_LIMIT: Final = 40


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof about the checkpoint of `size`; `name` says by whom, and is all that its file's name tells of it."""

    kind: str
    size: int
    name: str
    data: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """Where it lies. The digest in it keeps any two apart, and what was altered from passing for it."""
        return f"{self.kind}/{self.size:020d}/{self.name}-{hashlib.sha256(self.data).hexdigest()[:16]}"

    @classmethod
    def of(cls, path: str, data: bytes) -> "Proof | None":
        """The proof that lies there; None where something else does."""
        found = _PROOF.fullmatch(path)
        proof = cls(found[1], int(found[2]), found[3], data) if found else None
        return proof if proof and proof.path == path else None


class ProofShelf(Protocol):
    """Proofs beside checkpoints."""

    def put(self, proof: Proof) -> None:
        """Write it, locked like the checkpoint; that it lies there is no error. Raises what the store raises."""
        ...

    def held(self, kind: str, size: int) -> list[Proof]:
        """All whole proofs of a kind about the checkpoint of this size."""
        ...

    def sizes(self, kind: str) -> list[int]:
        """The sizes that there are proofs of this kind about, in order. Lists them all: for kinds that are few."""
        ...


class VaultShelf:
    """The proofs in a vault's log. As `LogFiles` it passes over what was laid over or before ours."""

    def __init__(self, files: LogFiles) -> None:
        self._files = files
        self._prefix = log_prefix(files.vault.estate)

    def put(self, proof: Proof) -> None:
        """As the port; raises as `LogFiles.put`."""
        self._files.put(self._prefix + proof.path, proof.data)

    def held(self, kind: str, size: int) -> list[Proof]:
        """As the port."""
        found = [self._read(path) for path in self._paths(f"{kind}/{size:020d}/")]
        return [proof for proof in found if proof]

    def sizes(self, kind: str) -> list[int]:
        """As the port."""
        found = [_PROOF.fullmatch(path) for path in self._paths(f"{kind}/")]
        return sorted({int(proof[2]) for proof in found if proof})

    def _paths(self, folder: str) -> list[str]:
        rows = self._files.vault.store.list_versions(self._prefix + folder)
        return sorted({row.key.removeprefix(self._prefix) for row in rows if not row.is_delete_marker})

    def _read(self, path: str) -> Proof | None:
        return self._files.read(self._prefix + path, lambda data: _require(path, data), limit_bytes=PROOF_LIMIT_BYTES)


def _require(path: str, data: bytes) -> Proof:
    proof = Proof.of(path, data)
    if proof is None:
        raise VaultError("log.malformed", f"{path} is not what its name says", "take another copy")
    return proof


def plain_name(name: str, key: bytes) -> str:
    """What to call proofs by one outsider: readable, fit for a path, and no two outsiders' alike.

    `key` is what tells apart who has the same name: a key id, an address.
    """
    readable = _PLAIN.sub("-", name.lower())[:_PLAIN_LIMIT].strip("-.") or "key"
    return f"{readable}-{hashlib.sha256(key + name.encode()).hexdigest()[:12]}"
