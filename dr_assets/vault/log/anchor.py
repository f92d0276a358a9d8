"""Anchors: the log's root and size as the data of a transaction in an EVM chain, which nobody here can rewrite.

What belongs here: the data's bytes, sending once, waiting for confirmations, noticing a reorganised chain; judging a
record without a network. What stays out: when to anchor (outside.py). Wants the extra `anchor`; so it is imported only
where one is declared or found.

The transaction is shelved before it is sent (`sent`) and again once enough blocks are on top (`confirmed`). Nothing
here waits: each call looks, does the next step and says where it stands. So a crash anywhere costs a call.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import requests

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log.checkpoint import Checkpoint, Signed
from dr_assets.vault.log.evm import (
    Account,
    BadSignature,
    BlockNotFound,
    HexBytes,
    HTTPProvider,
    RLPException,
    TransactionNotFound,
    TypedTransaction,
    ValidationError,
    Web3,
    Web3Exception,
)
from dr_assets.vault.log.merkle import HASH_BYTES
from dr_assets.vault.log.outsider import PATIENCE_S, Heard
from dr_assets.vault.log.shelf import ANCHOR, PROOF_LIMIT_BYTES, Proof, ProofShelf

WHO: Final = "anchor"
SIZE_BYTES: Final = 8
# A fee for a base fee that doubles before the transaction is taken up.
FEE_HEADROOM: Final = 2
TIP_WEI: Final = 1_000_000_000


# What the libraries raise for bytes that are no signed transaction.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    RecursionError,
    RLPException,
    ValidationError,
    BadSignature,
)


@dataclass(frozen=True, slots=True)
class AnchorPlace:
    """A chain's endpoint, who pays, and how many blocks on top make a transaction count."""

    url: str
    chain_id: int
    key: str = field(repr=False)
    confirmations: int
    every: timedelta

    @property
    def address(self) -> str:
        """The payer's address. Raises PolicyError `log.bad_anchor_key`."""
        try:
            return str(Account.from_key(self.key).address)
        except (ValueError, TypeError):
            raise PolicyError(
                "log.bad_anchor_key", "the anchor's key is no private key", "64 hex digits in the declared variable"
            ) from None


@dataclass(frozen=True, slots=True)
class Anchored:
    """What a record says: this transaction, signed by `sender`, holds the checkpoint's root and size.

    Whether the chain has it in `block_hash` is for the chain to say: `block_number` is None until it was confirmed.
    """

    chain_id: int
    tx: str
    sender: str
    raw: str = field(repr=False)
    block_number: int | None = None
    block_hash: str | None = None
    block_at: datetime | None = None

    def to_bytes(self) -> bytes:
        """The record as it is shelved: JSON."""
        body = {"chain_id": self.chain_id, "tx": self.tx, "sender": self.sender, "raw": self.raw}
        if self.block_at:
            block = {"number": self.block_number, "hash": self.block_hash, "at": self.block_at.isoformat()}
            body |= {"block": block}
        return json.dumps(body, sort_keys=True).encode("ascii") + b"\n"


class Chain:
    """The calls to a chain that anchoring needs. Raises Web3Exception, requests.RequestException, ValueError."""

    def __init__(self, place: AnchorPlace, patience_s: float = PATIENCE_S) -> None:
        self._eth = Web3(
            HTTPProvider(place.url, request_kwargs={"timeout": patience_s}, exception_retry_configuration=None)
        ).eth

    def chain_id(self) -> int:
        """Which chain this is."""
        return int(self._eth.chain_id)

    def height(self) -> int:
        """The newest block's number."""
        return int(self._eth.block_number)

    def block_of(self, tx: str) -> tuple[int, str, datetime] | None:
        """Number, hash and time of the block that has the transaction now; None if none has."""
        try:
            receipt = self._eth.get_transaction_receipt(HexBytes(tx))
            block = self._eth.get_block(receipt["blockNumber"])
        except (TransactionNotFound, BlockNotFound):
            return None
        if block["hash"] != receipt["blockHash"] or receipt["status"] != 1:
            return None
        return int(block["number"]), block["hash"].to_0x_hex(), datetime.fromtimestamp(block["timestamp"], UTC)

    def knows(self, tx: str) -> bool:
        """Whether it has the transaction, in a block or waiting for one."""
        try:
            self._eth.get_transaction(HexBytes(tx))
        except TransactionNotFound:
            return False
        return True

    def next_nonce(self, address: str) -> int:
        """The nonce after all that is in blocks or waiting."""
        return int(self._eth.get_transaction_count(Web3.to_checksum_address(address), "pending"))

    def settled_nonce(self, address: str) -> int:
        """The nonce after all that is in blocks."""
        return int(self._eth.get_transaction_count(Web3.to_checksum_address(address), "latest"))

    def send(self, raw: str) -> None:
        """Hand in a signed transaction."""
        self._eth.send_raw_transaction(HexBytes(raw))

    def fees(self, transaction: Mapping[str, Any]) -> dict[str, int]:
        """What a transaction may cost at most."""
        base = int(self._eth.get_block("latest").get("baseFeePerGas", 0))
        gas = int(self._eth.estimate_gas(dict(transaction)))  # type: ignore[arg-type]
        return {"gas": gas, "maxFeePerGas": FEE_HEADROOM * base + TIP_WEI, "maxPriorityFeePerGas": TIP_WEI}


