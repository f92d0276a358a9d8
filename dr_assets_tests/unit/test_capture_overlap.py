import random
from datetime import UTC, datetime

from dr_assets.stores.postgres.overlap import TAIL_BYTES, Tail, stored_tail
from dr_assets.stores.postgres.protocol import SystemIdentity
from dr_assets.stores.postgres.resume import StoredEnd
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

HERE = SystemIdentity("7", 1, 1 << 40)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def put(vault: Vault, first: int, plaintext: bytes, previous: str | None) -> tuple[str, str]:
    """One piece; its header's digest and its name."""
    prepared = vault.prepare(
        dataset="ledger", stream="wal", kind="wal", system_id="7", timeline=1, first=first,
        last=first + len(plaintext), begin_at=AT, end_at=AT, plaintext=plaintext, previous=previous,
    )  # fmt: skip
    receipt = vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock()))
    return prepared.header.digest, str(receipt.key)


def test_a_tail_is_the_streams_last_bytes_however_they_came() -> None:
    """Messages of any size, with runs of zeros longer than the tail: what it says it knows is what was there."""
    chance = random.Random(7)
    stream, tail = b"", Tail(1000)
    for _ in range(300):
        size = chance.choice([1, 24, 400, 9000, 20_000])
        data = bytes(size) if chance.random() < 0.3 else chance.randbytes(size) + bytes(chance.choice([0, 8, 70_000]))
        stream += data
        tail.add(data)
        assert tail.end == 1000 + len(stream)
        assert len(tail.data) <= TAIL_BYTES
        known = stream[tail.begin - 1000 :]
        assert tail.differs_at(tail.begin, known + b"beyond") is None
        assert tail.data or not known.rstrip(b"\0")
        if known:
            at = chance.randrange(len(known))
            other = known[:at] + bytes([known[at] ^ 1]) + known[at + 1 :]
            assert tail.differs_at(tail.begin, other) == tail.begin + at


def test_zeros_alone_are_no_tail() -> None:
    """Behind a WAL switch every history looks alike, so the pieces before are opened as well, along their links."""
    vault = throwaway_vault()
    vault.keys.for_writing("ledger")
    said = random.Random(7).randbytes(4096)
    first, _ = put(vault, 0, said, None)
    put(vault, 0, bytes(4096), None)  # a fork that the chain does not go over
    second, _ = put(vault, 4096, bytes(100_000), first)
    third, name = put(vault, 104_096, bytes(100_000), second)
    tail = stored_tail(vault, "ledger", StoredEnd(0, 204_096, third, name, 1, None))
    assert (tail.begin, tail.end, tail.data, tail.zeros) == (0, 204_096, said, 200_000)


def test_an_empty_chain_has_no_tail() -> None:
    """Nothing is stored, so nothing can disagree."""
    tail = stored_tail(throwaway_vault(), "ledger", StoredEnd(4096, 4096, None, None, 0, None))
    assert tail.begin == tail.end == 4096
