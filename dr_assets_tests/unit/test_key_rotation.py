"""Rotation and retirement of keys: what writes from when on, what opens, what is listed."""

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.facts import facts, latest_fact, record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.keys.aead_wrap import kek_id_of, unwrap
from dr_assets.vault.keys.life.choice import BEGUN, ESTATE, RETIRED, ROTATION
from dr_assets.vault.keys.life.listing import datasets_with_keys, list_keys, objects_under, sealed_since, writing_key
from dr_assets.vault.keys.life.retirement import retire, under
from dr_assets.vault.keys.life.rotation import age_of, rotate, rotate_due, unfinished
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.keys.refusals import unreachable
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.sample import StepClock, put

OLD, NEW = b"\1" * 32, b"\2" * 32


class World:
    """What outlives a process: store, signer, clock, the key-encryption key in use."""

    def __init__(self) -> None:
        self.clock = StepClock()
        self.store = MemoryStore(self.clock)
        self.signer = Signer.generate()

    def vault(self, *keks: bytes) -> Vault:
        """A new process, with these key-encryption keys, the last of which wraps."""
        providers = Providers.of(TwoKeks(*(keks or (OLD,))))
        return throwaway_vault(store=self.store, signer=self.signer, clock=self.clock, providers=providers)


class TwoKeks(MemoryKeyProvider):
    """Wraps with the last of several keys and opens with all."""

    def __init__(self, *keks: bytes) -> None:
        super().__init__(keks[-1])
        self._keks = {kek_id_of(kek): kek for kek in keks}

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """By whichever of them wrapped it."""
        return unwrap(self._keks, wrapping, context)


def sealed(vault: Vault, first: int) -> str:
    """Seal one object; the id of the data key it is under."""
    return put(vault, "wal", "wal", first, first + 4, b"data").header.key_id


def test_after_a_rotation_new_writes_use_the_new_key_and_the_old_still_opens() -> None:
    """Nothing is re-encrypted; every process opens both; the log names both keys, and why."""
    world = World()
    vault = world.vault()
    first = sealed(vault, 0)
    done = rotate(vault, "ledger", "every 90 days")
    assert (done.previous, done.wrapped_anew, done.troubles) == (first, (), ())
    assert sealed(vault, 4) == done.key_id != first
    assert sealed(world.vault(), 8) == done.key_id
    assert [world.vault().open(obj).plaintext for obj in vault.objects("ledger", "wal")] == [b"data"] * 3
    fact = latest_fact(vault, "ledger", ROTATION)
    assert fact is not None
    assert (fact.body["key_id"], fact.body["previous"], fact.body["reason"]) == (done.key_id, first, "every 90 days")
    assert [(row.key_id, row.is_writing) for row in list_keys(vault, "ledger")] == [(first, False), (done.key_id, True)]
    assert verify(vault).ok


def test_a_live_writer_takes_the_new_key_up_without_waiting() -> None:
    """It goes on under the old key while it looks, and has the new one afterwards."""
    world = World()
    live, other = world.vault(), world.vault()
    first = sealed(live, 0)
    done = rotate(other, "ledger", "test")
    assert sealed(live, 4) == first
    live.keys._take_up_s = 0.0  # thirty seconds are over
    assert sealed(live, 8) == first
    live.keys.settle()
    assert sealed(live, 12) == done.key_id


def test_a_rotation_that_died_is_named_and_completed_not_repeated() -> None:
    """Begun without a wrapping: the key died with it, another is made. With a wrapping: that key is completed."""
    world = World()
    vault = world.vault()
    sealed(vault, 0)
    complete = vault.keys.complete

    def dies(dataset: str, key_id: str, secret: object = None) -> object:
        if secret is not None:
            raise KeyboardInterrupt
        return complete(dataset, key_id)

    vault.keys.complete = dies  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        rotate(vault, "ledger", "test")
    begun = unfinished(world.vault(), "ledger")
    assert begun is not None
    done = rotate(world.vault(), "ledger", "again")
    assert done.key_id != begun
    assert unfinished(world.vault(), "ledger") is None
    assert len(list(facts(world.vault(), "ledger", BEGUN))) == 2


def test_under_a_new_key_encryption_key_old_keys_are_wrapped_anew() -> None:
    """Afterwards the old key-encryption key may go: all opens without it."""
    world = World()
    first = sealed(world.vault(OLD), 0)
    done = rotate(world.vault(OLD, NEW), "ledger", "a new key-encryption key")
    assert done.wrapped_anew == (first,)
    alone = world.vault(NEW)
    assert [alone.open(obj).plaintext for obj in alone.objects("ledger", "wal")] == [b"data"]


