"""The second region: proven object by object, cheaply, and brought there by ourselves where the store doesn't."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.sequencer import Sequencer
from dr_assets.vault.replication import Options, Pass, Standing, replicate, run, standing
from dr_assets.vault.replication.bundle import BundleStore, export_bundle
from dr_assets.vault.retention import LOCK_CAP
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import Lock, ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.store.faulty_store import FaultyStore
from dr_assets_tests.unit.test_rollup import Clock, Wal

DAY = timedelta(days=1)
COPY = Options(copy=True)


@dataclass
class Regions:
    """A source with some WAL, and an empty second region."""

    clock: Clock = field(default_factory=Clock)
    provider: MemoryKeyProvider = field(default_factory=MemoryKeyProvider)
    signer: Signer = field(default_factory=Signer.generate)
    here: MemoryStore = field(init=False)
    there: MemoryStore = field(init=False)
    wal: Wal = field(init=False)

    def __post_init__(self) -> None:
        self.here, self.there = MemoryStore(self.clock), MemoryStore(self.clock)
        self.wal = Wal(self.vault(self.here, "primary"))
        self.live(10)

    def vault(self, store: ObjectStore, name: str) -> Vault:
        """As a new process opens it."""
        return throwaway_vault(store=store, name=name, provider=self.provider, signer=self.signer, clock=self.clock)

    def live(self, pieces: int) -> None:
        """Some WAL, word of it, and two minutes."""
        self.wal.put(pieces)
        self.wal.tell()
        self.clock.now += timedelta(minutes=2)

    def pass_(self, options: Options | None = None, before: Pass | None = None) -> Pass:
        """One pass, as a new process makes it."""
        source, replica = self.vault(self.here, "primary"), self.vault(self.there, "standby")
        return replicate(source, replica, ("ledger",), options or Options(samples=0), before=before)

    def standing(self) -> Standing:
        """The newest word."""
        found = standing(self.vault(self.here, "primary"), "standby")
        assert found is not None
        return found

    def mirror(self) -> None:
        """As a store that replicates does: versions keep their ids, locks and dates."""
        self.there.rows = self.here.copy().rows

    def some(self, stream: str = "wal") -> str:
        """A name of the stream, in its middle."""
        names = sorted(name for name in self.here.rows if f"/{stream}/" in name)
        return names[len(names) // 2]


@pytest.fixture
def regions() -> Regions:
    """Ten pieces of WAL here, nothing there."""
    return Regions()


def asked(regions: Regions, options: Options | None = None, before: Pass | None = None) -> tuple[Pass, Counter[str]]:
    """A pass, and which calls it made of the two stores."""
    here, there = FaultyStore(regions.here), FaultyStore(regions.there)
    stores: Any = (here, there)
    source, replica = regions.vault(stores[0], "primary"), regions.vault(stores[1], "standby")
    done = replicate(source, replica, ("ledger",), options or Options(samples=0), before=before)
    return done, Counter(
        call.method for call in (*here.calls, *there.calls) if call.stream != "facts-replication-standby"
    )


def test_our_own_replicator_brings_everything_and_the_copy_is_sound(regions: Regions) -> None:
    """Same names, same bytes, locks no shorter; what the copy is verified to be is what the source is; on record."""
    done = regions.pass_(COPY)
    assert (done.standing.unproven_count, done.standing.proven_at) == (0, done.standing.as_of)
    first = set(regions.there.rows)
    assert first == {name for name in regions.here.rows if "/facts-replication-" not in name and "/vault/" not in name}
    for name in first:
        (mine,), (copied,) = regions.here.rows[name], regions.there.rows[name]
        assert mine.lock is not None
        assert copied.lock is not None
        assert (copied.data, copied.lock.mode) == (mine.data, mine.lock.mode)
        assert copied.lock.retain_until >= mine.lock.retain_until
    assert verify(regions.vault(regions.there, "standby")).ok
    assert regions.standing() == done.standing


def test_junk_laid_beneath_a_file_of_the_log_is_not_what_goes_over(regions: Regions, tmp_path: Path) -> None:
    """Put before the log came to the name, and hidden again: the log is whole here, in the copy and in a bundle."""
    lock = Lock("GOVERNANCE", regions.clock.now + 30 * DAY)
    junk = [f"casino/log/tile/{kind}/000.p/{size}" for kind in ("0", "entries") for size in range(1, 60)]
    for name in junk:
        regions.here.add(name, b"junk", lock)
    regions.clock.now += timedelta(seconds=2)
    for name in junk:
        regions.here.add(name, None)
    head = Sequencer(regions.vault(regions.here, "primary")).run().checkpoint
    assert head is not None
    regions.clock.now += timedelta(minutes=2)
    assert regions.pass_(COPY).standing.unproven_count == 0
    export_bundle(regions.vault(regions.here, "primary"), tmp_path, ("ledger",))
    for store in (regions.here, regions.there, BundleStore(tmp_path)):
        reader = LogReader.open(regions.vault(store, "standby"))
        assert reader is not None
        assert len(list(reader.leaves())) == head.size


def test_what_a_store_copied_is_proven_by_version_id(regions: Regions) -> None:
    """Nothing is put; each object is asked for by the id that it has here."""
    regions.mirror()
    before = {name: len(rows) for name, rows in regions.there.rows.items()}
    done, calls = asked(regions)
    assert done.standing.unproven_count == 0
    assert calls["head"] >= 2 * len(before)
    assert {name: len(rows) for name, rows in regions.there.rows.items()} == before


def test_what_lacks_is_named_and_ages(regions: Regions) -> None:
    """One that didn't come: named, and the lag is reckoned from its put; the proven position ends before it."""
    regions.mirror()
    lost = regions.some()
    del regions.there.rows[lost]
    regions.clock.now += timedelta(hours=1)
    found = regions.pass_().standing
    assert [(each.name, each.why) for each in found.unproven] == [(lost, "missing")]
    assert found.proven_at == regions.here.rows[lost][0].modified_at
    assert found.lag(regions.clock.now, "ledger") >= timedelta(hours=1)
    key = ObjectKey.parse(lost)
    assert key is not None
    assert found.proven_to("casino", "ledger", "7", 1, full=False) == key.first
    assert found.lag(regions.clock.now, "vault") < timedelta(minutes=1)


