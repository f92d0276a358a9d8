"""Locks lengthened by hand: shown first, never shortened, keys ahead of what they open, on record."""

from datetime import datetime, timedelta

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.retention import KEY_MARGIN, LOCK_CAP
from dr_assets.vault.retention.extension import LOCK_EXTENSION, extend_locks
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets_tests.faults.store.faulty_store import Call, FaultyStore, KilledError
from dr_assets_tests.faults.vault.sample import StillClock

DAY = timedelta(days=1)


@pytest.fixture
def vault() -> Vault:
    """Five facts, two weeks of lock and more."""
    clock = StillClock()
    made = throwaway_vault(store=MemoryStore(clock), clock=clock)
    for number in range(5):
        record_fact(made, "ledger", "heartbeat", {"n": number})
    return made


def ends(vault: Vault) -> dict[str, datetime]:
    """When each lock ends."""
    assert isinstance(vault.store, MemoryStore)
    return {name: rows[0].lock.retain_until for name, rows in vault.store.rows.items() if rows[0].lock}


def test_a_dry_run_counts_and_changes_nothing(vault: Vault) -> None:
    """As many as would be."""
    before = ends(vault)
    done = extend_locks(vault, "ledger", vault.clock() + 900 * DAY, dry_run=True)
    assert (done.objects, done.extended) == (6, 6)
    assert ends(vault) == before
    assert latest_fact(vault, "ledger", LOCK_EXTENSION) is None


def test_every_lock_ends_then_or_later_and_the_key_a_year_after(vault: Vault) -> None:
    """Twice is as once; what is locked for longer stays so; the fact says how many."""
    until = vault.clock() + 900 * DAY
    assert extend_locks(vault, "ledger", until).extended == 6
    for name, end in ends(vault).items():
        if LOCK_EXTENSION not in name:
            assert end >= until + (KEY_MARGIN if "/keys/" in name else timedelta())
    fact = latest_fact(vault, "ledger", LOCK_EXTENSION)
    assert fact is not None
    assert (fact.body["extended"], fact.body["objects"]) == (6, [])
    after = ends(vault)
    assert extend_locks(vault, "ledger", until - 100 * DAY).extended == 1  # the fact itself, sealed since
    assert all(end >= after[name] for name, end in ends(vault).items() if name in after)


def test_single_objects_and_their_key_alone(vault: Vault) -> None:
    """The others keep their locks."""
    name = next(name for name in ends(vault) if "heartbeat" in name)
    before = ends(vault)
    done = extend_locks(vault, "ledger", vault.clock() + 900 * DAY, objects=[name])
    assert done.extended == 2
    changed = {one for one, end in ends(vault).items() if before.get(one, end) != end}
    assert changed == {name, next(one for one in before if "/keys/" in one)}


def test_killed_anywhere_it_is_completed_by_the_next_run(vault: Vault) -> None:
    """Nothing is recorded before all are extended."""
    until, store = vault.clock() + 900 * DAY, vault.store
    vault.store = FaultyStore(store, Call("extend", "facts-heartbeat", 3), "killed_before")
    with pytest.raises(KilledError):
        extend_locks(vault, "ledger", until)
    vault.store = store
    assert latest_fact(vault, "ledger", LOCK_EXTENSION) is None
    assert 0 < extend_locks(vault, "ledger", until).extended < 6
    assert extend_locks(vault, "ledger", until).extended == 1


def test_what_nobody_could_take_back_is_refused(vault: Vault) -> None:
    """Over the cap, in the past, somebody else's object, one that is gone: nothing is touched."""
    before, now = ends(vault), vault.clock()
    gone = next(iter(before))[:-4] + "0000"
    for until, objects, code in (
        (now + LOCK_CAP + DAY, [], "vault.lock_too_long"),
        (now - DAY, [], "vault.extension_past"),
        (now + DAY, ["casino/other/x"], "hold.not_an_object"),
        (now + DAY, [gone], "vault.missing"),
    ):
        with pytest.raises((PolicyError, VaultError)) as caught:
            extend_locks(vault, "ledger", until, objects=objects)
        assert caught.value.code == code
    assert {name: end for name, end in ends(vault).items() if "/keys/" not in name} == {
        name: end for name, end in before.items() if "/keys/" not in name
    }
