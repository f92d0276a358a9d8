"""WAL as of an earlier moment, when the micro-segments of then have expired and only later full segments hold it."""

from datetime import datetime, timedelta

import pytest

from dr_assets.stores.postgres.clip import require_whole
from dr_assets.stores.postgres.course import Course, find_course
from dr_assets.stores.postgres.history import Leg
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.test_expire import Life
from dr_assets_tests.unit.test_rollup import SIZE, Clock, Wal, roll, vault_of

BEGIN, THEN = 5000, 5000 + 25 * SIZE


@pytest.fixture
def clock() -> Clock:
    """Time that only tests move."""
    return Clock()


@pytest.fixture
def wal(clock: Clock) -> Wal:
    """Twenty-five pieces and the capture's word on them, a day later twenty more, and all of it rolled up by tens."""
    wal = Wal(vault_of(clock))
    wal.put(25)
    wal.tell()
    clock.now += timedelta(days=1)
    wal.put(20)
    wal.tell()
    assert roll(wal.vault).fulls == 4
    return wal


def course_of(wal: Wal, as_of: datetime | None, end: int | None = None) -> Course:
    """The WAL of then."""
    return find_course(wal.vault, "ledger", "7", [Leg(1, end)], BEGIN, as_of=as_of)


def content(wal: Wal, course: Course) -> bytes:
    """What a restore would lay."""
    return b"".join(data for _, data in course.plaintexts(wal.vault.open(obj) for obj in course.chain.segments))


def expire_micros(wal: Wal) -> None:
    """Those beneath fulls."""
    assert isinstance(wal.vault.store, MemoryStore)
    rolled_to = max(obj.key.last for obj in wal.vault.objects("ledger", FULL))
    for obj in list(wal.vault.objects("ledger", "wal")):
        if obj.key.last <= rolled_to:
            del wal.vault.store.rows[str(obj.key)]


def test_later_fulls_stand_for_expired_micros_up_to_what_was_stored_then(wal: Wal, clock: Clock) -> None:
    """Not a byte less, for then all of it was acknowledged; not a byte more, for it was not there."""
    as_of = clock.now - timedelta(hours=1)
    expire_micros(wal)
    course = course_of(wal, as_of)
    assert require_whole(wal.vault, course.chain, THEN) == []
    assert (course.chain.end, content(wal, course)) == (THEN, wal.expected(BEGIN, THEN))
    assert course.chain.segments[-1].key.last > THEN  # cut within a full
    (stretch,) = course.stretches(course.chain.segments, "7", SIZE)
    assert stretch.frame.end == THEN
    assert course_of(wal, as_of, BEGIN + 12 * SIZE).chain.end == BEGIN + 12 * SIZE


def test_what_was_put_later_is_not_looked_at_while_the_pieces_of_then_are_there(wal: Wal, clock: Clock) -> None:
    """Nobody who seals something today changes what is restored as of yesterday."""
    course = course_of(wal, clock.now - timedelta(hours=1))
    assert {obj.key.stream for obj in course.chain.segments} == {"wal"}
    assert (course.chain.end, content(wal, course)) == (THEN, wal.expected(BEGIN, THEN))


def test_without_as_of_nothing_is_cut(wal: Wal) -> None:
    """The whole chain, its last piece whole."""
    course = course_of(wal, None)
    assert course.ends == {}
    assert content(wal, course) == wal.expected(BEGIN, wal.position)


@pytest.mark.parametrize("is_lost", [False, True])
def test_verify_as_of_misses_what_was_lost_and_not_what_expired_on_record(is_lost: bool) -> None:
    """Micro-segments of then are gone, the fulls that hold them came later; where neither is there, it is a hole."""
    life = Life()
    for _ in range(5):
        life.a_day()
    then = life.clock.now + timedelta(seconds=1)
    for _ in range(15):
        life.a_day()
    if is_lost:
        full = next(obj for obj in life.vault.objects("ledger", FULL) if obj.modified_at > then - timedelta(days=3))
        for stream in (FULL, "wal"):
            for obj in list(life.vault.objects("ledger", stream)):
                if obj.key.first == full.key.first:
                    del life.store.rows[str(obj.key)]
    life.expire()
    assert sum(1 for _ in life.vault.objects("ledger", "wal", as_of=then)) <= 2 * is_lost
    assert ("hole" in {finding.kind for finding in verify(life.vault, as_of=then).errors}) == is_lost
    assert is_lost or verify(life.vault, as_of=then).errors == ()
