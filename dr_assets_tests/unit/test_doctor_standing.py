"""What doctor says of bucket, wrappings, copies, log, witnesses and verifications: each can be green, and turn."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from dr_assets.cli.doctor import standing
from dr_assets.cli.doctor.line import Line
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import Estate
from dr_assets.vault.log.names import checkpoint_name, log_prefix
from dr_assets.vault.log.sequencer import Sequencer
from dr_assets.vault.storage.bucket_settings import BucketSettings
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import verify
from dr_assets.vault.verify.levels import depth_of
from dr_assets.vault.verify.record import record_verification
from dr_assets_tests.faults.vault.sample import Sample, StillClock, build_sample

SAFE = BucketSettings("Enabled", object_lock=True, default_lock="COMPLIANCE 14 d")
Told = dict[str, tuple[str, str]]


class Set(MemoryStore):
    """A bucket with settings."""

    settings = SAFE

    def bucket_settings(self) -> BucketSettings:
        """As the test has it."""
        return self.settings


@pytest.fixture
def estate() -> Estate:
    """The packaged one: its ledger has the sample's name."""
    return load_estate(default_defs_dir()).only("ledger")


@pytest.fixture
def sample() -> Sample:
    """Undamaged, a minute old."""
    clock = StillClock()
    made = build_sample(5, store=Set(clock), clock=clock)
    clock.at += timedelta(minutes=2)
    return made


def told(look: Callable[[Any], Iterator[Line]], sample: Sample, estate: Estate, **env: str) -> Told:
    """Verdict and text by check; whatever isn't fine has a hint."""
    patient = SimpleNamespace(
        estate=estate, dataset=estate.datasets["ledger"], env=env, vault=lambda _=None: sample.vault
    )
    lines = list(look(patient))
    assert all(line.hint for line in lines if line.verdict != "ok")
    return {line.check: (line.verdict, line.found) for line in lines}


def later(sample: Sample, **span: float) -> None:
    """Turn its clock."""
    clock = sample.vault.clock
    assert isinstance(clock, StillClock)
    clock.at += timedelta(**span)


def test_a_vault_in_clear_is_told(sample: Sample, estate: Estate) -> None:
    """TLS is fine, http a warning; what isn't set is told elsewhere."""
    env = {"DR_VAULT_PRIMARY_ENDPOINT": "HTTP://127.0.0.1:1", "DR_VAULT_STANDBY_ENDPOINT": "https://s3.example.com"}
    said = told(standing.transit, sample, estate, **env)
    assert {check: verdict for check, (verdict, _) in said.items()} == {
        "transit primary": "warn", "transit standby": "ok",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        (SAFE, "ok"),
        (replace(SAFE, versioning="Suspended"), "bad"),
        (replace(SAFE, object_lock=False), "bad"),
        (replace(SAFE, default_lock=""), "warn"),
        (replace(SAFE, expiring=("tidy",)), "warn"),
        (replace(SAFE, policy_sha256="ab"), "warn"),
        (replace(SAFE, unread=("lifecycle",)), "warn"),
    ],
)
def test_the_buckets_settings_are_told(sample: Sample, estate: Estate, settings: BucketSettings, verdict: str) -> None:
    """As after `vault init`, or what is otherwise."""
    store = sample.vault.store
    assert isinstance(store, Set)
    store.settings = settings
    patient: Any = SimpleNamespace(dataset=estate.datasets["ledger"])
    look = standing.buckets(patient)["bucket primary"]
    assert told(look, sample, estate)["bucket primary"][0] == verdict


def test_a_wrapping_that_lacks_is_bad(sample: Sample, estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data key by every provider that is declared."""
    assert told(standing.wrappings, sample, estate)["wrappings"][0] == "ok"
    two = SimpleNamespace(of_dataset=lambda _: (SimpleNamespace(name="memory"), SimpleNamespace(name="hsm")))
    monkeypatch.setattr(sample.vault.keys, "providers", two)
    verdict, found = told(standing.wrappings, sample, estate)["wrappings"]
    assert verdict == "bad"
    assert "by hsm" in found


def test_a_copy_that_nobody_proves_is_told(sample: Sample, estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning before the first pass; then by what the newest one left unproven, and how long ago it was."""
    assert told(standing.replication, sample, estate)["replication standby"][0] == "warn"
    for lag, unproven, verdict in ((1, 0, "ok"), (1, 3, "warn"), (99, 0, "bad")):
        newest = SimpleNamespace(lag=lambda *_, minutes=lag: timedelta(minutes=minutes), unproven_count=unproven)
        monkeypatch.setattr(standing, "standing", lambda *_, newest=newest: newest)
        assert told(standing.replication, sample, estate)["replication standby"][0] == verdict


def test_the_logs_age_and_trouble_are_told(sample: Sample, estate: Estate) -> None:
    """None yet, up to date, late, and one that can't be believed."""
    assert told(standing.log, sample, estate)["log"][0] == "warn"
    Sequencer(sample.vault).run()
    assert told(standing.log, sample, estate)["log"][0] == "ok"
    record_verification(sample.vault, verify(sample.vault))
    later(sample, minutes=30)
    verdict, found = told(standing.log, sample, estate)["log"]
    assert (verdict, "30m" in found) == ("bad", True)
    store = sample.vault.store
    assert isinstance(store, Set)
    for name in [name for name in store.rows if name.startswith(f"{log_prefix('casino')}tile/0/")]:
        store.rows[name][0].data = b""
    assert told(standing.log, sample, estate)["log"][0] == "bad"
    assert checkpoint_name("casino", 1).startswith(log_prefix("casino"))


def test_a_log_without_witnesses_is_a_warning(sample: Sample, estate: Estate) -> None:
    """Nobody else remembers what it said."""
    assert told(standing.witness, sample, estate)["witness"][0] == "warn"


def test_verifications_are_told_by_level(sample: Sample, estate: Estate) -> None:
    """None, in order, overdue, damaged."""
    assert {verdict for verdict, _ in told(standing.verification, sample, estate).values()} == {"warn"}
    for level in ("index", "sample", "full"):
        record_verification(sample.vault, verify(sample.vault, depth=depth_of(level)))
        later(sample, minutes=1)
    assert {verdict for verdict, _ in told(standing.verification, sample, estate).values()} == {"ok"}
    later(sample, days=3)
    said = {check: verdict for check, (verdict, _) in told(standing.verification, sample, estate).items()}
    assert said == {"verified index": "bad", "verified sample": "bad", "verified full": "ok"}
    store = sample.vault.store
    assert isinstance(store, Set)
    del store.rows[next(name for name in sample.sealed if "/wal/" in name)]
    record_verification(sample.vault, verify(sample.vault))
    verdict, found = told(standing.verification, sample, estate)["verified full"]
    assert verdict == "bad"
    assert "hole" in found or "missing" in found