def calldata(checkpoint: Checkpoint) -> bytes:
    """What the transaction carries: the root (32 bytes), then the size (8 bytes, big-endian)."""
    return checkpoint.root + checkpoint.size.to_bytes(SIZE_BYTES, "big")


def verify_anchor(data: bytes, checkpoint: Checkpoint, address: str | None = None) -> Anchored:
    """What a record proves without the chain: its transaction carries this checkpoint and is signed by its sender.

    `address` is the sender that is believed. Raises VaultError `log.bad_anchor`.
    """
    record = parse_anchor(data)
    carried = _carried(record)
    if carried != calldata(checkpoint):
        raise _bad("the transaction carries another root or size")
    if address is not None and record.sender.lower() != address.lower():
        raise _bad(f"the transaction is signed by {record.sender}, not by {address}")
    return record


def _carried(record: Anchored) -> bytes:
    """The data of the transaction that a record holds, which is the one it names, signed by the sender it names."""
    try:
        raw = HexBytes(record.raw)
        made = TypedTransaction.from_bytes(raw)
        fields = made.as_dict()
        if made.encode() != bytes(raw):  # the library reads some bytes leniently that no chain takes
            raise ValueError
        tx, sender = Web3.keccak(raw).to_0x_hex(), str(Account.recover_transaction(raw))
        carried, chain_id = bytes(HexBytes(fields["data"])), int(fields["chainId"])
    except _UNREADABLE as error:
        raise _bad(f"its transaction can't be read: {type(error).__name__}") from None
    if (tx, sender, chain_id) != (record.tx, record.sender, record.chain_id):
        raise _bad("the transaction is not the one that the record names")
    return carried


