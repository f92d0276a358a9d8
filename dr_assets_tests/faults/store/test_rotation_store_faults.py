"""Rotation and retirement with a fault of every kind at every call that they make to the object store."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from dr_assets.vault.facts import facts, latest_fact
from dr_assets.vault.keys.aead_wrap import kek_id_of, unwrap
from dr_assets.vault.keys.life.audit import audit
from dr_assets.vault.keys.life.choice import ESTATE, RETIRED, ROTATION, follow_facts
from dr_assets.vault.keys.life.listing import list_keys, writing_key
from dr_assets.vault.keys.life.retirement import retire
from dr_assets.vault.keys.life.rotation import rotate, unfinished
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.provider import WrapContext, Wrapping
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
from dr_assets_tests.faults.store.sweep import assert_all_held, methods_of, sweep
from dr_assets_tests.faults.vault.sample import StepClock, put

OLD, NEW = b"\1" * 32, b"\2" * 32


class BothKeks(MemoryKeyProvider):
    """Wraps with the last of its key-encryption keys and opens with all."""

    def __init__(self, *keks: bytes) -> None:
        super().__init__(keks[-1])
        self._keks = {kek_id_of(kek): kek for kek in keks}

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """By whichever of them wrapped it."""
        return unwrap(self._keks, wrapping, context)


@dataclass
class Keys:
    """A vault with a data key under the old key-encryption key, and one object sealed under it."""

    clock: StepClock = field(default_factory=StepClock)
    signer: Signer = field(default_factory=Signer.generate)

    def __post_init__(self) -> None:
        self.store: ObjectStore = MemoryStore(self.clock)
        put(self.vault(self.store, OLD), "wal", "wal", 0, 4, b"data")

    def vault(self, store: ObjectStore, *keks: bytes) -> Vault:
        """As a new process opens it."""
        return throwaway_vault(
            store=store, signer=self.signer, clock=self.clock, providers=Providers.of(BothKeks(*(keks or (OLD, NEW))))
        )

    def require_readable(self) -> None:
        """Verify finds nothing, what was sealed opens, and a new writer has one key that every process agrees upon."""
        report = verify(self.vault(self.store))
        assert not report.errors, report.errors
        vault = self.vault(self.store)
        assert {vault.open(obj).plaintext for obj in vault.objects("ledger", "wal")} == {b"data"}
        row = writing_key(vault, "ledger")
        assert row is not None
        assert {self.vault(self.store).keys.for_writing("ledger").key_id for _ in range(2)} == {row.key_id}
        said = {str(fact.body["key_id"]) for fact in facts(vault, "ledger", ROTATION)}
        known = {other.key_id for other in list_keys(vault, "ledger")}
        begun = unfinished(vault, "ledger")
        first = next(iter(list_keys(vault, "ledger"))).key_id
        # Each key is the first, or was named by a rotation, or is exactly what is told to be unfinished.
        assert known <= said | {first} | ({begun} if begun else set())

    def close(self) -> None:
        """Nothing is held."""


class RotateCase(Keys):
    """A rotation under a new key-encryption key: a new data key, and the old one wrapped anew."""

    def run(self, store: ObjectStore) -> None:
        """Rotate, unless a rotation has taken effect."""
        vault = self.vault(store)
        if latest_fact(vault, "ledger", ROTATION) is None:
            rotate(vault, "ledger", "due")

    def check_after_fault(self, fault: Fault) -> None:
        """All is readable, and what is unfinished is named."""
        assert fault
        self.require_readable()

    def check_complete(self) -> None:
        """One rotation in the log, its key writes, the old key opens without the old key-encryption key."""
        self.require_readable()
        vault = self.vault(self.store)
        assert unfinished(vault, "ledger") is None
        (fact,) = facts(vault, "ledger", ROTATION)
        put(vault, "wal", "wal", 4, 8, b"data")
        newest = list(vault.objects("ledger", "wal"))[-1]
        assert vault.header(newest).key_id == fact.body["key_id"]
        assert {vault.open(obj).plaintext for obj in vault.objects("ledger", "wal")} == {b"data"}


class RotateOverRegionsCase(RotateCase):
    """The same, with the faults in the other region, which every wrapping has to be read back from."""

    def __post_init__(self) -> None:
        self.own: ObjectStore = MemoryStore(self.clock)
        self.store: ObjectStore = MemoryStore(self.clock)  # the other region: what the sweep stands before
        put(self.over(self.store, OLD), "wal", "wal", 0, 4, b"data")

    def over(self, other: ObjectStore, *keks: bytes) -> Vault:
        """The vault whose keys have to lie in `other` as well."""
        vault = super().vault(self.own, *keks)
        vault.keys = KeyRing(
            store=self.own, estate="casino", providers=vault.keys.providers, trust=vault.trust, signer=self.signer,
            locks=vault.locks, clock=self.clock, replicas=lambda _dataset: [Replica("other", lambda: other)],
        )  # fmt: skip
        return follow_facts(vault)

    def vault(self, store: ObjectStore, *keks: bytes) -> Vault:
        """As a new process opens it, with this store as the other region."""
        return self.over(store, *keks)

    def run(self, store: ObjectStore) -> None:
        """Rotate; what the ring does beside is waited for, and whoever died there is dead here."""
        vault = self.vault(store)
        vault.keys.for_writing("ledger")
        vault.keys.settle()
        if latest_fact(vault, "ledger", ROTATION) is None:
            rotate(vault, "ledger", "due")
        vault.keys.settle()
        store.now()

    def check_complete(self) -> None:
        """Complete, and nothing lacks in the other region: with its key objects alone all keys open."""
        super().check_complete()
        seen = audit(self.vault(self.store), timedelta(days=90))
        assert (seen.elsewhere, seen.unwrapped, seen.unfinished) == ((), (), ())


class RetireCase(Keys):
    """The old key-encryption key is stolen."""

    def run(self, store: ObjectStore) -> None:
        """Retire it."""
        retire(self.vault(store), kek_id_of(OLD), "stolen")

    def check_after_fault(self, fault: Fault) -> None:
        """All is readable; and whatever is marked is not written under."""
        assert fault
        self.require_readable()
        self.require_unused()

    def check_complete(self) -> None:
        """Marked once, and nothing writes under it."""
        vault = self.vault(self.store)
        self.require_readable()
        self.require_unused()
        assert len(list(facts(vault, ESTATE, RETIRED))) == 1

    def require_unused(self) -> None:
        """A marked key-encryption key opens no key that writes."""
        row = writing_key(self.vault(self.store), "ledger")
        assert row is not None
        assert not row.is_exposed


def test_rotate_survives_every_fault_at_every_call() -> None:
    """Every point hit; verify green and what is unfinished named; the next run completes it."""
    done = sweep(RotateCase)
    assert_all_held(done)
    assert {"put", "head", "list_versions", "get"} <= methods_of(done.points)


# A killed process's threads die as it does; here they are threads of the test's own process.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_rotate_survives_every_fault_in_the_other_region() -> None:
    """No key takes effect that the other region was not seen to hold; the next run completes it."""
    done = sweep(RotateOverRegionsCase)
    assert_all_held(done)
    assert {"put", "head", "get"} <= methods_of(done.points)


def test_retire_survives_every_fault_at_every_call() -> None:
    """As above; at no point is a key marked that a writer still gets."""
    done = sweep(RetireCase)
    assert_all_held(done)
