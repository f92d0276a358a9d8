"""People's keys: made in two regions, deleted softly and for good, backed up for as long as they may be kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.providers import LackingProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.subjects.backup import back_up, newest, recover
from dr_assets.vault.subjects.connect import require_fit
from dr_assets.vault.subjects.deletion import delete, finish, restore
from dr_assets.vault.subjects.ids import SubjectIds, require_subject_id
from dr_assets.vault.subjects.look import look
from dr_assets.vault.subjects.policy import ErasurePolicy
from dr_assets.vault.subjects.records import deletion_name, key_name
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.subjects.shelf import MemoryShelf
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.sample import StillClock

IDS = SubjectIds(bytes(32))
ANNA, BORIS = IDS.of("anna@example.com"), IDS.of("boris@example.com")
GRACE = timedelta(days=30)


@dataclass
class Agreed:
    """Approvals of whatever is asked, once each."""

    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def consume(self, *, action: str, objects: Sequence[str]) -> str:
        """Agree."""
        self.asked.append((action, tuple(objects)))
        return f"approval-{len(self.asked)}"


class Refused:
    """Nobody agreed."""

    def consume(self, *, action: str, objects: Sequence[str]) -> str:
        """Refuse."""
        raise PolicyError("approvals.missing", f"{action} of {len(objects)}", "ask for it")


@dataclass
class World:
    """A ring over two shelves, a vault in memory, one clock."""

    clock: StillClock = field(default_factory=StillClock)
    policy: ErasurePolicy = field(default_factory=ErasurePolicy)

    def __post_init__(self) -> None:
        self.shelves = (MemoryShelf("primary"), MemoryShelf("standby"))
        self.provider = MemoryKeyProvider()
        self.signer = Signer.generate()
        self.store = MemoryStore(self.clock)
        self.vault = throwaway_vault(store=self.store, provider=self.provider, signer=self.signer, clock=self.clock)
        self.ring = SubjectRing((self.vault,), self.shelves, (self.provider,), self.policy)

    def after(self, passed: timedelta) -> None:
        """Let time pass."""
        self.clock.at += passed


def test_a_person_is_named_by_a_keyed_digest() -> None:
    """Other keys give other names; what is no subject id is refused without being repeated."""
    assert SubjectIds(bytes(32)).of("anna@example.com") == ANNA
    assert SubjectIds(b"\1" * 32).of("anna@example.com") != ANNA
    with pytest.raises(PolicyError, match=r"subjects\.bad_id") as caught:
        require_subject_id("anna@example.com")
    assert "anna" not in str(caught.value)


def test_a_key_lies_in_two_regions_before_it_is_handed_out() -> None:
    """Both regions hold the same bytes; a process that died in between is completed by the next; one region is none."""
    world = World()
    key = world.ring.key_for_sealing(ANNA)
    name = key_name("casino", ANNA)
    assert world.shelves[0].get(name) == world.shelves[1].get(name)
    world.shelves[1].erase(name)  # as if the maker had died after the first region
    assert world.ring.key_for_sealing(ANNA) == key
    assert world.shelves[1].get(name) == world.shelves[0].get(name)
    assert world.ring.key_of(ANNA) == key
    assert b"anna" not in b"".join(world.shelves[0].versions(name))
    with pytest.raises(PolicyError, match=r"subjects\.one_region"):
        SubjectRing((world.vault,), world.shelves[:1], (world.provider,), world.policy)


def test_a_person_cannot_be_given_another_persons_key() -> None:
    """A record copied under another's name is refused, and so is one with two minds of it."""
    world = World()
    world.ring.key_for_sealing(ANNA)
    stolen = world.shelves[0].get(key_name("casino", ANNA)) or b""
    for shelf in world.shelves:
        shelf.put_new(key_name("casino", BORIS), stolen)
    with pytest.raises(VaultError, match=r"vault\.malformed"):
        world.ring.key_of(BORIS)
    world.shelves[1].erase(key_name("casino", ANNA))
    world.shelves[1].put_new(key_name("casino", ANNA), b"other")
    with pytest.raises(VaultError, match=r"subjects\.diverged"):
        world.ring.key_for_sealing(ANNA)


def test_deletion_needs_an_approval_of_exactly_these_people() -> None:
    """Without one nothing changes; with one the approval names whom it was for."""
    world, agreed = World(), Agreed()
    key = world.ring.key_for_sealing(ANNA)
    with pytest.raises(PolicyError, match=r"approvals\.missing"):
        delete(world.ring, [ANNA], Refused())
    assert world.ring.key_of(ANNA) == key
    with pytest.raises(VaultError, match=r"subjects\.no_key"):
        delete(world.ring, [BORIS], agreed)
    assert not agreed.asked
    delete(world.ring, [ANNA], agreed)
    assert agreed.asked == [("erase-subjects", (ANNA,))]


