"""A small vault with one of everything, for trials of damage.

What belongs here: building it, seeded. What stays out: damaging it (damage.py).
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dr_assets.vault.facts import record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.segment import Sealed
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.retention import RetentionRule
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets.vault.witness import Witness

DATASET = "ledger"
SYSTEM_ID = "7512345678901234567"


class StepClock:
    """Moves on a second at every look, so that everything has its own time and order."""

    def __init__(self, at: datetime = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)) -> None:
        self.at = at

    def __call__(self) -> datetime:
        """The next second."""
        self.at += timedelta(seconds=1)
        return self.at


class StillClock:
    """Stands still unless moved."""

    def __init__(self, at: datetime = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)) -> None:
        self.at = at

    def __call__(self) -> datetime:
        """Always the same."""
        return self.at


@dataclass
class Sample:
    """The vault, what was sealed into it by name, and what a witness outside of it knows."""

    vault: Vault
    sealed: dict[str, bytes]
    witness: Witness
    next_position: int


def build_sample(
    seed: int,
    *,
    store: ObjectStore | None = None,
    estate: str = "casino",
    clock: Callable[[], datetime] | None = None,
    rules: Mapping[str, tuple[RetentionRule, timedelta]] | None = None,
) -> Sample:
    """Data key, a chain of WAL, a base backup with its manifest, facts that name them, an inventory."""
    chance = random.Random(seed)
    clock = clock or StepClock()
    vault = throwaway_vault(
        store=store if store is not None else MemoryStore(clock),
        estate=estate,
        clock=clock,
        rules=rules,
        signer=Signer.from_seed(chance.randbytes(32)),
        provider=MemoryKeyProvider(chance.randbytes(32)),
    )
    position, previous, last_key = 0x16000028, None, ""
    begin = position
    for _ in range(chance.randint(4, 9)):
        plaintext = noise(chance, chance.randint(1, 3000))
        piece = put(vault, "wal", "wal", position, position + len(plaintext), plaintext, previous=previous)
        position, previous, last_key = piece.key.last, piece.header.digest, str(piece.key)
    manifest = _put_base_backup(vault, chance, begin)
    record_fact(vault, DATASET, "snapshot", {"manifest_key": str(manifest.key), "parts": 3})
    record_fact(
        vault,
        DATASET,
        "capture",
        {
            "event": "position",
            "system_id": SYSTEM_ID,
            "timeline": 1,
            "begin": f"0/{begin:X}",
            "stored": f"0/{position:X}",
            "segment": last_key,
        },
    )
    for number in range(chance.randint(1, 3)):
        record_fact(vault, DATASET, "drill", {"number": number})
    record_inventory(vault, DATASET, settled=timedelta(0))
    sealed = {name.text: vault.store.get(name.text).data for name in vault.names(f"{estate}/")}
    return Sample(vault, sealed, verify(vault).witness, position)


def put(
    vault: Vault,
    stream: str,
    kind: str,
    first: int,
    last: int,
    plaintext: bytes,
    *,
    previous: str | None = None,
    epoch: int = 1,
    extra: dict[str, str] | None = None,
) -> Sealed:
    """Seal and store one object of the sample's system and timeline."""
    now = vault.clock()
    sealed = vault.prepare(
        dataset=DATASET,
        stream=stream,
        kind=kind,
        system_id=SYSTEM_ID,
        timeline=1,
        first=first,
        last=last,
        begin_at=now,
        end_at=now,
        plaintext=plaintext,
        previous=previous,
        writer_epoch=epoch,
        extra=extra,
    ).seal()
    vault.put(sealed, vault.locks.lock(DATASET, kind, vault.clock()))
    return sealed


def noise(chance: random.Random, size_bytes: int) -> bytes:
    """Half of it compresses, as a database's pages do."""
    return chance.randbytes(size_bytes // 2) + b"\0" * (size_bytes - size_bytes // 2)


def _put_base_backup(vault: Vault, chance: random.Random, begin: int) -> Sealed:
    parts = []
    for number in range(3):
        part = put(vault, "base-20310504t030201z", "part", number, number + 1, noise(chance, chance.randint(0, 9000)))
        parts.append({"key": str(part.key), "sha256": part.sha256, "size_bytes": len(part.data)})
    return put(vault, "base", "manifest", begin, begin + 100, canonical.encode({"parts": parts}))