@pytest.mark.parametrize("why", ["differs", "short_lock", "unlocked", "rotten", "weak"])
def test_a_copy_that_is_not_as_good_is_not_proven(regions: Regions, why: str) -> None:
    """Other bytes, a shorter or weaker or no lock, and bytes that rotted beneath a right checksum."""
    regions.mirror()
    name = regions.some()
    (row,) = regions.there.rows[name]
    assert row.lock is not None
    if why == "differs":
        row.data, row.sha256 = b"x" * len(row.data or b""), "00" * 32
    elif why == "short_lock":
        row.lock = Lock(row.lock.mode, row.lock.retain_until - DAY)
    elif why == "unlocked":
        row.lock = None
    elif why == "weak":
        regions.here.rows[name][0].lock = Lock("COMPLIANCE", row.lock.retain_until)
    else:
        row.data = b"x" * len(row.data or b"")
        row.sha256 = None
    (found,) = regions.pass_().standing.unproven
    assert found.name == name
    assert found.why == {"weak": "short_lock"}.get(why, why)


def test_the_second_pass_asks_for_nothing_that_was_proven(regions: Regions) -> None:
    """However much lies there, only what came since is asked for; also by another process, from the fact alone."""
    regions.pass_(COPY)
    done, calls = asked(regions, COPY)
    assert done.standing.unproven_count == 0
    assert calls["head"] < 8  # its own fact's predecessor, and the key of dataset `vault`
    regions.live(3)
    regions.pass_(COPY)
    regions.live(3)
    done, calls = asked(regions, Options(copy=True, full=False))
    assert done.tally.copied >= 3
    assert done.tally.listed < 20
    assert done.standing.proven_to("casino", "ledger", "7", 1, full=False) == regions.wal.position
    assert verify(regions.vault(regions.there, "standby")).ok