def test_soft_first_then_final_and_nothing_is_left() -> None:
    """Refused from the first moment, restorable within the grace, gone in every version and backup after it."""
    world = World()
    key = world.ring.key_for_sealing(ANNA)
    world.ring.key_for_sealing(BORIS)
    back_up(world.ring)
    until = delete(world.ring, [ANNA], Agreed())
    assert until == world.clock() + GRACE
    for way in (world.ring.key_of, world.ring.key_for_sealing):
        with pytest.raises(PolicyError, match=r"subjects\.deleted"):
            way(ANNA)
    world.after(GRACE / 2)
    assert finish(world.ring).erased == ()
    restore(world.ring, [ANNA], "it was the wrong Anna")
    assert world.ring.key_of(ANNA) == key
    delete(world.ring, [ANNA], Agreed())
    back_up(world.ring)
    held = newest(world.ring)
    assert held is not None
    assert held.records.keys() == {BORIS}
    world.after(GRACE - timedelta(seconds=1))
    assert finish(world.ring).erased == ()
    world.after(timedelta(seconds=1))
    assert finish(world.ring).erased == (ANNA,)
    for shelf in world.shelves:
        assert shelf.versions(key_name("casino", ANNA)) == []
    with pytest.raises(PolicyError, match=r"subjects\.final"):
        restore(world.ring, [ANNA], "too late")
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        world.ring.key_for_sealing(ANNA)
    assert finish(world.ring).erased == ()


def test_a_deletion_is_not_final_while_a_backup_still_holds_the_key() -> None:
    """A backup whose lock somebody extended keeps the person waiting, and that is said."""
    world = World()
    world.ring.key_for_sealing(ANNA)
    back_up(world.ring)
    row = next(rows[-1] for name, rows in world.store.rows.items() if "/subjects/ring/" in name)
    assert row.lock is not None
    assert row.lock.retain_until == world.clock() + GRACE
    row.lock = type(row.lock)(row.lock.mode, row.lock.retain_until + GRACE)
    delete(world.ring, [ANNA], Agreed())
    world.after(GRACE)
    done = finish(world.ring)
    assert done.erased == ()
    assert done.waiting == ((ANNA, row.lock.retain_until),)
    world.after(GRACE)
    assert finish(world.ring).erased == (ANNA,)
    assert not [name for name in world.store.rows if "/subjects/ring/" in name]


def test_a_mass_deletion_past_the_approvals_is_seen_and_undone() -> None:
    """All keys destroyed in both regions: seen against the backup, carried into later backups, laid back whole."""
    world = World()
    people = [IDS.of(str(number)) for number in range(20)]
    keys = {who: world.ring.key_for_sealing(who) for who in people}
    delete(world.ring, people[:1], Agreed())
    back_up(world.ring)
    assert look(world.ring).ok
    for shelf in world.shelves:
        for who in people[:10]:
            shelf.hide(key_name("casino", who))
        for who in people[10:]:
            shelf.erase(key_name("casino", who))
    with pytest.raises(VaultError, match=r"subjects\.vanished"):
        world.ring.key_for_sealing(people[1])
    assert look(world.ring).vanished == tuple(sorted(people[1:]))
    world.after(GRACE - timedelta(days=1))
    assert set(back_up(world.ring).carried) == set(people[1:])
    world.after(timedelta(days=2))
    finish(world.ring)
    assert set(recover(world.ring)) == set(people[1:])
    assert {who: world.ring.key_of(who) for who in people[1:]} == {who: keys[who] for who in people[1:]}
    assert look(world.ring).vanished == ()
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        world.ring.key_of(people[0])


def test_the_vault_is_sound_with_backups_of_the_ring_and_after_they_are_gone() -> None:
    """Verify asks for no longer lock than the grace, and no witness misses what had to go."""
    world = World()
    world.ring.key_for_sealing(ANNA)
    back_up(world.ring)
    report = verify(world.vault)
    assert report.findings == ()
    world.after(GRACE)
    finish(world.ring)
    assert not [name for name in world.store.rows if "/subjects/ring/" in name]
    assert verify(world.vault, witness=report.witness).ok


def test_more_than_a_few_deletions_are_refused_though_approved() -> None:
    """Too many at once, too many a day: refused before anybody is asked, and recorded."""
    world, agreed = World(policy=ErasurePolicy(GRACE, most_at_once=2, most_a_day=3)), Agreed()
    people = [IDS.of(str(number)) for number in range(5)]
    for who in people:
        world.ring.key_for_sealing(who)
    with pytest.raises(PolicyError, match=r"subjects\.mass_deletion"):
        delete(world.ring, people[:3], agreed)
    delete(world.ring, people[:2], agreed)
    with pytest.raises(PolicyError, match=r"subjects\.mass_deletion"):
        delete(world.ring, people[2:4], agreed)
    assert len(agreed.asked) == 1
    world.after(timedelta(days=1, seconds=1))
    delete(world.ring, people[2:4], agreed)
    with pytest.raises(PolicyError, match=r"subjects\.erasure_grace"):
        ErasurePolicy(timedelta(days=31))


