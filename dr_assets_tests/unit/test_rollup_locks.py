"""Locks of micro-segments: short only while a roller lives, extended while they wait, red at half."""

from datetime import timedelta

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.backlog import Backlog, backlogs
from dr_assets.stores.postgres.rollup_run import ROLL_UP, require_untroubled, roll_up
from dr_assets.stores.postgres.wal_lock import WalLock
from dr_assets.vault.facts import facts, latest_fact
from dr_assets.vault.full_segment import FULL, FULL_LIST
from dr_assets.vault.replication import Options, replicate
from dr_assets.vault.retention import MICRO_LOCK
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.vault import Vault
from dr_assets_tests.unit.test_rollup import SMALL, T0, Clock, Wal, vault_of

DAY = timedelta(days=1)


def micro_days_left(vault: Vault, clock: Clock) -> list[int]:
    """Whole days of lock left, micro by micro."""
    store = vault.store
    assert isinstance(store, MemoryStore)
    locks = [store.rows[str(obj.key)][0].lock for obj in vault.objects("ledger", "wal")]
    return [(lock.retain_until - clock.now).days for lock in locks if lock is not None]


def test_a_micro_that_waits_is_extended_at_half_of_its_lock_and_not_before() -> None:
    """The roller keeps what it has not rolled up; what a full holds runs out."""
    clock = Clock()
    vault = vault_of(clock)
    wal = Wal(vault)
    wal.put(13)
    wal.tell()
    assert roll_up(vault, "ledger", limits=SMALL).extended == 0
    clock.now = T0 + 6 * DAY
    assert roll_up(vault, "ledger", limits=SMALL).extended == 0
    clock.now = T0 + 8 * DAY
    assert roll_up(vault, "ledger", limits=SMALL).extended == 3
    assert micro_days_left(vault, clock) == [6] * 10 + [14] * 3
    clock.now = T0 + 9 * DAY
    assert roll_up(vault, "ledger", limits=SMALL).extended == 0


def test_a_micro_waits_until_its_full_is_proven_in_the_second_region() -> None:
    """A full that one region alone holds stands for nothing; once it is proven there, its micros run out."""
    clock = Clock()
    vault, replica = vault_of(clock), vault_of(clock)
    replica.name = "standby"
    wal = Wal(vault)
    wal.put(13)
    wal.tell()
    clock.now = T0 + 8 * DAY
    assert roll_up(vault, "ledger", limits=SMALL, replicas=("standby",)).extended == 13
    clock.now += timedelta(minutes=2)
    replicate(vault, replica, ("ledger",), Options(copy=True))
    clock.now = T0 + 16 * DAY
    assert roll_up(vault, "ledger", limits=SMALL, replicas=("standby",)).extended == 3
    clock.now += DAY
    assert roll_up(vault, "ledger", limits=SMALL, replicas=("standby", "tape")).extended == 10


def test_locks_are_looked_at_once_an_hour() -> None:
    """A roller that runs every minute does not ask the store about thousands of objects each time."""
    clock = Clock()
    vault = vault_of(clock)
    wal = Wal(vault)
    wal.put(3)
    wal.tell()
    assert roll_up(vault, "ledger", limits=SMALL).extended == 0
    clock.now += timedelta(minutes=59)
    assert roll_up(vault, "ledger", limits=SMALL).extended is None
    assert len(list(facts(vault, "ledger", ROLL_UP))) == 1
    clock.now += timedelta(minutes=2)
    assert roll_up(vault, "ledger", limits=SMALL).extended == 0
    assert len(list(facts(vault, "ledger", ROLL_UP))) == 2


def test_fulls_and_lists_have_the_lock_of_a_base_backup() -> None:
    """Retention, snapshot interval and a week; they stand for the micros from then on."""
    clock = Clock()
    vault = vault_of(clock)
    wal = Wal(vault)
    wal.put(11)
    wal.tell()
    roll_up(vault, "ledger", limits=SMALL)
    for stream in (FULL, FULL_LIST):
        (obj,) = vault.objects("ledger", stream)
        head = vault.store.head(str(obj.key), obj.version_id)
        assert head is not None
        assert head.lock is not None
        assert head.lock.retain_until - clock.now >= 22 * DAY


def test_the_capture_gives_the_short_lock_only_while_a_roller_lives() -> None:
    """Without one, or a day after its last word, a piece of WAL is locked like a base backup."""
    clock = Clock()
    vault = vault_of(clock)
    lock_now = WalLock(vault, "ledger", ask_every_s=0.0)
    assert (lock_now().retain_until - clock.now).days == 22
    Wal(vault).put(1)
    roll_up(vault, "ledger", limits=SMALL)
    assert (lock_now().retain_until - clock.now).days == MICRO_LOCK.days
    clock.now += timedelta(hours=25)
    assert (lock_now().retain_until - clock.now).days == 22


def test_a_backlog_is_red_at_half_its_lock() -> None:
    """By its age, or by what is left of the lock; yellow once it can't be the last hour's."""
    clock = Clock()
    vault = vault_of(clock)
    wal = Wal(vault)
    wal.put(3)

    def colour() -> str:
        (only,) = backlogs(vault, "ledger")
        return only.colour(clock.now)

    assert colour() == "green"
    clock.now = T0 + timedelta(hours=7)
    assert colour() == "yellow"
    clock.now = T0 + 7 * DAY + timedelta(hours=1)
    assert colour() == "red"
    (known,) = backlogs(vault, "ledger")
    fresh = Backlog(known.stream, None, 1, 100, clock.now, clock.now + 6 * DAY)
    assert fresh.colour(clock.now) == "red"


def test_trouble_is_on_record_and_raised() -> None:
    """A stream that can't go on is told by the fact and by the exit of the run."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(30)
    wal.tell()
    store = vault.store
    assert isinstance(store, MemoryStore)
    (gone,) = [name for name in store.rows if f"/{6500:016X}-" in name]
    del store.rows[gone]
    done = roll_up(vault, "ledger", limits=SMALL)
    with pytest.raises(VaultError, match=r"rollup\.hole"):
        require_untroubled(done)
    fact = latest_fact(vault, "ledger", ROLL_UP)
    assert fact is not None
    assert fact.body["troubles"] == done.troubles
