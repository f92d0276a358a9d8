"""Nobody who was forgotten comes back: not with a region that was away, nor from a copy of its bucket."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.subjects.backup import back_up, newest, recover
from dr_assets.vault.subjects.deletion import delete, finish
from dr_assets.vault.subjects.history import Decisions
from dr_assets.vault.subjects.look import look
from dr_assets.vault.subjects.records import deletion_name, key_name
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.subjects.shelf import MemoryShelf
from dr_assets_tests.unit.test_subject_ring import ANNA, BORIS, GRACE, Agreed, World


class Flaky(MemoryShelf):
    """A region that is away while somebody says so."""

    away = False

    def get(self, name: str) -> bytes | None:
        """As ever, or no answer."""
        self._require()
        return super().get(name)

    def put_new(self, name: str, data: bytes) -> bool:
        """As ever, or no answer."""
        self._require()
        return super().put_new(name, data)

    def names(self, prefix: str) -> Iterator[str]:
        """As ever, or no answer."""
        self._require()
        return super().names(prefix)

    def _require(self) -> None:
        if self.away:
            raise VaultError("vault.unreachable", self.region, "wait")


def _two_regions(world: World) -> tuple[SubjectRing, Flaky]:
    other = Flaky("standby")
    return SubjectRing((world.vault,), (world.shelves[0], other), (world.provider,), world.policy), other


def _anew(ring: SubjectRing) -> SubjectRing:
    """As another process opens it."""
    return SubjectRing(ring.vaults, ring.shelves, ring.providers, ring.policy, Decisions())


def test_a_region_that_was_away_during_the_deletion_is_no_way_back() -> None:
    """Marked where somebody answers, refused elsewhere by the facts; erased once the region is back and emptied."""
    world = World()
    ring, other = _two_regions(world)
    ring.key_for_sealing(ANNA)
    other.away = True
    with pytest.raises(VaultError, match=r"vault\.unreachable") as caught:
        delete(ring, [ANNA], Agreed())
    assert "standby" in str(caught.value)
    assert world.shelves[0].get(deletion_name("casino", ANNA)) is not None
    world.after(GRACE + timedelta(seconds=1))
    done = finish(ring)
    assert (done.erased, done.away, [who for who, _ in done.waiting]) == ((), ("standby",), [ANNA])
    assert world.shelves[0].versions(key_name("casino", ANNA)) == []
    other.away = False
    assert MemoryShelf.get(other, key_name("casino", ANNA)) is not None  # it never heard of it
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        _anew(ring).key_of(ANNA)
    alone = SubjectRing((world.vault,), (other, Flaky("third")), (world.provider,), world.policy)
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        alone.key_of(ANNA)
    assert finish(ring).erased == (ANNA,)
    assert other.versions(key_name("casino", ANNA)) == []
    assert look(ring).ok


def test_a_bucket_that_is_put_back_from_an_old_copy_is_found_and_emptied() -> None:
    """Key there, mark gone, long after the erasure: refused at once, named by `look`, erased again and marked."""
    world = World()
    world.ring.key_for_sealing(ANNA)
    world.ring.key_for_sealing(BORIS)
    copy = {name: list(rows) for name, rows in world.shelves[1].rows.items()}
    delete(world.ring, [ANNA], Agreed())
    world.after(GRACE + timedelta(seconds=1))
    assert finish(world.ring).erased == (ANNA,)
    world.shelves[1].rows = copy
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        _anew(world.ring).key_of(ANNA)
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        _anew(world.ring).key_for_sealing(ANNA)
    seen = look(world.ring)
    assert (seen.returned, seen.ok) == ((ANNA,), False)
    assert finish(world.ring).returned == (ANNA,)
    assert world.shelves[1].versions(key_name("casino", ANNA)) == []
    assert world.shelves[1].get(deletion_name("casino", ANNA)) is not None
    assert finish(world.ring).returned == ()
    assert look(world.ring).returned == ()
    assert _anew(world.ring).key_of(BORIS)


def test_an_old_backup_of_the_ring_gives_nobody_back_who_was_deleted() -> None:
    """Both regions emptied by force, everything laid back from a backup of before: all but the deleted."""
    world = World()
    keys = {who: world.ring.key_for_sealing(who) for who in (ANNA, BORIS)}
    back_up(world.ring)
    delete(world.ring, [ANNA], Agreed())
    for shelf in world.shelves:
        shelf.rows.clear()
    held = newest(world.ring)
    assert held is not None
    assert ANNA in held.records
    assert recover(world.ring) == (BORIS,)
    assert _anew(world.ring).key_of(BORIS) == keys[BORIS]
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        _anew(world.ring).key_of(ANNA)
    assert world.ring.is_erased(ANNA)
    assert not world.ring.is_erased(BORIS)


def test_somebody_without_a_key_is_forgotten_only_when_that_is_meant() -> None:
    """A mistyped id is refused; one that is known to have no documents never gets a key again, in any region."""
    world = World()
    with pytest.raises(VaultError, match=r"subjects\.no_key"):
        delete(world.ring, [ANNA], Agreed())
    delete(world.ring, [ANNA], Agreed(), keyless=[ANNA])
    with pytest.raises(PolicyError, match=r"subjects\.deleted"):
        _anew(world.ring).key_for_sealing(ANNA)
    world.after(GRACE + timedelta(seconds=1))
    assert finish(world.ring).erased == (ANNA,)
    assert look(world.ring).ok
    with pytest.raises(PolicyError, match=r"subjects\.final"):
        delete(world.ring, [ANNA], Agreed(), keyless=[ANNA])
