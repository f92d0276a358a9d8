"""What a verifier believes: keys of the log and of outsiders, handed over by another way than the log itself.

What belongs here: the file and its parsing. What stays out: judging anything by it (offline.py).

The file is a trust file (docs/format.md) with more in it, so whoever has it has all that a check needs. An export
never brings it along: keys that come with what they vouch for vouch for nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.log.cosignature import CosignatureVerifier
from dr_assets.vault.signing import Trust, signer_id_of

BELIEF_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class AnchorBelief:
    """Whose transactions in which chain count."""

    chain_id: int
    address: str


@dataclass(frozen=True, slots=True)
class Belief:
    """The log's origin, who may sign for it, and which outsiders count. `quorum` of the witnesses make a checkpoint."""

    origin: str
    trust: Trust
    witnesses: tuple[CosignatureVerifier, ...] = ()
    quorum: int = 0
    tsa_roots: tuple[x509.Certificate, ...] = ()
    anchor: AnchorBelief | None = None

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        signers = [{"name": self.origin, "public_key": key.hex()} for key in self.trust.public_keys.values()]
        pem = "".join(root.public_bytes(Encoding.PEM).decode("ascii") for root in self.tsa_roots)
        anchor = {"chain_id": self.anchor.chain_id, "address": self.anchor.address} if self.anchor else None
        return {
            "origin": self.origin,
            "signers": signers,
            "witnesses": [str(witness.key) for witness in self.witnesses],
            "quorum": self.quorum,
            "tsa_roots": pem,
            "anchor": anchor,
        }

    @classmethod
    def load(cls, path: Path) -> "Belief":
        """Raises PolicyError `log.bad_belief`, `log.bad_verifier_key`."""
        try:
            with path.open("rb") as file:
                return cls.of(json.loads(file.read(BELIEF_LIMIT_BYTES)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise PolicyError(
                "log.bad_belief",
                f"{path} doesn't say whom to believe about a log",
                "`dr-assets log trust` on the estate's side prints such a file; get it by a way you trust",
            ) from None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Belief":
        """From the file's content. Raises ValueError, KeyError or TypeError for what is none."""
        keys = [bytes.fromhex(row["public_key"]) for row in body["signers"]]
        for key in keys:
            Ed25519PublicKey.from_public_bytes(key)
        pem, anchor = body.get("tsa_roots"), body.get("anchor")
        witnesses = tuple(CosignatureVerifier.parse(text) for text in body.get("witnesses", ()))
        quorum = int(body.get("quorum", 0))
        if not 0 <= quorum <= len(witnesses) or not isinstance(body["origin"], str) or not keys:
            raise ValueError("quorum, origin or signers")
        return cls(
            body["origin"],
            Trust({signer_id_of(key): key for key in keys}),
            witnesses,
            quorum,
            tuple(x509.load_pem_x509_certificates(pem.encode("ascii"))) if pem else (),
            AnchorBelief(int(anchor["chain_id"]), str(anchor["address"])) if anchor else None,
        )
