"""What the transparency log vouches for can't vanish without a verification that says so."""

from datetime import timedelta

import pytest

from dr_assets.vault.facts import record_fact
from dr_assets.vault.log.names import log_prefix
from dr_assets.vault.log.sequencer import Sequencer
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import Depth, verify
from dr_assets_tests.faults.vault.sample import DATASET, Sample, StillClock, build_sample


@pytest.fixture
def sample() -> Sample:
    """Undamaged, and in the log."""
    clock = StillClock()
    made = build_sample(3, clock=clock)
    clock.at += timedelta(minutes=2)
    Sequencer(made.vault).run()
    clock.at += timedelta(seconds=5)
    return made


def memory_of(sample: Sample) -> MemoryStore:
    """Its store."""
    assert isinstance(sample.vault.store, MemoryStore)
    return sample.vault.store


@pytest.mark.parametrize("level", ["index", "full"])
def test_what_the_log_vouches_for_and_nothing_else_names_is_missed(sample: Sample, level: str) -> None:
    """Every single object may vanish: each is `missing` by the log's word, whoever else would have noticed."""
    depth = Depth(level)  # type: ignore[arg-type]  # parametrized
    assert verify(sample.vault, depth=depth).findings == ()
    store = memory_of(sample)
    for name in sample.sealed:
        rows = store.rows.pop(name)
        told = {(found.kind, found.key) for found in verify(sample.vault, depth=depth).errors if "log" in found.detail}
        store.rows[name] = rows
        assert "/keys/" in name or ("missing", name) in told


@pytest.mark.parametrize("after", [1, 5, 9])
def test_what_is_put_and_logged_meanwhile_is_not_missed(sample: Sample, after: int) -> None:
    """A verification takes hours, a capture goes on: places that were listed already have what facts and log tell."""
    clock = sample.vault.clock
    assert isinstance(clock, StillClock)

    def progress(*counts: int) -> None:
        if counts[0] == after:
            clock.at += timedelta(minutes=5)
            put = record_fact(sample.vault, DATASET, "aaa", {})
            record_fact(sample.vault, DATASET, "zzz", {"claims": str(put.key)})
            Sequencer(sample.vault).run()

    report = verify(sample.vault, progress=progress)
    assert (report.findings, report.objects_total > after) == ((), True)
    assert verify(sample.vault).objects_total > report.objects_total


def test_what_may_have_left_at_the_end_of_its_lock_is_not_missed(sample: Sample) -> None:
    """Its rule is over, so the log's word is no reason for alarm any more."""
    clock = sample.vault.clock
    assert isinstance(clock, StillClock)
    name = next(name for name in sample.sealed if "/facts-drill/" in name)
    del memory_of(sample).rows[name]
    clock.at += timedelta(days=400)
    assert ("missing", name) not in {(found.kind, found.key) for found in verify(sample.vault).errors}


def test_only_the_dataset_that_was_asked_for_is_missed(sample: Sample) -> None:
    """And as of a moment only what was in the log then."""
    store = memory_of(sample)
    before = sample.vault.clock()
    clock = sample.vault.clock
    assert isinstance(clock, StillClock)
    clock.at += timedelta(minutes=2)
    receipt = record_fact(sample.vault, DATASET, "drill", {"number": 99})
    clock.at += timedelta(minutes=2)
    Sequencer(sample.vault).run()
    del store.rows[str(receipt.key)]
    assert ("missing", str(receipt.key)) in {(found.kind, found.key) for found in verify(sample.vault).errors}
    assert verify(sample.vault, "other").ok
    assert verify(sample.vault, as_of=before).ok


def test_a_log_that_can_not_be_read_is_told_and_hides_nothing_else(sample: Sample) -> None:
    """A batch that is gone is `missing`; the rest of the verification goes on."""
    store = memory_of(sample)
    gone = [name for name in store.rows if name.startswith(f"{log_prefix('casino')}batch/")]
    for name in gone:
        del store.rows[name]
    report = verify(sample.vault)
    assert [found.kind for found in report.errors if found.key.startswith("casino/log/")]
    assert report.objects_total == len(sample.sealed)