def parse_anchor(data: bytes) -> Anchored:
    """The record, nothing of it verified. Raises VaultError `log.bad_anchor`."""
    if len(data) > PROOF_LIMIT_BYTES:
        raise _bad("it is too large")
    try:
        body = json.loads(data)
        block = body.get("block")
        record = Anchored(
            int(body["chain_id"]),
            str(body["tx"]),
            str(body["sender"]),
            str(body["raw"]),
            int(block["number"]) if block else None,
            str(block["hash"]) if block else None,
            datetime.fromisoformat(block["at"]) if block else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _bad("it is no record of an anchor") from None
    if record.to_bytes() != data:
        raise _bad("it holds more than a record of an anchor")
    return record


def _bad(what: str) -> VaultError:
    return VaultError("log.bad_anchor", f"an anchor proves nothing: {what}", "take the record from another copy")


def advance_anchor(place: AnchorPlace, chain: Chain, signed: Signed, shelf: ProofShelf, now: datetime) -> Heard:
    """Do the next step: send, wait, confirm, send again what a reorganised chain lost, or nothing until it is due.

    Never raises for what the chain does; raises what `shelf` raises.
    """
    size = signed.checkpoint.size
    try:
        if chain.chain_id() != place.chain_id:
            return Heard(WHO, "misbehaving", size, f"it is chain {chain.chain_id()}, declared is {place.chain_id}")
        at, records = _newest(place, shelf)
        stands = _look(place, chain, at, records, shelf) if records else "lost"
        if isinstance(stands, Heard):
            return stands
        if stands != "lost" and (size <= at or now - stands < place.every):
            return Heard(WHO, "vouched", at, f"in a block of {stands.isoformat()}")
        return _send(place, chain, signed, shelf)
    except (Web3Exception, requests.RequestException, *_UNREADABLE) as error:
        # The text of such errors may hold the endpoint's address, and with it a secret.
        poor = "insufficient funds" in str(error).lower()
        what = "the payer's account lacks funds" if poor else f"the chain's endpoint: {type(error).__name__}"
        return Heard(WHO, "misbehaving" if poor else "away", size, what)


def _newest(place: AnchorPlace, shelf: ProofShelf) -> tuple[int, list[Anchored]]:
    """The largest size with records of ours, and those, without what others laid there; (0, []) without any.

    Only the payer can sign a transaction that carries this size: else a name would do to stop all anchors.
    """
    for size in reversed(shelf.sizes(ANCHOR)):
        records = []
        for proof in shelf.held(ANCHOR, size):
            try:
                record = parse_anchor(proof.data)
                carried = _carried(record)
            except VaultError:
                continue
            is_ours = (record.chain_id, record.sender) == (place.chain_id, place.address)
            if is_ours and carried[HASH_BYTES:] == size.to_bytes(SIZE_BYTES, "big"):
                records.append(record)
        if records:
            return size, records
    return 0, []


def _look(
    place: AnchorPlace, chain: Chain, size: int, records: list[Anchored], shelf: ProofShelf
) -> Heard | datetime | Literal["lost"]:
    """Where the newest anchor stands: something is still to come, its block's time, or no block will ever have it."""
    known = {record.block_hash for record in records if record.block_hash}
    for record in {record.tx: record for record in records}.values():
        block = chain.block_of(record.tx)
        if block is None:
            continue
        number, block_hash, block_at = block
        if block_hash in known:
            return block_at
        depth = chain.height() - number + 1
        if depth < place.confirmations:
            was = ", after the chain was reorganised" if known else ""
            return Heard(WHO, "waiting", size, f"{depth} of {place.confirmations} confirmations{was}")
        confirmed = replace(record, block_number=number, block_hash=block_hash, block_at=block_at)
        shelf.put(Proof(ANCHOR, size, f"confirmed-{place.chain_id}", confirmed.to_bytes()))
        return Heard(WHO, "vouched", size, f"confirmed in block {number}")
    return _send_again(place, chain, size, records, was="the chain was reorganised and lost it; " if known else "")


def _send_again(
    place: AnchorPlace, chain: Chain, size: int, records: list[Anchored], *, was: str
) -> Heard | Literal["lost"]:
    """No block has it (any more): the same transaction again, so that it can't count twice, if it still can at all."""
    if any(chain.knows(record.tx) for record in records):
        return Heard(WHO, "waiting", size, f"{was}it waits for a block")
    settled = chain.settled_nonce(place.address)
    for record in records:
        if int(TypedTransaction.from_bytes(HexBytes(record.raw)).as_dict()["nonce"]) >= settled:
            chain.send(record.raw)
            return Heard(WHO, "waiting", size, f"{was}sent again")
    return "lost"


def _send(place: AnchorPlace, chain: Chain, signed: Signed, shelf: ProofShelf) -> Heard:
    checkpoint = signed.checkpoint
    transaction: dict[str, Any] = {
        "type": 2,
        "chainId": place.chain_id,
        "from": place.address,
        "to": place.address,
        "value": 0,
        "data": "0x" + calldata(checkpoint).hex(),
        "nonce": chain.next_nonce(place.address),
    }
    transaction |= chain.fees(transaction)
    del transaction["from"]
    made = Account.sign_transaction(transaction, place.key)
    raw = HexBytes(made.raw_transaction).to_0x_hex()
    record = Anchored(place.chain_id, HexBytes(made.hash).to_0x_hex(), place.address, raw)
    shelf.put(Proof(ANCHOR, checkpoint.size, f"sent-{place.chain_id}", record.to_bytes()))
    chain.send(raw)
    return Heard(WHO, "waiting", checkpoint.size, "sent")
