"""The ring of people's keys, killed before and after every single write to either region and to the vault."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.subjects.backup import back_up, newest
from dr_assets.vault.subjects.deletion import delete, finish, restore
from dr_assets.vault.subjects.ids import SubjectIds
from dr_assets.vault.subjects.look import look
from dr_assets.vault.subjects.policy import ErasurePolicy
from dr_assets.vault.subjects.records import deletion_name, key_name
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.subjects.shelf import MemoryShelf
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets_tests.faults.store.faulty_store import KilledError
from dr_assets_tests.faults.vault.sample import StillClock

IDS = SubjectIds(bytes(32))
PEOPLE = [IDS.of(str(number)) for number in range(3)]
WRITES = frozenset({"put", "put_new", "erase", "extend", "delete_version"})


@dataclass
class Bomb:
    """Kills at the `at`th moment; every write has one before and one after it."""

    at: int | None = None
    moments: int = 0
    is_dead: bool = False

    def tick(self) -> None:
        """One moment."""
        if self.is_dead or self.moments == self.at:
            self.is_dead = True
            raise KilledError(str(self.at))
        self.moments += 1


class Bombed:
    """Stands before a shelf or a store."""

    def __init__(self, inner: Any, bomb: Bomb) -> None:
        self._inner, self._bomb = inner, bomb

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in WRITES:
            return found

        def write(*arguments: Any, **named: Any) -> Any:
            self._bomb.tick()
            answer = found(*arguments, **named)
            self._bomb.tick()
            return answer

        return write


@dataclass
class World:
    """What outlives a process: two regions, the vault's store, the clock, the agreements given."""

    clock: StillClock = field(default_factory=StillClock)
    agreed: int = 0

    def __post_init__(self) -> None:
        self.shelves = (MemoryShelf("primary"), MemoryShelf("standby"))
        self.store = MemoryStore(self.clock)
        self.provider, self.signer = MemoryKeyProvider(), Signer.generate()

    def ring(self, bomb: Bomb | None = None) -> SubjectRing:
        """A new process, which may be killed."""
        bomb = bomb or Bomb()
        store: Any = Bombed(self.store, bomb)
        vault = throwaway_vault(store=store, provider=self.provider, signer=self.signer, clock=self.clock)
        shelves: Any = tuple(Bombed(shelf, bomb) for shelf in self.shelves)
        return SubjectRing((vault,), shelves, (self.provider,), ErasurePolicy(timedelta(days=30)))

    def consume(self, *, action: str, objects: Sequence[str]) -> str:
        """Agree to whatever is asked."""
        del action, objects
        self.agreed += 1
        return f"approval-{self.agreed}"


def made() -> World:
    """Three people, one backup."""
    world = World()
    for who in PEOPLE:
        world.ring().key_for_sealing(who)
    back_up(world.ring())
    return world


def begun() -> World:
    """As `made`, one of them deleted and the grace over."""
    world = made()
    delete(world.ring(), PEOPLE[:1], world)
    return world


def over() -> World:
    """As `begun`, with the grace over."""
    world = begun()
    world.clock.at += timedelta(days=30)
    return world


def create(world: World, ring: SubjectRing) -> None:
    """Make a key."""
    del world
    ring.key_for_sealing(PEOPLE[0])


def erase(world: World, ring: SubjectRing) -> None:
    """Delete one softly."""
    delete(ring, PEOPLE[:1], world)


def bring_back(world: World, ring: SubjectRing) -> None:
    """Take it back, unless that is done."""
    if any(shelf.get(deletion_name("casino", PEOPLE[0])) for shelf in world.shelves):
        restore(ring, PEOPLE[:1], "a mistake")


def complete(world: World, ring: SubjectRing) -> None:
    """Make it final."""
    del world
    finish(ring)


def save(world: World, ring: SubjectRing) -> None:
    """Back up."""
    world.clock.at += timedelta(seconds=1)
    back_up(ring)


def is_created(world: World) -> None:
    """The key lies in both regions, the same."""
    assert len({shelf.get(key_name("casino", PEOPLE[0])) for shelf in world.shelves}) == 1
    assert world.ring().key_of(PEOPLE[0]) == world.ring().key_for_sealing(PEOPLE[0])


def is_deleted(world: World) -> None:
    """Marked in both regions, with the one approval that there was."""
    assert all(shelf.get(deletion_name("casino", PEOPLE[0])) for shelf in world.shelves)
    assert look(world.ring()).unmarked == ()
    assert world.agreed <= 2  # a process that died with an approval in its hand has to ask for another


def is_back(world: World) -> None:
    """Nobody is deleted, no mark is left."""
    assert look(world.ring()).ok
    world.ring().key_of(PEOPLE[0])


def is_final(world: World) -> None:
    """No version in any region, no backup of it, and said so."""
    assert not any(shelf.versions(key_name("casino", PEOPLE[0])) for shelf in world.shelves)
    assert not [name for name in world.store.rows if "/subjects/ring/" in name]
    seen = look(world.ring())
    assert (seen.soft, seen.overdue, seen.unmarked) == ((), (), ())


def is_saved(world: World) -> None:
    """The newest whole backup has everybody."""
    backup = newest(world.ring())
    assert backup is not None
    assert backup.records.keys() == set(PEOPLE)


CASES: dict[str, tuple[Callable[[], World], Callable[[World, SubjectRing], None], Callable[[World], None]]] = {
    "create": (World, create, is_created),
    "delete": (made, erase, is_deleted),
    "restore": (begun, bring_back, is_back),
    "finish": (over, complete, is_final),
    "back_up": (made, save, is_saved),
}


def points(name: str) -> Iterator[int]:
    """Every moment of a clean run."""
    make, job, _ = CASES[name]
    world, bomb = make(), Bomb()
    job(world, world.ring(bomb))
    yield from range(bomb.moments)


@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_write_the_next_run_completes_it(name: str) -> None:
    """Every point is hit; a second run then ends as one that nothing disturbed, and the other people are whole."""
    make, job, check = CASES[name]
    hit = 0
    for at in points(name):
        world = make()
        with pytest.raises(KilledError):
            job(world, world.ring(Bomb(at)))
        hit += 1
        job(world, world.ring())
        check(world)
        if name != "create":
            assert len({world.ring().key_of(who).key_id for who in PEOPLE[1:]}) == 2
    assert hit >= 4
