"""The erasure list: what all regions know together, no older than any of them, and as a signed file."""

from datetime import timedelta

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.subjects.deletion import delete, finish, restore
from dr_assets.vault.subjects.erased import merge, open_list, read_list, read_marks, sealed
from dr_assets_tests.unit.test_subject_ring import ANNA, BORIS, GRACE, Agreed, World


def _erased(*people: str) -> World:
    world = World()
    for who in people:
        world.ring.key_for_sealing(who)
        delete(world.ring, [who], Agreed())
        world.after(timedelta(seconds=1))
    return world


def test_a_list_holds_who_is_deleted_softly_or_for_good() -> None:
    """From the decision on, after the grace too; whoever was taken back is not on it, nor is anybody before."""
    world = _erased(ANNA, BORIS)
    assert read_list(World().vault).people == {}
    assert read_list(world.vault).people.keys() == {ANNA, BORIS}
    restore(world.ring, [BORIS], "the wrong one")
    assert read_list(world.vault).people.keys() == {ANNA}
    world.after(GRACE + timedelta(seconds=1))
    finish(world.ring)
    assert read_list(world.vault).people.keys() == {ANNA}


def test_a_list_that_lacks_a_decision_is_older() -> None:
    """An erasure or its taking back that another list knows: refused; the same decisions, or more, are not."""
    world = _erased(ANNA)
    before = read_list(world.vault)
    world.ring.key_for_sealing(BORIS)
    delete(world.ring, [BORIS], Agreed())
    after = read_list(world.vault)
    after.require_newest(before)
    after.require_newest(after)
    with pytest.raises(PolicyError, match=r"erasure\.list_stale"):
        before.require_newest(after)
    restore(world.ring, [BORIS], "the wrong one")
    with pytest.raises(PolicyError, match=r"erasure\.list_stale"):
        after.require_newest(read_list(world.vault))


def test_marks_tell_what_a_vault_that_is_away_would() -> None:
    """Of ours alone, merged with facts; a mark that stayed when the deletion was taken back counts for nothing."""
    world = _erased(ANNA, BORIS)
    trust = world.vault.trust
    marks = read_marks(world.shelves[1], "casino", trust)
    assert marks.people.keys() == {ANNA, BORIS}
    assert merge([read_list(World().vault), marks]).people.keys() == {ANNA, BORIS}
    assert read_marks(world.shelves[1], "casino", Trust.of(Signer.generate())).people == {}
    restore(world.ring, [BORIS], "the wrong one")
    assert merge([read_list(world.vault), marks]).people.keys() == {ANNA}


def test_a_saved_list_is_believed_as_it_was_signed() -> None:
    """It brings its decisions along, and so is no older than the vault that it was read from; altered, it is none."""
    world = _erased(ANNA)
    listed = read_list(world.vault)
    data = sealed(listed, "casino", world.clock(), world.signer)
    opened = open_list(data, "casino", world.vault.trust)
    assert (set(opened.people), opened.decisions, opened.newest_at) == ({ANNA}, listed.decisions, listed.newest_at)
    merge([opened]).require_newest(listed)
    with pytest.raises(VaultError):
        open_list(data, "casino", Trust.of(Signer.generate()))
    with pytest.raises(VaultError):
        open_list(data, "another", world.vault.trust)
    with pytest.raises(VaultError):
        open_list(data.replace(b"payloadType", b"payloadtype"), "casino", world.vault.trust)