def test_a_stolen_key_encryption_key_is_retired_and_what_lies_under_it_listed() -> None:
    """Refused while in use; then every dataset has a new data key, the mark is in the log, no writer uses it again."""
    world = World()
    stolen = kek_id_of(OLD)
    vault = world.vault(OLD)
    first = sealed(vault, 0)
    with pytest.raises(PolicyError, match=r"keys\.kek_current"):
        retire(vault, stolen, "a stolen laptop")
    with pytest.raises(PolicyError, match=r"keys\.kek_unknown"):
        retire(world.vault(OLD, NEW), "ab" * 16, "a typing mistake")
    rotate(vault, "ledger", "makes a fact")
    vault = world.vault(OLD, NEW)
    done = retire(vault, stolen, "a stolen laptop")
    assert {row.key_id for row in done.exposed} == {row.key_id for row in under(vault, stolen)}
    assert [rotation.dataset for rotation in done.rotations] == ["ledger"]
    assert datasets_with_keys(vault) == ["ledger", "vault"]
    now = world.vault(OLD, NEW)
    row = writing_key(now, "ledger")
    assert row is not None
    assert sealed(now, 4) == row.key_id
    assert not row.is_exposed
    exposed = [lying.obj.key.stream for lying in objects_under(now, "ledger", frozenset({first}))]
    assert exposed.count("wal") == 1
    marked = latest_fact(now, ESTATE, RETIRED)
    assert marked is not None
    assert marked.body["kek_id"] == stolen
    assert retire(now, stolen, "again").was_retired
    assert len(list(facts(now, ESTATE, RETIRED))) == 1
    with pytest.raises(PolicyError, match=r"keys\.kek_retired"):
        world.vault(NEW, OLD).keys.for_writing("another")  # a provider that was set back
    late = {lying.key_id for lying in sealed_since(now, "ledger", marked.at)}
    assert late == {row.key_id}


def test_a_key_is_due_after_its_days() -> None:
    """By the age of the key that writes, not of the last command."""
    world = World()
    vault = world.vault()
    assert age_of(vault, "ledger", timedelta(days=90)) is None
    with pytest.raises(VaultError, match=r"vault\.no_key"):
        rotate(vault, "ledger", "nothing was ever written")
    sealed(vault, 0)
    world.clock.at += timedelta(days=89)
    young = age_of(vault, "ledger", timedelta(days=90))
    assert young is not None
    assert not young.is_due
    world.clock.at += timedelta(days=1)
    old = age_of(vault, "ledger", timedelta(days=90))
    assert old is not None
    assert old.is_due
    rotate(vault, "ledger", "due")
    new = age_of(vault, "ledger", timedelta(days=90))
    assert new is not None
    assert not new.is_due


def test_a_stranger_cannot_hide_what_lies_under_a_stolen_key() -> None:
    """Rubbish under a fitting name is passed over: the list of a breach has all that is ours, and the check goes on."""
    world = World()
    vault = world.vault()
    key_id = sealed(vault, 0)
    mine = [obj.key for obj in vault.objects("ledger", "wal")]
    rubbish = b"rubbish"
    sha256 = hashlib.sha256(rubbish).hexdigest()
    name = replace(mine[0], first=4, last=8, digest=sha256[:32])
    world.store.put(str(name), rubbish, sha256, vault.locks.lock("ledger", "wal", world.clock()))
    assert len(list(vault.objects("ledger", "wal"))) == len(mine) + 1
    assert [one.obj.key for one in objects_under(vault, "ledger", frozenset({key_id}))] == mine
    assert [one.obj.key for one in sealed_since(vault, "ledger", world.clock() - timedelta(days=1))] == mine


def test_one_dataset_that_cannot_be_rotated_holds_up_no_other() -> None:
    """Its provider is away for weeks: the others' keys don't grow old with it, and the trouble is told."""
    world = World()
    vault = world.vault()
    for dataset in ("ledger", "payments"):
        vault.keys.for_writing(dataset)
    before = writing_key(vault, "payments")
    gone = Away(NEW, name="memory/gone")
    world.clock.at += timedelta(days=91)
    vault.keys.providers = Providers((TwoKeks(OLD), gone), {"payments": ("memory",), "vault": ("memory",)})
    with pytest.raises(VaultError, match=r"keys\.not_everywhere"):
        rotate_due(vault, timedelta(days=90))
    after = writing_key(vault, "payments")
    assert before is not None
    assert after is not None
    assert before.key_id != after.key_id
    assert [fact.body["previous"] for fact in facts(vault, "payments", ROTATION)] == [before.key_id]
    assert not list(facts(vault, "ledger", ROTATION))


class Away(MemoryKeyProvider):
    """A provider that gives no answer."""

    def wrap(self, _secret: bytes, _context: WrapContext) -> Wrapping:
        """As the port says."""
        raise unreachable(self.name, "nobody there")


def test_a_dataset_that_stands_still_under_a_retired_key_is_brought_on_by_a_rotation() -> None:
    """The mark reached a second region, the rotation before it did not: nothing can be sealed, but for a new key."""
    world = World()
    first = sealed(world.vault(OLD), 0)
    body: dict[str, Json] = {"kek_id": kek_id_of(OLD), "keys": {}, "reason": "stolen"}
    record_fact(world.vault(OLD, NEW), ESTATE, RETIRED, body)
    with pytest.raises(PolicyError, match=r"keys\.kek_retired"):
        sealed(world.vault(OLD, NEW), 4)
    done = rotate(world.vault(OLD, NEW), "ledger", "promoted")
    assert sealed(world.vault(OLD, NEW), 4) == done.key_id != first
    fact = latest_fact(world.vault(NEW), "ledger", ROTATION)
    assert fact is not None
    assert (fact.header.key_id, fact.body["previous"]) == (done.key_id, first)
    assert unfinished(world.vault(OLD, NEW), "ledger") is None
    assert verify(world.vault(OLD, NEW)).ok
