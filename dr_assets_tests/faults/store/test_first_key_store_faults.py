"""A dataset's first data key, by two providers in two regions, with a fault of every kind at every store call."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.keys.ring import KeyRing
from dr_assets.vault.keys.wrappings import Replica
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.store.faulty_store import Fault
from dr_assets_tests.faults.store.sweep import assert_all_held, sweep
from dr_assets_tests.faults.vault.sample import StepClock, put

KEYS = "casino/ledger/keys/"


@dataclass
class FirstKey:
    """An empty vault in two regions; `store` is the one that the sweep stands before."""

    before_own: ClassVar[bool] = True
    clock: StepClock = field(default_factory=StepClock)
    signer: Signer = field(default_factory=Signer.generate)
    one: MemoryKeyProvider = field(default_factory=lambda: MemoryKeyProvider(b"\1" * 32, name="memory/one"))
    two: MemoryKeyProvider = field(default_factory=lambda: MemoryKeyProvider(b"\2" * 32, name="memory/two"))

    def __post_init__(self) -> None:
        self.own, self.other = MemoryStore(self.clock), MemoryStore(self.clock)
        self.store: ObjectStore = self.own if self.before_own else self.other

    def vault(self, own: ObjectStore, other: ObjectStore) -> Vault:
        """As a new process opens it."""
        vault = throwaway_vault(store=own, signer=self.signer, clock=self.clock)
        vault.keys = KeyRing(
            store=own,
            estate="casino",
            providers=Providers.of(self.one, self.two),
            trust=vault.trust,
            signer=self.signer,
            locks=vault.locks,
            clock=self.clock,
            replicas=lambda _: [Replica("other", lambda: other)],
        )
        return vault

    def run(self, store: ObjectStore) -> None:
        """Seal the dataset's first object, unless it is there."""
        if any(self.own.list_versions("casino/ledger/wal/")):
            return
        vault = self.vault(store, self.other) if self.before_own else self.vault(self.own, store)
        try:
            put(vault, "wal", "wal", 0, 5, b"money")
        finally:
            vault.keys.settle()

    def check_after_fault(self, fault: Fault) -> None:
        """Whatever came of it: no wrapping in the vault that the other region lacks, nothing that can't be opened."""
        assert fault
        self.require_sound()

    def require_sound(self) -> None:
        """As `check_after_fault`."""
        assert self.names(self.own) <= self.names(self.other)
        assert not verify(self.vault(self.own, self.other)).errors

    def check_complete(self) -> None:
        """Both providers wrapped the key that the object is sealed under, and either opens it, in either region."""
        self.require_sound()
        vault = self.vault(self.own, self.other)
        (stored,) = vault.objects("ledger", "wal")
        key_id = vault.header(stored).key_id
        for store in (self.own, self.other):
            for provider in (self.one, self.two):
                ring = throwaway_vault(store=store, signer=self.signer, clock=self.clock, provider=provider).keys
                assert ring.by_id("ledger", key_id) == vault.keys.by_id("ledger", key_id)

    def names(self, store: MemoryStore) -> set[str]:
        """Key objects in it."""
        return {row.key for row in store.list_versions(KEYS)}

    def close(self) -> None:
        """Nothing is held."""


class FirstKeyElsewhere(FirstKey):
    """The same with the faults in the other region."""

    before_own = False


@pytest.mark.parametrize("case", [FirstKey, FirstKeyElsewhere])
def test_a_first_key_survives_a_fault_at_any_call(case: type[FirstKey]) -> None:
    """Each point is hit; afterwards a new process completes, and no key in use lies in one region only."""
    assert_all_held(sweep(case, threads=4))
