"""Breaks as a Parquet file in the vault: sealed as facts of kind `breaks`, in parts where it is large.

What belongs here: sealing the file, and reading it back whole. What stays out: the fact `reconciliation` that names it
(proving/), and what a fact is (vault/facts.py).
"""

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from dr_assets.estate.errors import VaultError
from dr_assets.reconciliation.checks import BREAKS
from dr_assets.reconciliation.result import Reconciliation
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.vault import Vault

KIND: Final = "breaks"
PART_BYTES: Final = 8 << 20  # as base64 in JSON it is well below what a fact can hold


@dataclass(frozen=True, slots=True)
class SealedBreaks:
    """Where a file of breaks lies: the names of its parts in order, the file's SHA-256, its rows."""

    keys: tuple[str, ...]
    sha256: str
    rows: int

    @property
    def key(self) -> str:
        """The name of the first part."""
        return self.keys[0]

    def said(self) -> dict[str, Json]:
        """What the fact `reconciliation` says of it."""
        return {"keys": list(self.keys), "sha256": self.sha256, "rows": self.rows}


def breaks_file(breaks: pa.Table) -> bytes:
    """The file: every column of checks.BREAKS, compressed."""
    written = io.BytesIO()
    pq.write_table(breaks.cast(BREAKS), written, compression="zstd")
    return written.getvalue()


def seal_breaks(vault: Vault, dataset: str, result: Reconciliation) -> SealedBreaks | None:
    """Seal the breaks that `result` keeps; None where there are none. Raises what `record_fact` raises.

    Each part is read back before the next is put, and the file's digest is in all of them.
    """
    breaks = result.breaks
    if not breaks.num_rows:
        return None
    file = breaks_file(breaks)
    sha256 = hashlib.sha256(file).hexdigest()
    pieces = [file[begin : begin + PART_BYTES] for begin in range(0, len(file), PART_BYTES)]
    keys = [
        record_fact(
            vault,
            dataset,
            KIND,
            {
                "sha256": sha256,
                "rows": breaks.num_rows,
                "part": number,
                "parts": len(pieces),
                "parquet": base64.b64encode(piece).decode("ascii"),
            },
        ).key
        for number, piece in enumerate(pieces)
    ]
    return SealedBreaks(tuple(str(key) for key in keys), sha256, breaks.num_rows)


def read_breaks(vault: Vault, dataset: str, sha256: str) -> pa.Table:
    """The breaks of the file with this digest. Raises VaultError (`vault.missing`, `vault.tampered`) or as `facts`."""
    parts: dict[int, bytes] = {}
    expected = None
    for fact in facts(vault, dataset, KIND):
        if fact.body.get("sha256") == sha256:
            expected = fact.body["parts"]
            parts[int(str(fact.body["part"]))] = base64.b64decode(str(fact.body["parquet"]))
    file = b"".join(parts[number] for number in sorted(parts))
    if expected is None or len(parts) != expected:
        raise VaultError(
            "vault.missing",
            f"{dataset} has {len(parts)} of {expected or 'no'} parts of the breaks with digest {sha256}",
            "run `dr-assets vault verify`: it says what the vault lacks",
        )
    if hashlib.sha256(file).hexdigest() != sha256:
        raise VaultError(
            "vault.tampered",
            f"the breaks of {dataset} do not have the digest {sha256} that their parts name",
            "run `dr-assets vault verify`, and read them from a replica",
        )
    return pq.read_table(io.BytesIO(file))
