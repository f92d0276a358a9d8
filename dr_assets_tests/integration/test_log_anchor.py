"""Anchors of the log's root against a real EVM chain: anvil on loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log import anchor as anchors
from dr_assets.vault.log.anchor import AnchorPlace, advance_anchor, calldata, parse_anchor, verify_anchor
from dr_assets.vault.log.checkpoint import Checkpoint, Signed
from dr_assets.vault.log.evm import HTTPProvider, Web3
from dr_assets.vault.log.note import Ed25519Signer, sign_note
from dr_assets.vault.log.shelf import ANCHOR, Proof

pytestmark = pytest.mark.integration

CACHED = "dr-assets/anvil-1.7.1/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
# Published with the program: the first account of every such throwaway chain.
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
POOR_KEY = "0x" + "11" * 32
CHAIN_ID = 31337
LISTENS = re.compile(r"Listening on 127\.0\.0\.1:(\d+)\s")  # the whole number is there once a line's end is
LOG = Ed25519Signer.of("dr-assets/casino/primary", Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
DAY = timedelta(days=1)


class Shelf:
    """Proofs in memory; `fails` makes the next put raise, as a killed process would."""

    def __init__(self) -> None:
        self.proofs: list[Proof] = []

    def put(self, proof: Proof) -> None:
        """As the port."""
        assert Proof.of(proof.path, proof.data) == proof
        self.proofs.append(proof)

    def held(self, kind: str, size: int) -> list[Proof]:
        """As the port."""
        return [proof for proof in self.proofs if (proof.kind, proof.size) == (kind, size)]

    def sizes(self, kind: str) -> list[int]:
        """As the port."""
        return sorted({proof.size for proof in self.proofs if proof.kind == kind})

    def names(self) -> list[str]:
        """What was shelved, in order."""
        return [f"{proof.size} {proof.name}" for proof in self.proofs]


class Chain(anchors.Chain):
    """As ours, with patience for a machine that is short of time."""

    def __init__(self, place: AnchorPlace) -> None:
        super().__init__(place, patience_s=180)


class Anvil:
    """A throwaway chain whose blocks are made when told."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._web3 = Web3(HTTPProvider(url))

    def call(self, method: str, *params: object) -> object:
        """One of anvil's own methods."""
        answer = self._web3.provider.make_request(method, list(params))  # type: ignore[arg-type]
        assert "error" not in answer, answer
        return answer["result"]

    def mine(self, blocks: int = 1) -> None:
        """That many blocks."""
        self.call("anvil_mine", hex(blocks))

    def data_of(self, tx: str) -> bytes:
        """What a transaction carries, says the chain."""
        return bytes(self._web3.eth.get_transaction(tx)["input"])  # type: ignore[arg-type]


