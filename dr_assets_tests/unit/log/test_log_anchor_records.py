"""Whose records stand for an anchor: only those with a transaction that the payer signed for that very size."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.vault.log.anchor import Anchored, AnchorPlace, Chain, advance_anchor, parse_anchor
from dr_assets.vault.log.checkpoint import Checkpoint, Signed
from dr_assets.vault.log.note import Ed25519Signer, sign_note
from dr_assets.vault.log.shelf import ANCHOR, Proof

CHAIN_ID = 31337
# Published with a test chain's program: the first account of every such throwaway chain.
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
LOG = Ed25519Signer.of("dr-assets/casino/primary", Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
PLACE = AnchorPlace("http://127.0.0.1:9", CHAIN_ID, KEY, confirmations=1, every=timedelta(days=1))
NOW = datetime(2026, 11, 22, 7, tzinfo=UTC)
HUGE = 10**18


class Shelf:
    """Proofs in memory."""

    def __init__(self) -> None:
        self.proofs: list[Proof] = []

    def put(self, proof: Proof) -> None:
        """As the port."""
        self.proofs.append(proof)

    def held(self, kind: str, size: int) -> list[Proof]:
        """As the port."""
        return [proof for proof in self.proofs if (proof.kind, proof.size) == (kind, size)]

    def sizes(self, kind: str) -> list[int]:
        """As the port."""
        return sorted({proof.size for proof in self.proofs if proof.kind == kind})


class EverythingMined(Chain):
    """A chain that has every transaction it is asked for in a block, as it has those of strangers."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def chain_id(self) -> int:
        """As the port."""
        return CHAIN_ID

    def height(self) -> int:
        """As the port."""
        return 9

    def block_of(self, tx: str) -> tuple[int, str, datetime] | None:
        """As the port."""
        return (5, "0x" + "ab" * 32, NOW) if tx else None

    def next_nonce(self, address: str) -> int:
        """As the port."""
        return len(self.sent) if address else 0

    def fees(self, transaction: Mapping[str, Any]) -> dict[str, int]:
        """As the port."""
        return {"gas": 21_000 + len(transaction), "maxFeePerGas": 1, "maxPriorityFeePerGas": 1}

    def send(self, raw: str) -> None:
        """As the port."""
        self.sent.append(raw)


def _signed(size: int) -> Signed:
    checkpoint = Checkpoint(LOG.name, size, bytes([size]) * 32)
    return Signed(checkpoint, sign_note(checkpoint.text(), [LOG]))


def _own(size: int) -> Anchored:
    shelf = Shelf()
    advance_anchor(PLACE, EverythingMined(), _signed(size), shelf, NOW)
    return parse_anchor(shelf.proofs[0].data)


@pytest.mark.parametrize("error", [KeyError("status"), TypeError("None"), OverflowError("time")])
def test_a_chain_that_answers_nonsense_raises_nothing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer without a field, or of another type, is told as the endpoint's, and fails nobody's run."""
    shelf, chain = Shelf(), EverythingMined()

    def nonsense(_: str) -> int:
        raise error

    monkeypatch.setattr(chain, "next_nonce", nonsense)
    heard = advance_anchor(PLACE, chain, _signed(7), shelf, NOW)
    assert (heard.standing, heard.detail) == ("away", f"the chain's endpoint: {type(error).__name__}")


@pytest.mark.parametrize(
    "record",
    [
        Anchored(CHAIN_ID, "0x" + "00" * 32, PLACE.address, "0x"),
        Anchored(CHAIN_ID, _own(3).tx, PLACE.address, "junk"),
        _own(3),  # the payer's own, of another size
    ],
)
def test_a_record_in_the_payers_name_keeps_no_anchor_from_being_made(record: Anchored) -> None:
    """Whoever may write to the store lays one down at a size that is never reached: the next anchor goes out anyway."""
    shelf, chain = Shelf(), EverythingMined()
    shelf.put(Proof(ANCHOR, HUGE, f"sent-{CHAIN_ID}", record.to_bytes()))
    for standing in ("sent", "confirmed in block 5", f"in a block of {NOW.isoformat()}"):
        assert advance_anchor(PLACE, chain, _signed(7), shelf, NOW).detail == standing
    assert len(chain.sent) == 1
