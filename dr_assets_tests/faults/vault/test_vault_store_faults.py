"""A store that fails at any one call, before or after it did its work: nothing is lost, doubled or half there."""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.storage import Lock, Put, Version
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.sample import DATASET, SYSTEM_ID, StepClock, put

CALLS = (
    "put", "head", "get", "get_range", "list_versions", "list_name", "list_level", "extend", "now", "recent_now",
    "bucket_state",
)  # fmt: skip


class FailingStore:
    """Stands before a store and fails at call number `at`, once; `after` its work was done or instead of it."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.at = -1
        self.after = False
        self.calls = 0

    def arm(self, at: int, *, after: bool) -> None:
        """Fail at that call from now on counted."""
        self.at, self.after, self.calls = at, after, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in CALLS:
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            if number != self.at:
                return method(*arguments, **named)
            fault = VaultError("vault.unreachable", f"call {number}: {name}", "again")
            if not self.after:
                raise fault
            result = method(*arguments, **named)
            if name in {"list_versions", "list_name"}:
                return breaking_off(result, fault)
            raise fault

        return call


def breaking_off(rows: Iterable[Version], fault: VaultError) -> Iterator[Version]:
    """A listing whose last page never comes."""
    yield from rows
    raise fault


def failing_vault() -> tuple[Vault, FailingStore]:
    """A vault whose store can be told to fail."""
    clock = StepClock()
    store = FailingStore(MemoryStore(clock))
    return throwaway_vault(store=store, clock=clock), store  # type: ignore[arg-type]  # it forwards everything


def every_fault(act: Callable[[Vault], object], prepare: Callable[[Vault], object] | None = None) -> list[Vault]:
    """Run `act` on vaults that fail at its first, second … call, before and after; then once more without failing."""
    vaults, at = [], 0
    while True:
        for after in (False, True):
            vault, store = failing_vault()
            if prepare is not None:
                prepare(vault)
            store.arm(at, after=after)
            try:
                act(vault)
            except VaultError as error:
                assert error.code == "vault.unreachable"  # noqa: PT017 - what else may come is the question
            else:
                assert vaults, "no call was made at all"
                return vaults
            store.arm(-1, after=False)
            act(vault)
            vaults.append(vault)
        at += 1


def test_a_put_that_failed_anywhere_is_repeated_with_the_same_bytes() -> None:
    """Afterwards the object is there once, locked and whole, whichever call failed."""
    sealed_by: dict[int, Any] = {}

    def act(vault: Vault) -> None:
        if id(vault) not in sealed_by:
            now = vault.clock()
            sealed_by[id(vault)] = vault.prepare(
                dataset=DATASET, stream="wal", kind="wal", system_id=SYSTEM_ID, timeline=1, first=0, last=5,
                begin_at=now, end_at=now, plaintext=b"money",
            ).seal()  # fmt: skip
        sealed = sealed_by[id(vault)]
        receipt = vault.put(sealed, vault.locks.lock(DATASET, "wal", vault.clock()))
        assert receipt.sha256 == sealed.sha256

    vaults = every_fault(act)
    assert len(vaults) >= 8
    for vault in vaults:
        (obj,) = vault.objects()
        assert vault.open(obj).plaintext == b"money"
        report = verify(vault)
        assert report.ok
        assert report.objects_locked == report.objects_total
        (name,) = vault.names("casino/ledger/wal/")
        assert len(name.versions) == 1


def test_a_fact_that_failed_anywhere_leaves_a_whole_chain() -> None:
    """It may be there twice after a repetition, as two facts; the chain of facts has no hole and no fork."""
    for vault in every_fault(
        lambda vault: record_fact(vault, DATASET, "drill", {"n": 2}),
        lambda vault: record_fact(vault, DATASET, "drill", {"n": 1}),
    ):
        found = list(facts(vault, DATASET, "drill"))
        assert 2 <= len(found) <= 3
        assert [fact.header.previous for fact in found] == [None, *(fact.header.digest for fact in found[:-1])]
        assert verify(vault).findings == ()


def test_an_inventory_that_failed_anywhere_can_be_taken_again() -> None:
    """A half-read listing never becomes an inventory."""
    for vault in every_fault(
        lambda vault: record_inventory(vault, DATASET), lambda vault: put(vault, "wal", "wal", 0, 5, b"money")
    ):
        assert verify(vault).findings == ()


def test_a_verification_that_fails_anywhere_gives_no_report() -> None:
    """Every call's failure is raised; none is taken for an absent or damaged object."""

    def prepare(vault: Vault) -> None:
        put(vault, "wal", "wal", 0, 5, b"money")
        record_fact(vault, DATASET, "drill", {})

    for vault in every_fault(lambda vault: verify(vault, workers=1), prepare):
        assert verify(vault).ok


def test_a_store_that_lies_about_what_it_stored_is_found_out() -> None:
    """Other bytes, no lock, a shorter or weaker lock, or nothing at all: put raises instead of trusting the answer."""

    class Liar(MemoryStore):
        """Alters what it stores."""

        def __init__(self, alter: Callable[[MemoryStore, str], None]) -> None:
            super().__init__()
            self.alter = alter

        def put(self, key: str, data: bytes, sha256: str, lock: Lock) -> Put:
            """Store something else."""
            done = super().put(key, data, sha256, lock)
            self.alter(self, key)
            return done

        def extend(self, key: str, version_id: str, lock: Lock) -> None:
            """Nod and do nothing."""

    def other_bytes(store: MemoryStore, key: str) -> None:
        store.rows[key][0].data, store.rows[key][0].sha256 = b"x", "00" * 32

    def no_lock(store: MemoryStore, key: str) -> None:
        store.rows[key][0].lock = None

    def short_lock(store: MemoryStore, key: str) -> None:
        store.rows[key][0].lock = Lock("COMPLIANCE", store.now())

    def nothing(store: MemoryStore, key: str) -> None:
        del store.rows[key]

    for alter, code in (
        (other_bytes, "vault.not_stored"),
        (no_lock, "vault.not_locked"),
        (short_lock, "vault.not_locked"),
        (nothing, "vault.not_stored"),
    ):
        with pytest.raises(VaultError) as caught:
            put(throwaway_vault(store=Liar(alter)), "wal", "wal", 0, 5, b"money")
        assert caught.value.code == code


def test_a_lock_of_an_earlier_put_is_lengthened() -> None:
    """The same bytes put again with a longer lock: what was there is extended, and read back."""
    vault = throwaway_vault(clock=StepClock())
    now = vault.clock()
    sealed = vault.prepare(
        dataset=DATASET, stream="wal", kind="wal", system_id=SYSTEM_ID, timeline=1, first=0, last=5,
        begin_at=now, end_at=now, plaintext=b"money",
    ).seal()  # fmt: skip
    vault.put(sealed, vault.locks.lock(DATASET, "micro", now))
    longer = vault.locks.lock(DATASET, "wal", now)
    assert vault.put(sealed, longer).lock == longer
    assert len(list(vault.objects())) == 1


def test_a_host_whose_clock_is_off_stores_nothing() -> None:
    """More than 5 s from the store's clock, either way: a lock set by it would be a wrong lock."""
    for skew in (timedelta(seconds=-9), timedelta(seconds=9)):
        clock = StepClock()
        store = MemoryStore(clock)
        vault = throwaway_vault(store=store, clock=lambda clock=clock, skew=skew: clock() + skew)  # type: ignore[misc]  # bound at once
        with pytest.raises(VaultError, match="clock_skew"):
            vault.check_clock()
        with pytest.raises(VaultError, match="clock_skew"):
            put(vault, "wal", "wal", 0, 5, b"money")
