"""Our own replicator, killed, refused, lied to or kept waiting at every call of either store."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import pytest

from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.replication import Options, replicate
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import Lock, ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.store.faulty_store import Fault
from dr_assets_tests.faults.store.sweep import assert_all_held, methods_of, sweep
from dr_assets_tests.unit.test_rollup import Clock, Wal

Side = Literal["source", "replica"]
LOG_NAMES = ("tile/0/000", "checkpoint/00000000000000000001")


@dataclass
class Lived:
    """A source of which half was replicated: then came WAL, a longer lock, a hold, and a name taken by a stranger."""

    clock: Clock = field(default_factory=Clock)
    provider: MemoryKeyProvider = field(default_factory=MemoryKeyProvider)
    signer: Signer = field(default_factory=Signer.generate)
    here: MemoryStore = field(init=False)
    there: MemoryStore = field(init=False)

    def __post_init__(self) -> None:
        self.here, self.there = MemoryStore(self.clock), MemoryStore(self.clock)
        source = self.vault(self.here, "primary")
        wal = Wal(source)
        wal.put(4)
        wal.tell()
        for name in LOG_NAMES:
            self.here.add(f"casino/log/{name}", name.encode(), Lock("GOVERNANCE", self.clock.now + timedelta(days=30)))
        self.clock.now += timedelta(minutes=2)
        self.replicate(self.here, self.there)
        names = sorted(name for name in self.here.rows if "/wal/" in name)
        (longer,), (held,) = self.here.rows[names[0]], self.here.rows[names[1]]
        assert longer.lock is not None
        longer.lock = Lock(longer.lock.mode, longer.lock.retain_until + timedelta(days=30))
        self.here.set_hold(names[1], held.version_id, held=True)
        wal.put(3)
        wal.tell()
        self.clock.now += timedelta(days=8)
        record_fact(source, "ledger", "legal_hold", {"event": "placed"})
        self.clock.now += timedelta(minutes=2)

    def vault(self, store: ObjectStore, name: str) -> Vault:
        """As a new process opens it."""
        return throwaway_vault(store=store, name=name, provider=self.provider, signer=self.signer, clock=self.clock)

    def replicate(self, here: ObjectStore, there: ObjectStore) -> None:
        """One pass, on one thread: so the calls have the same numbers each time."""
        options = Options(copy=True, samples=0, workers=1)
        replicate(self.vault(here, "primary"), self.vault(there, "standby"), ("ledger",), options)


class ReplicateCase:
    """Copies of both regions; the faults come in one of them."""

    def __init__(self, lived: Lived, side: Side) -> None:
        self.lived = lived
        self.here, self.there = lived.here.copy(), lived.there.copy()
        self.side = side
        self.store: ObjectStore = self.here if side == "source" else self.there

    def run(self, store: ObjectStore) -> None:
        """One pass, `store` in its place."""
        here, there = (store, self.there) if self.side == "source" else (self.here, store)
        self.lived.replicate(here, there)

    def check_after_fault(self, fault: Fault) -> None:
        """The source is sound; of the copy every byte is as here, and what lacks is named, and is there."""
        assert fault
        assert verify(self.lived.vault(self.here, "primary")).ok
        for name, rows in self.there.rows.items():
            assert [row.data for row in rows] == [row.data for row in self.here.rows[name]], name
            assert all(row.lock is not None for row in rows)
        for finding in verify(self.lived.vault(self.there, "standby")).errors:
            assert finding.kind in {"missing", "hole"}, finding
            key = ObjectKey.parse(finding.key)
            assert key is None or finding.key in self.here.rows

    def check_complete(self) -> None:
        """All of it is there, once, locked and held as here."""
        assert verify(self.lived.vault(self.there, "standby")).ok
        left = {name for name in self.here.rows if name not in self.there.rows}
        assert all("/vault/" in name for name in left), left  # the newest pass's own word
        for name, (row,) in self.there.rows.items():
            (mine,) = self.here.rows[name]
            assert row.lock is not None
            assert mine.lock is not None
            assert row.lock.retain_until >= mine.lock.retain_until, name
            assert row.held >= mine.held, name

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
def lived() -> Lived:
    """A world to copy."""
    return Lived()


@pytest.mark.parametrize("side", ["source", "replica"])
def test_replication_survives_a_fault_at_every_store_call(lived: Lived, side: Side) -> None:
    """After each, nothing wrong lies in the second region, what lacks is named, and the next run completes it."""
    done = sweep(lambda: ReplicateCase(lived, side), threads=2)
    assert_all_held(done)
    wanted = {"head", "list_versions", "list_level"}
    wanted |= {"get", "now"} if side == "source" else {"put", "extend", "set_hold", "recent_now"}
    assert wanted <= methods_of(done.points)
