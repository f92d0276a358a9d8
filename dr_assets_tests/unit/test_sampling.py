"""Read-back sampling: everything is read once in the declared time, damage is named, and a gap in coverage shows."""

import hashlib
from collections import Counter
from datetime import timedelta

import pytest

from dr_assets.estate.model import Sampling
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.retention.sampling import (
    SAMPLING,
    Sampled,
    coverage,
    is_due,
    plan_sample,
    round_at,
    rounds_in,
    sample,
    slot_of,
)
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.sample import StillClock

DAY = timedelta(days=1)
POLICY = Sampling(DAY, 5 * DAY)
OBJECTS = 60


class Bench:
    """A vault of small objects under a clock that tests move."""

    def __init__(self) -> None:
        self.clock = StillClock()
        self.store = MemoryStore(self.clock)
        self.vault: Vault = throwaway_vault(store=self.store, clock=self.clock)
        for number in range(OBJECTS):
            self.put(number)

    def put(self, number: int) -> None:
        """One more object."""
        record_fact(self.vault, "ledger", "heartbeat", {"n": number})

    def names(self) -> set[str]:
        """All but sampling's own facts, which come as it goes."""
        return {name for name in self.store.rows if f"facts-{SAMPLING}" not in name}

    def run(self) -> Sampled:
        """One run."""
        return sample(self.vault, "ledger", POLICY)


@pytest.fixture
def bench() -> Bench:
    """Fresh."""
    return Bench()


def read_in(bench: Bench, done: Sampled) -> set[str]:
    """By names alone, what a run of these rounds had to read."""
    slots = {at % done.rounds for at in range(done.first_round, done.last_round + 1)}
    keys = [(name, ObjectKey.parse(name)) for name in bench.names()]
    return {name for name, key in keys if key is not None and slot_of(key, done.rounds) in slots}


def test_a_cycle_reads_everything_once_and_each_run_a_share(bench: Bench) -> None:
    """Five daily runs read all 61 objects, none twice; anybody can tell from the names which run had to read what."""
    seen: Counter[str] = Counter()
    for _ in range(rounds_in(POLICY)):
        due = read_in(bench, plan_sample(bench.vault, "ledger", POLICY))
        planned = plan_sample(bench.vault, "ledger", POLICY)
        done = bench.run()
        assert done.objects == planned.objects
        assert 0 < len(due) < OBJECTS / 2
        seen.update(due)
        bench.clock.at += DAY
    assert set(seen) == bench.names()
    assert set(seen.values()) == {1}
    assert coverage(bench.vault, "ledger", POLICY).is_whole
    assert verify(bench.vault).ok


def test_the_fact_says_what_was_read(bench: Bench) -> None:
    """Rounds, counts, bytes, and a digest over the names that anybody can compute again."""
    due = sorted(read_in(bench, plan_sample(bench.vault, "ledger", POLICY)))
    done = bench.run()
    fact = latest_fact(bench.vault, "ledger", SAMPLING)
    assert fact is not None
    names_sha256 = hashlib.sha256("".join(f"{name}\n" for name in due).encode()).hexdigest()
    assert fact.body == done.to_json() | {"names_sha256": names_sha256, "objects": len(due), "errors": []}
    assert fact.body["size_bytes"] == sum(len(bench.store.rows[name][0].data or b"") for name in due)


def test_one_run_a_round_and_a_late_run_makes_up(bench: Bench) -> None:
    """Nothing is due twice in a round; after three days away the next run reads three shares, after a month all."""
    assert is_due(bench.vault, "ledger", POLICY)
    bench.run()
    assert not is_due(bench.vault, "ledger", POLICY)
    bench.clock.at += 3 * DAY
    done = bench.run()
    assert done.last_round - done.first_round == 2
    bench.clock.at += 30 * DAY
    done = bench.run()
    assert done.last_round - done.first_round == rounds_in(POLICY) - 1
    assert done.objects >= OBJECTS


@pytest.mark.parametrize("damage", ["flipped", "unlocked", "gone"])
def test_damage_is_named_within_the_cycle_until_it_is_mended(bench: Bench, damage: str) -> None:
    """Bytes, lock, or only a delete marker left: within five days coverage tells the object, and not any more after."""
    name = sorted(bench.names())[7]
    row = bench.store.rows[name][0]
    whole, lock = row.data, row.lock
    assert whole is not None
    if damage == "flipped":
        row.data = whole[:-1] + bytes([whole[-1] ^ 1])
    elif damage == "unlocked":
        row.lock = None
    else:
        bench.store.rows[name] = []
        bench.store.add(name, None)
    for _ in range(5):
        bench.run()
        bench.clock.at += DAY
    (told,) = coverage(bench.vault, "ledger", POLICY).errors
    assert name in told
    row.data, row.lock = whole, lock
    bench.store.rows[name] = [row]
    for _ in range(5):
        bench.run()
        bench.clock.at += DAY
    assert coverage(bench.vault, "ledger", POLICY).errors == ()
    assert not [finding for finding in verify(bench.vault).errors if "missing" in finding.kind]


def test_coverage_tells_what_was_never_read(bench: Bench) -> None:
    """Never run; run once and then no more; a policy of other rounds begins anew."""
    assert coverage(bench.vault, "ledger", POLICY).newest_at is None
    bench.run()
    bench.clock.at += DAY
    fresh = coverage(bench.vault, "ledger", POLICY)
    assert (fresh.overdue_since, fresh.missed, fresh.is_whole) == (None, 0, False)
    bench.clock.at += 2 * DAY
    late = coverage(bench.vault, "ledger", POLICY)
    assert late.overdue_since is not None
    assert late.overdue_since <= bench.clock.at
    assert late.missed == 2
    assert coverage(bench.vault, "ledger", Sampling(DAY, 6 * DAY)).newest_at is None
    assert coverage(bench.vault, "ledger", Sampling(DAY / 2, 2.5 * DAY)).newest_at is None


def test_what_is_cold_is_counted_and_not_read(bench: Bench) -> None:
    """Nobody thaws for a sample; a thawed copy is read."""
    for name in bench.names():
        bench.store.rows[name][0].storage_class = "DEEP_ARCHIVE"
    done = bench.run()
    assert (done.objects, done.errors) == (0, [])
    assert done.cold > 0
    assert round_at(POLICY, bench.clock.at) == done.last_round
