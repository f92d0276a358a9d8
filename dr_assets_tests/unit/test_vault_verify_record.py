"""A verification on record, and how one tells how far it is."""

from datetime import timedelta

import pytest

from dr_assets.cli import verifying
from dr_assets.vault.storage.bucket_settings import BucketSettings
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import Depth, verify
from dr_assets.vault.verify.record import latest_verifications, record_verification, settings_before
from dr_assets_tests.faults.vault.sample import Sample, StillClock, build_sample


class Set(MemoryStore):
    """A bucket with settings."""

    settings = BucketSettings("Enabled", object_lock=True, default_lock="COMPLIANCE 14 d", unread=("policy",))

    def bucket_settings(self) -> BucketSettings:
        """As the test has it."""
        return self.settings


@pytest.fixture
def sample() -> Sample:
    """Undamaged."""
    clock = StillClock()
    return build_sample(7, store=Set(clock), clock=clock)


def test_a_verification_is_recorded_and_found_by_its_level(sample: Sample) -> None:
    """The newest of each level, of the whole estate; what it counted; the next verification finds it in order."""
    clock = sample.vault.clock
    assert isinstance(clock, StillClock)
    begin = clock()
    for depth, dataset in (
        (Depth("index"), None),
        (Depth(), "ledger"),
        (Depth("sample"), None),
        (Depth("index"), None),
    ):
        clock.at += timedelta(minutes=1)
        record_verification(sample.vault, verify(sample.vault, dataset, depth=depth), dataset)
    found = latest_verifications(sample.vault, begin)
    assert set(found) == {"index", "sample"}
    assert found["index"].ok
    assert found["index"].at > found["sample"].at
    assert found["index"].objects_total == len(sample.sealed) + 3 + 1, "those facts, and their dataset's data key"
    assert found["index"].settings == Set.settings
    assert verify(sample.vault).findings == ()
    assert latest_verifications(sample.vault, clock() + timedelta(minutes=1)) == {}


def test_damage_is_counted_by_kind_and_no_name_is_claimed(sample: Sample) -> None:
    """What was found missing or laid there is not claimed anew by the record itself."""
    store = sample.vault.store
    assert isinstance(store, Set)
    name = next(name for name in sample.sealed if "/wal/" in name)
    del store.rows[name]
    store.add("casino/junk", b"x")
    before = verify(sample.vault)
    record_verification(sample.vault, before)
    (recorded,) = latest_verifications(sample.vault, sample.vault.clock() - timedelta(days=1)).values()
    assert recorded.errors == {"hole": 1, "missing": 1} or set(recorded.errors) <= {"hole", "missing"}
    assert recorded.notices == {"foreign": 1}
    assert not recorded.ok
    assert {found.key for found in verify(sample.vault).findings} == {found.key for found in before.findings}


def test_settings_that_changed_since_the_last_record_are_told(sample: Sample) -> None:
    """A policy that everybody allowed is no news; another one is."""
    store = sample.vault.store
    assert isinstance(store, Set)
    assert settings_before(sample.vault) is None
    record_verification(sample.vault, verify(sample.vault))
    known = settings_before(sample.vault)
    assert known == Set.settings
    assert verify(sample.vault, settings_before=known).findings == ()
    store.settings = BucketSettings("Enabled", object_lock=True, default_lock="COMPLIANCE 1 d", replication_sha256="ab")
    told = [found.detail for found in verify(sample.vault, settings_before=known).findings]
    assert [word for word in ("default lock", "replication") if any(word in detail for detail in told)] != []
    assert len(told) == 2


def test_without_a_terminal_a_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many of how many, how much, how fast; on standard error alone."""
    monkeypatch.setattr(verifying, "LINE_EVERY_S", 0.0)
    with verifying.progress() as tell:
        tell(5, 10, 2_000_000)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("verify: 5 of 10 objects, 2 MB read, ")
    monkeypatch.setattr(verifying, "LINE_EVERY_S", 99.0)
    with verifying.progress() as tell:
        tell(5, 10, 2_000_000)
    assert capsys.readouterr().err == ""