def test_what_was_laid_there_past_this_program_is_named() -> None:
    """A mark without a decision, a mark that was taken away, a region that lacks, a stranger's record."""
    world = World()
    for who in (ANNA, BORIS):
        world.ring.key_for_sealing(who)
    delete(world.ring, [BORIS], Agreed())
    mark = world.shelves[0].get(deletion_name("casino", BORIS)) or b""
    world.shelves[0].erase(deletion_name("casino", BORIS))
    world.shelves[1].put_new(deletion_name("casino", ANNA), mark)
    world.shelves[1].erase(key_name("casino", ANNA))
    world.shelves[1].put_new("casino/odd", b"")
    seen = look(world.ring)
    assert (seen.undecided, seen.unmarked, seen.partial) == ((ANNA,), (BORIS,), (ANNA,))
    assert seen.foreign == ("standby: casino/odd",)
    assert not seen.ok


def test_one_region_alone_opens_and_seals_nothing_new() -> None:
    """With a region away what exists opens; a new person's key is not made in one region alone."""
    world = World()
    key = world.ring.key_for_sealing(ANNA)

    class Away(MemoryShelf):
        def get(self, name: str) -> bytes | None:
            raise VaultError("vault.unreachable", name, "wait")

    for shelves in ((world.shelves[0], Away("standby")), (Away("primary"), world.shelves[1])):
        ring = SubjectRing((world.vault,), shelves, (world.provider,), world.policy)
        assert ring.key_of(ANNA) == key
        for who in (ANNA, BORIS):
            with pytest.raises(VaultError, match=r"vault\.unreachable"):
                ring.key_for_sealing(who)
    assert not [name for shelf in world.shelves for name in shelf.names("") if BORIS in name]


def test_a_provider_that_this_host_cannot_use_leaves_it_to_the_next() -> None:
    """A second region's host has its own provider's secrets only: people's keys open there all the same."""
    world = World()
    first = MemoryKeyProvider(name="memory/first")
    both = SubjectRing((world.vault,), world.shelves, (first, world.provider), world.policy)
    key = both.key_for_sealing(ANNA)
    lacking = LackingProvider("memory/first", PolicyError("vault.setting_missing", "PIN is not set", "export it"))
    there = SubjectRing((world.vault,), world.shelves, (lacking, world.provider), world.policy)
    assert there.key_of(ANNA) == key
    with pytest.raises(PolicyError, match=r"vault\.setting_missing"):
        there.key_for_sealing(BORIS)


def test_rubbish_in_one_region_keeps_nobodys_key_from_the_other() -> None:
    """Opening believes signatures, not regions; recovery puts the rubbish away and lays the key back."""
    world = World()
    key = world.ring.key_for_sealing(ANNA)
    back_up(world.ring)
    name = key_name("casino", ANNA)
    for shelf in world.shelves:
        shelf.hide(name)
        shelf.put_new(name, b"rubbish")
        if shelf is world.shelves[0]:
            assert world.ring.key_of(ANNA) == key
    with pytest.raises(VaultError, match=r"vault\.malformed"):
        world.ring.key_of(ANNA)
    assert recover(world.ring) == (ANNA,)
    assert world.ring.key_of(ANNA) == key
    assert look(world.ring).ok


def test_a_key_that_was_made_anew_after_a_mass_deletion_hides_no_loss() -> None:
    """Documents of years lie under the old key: that is told, and backups go on carrying it."""
    world = World()
    old = world.shelves[0].get(key_name("casino", ANNA)) if world.ring.key_for_sealing(ANNA) else None
    back_up(world.ring)
    for shelf in world.shelves:
        shelf.erase(key_name("casino", ANNA))
    world.ring.key_for_sealing(ANNA)
    seen = look(world.ring)
    assert (seen.replaced, seen.ok) == ((ANNA,), False)
    for _ in range(3):
        world.after(GRACE - timedelta(days=1))
        assert back_up(world.ring).carried == (ANNA,)
        finish(world.ring)
    kept = newest(world.ring)
    assert kept is not None
    assert set(kept.records.values()) == {old, world.shelves[0].get(key_name("casino", ANNA))}
    assert look(world.ring).replaced == (ANNA,)
    delete(world.ring, [ANNA], Agreed())
    assert back_up(world.ring).people == 0
    assert finish(world.ring).erased == ()
    world.after(GRACE + timedelta(seconds=2))
    assert finish(world.ring).erased == (ANNA,)
    assert not [name for name in world.store.rows if "/subjects/ring/" in name]


def test_a_region_that_is_away_does_not_keep_a_reader_out() -> None:
    """Whoever only opens goes on with the other region; who seals must know that no bucket is locked."""

    class Fit:
        def require_fit(self) -> None:
            pass

    class Away:
        def require_fit(self) -> None:
            raise VaultError("vault.unreachable", "primary", "wait")

    require_fit((Away(), Fit()), signing=False)
    for shelves, signing in (((Away(), Fit()), True), ((Away(), Away()), False)):
        with pytest.raises(VaultError, match=r"vault\.unreachable"):
            require_fit(shelves, signing=signing)