def test_a_million_names_are_not_asked_for_again(regions: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small: stretches of eight; a change in one has that one proven anew, and none of the others."""
    monkeypatch.setattr("dr_assets.vault.replication.remembered.FULL_COUNT", 8)
    regions.live(70)
    regions.pass_(COPY)
    (place,) = (place for prefix, place in regions.standing().places.items() if "/wal/" in prefix)
    assert [stretch.count for stretch in place.stretches] == [8] * 10
    del regions.there.rows[regions.some()]
    done, calls = asked(regions)
    assert [each.why for each in done.standing.unproven] == ["missing"]
    assert calls["head"] <= 2 * (8 + 8)


def test_what_vanishes_there_is_noticed_at_once(regions: Regions) -> None:
    """A copy that was proven and is gone, or is hidden under rubbish alone, shows in the next pass and is healed."""
    regions.pass_(COPY)
    gone = regions.some()
    kept = regions.there.rows.pop(gone)
    assert [each.name for each in regions.pass_().standing.unproven] == [gone]
    assert regions.pass_(COPY).standing.unproven_count == 0
    assert regions.there.rows[gone][0].data == kept[0].data


def test_overlays_there_hide_nothing(regions: Regions) -> None:
    """A delete marker or other bytes on top: the sealed version beneath is what is proven."""
    regions.pass_(COPY)
    regions.there.add(regions.some(), b"rubbish")
    regions.there.add(sorted(regions.there.rows)[3], None)
    assert regions.pass_().standing.unproven_count == 0


def test_extended_locks_are_followed_before_the_copys_end(regions: Regions) -> None:
    """A lock that grew here is longer there, too, days before the shorter one would have ended."""
    regions.pass_(COPY)
    name = regions.some()
    (row,) = regions.here.rows[name]
    assert row.lock is not None
    row.lock = Lock(row.lock.mode, row.lock.retain_until + 30 * DAY)
    for _ in range(12):
        regions.clock.now += DAY
        done = regions.pass_(COPY)
    assert done.standing.unproven_count == 0
    (copied,) = regions.there.rows[name]
    assert copied.lock == row.lock


def test_a_hold_is_followed_at_the_next_pass(regions: Regions) -> None:
    """Placed here, on record: placed there; one that is released here stays there."""
    regions.pass_(COPY)
    name = regions.some()
    source = regions.vault(regions.here, "primary")
    (row,), (copied,) = regions.here.rows[name], regions.there.rows[name]
    for held in (True, False):
        source.store.set_hold(name, row.version_id, held=held)
        record_fact(source, "ledger", "legal_hold", {"event": "placed" if held else "released"})
        regions.clock.now += timedelta(minutes=2)
        assert regions.pass_(Options(copy=True, full=False)).standing.unproven_count == 0
        head = regions.there.head(name, copied.version_id)
        assert head is not None
        assert head.held


def test_what_is_not_authentic_is_never_copied(regions: Regions) -> None:
    """Strangers' names, rubbish under a fitting name, overlays: none of it comes over; damage here is named."""
    regions.pass_(COPY)
    regions.live(3)
    names = sorted(name for name in regions.here.rows if "/wal/" in name)
    regions.here.add("casino/ledger/readme", b"hello")
    regions.here.add(names[-1][:-4] + "beef", b"a stranger's")
    regions.here.add(names[-2], b"overlay")
    (damaged,) = regions.here.rows[names[-3]]
    damaged.data = b"x" + (damaged.data or b"")[1:]
    regions.clock.now += timedelta(minutes=2)
    found = regions.pass_(COPY)
    assert [(each.name, each.why) for each in found.standing.unproven] == [(names[-3], "tampered")]
    assert found.tally.strangers == 1
    assert b"overlay" not in {row.data for row in regions.there.rows[names[-2]]}
    assert {name for name in regions.there.rows if "beef" in name or "readme" in name} == set()
    assert names[-3] not in regions.there.rows


def test_rubbish_that_has_the_name_there_is_told_and_not_overwritten(regions: Regions) -> None:
    """Whoever took the name first keeps it until somebody looks; then the object comes."""
    name = regions.some()
    regions.there.add(name, b"rubbish")
    (found,) = regions.pass_(COPY).standing.unproven
    assert (found.name, found.why) == (name, "differs")
    assert "key_conflict" in found.detail
    regions.there.add(name, None)
    assert regions.pass_(COPY).standing.unproven_count == 0


def test_a_lock_of_centuries_stays_in_one_region(regions: Regions) -> None:
    """Beyond the cap nothing is locked, and what is cut to it counts as proven."""
    name = regions.some()
    (row,) = regions.here.rows[name]
    row.lock = Lock("COMPLIANCE", regions.clock.now + 100 * LOCK_CAP)
    for _ in range(2):
        assert regions.pass_(COPY).standing.unproven_count == 0
        lock = regions.there.rows[name][0].lock
        assert lock is not None
        assert lock.retain_until <= regions.clock.now + LOCK_CAP
        regions.clock.now += DAY


def test_samples_are_read_to_the_byte(regions: Regions) -> None:
    """Rot beneath a right checksum and an unchanged listing is found by and by, stays red, and is not papered over."""
    regions.pass_(COPY)
    for rows in regions.there.rows.values():
        for row in rows:
            row.data = b"x" + (row.data or b"")[1:]
    found = regions.pass_(Options(copy=True, samples=10**6))
    assert found.tally.sampled > 0
    assert "rotten" in {each.why for each in found.standing.unproven}
    again = regions.pass_(Options(copy=True, samples=0))
    assert {each.name for each in again.standing.unproven} == {each.name for each in found.standing.unproven}


def test_a_kill_in_a_long_pass_costs_what_was_not_on_record(regions: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way the state is put on record; a pass that was cut off is not taken for a whole one."""
    monkeypatch.setattr(run, "RECORD_EVERY", timedelta(0))
    regions.live(60)

    class KilledError(BaseException):
        """No more."""

    def kill(tally: run.Tally) -> None:
        if tally.asked > 40:
            raise KilledError

    source, replica = regions.vault(regions.here, "primary"), regions.vault(regions.there, "standby")
    with pytest.raises(KilledError):
        replicate(source, replica, ("ledger",), COPY, listener=kill)
    told = regions.standing()
    assert told.full_at is None
    assert told.lag(regions.clock.now) > 365 * DAY
    monkeypatch.setattr(run, "RECORD_EVERY", timedelta(minutes=10))
    done = regions.pass_(COPY)
    assert done.tally.asked < 60
    assert done.standing.unproven_count == 0
    assert done.standing.full_at is not None


def test_the_logs_own_files_come_over(regions: Regions) -> None:
    """They have no digest in their names: equal bytes on both sides are the proof; checkpoints come last."""
    lock = Lock("GOVERNANCE", regions.clock.now + 30 * DAY)
    for name in (
        "checkpoint/" + "0" * 19 + "1",
        "tile/0/000",
        "tile/0/000.p/1",
        "tile/entries/x001/000",
        "tile/0/x001/000",
    ):
        regions.here.add(f"casino/log/{name}", name.encode(), lock)
    regions.clock.now += timedelta(minutes=2)
    done = regions.pass_(COPY)
    assert done.standing.datasets["log"].unproven == 0
    assert {name for name in regions.there.rows if "/log/" in name} == {
        name for name in regions.here.rows if "/log/" in name
    }
    regions.there.rows["casino/log/tile/0/000"][0].data = b"tile/0/00x"
    regions.there.rows["casino/log/tile/0/000"][0].sha256 = "11" * 32
    assert regions.pass_(Options(samples=0)).standing.unproven_count == 0  # the listing is what it was
    regions.clock.now += 8 * DAY
    found = regions.pass_().standing.unproven
    assert ("casino/log/tile/0/000", "differs") in {(each.name, each.why) for each in found}


def test_keys_come_first_and_words_about_the_rest_last(regions: Regions) -> None:
    """A copy that is cut short holds what opens it, and claims nothing that it lacks."""
    record_inventory(regions.vault(regions.here, "primary"), "ledger")
    regions.here.add("casino/log/checkpoint/" + "0" * 20, b"note", Lock("GOVERNANCE", regions.clock.now + DAY))
    part = ObjectKey("casino", "ledger", "base-b1", "7", 1, 0, 1, hashlib.sha256(b"part").hexdigest()[:32])
    regions.here.add(str(part), b"part", Lock("GOVERNANCE", regions.clock.now + DAY))
    regions.clock.now += timedelta(minutes=2)
    there: Any = FaultyStore(regions.there)
    source, replica = regions.vault(regions.here, "primary"), regions.vault(there, "standby")
    replicate(source, replica, ("ledger",), Options(copy=True, workers=1))
    order = list(dict.fromkeys(call.stream for call in there.calls if call.method == "put"))
    assert order == ["keys", "base-*", "wal", "facts-capture", "facts-inventory", "checkpoint"]


def test_what_was_put_just_now_may_gain_a_predecessor(regions: Regions) -> None:
    """Puts run in parallel: a name that comes before one that was proven is not passed over for ever."""
    regions.wal.put(1)
    regions.clock.now += timedelta(seconds=10)
    names = sorted(name for name in regions.here.rows if "/wal/" in name)
    late = {name: regions.here.rows.pop(name) for name in names[-2:-1]}
    regions.pass_(COPY)
    regions.here.rows |= late
    regions.clock.now += timedelta(seconds=10)
    assert regions.pass_(Options(copy=True, full=False)).tally.copied >= 1
    assert set(late) <= set(regions.there.rows)


def test_a_pass_in_the_same_process_remembers_what_is_not_settled(regions: Regions) -> None:
    """What was put just now is brought at once, and not asked for again every few seconds."""
    before = regions.pass_(COPY)
    regions.wal.put(5)
    regions.clock.now += timedelta(seconds=2)
    before = regions.pass_(Options(copy=True, full=False), before)
    assert before.tally.copied >= 5
    regions.clock.now += timedelta(seconds=2)
    done, calls = asked(regions, Options(copy=True, full=False), before)
    assert done.standing.unproven_count == 0
    assert calls["put"] <= 1  # the fact of the pass before
    assert calls["head"] < 8


def test_inventories_in_the_copy_count_right(regions: Regions) -> None:
    """A pass takes what the source held at one moment, so that no count in the copy speaks of what is not there."""
    record_inventory(regions.vault(regions.here, "primary"), "ledger")
    regions.clock.now += timedelta(minutes=2)
    regions.pass_(COPY)
    report = verify(regions.vault(regions.there, "standby"))
    assert not report.findings, report.findings
