"""People's keys wrapped anew: a key-encryption key that is taken away takes nobody's documents with it."""

import os
from dataclasses import replace
from datetime import timedelta

import pytest
from pyrage import x25519

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.keys.age_provider import AgeProvider
from dr_assets.vault.keys.life.escrow import export, open_escrow
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.provider import KeyProvider
from dr_assets.vault.subjects.backup import back_up, newest
from dr_assets.vault.subjects.deletion import delete, finish
from dr_assets.vault.subjects.look import look
from dr_assets.vault.subjects.records import key_name
from dr_assets.vault.subjects.rewrap import outdated, people_under, rewrap
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets_tests.unit.test_subject_ring import ANNA, BORIS, GRACE, Agreed, World


def _with(ring: SubjectRing, *providers: KeyProvider) -> SubjectRing:
    return replace(ring, providers=providers)


def test_after_wrapping_anew_the_old_key_encryption_key_opens_nobody() -> None:
    """Every region, every version: the old wrapping is gone, the key is the same, the ring is sound; once is enough."""
    world = World()
    keys = {who: world.ring.key_for_sealing(who) for who in (ANNA, BORIS)}
    old, new = world.provider, MemoryKeyProvider(os.urandom(32))
    both = _with(world.ring, new, old)
    assert people_under(world.ring, old.kek_id) == tuple(sorted((ANNA, BORIS)))
    assert outdated(both) == tuple(sorted((ANNA, BORIS)))
    assert set(rewrap(both).anew) == {ANNA, BORIS}
    only = _with(world.ring, new)
    assert set(rewrap(only).anew) == {ANNA, BORIS}
    assert people_under(only, old.kek_id) == ()
    assert outdated(only) == ()
    assert {who: only.key_of(who) for who in keys} == keys
    with pytest.raises(VaultError, match=r"vault\.wrong_key"):
        _with(world.ring, old).key_of(ANNA)
    for shelf in world.shelves:
        assert [len(shelf.versions(key_name("casino", who))) for who in keys] == [1, 1]
    assert rewrap(only).anew == ()
    assert look(only).ok
    told = [fact.body for fact in facts(world.vault, "vault", "subject_ring") if fact.body["event"] == "rewrapped"]
    assert [body["people"] for body in told] == [2, 2]


def test_killed_between_two_regions_it_opens_and_the_next_run_completes_it() -> None:
    """One region has the new record, the other the old: sealing and opening go on, nothing counts as diverged."""
    world = World()
    key = world.ring.key_for_sealing(ANNA)
    new = MemoryKeyProvider(os.urandom(32))
    ring = _with(world.ring, new, world.provider)
    before = world.shelves[1].get(key_name("casino", ANNA))
    rewrap(ring)
    world.shelves[1].rows[key_name("casino", ANNA)] = [before]
    assert ring.key_for_sealing(ANNA) == ring.key_of(ANNA) == key
    assert outdated(ring) == (ANNA,)
    assert rewrap(ring).anew == (ANNA,)
    assert world.shelves[0].get(key_name("casino", ANNA)) == world.shelves[1].get(key_name("casino", ANNA)) != before


def test_a_record_that_was_wrapped_anew_is_no_other_key_to_the_backups() -> None:
    """Nothing is carried over, nothing counts as replaced, and no later backup holds the old wrapping."""
    world = World()
    world.ring.key_for_sealing(ANNA)
    back_up(world.ring)
    new = MemoryKeyProvider(os.urandom(32))
    ring = _with(world.ring, new)
    rewrap(_with(world.ring, new, world.provider))
    rewrap(ring)
    assert look(ring).ok
    world.after(timedelta(seconds=1))
    assert back_up(ring).carried == ()
    held = newest(ring)
    assert held is not None
    assert world.provider.kek_id.encode() not in b"".join(held.records.values())


def test_nothing_is_wrapped_by_a_retired_key_and_nothing_for_the_deleted() -> None:
    """A provider whose key is marked stops it all before anything changed; who is deleted is left as they are."""
    world = World()
    world.ring.key_for_sealing(ANNA)
    world.ring.key_for_sealing(BORIS)
    delete(world.ring, [BORIS], Agreed())
    stolen, fresh = MemoryKeyProvider(os.urandom(32)), MemoryKeyProvider(os.urandom(32))
    record_fact(world.vault, "vault", "key_retired", {"kek_id": stolen.kek_id, "keys": {}, "reason": "stolen"})
    for way in (rewrap, lambda ring: ring.key_for_sealing("a" * 32)):
        with pytest.raises(PolicyError, match=r"keys\.kek_retired"):
            way(_with(world.ring, stolen, world.provider))
    assert people_under(world.ring, stolen.kek_id) == ()
    assert rewrap(_with(world.ring, fresh, world.provider)).anew == (ANNA,)
    assert people_under(world.ring, fresh.kek_id) == (ANNA,)
    world.after(GRACE + timedelta(seconds=1))
    assert finish(world.ring).erased == (BORIS,)


def test_when_every_provider_is_lost_the_offline_identity_opens_people_and_forgets_with_them() -> None:
    """Each record carries its own escrow: all who are there open; of the erased nothing is left, with both in hand."""
    world = World()
    identity = x25519.Identity.generate()
    recipient = str(identity.to_public())
    ring = _with(world.ring, world.provider, AgeProvider(recipient))
    key = ring.key_for_sealing(ANNA)
    ring.key_for_sealing(BORIS)
    escrow = export(world.vault, recipient, {"subject_id_key": "00" * 32})
    delete(ring, [BORIS], Agreed())
    world.after(GRACE + timedelta(seconds=1))
    finish(ring)
    with pytest.raises(PolicyError, match=r"keys\.offline"):
        _with(world.ring, AgeProvider(recipient)).key_of(ANNA)
    opened = open_escrow(escrow, str(identity))
    assert key.key_id not in str(opened.data_keys)
    after = _with(world.ring, MemoryKeyProvider(os.urandom(32)), AgeProvider(recipient, identity))
    assert after.key_of(ANNA) == key
    assert rewrap(after).anew == (ANNA,)
    assert _with(world.ring, after.providers[0]).key_of(ANNA) == key
    with pytest.raises(DrError, match=r"subjects\.deleted"):
        after.key_of(BORIS)
    assert [shelf.versions(key_name("casino", BORIS)) for shelf in world.shelves] == [[], []]


def test_an_offline_wrapping_is_bound_to_its_person() -> None:
    """Copied into another person's record it doesn't open; a text that is no recipient is refused."""
    identity = x25519.Identity.generate()
    provider = AgeProvider(str(identity.to_public()), identity)
    world = World()
    ring = _with(world.ring, provider)
    key = ring.key_for_sealing(ANNA)
    person = ring.parsed(ANNA, world.shelves[0].get(key_name("casino", ANNA)) or b"")
    wrapping = person.wrappings[0][1]
    assert provider.unwrap(wrapping, person.context()) == key.secret
    with pytest.raises(VaultError, match=r"vault\.wrong_key"):
        provider.unwrap(wrapping, replace(person, subject_id=BORIS).context())
    with pytest.raises(PolicyError, match=r"escrow\.bad_recipient"):
        AgeProvider("age1nonsense")