def _program() -> str:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / CACHED
    found = shutil.which("anvil") or (str(cache) if os.access(cache, os.X_OK) else None)
    if found is None:
        reason = "no anvil: scripts/install_anvil.sh gets it with npm"
        if os.environ.get("CI") == "true" and shutil.which("npm"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
def anvil(tmp_path: Path) -> Iterator[Anvil]:
    """A chain without blocks of its own accord."""
    log = tmp_path / "anvil.log"
    args = [_program(), "--host", "127.0.0.1", "--port", "0", "--chain-id", str(CHAIN_ID), "--no-mining"]
    with log.open("wb") as out:
        process = subprocess.Popen(args, stdout=out, stderr=out, env={"HOME": str(tmp_path)})
    try:
        deadline = time.monotonic() + 180
        while (listens := LISTENS.search(log.read_text(errors="replace"))) is None:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Anvil(f"http://127.0.0.1:{listens[1]}")
    finally:
        process.kill()
        process.wait()


def _place(anvil: Anvil, **changed: object) -> AnchorPlace:
    return replace(AnchorPlace(anvil.url, CHAIN_ID, KEY, confirmations=3, every=DAY), **changed)  # type: ignore[arg-type]


def _signed(size: int) -> Signed:
    checkpoint = Checkpoint(LOG.name, size, bytes([size]) * 32)
    return Signed(checkpoint, sign_note(checkpoint.text(), [LOG]))


def _now() -> datetime:
    return datetime.now(UTC)


def test_a_root_is_anchored_and_confirmed(anvil: Anvil) -> None:
    """Sent once, waited for, confirmed after three blocks; the chain has root and size, and so has the record."""
    place, shelf = _place(anvil), Shelf()
    steps = [advance_anchor(place, Chain(place), _signed(7), shelf, _now())]
    for _ in range(4):
        steps.append(advance_anchor(place, Chain(place), _signed(7), shelf, _now()))
        anvil.mine()
    steps.append(advance_anchor(place, Chain(place), _signed(7), shelf, _now()))
    assert [step.standing for step in steps] == ["waiting"] * 4 + ["vouched"] * 2
    assert shelf.names() == [f"7 sent-{CHAIN_ID}", f"7 confirmed-{CHAIN_ID}"]
    record = verify_anchor(shelf.proofs[1].data, _signed(7).checkpoint, place.address)
    assert record.block_number
    assert anvil.data_of(record.tx) == calldata(_signed(7).checkpoint) == b"\7" * 32 + bytes(7) + b"\7"


def test_the_next_root_is_anchored_when_it_is_due(anvil: Anvil) -> None:
    """A larger log is anchored a day later, not before; a log that didn't grow not at all."""
    place, shelf = _place(anvil, confirmations=1), Shelf()
    advance_anchor(place, Chain(place), _signed(7), shelf, _now())
    anvil.mine()
    for size, at in [(7, _now()), (9, _now()), (7, _now() + 2 * DAY)]:
        assert advance_anchor(place, Chain(place), _signed(size), shelf, at).standing == "vouched"
    assert shelf.sizes(ANCHOR) == [7]
    advance_anchor(place, Chain(place), _signed(9), shelf, _now() + 2 * DAY)
    anvil.mine()
    assert advance_anchor(place, Chain(place), _signed(9), shelf, _now()).standing == "vouched"
    assert shelf.sizes(ANCHOR) == [7, 9]


def test_a_reorganised_chain_is_noticed_and_anchored_again(anvil: Anvil) -> None:
    """Blocks replaced after the confirmation: the same transaction goes out again and is confirmed in its new one."""
    place, shelf = _place(anvil), Shelf()
    advance_anchor(place, Chain(place), _signed(7), shelf, _now())
    anvil.mine(5)
    assert advance_anchor(place, Chain(place), _signed(7), shelf, _now()).standing == "vouched"
    anvil.call("anvil_reorg", 5, [])
    anvil.call("anvil_dropAllTransactions")
    lost = advance_anchor(place, Chain(place), _signed(7), shelf, _now())
    assert (lost.standing, "reorganised" in lost.detail) == ("waiting", True)
    anvil.mine(1)
    waiting = advance_anchor(place, Chain(place), _signed(7), shelf, _now())
    assert (waiting.standing, "reorganised" in waiting.detail) == ("waiting", True)
    anvil.mine(2)
    assert advance_anchor(place, Chain(place), _signed(7), shelf, _now()).standing == "vouched"
    first, second = (parse_anchor(proof.data) for proof in shelf.proofs[1:])
    assert shelf.names() == [f"7 sent-{CHAIN_ID}", f"7 confirmed-{CHAIN_ID}", f"7 confirmed-{CHAIN_ID}"]
    assert first.tx == second.tx
    assert first.block_hash != second.block_hash


def test_a_reorganisation_before_the_confirmation_starts_the_count_anew(anvil: Anvil) -> None:
    """Two of three confirmations, then other blocks: not confirmed until three are on top of where it lies now."""
    place, shelf = _place(anvil), Shelf()
    advance_anchor(place, Chain(place), _signed(7), shelf, _now())
    anvil.mine(2)
    assert advance_anchor(place, Chain(place), _signed(7), shelf, _now()).detail.startswith("2 of 3")
    anvil.call("anvil_reorg", 2, [])
    assert advance_anchor(place, Chain(place), _signed(7), shelf, _now()).standing == "waiting"
    anvil.mine(5)
    assert advance_anchor(place, Chain(place), _signed(7), shelf, _now()).standing == "vouched"


def test_a_crash_before_sending_costs_nothing(anvil: Anvil) -> None:
    """Shelved, but the chain never heard of it: the next call sends that very transaction."""
    place, shelf = _place(anvil, confirmations=1), Shelf()

    class Dead(Chain):
        def send(self, raw: str) -> None:
            raise ConnectionError(raw)

    with pytest.raises(ConnectionError):
        advance_anchor(place, Dead(place), _signed(7), shelf, _now())
    assert advance_anchor(place, Chain(place), _signed(9), shelf, _now()).detail == "sent again"
    anvil.mine()
    assert advance_anchor(place, Chain(place), _signed(9), shelf, _now()).standing == "vouched"
    assert shelf.names() == [f"7 sent-{CHAIN_ID}", f"7 confirmed-{CHAIN_ID}"]


def test_a_transaction_that_can_never_be_taken_is_replaced(anvil: Anvil) -> None:
    """Its nonce was used by another one: a new transaction is made."""
    place, shelf = _place(anvil, confirmations=1), Shelf()
    advance_anchor(place, Chain(place), _signed(7), shelf, _now())
    anvil.call("anvil_dropAllTransactions")
    anvil.call("anvil_setNonce", place.address, "0x5")
    assert advance_anchor(place, Chain(place), _signed(7), shelf, _now()).detail == "sent"
    anvil.mine()
    assert advance_anchor(place, Chain(place), _signed(7), shelf, _now()).standing == "vouched"


def test_a_chain_that_is_away_or_another_delays_nothing(anvil: Anvil) -> None:
    """No endpoint, the wrong chain, an account without funds: told, nothing raised, nothing confirmed."""
    shelf = Shelf()
    tries: list[tuple[dict[str, object], str]] = [
        ({"url": "http://127.0.0.1:9"}, "away"),
        ({"chain_id": 1}, "misbehaving"),
        ({"key": POOR_KEY}, "misbehaving"),
    ]
    for changed, standing in tries:
        place = _place(anvil, **changed)
        heard = advance_anchor(place, Chain(place), _signed(7), shelf, _now())
        assert heard.standing == standing, heard
        assert "127.0.0.1" not in heard.detail
    with pytest.raises(PolicyError) as caught:
        assert _place(anvil, key="not a key").address
    assert caught.value.code == "log.bad_anchor_key"


def test_a_record_that_proves_nothing_is_refused(anvil: Anvil) -> None:
    """Another checkpoint's, another payer's, an altered or invented record: refused without asking the chain."""
    place, shelf = _place(anvil), Shelf()
    advance_anchor(place, Chain(place), _signed(7), shelf, _now())
    good = shelf.proofs[0].data
    body = json.loads(good)
    verify_anchor(good, _signed(7).checkpoint, place.address)
    raw = body["raw"]
    altered = [
        {**body, "chain_id": 1},
        {**body, "tx": "0x" + "00" * 32},
        {**body, "sender": "0x" + "00" * 20},
        {**body, "raw": raw[:-2] + ("00" if raw[-2:] != "00" else "01")},
        {**body, "raw": "0x02"},
        {**body, "raw": "junk"},
        {**body, "more": 1},
        {**body, "block": {"number": 1, "hash": "0x", "at": "yesterday"}},
        [],
    ]
    assert sys.getrecursionlimit() < 10_000, "the EVM libraries raised it, and deep JSON would kill the process"
    broken = [json.dumps(one, sort_keys=True).encode() + b"\n" for one in altered]
    for data in [*broken, b"", b"[" * 100_000, b"\xff", good[:-1], good + b" " * 300_000]:
        with pytest.raises(VaultError) as caught:
            verify_anchor(data, _signed(7).checkpoint, place.address)
        assert caught.value.code == "log.bad_anchor"
    for checkpoint, address in [(_signed(8).checkpoint, place.address), (_signed(7).checkpoint, "0x" + "0" * 40)]:
        with pytest.raises(VaultError):
            verify_anchor(good, checkpoint, address)


def test_strangers_records_are_passed_over(anvil: Anvil) -> None:
    """Junk and another payer's record on the shelf don't stand in for an anchor."""
    place, shelf = _place(anvil), Shelf()
    shelf.put(Proof(ANCHOR, 9, "sent-1", b"junk"))
    other = parse_anchor(_sent_by(anvil)).to_bytes().replace(place.address.encode(), b"0x" + b"0" * 40)
    shelf.put(Proof(ANCHOR, 9, "sent-1", other))
    assert advance_anchor(place, Chain(place), _signed(7), shelf, _now()).detail == "sent"


def _sent_by(anvil: Anvil) -> bytes:
    shelf, place = Shelf(), _place(anvil)
    advance_anchor(place, Chain(place), _signed(9), shelf, _now())
    return shelf.proofs[0].data
