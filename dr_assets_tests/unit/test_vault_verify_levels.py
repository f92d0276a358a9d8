"""How deep a verification looks, and that one that was killed goes on without skipping anything."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.storage.bucket_settings import BucketSettings
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import Depth, verify
from dr_assets.vault.verify.levels import depth_of, is_bulk
from dr_assets.vault.verify.pool import HELD_BYTES, in_order
from dr_assets_tests.faults.vault.sample import Sample, StillClock, build_sample, put

INDEX, SAMPLE = Depth("index"), Depth("sample", share=0.5, seed="monday")


class Watched(MemoryStore):
    """Takes down whose bytes are read, and can be killed at the n-th."""

    def __init__(self, clock: Callable[[], Any] | None = None) -> None:
        super().__init__(clock)
        self.read: list[str] = []
        self.dies_at: int | None = None

    def get(self, key: str, version_id: str | None = None, *, limit_bytes: int | None = None) -> Any:
        """As the store's."""
        if self.dies_at is not None and len(self.read) >= self.dies_at:
            raise KeyboardInterrupt
        self.read.append(key)
        return super().get(key, version_id, limit_bytes=limit_bytes)


@pytest.fixture
def sample() -> Sample:
    """Undamaged, in a store that knows what was read of it; a wall clock that stands still."""
    clock = StillClock()
    made = build_sample(11, store=Watched(clock), clock=clock)
    clock.at += timedelta(seconds=10)
    return made


def watched(vault: Vault) -> Watched:
    """Its store."""
    assert isinstance(vault.store, Watched)
    return vault.store


def bulk_of(sample: Sample) -> list[str]:
    """Names of WAL and parts."""
    return [name for name in sample.sealed if (key := ObjectKey.parse(name)) is not None and is_bulk(key)]


def damage(sample: Sample, name: str) -> None:
    """Change a byte on the disk: the store's checksum is still that of what was put."""
    (row,) = watched(sample.vault).rows[name]
    assert row.data is not None
    row.data = row.data[:200] + bytes([row.data[200] ^ 1]) + row.data[201:]


def test_the_index_asks_for_heads_and_reads_only_what_speaks_of_others(sample: Sample) -> None:
    """WAL and parts are not read; everything is counted and found in order."""
    watched(sample.vault).read.clear()
    report = verify(sample.vault, depth=INDEX, witness=sample.witness)
    assert report.findings == ()
    assert report.objects_total == report.objects_locked == len(sample.sealed)
    assert report.level == "index"
    assert not set(watched(sample.vault).read) & set(bulk_of(sample))
    assert 0 < report.read_bytes < report.size_bytes == sum(map(len, sample.sealed.values()))


def test_the_index_finds_what_names_heads_and_locks_tell(sample: Sample) -> None:
    """A lost piece is a hole, a lost part is missing, a lock that lacks is told, other bytes than those put, too."""
    store = watched(sample.vault)
    wal = sorted(name for name in bulk_of(sample) if "/wal/" in name)
    parts = sorted(set(bulk_of(sample)) - set(wal))
    del store.rows[wal[1]], store.rows[parts[0]]
    store.rows[wal[2]][0].lock = None
    (row,) = store.rows.pop(parts[1])
    store.add(parts[1], (row.data or b"")[:-1], row.lock)
    told = {(finding.kind, finding.key) for finding in verify(sample.vault, depth=INDEX).errors}
    assert {("hole", wal[1][:-33]), ("missing", parts[0]), ("unlocked", wal[2]), ("cut", parts[1])} <= told


def test_a_sample_reads_its_share_and_another_seed_reads_others(sample: Sample) -> None:
    """What is damaged is found by those seeds that pick it, and all seeds together pick everything."""
    target = bulk_of(sample)[0]
    damage(sample, target)
    key = ObjectKey.parse(target)
    assert key is not None
    picked: set[str] = set()
    for number in range(40):
        depth = Depth("sample", share=0.4, seed=str(number))
        watched(sample.vault).read.clear()
        report = verify(sample.vault, depth=depth)
        taken = set(watched(sample.vault).read) & set(bulk_of(sample))
        assert taken == {name for name in bulk_of(sample) if depth.reads(ObjectKey.parse(name) or key)}
        assert report.ok is not depth.reads(key)
        picked |= taken
    assert picked == set(bulk_of(sample))
    assert verify(sample.vault, depth=INDEX).ok
    assert not verify(sample.vault).ok


def test_a_level_or_share_that_makes_no_sense_is_refused() -> None:
    """With a code and a hint."""
    for wrong, code in (
        ({"level": "deep"}, "unknown_level"),
        ({"share": 0}, "bad_share"),
        ({"share": 1.5}, "bad_share"),
    ):
        with pytest.raises(PolicyError) as caught:
            Depth(**wrong)
        assert caught.value.code == f"verify.{code}"


@pytest.mark.parametrize("dies_at", [5, 9, 13, 17])
def test_a_killed_verification_goes_on_where_it_was(sample: Sample, tmp_path: Path, dies_at: int) -> None:
    """What was judged isn't read again, what wasn't is; the report says the same as that of one never killed."""
    state, store = tmp_path / "verify.state", watched(sample.vault)
    whole = verify(sample.vault, witness=sample.witness)
    total = len(store.read)
    store.read.clear()
    store.dies_at = min(dies_at, total - 2)
    with pytest.raises(KeyboardInterrupt):
        verify(sample.vault, state=state, workers=1)
    assert state.exists()
    first, store.dies_at = list(store.read), None
    store.read.clear()
    again = verify(sample.vault, state=state, witness=sample.witness)
    assert (again.findings, again.objects_total, again.size_bytes) == ((), whole.objects_total, whole.size_bytes)
    assert 0 < again.recalled_total <= len(first)
    assert again.recalled_total + len(set(store.read) & set(sample.sealed)) >= len(sample.sealed)
    assert set(first) | set(store.read) >= set(sample.sealed)
    assert len(store.read) < total
    assert not state.exists(), "the next verification must begin anew"


def test_what_changed_since_it_was_judged_is_judged_again(sample: Sample, tmp_path: Path) -> None:
    """Another version, a lock that is over by now, a line that is a week old, a line that somebody altered."""
    state, store = tmp_path / "verify.state", watched(sample.vault)
    store.dies_at = len(store.read) + 12
    with pytest.raises(KeyboardInterrupt):
        verify(sample.vault, state=state, workers=1)
    store.dies_at = None
    kept = state.read_bytes()
    target = next(name for name in sample.sealed if name.encode() in kept)
    store.add(target, b"on top")
    report = verify(sample.vault, state=state)
    assert [finding.kind for finding in report.findings if finding.key == target] == ["overlay"]
    clock = sample.vault.clock
    assert isinstance(clock, StillClock)
    for age, recalled in ((timedelta(days=6), True), (timedelta(days=8), False)):
        state.write_bytes(kept)
        clock.at += age
        assert bool(verify(sample.vault, state=state).recalled_total) is recalled
        clock.at -= age
    state.write_bytes(kept.replace(b'"size_bytes":', b'"size_bytes":1'))
    assert verify(sample.vault, state=state).recalled_total == 0


def test_a_full_verification_goes_on_the_day_after(sample: Sample, tmp_path: Path) -> None:
    """The seed is the day's, and chooses nothing where all is read: what was killed at midnight is not begun anew."""
    state, store = tmp_path / "verify.state", watched(sample.vault)
    store.dies_at = len(store.read) + 12
    with pytest.raises(KeyboardInterrupt):
        verify(sample.vault, depth=depth_of("full", seed="2026-11-21"), state=state, workers=1)
    store.dies_at = None
    report = verify(sample.vault, depth=depth_of("full", share=0.5, seed="2026-11-22"), state=state)
    assert report.recalled_total > 0
    assert not report.findings


def test_damage_is_never_written_down_as_judged(sample: Sample, tmp_path: Path) -> None:
    """What had a finding before the kill has it after it too."""
    target = min(bulk_of(sample))
    damage(sample, target)
    state, store = tmp_path / "verify.state", watched(sample.vault)
    store.dies_at = len(store.read) + 14
    with pytest.raises(KeyboardInterrupt):
        verify(sample.vault, state=state, workers=1)
    store.dies_at = None
    assert target.encode() not in state.read_bytes()
    assert [finding.key for finding in verify(sample.vault, state=state).errors if finding.kind == "flipped"] == [
        target
    ]


def test_a_torn_line_is_no_line(sample: Sample, tmp_path: Path) -> None:
    """A kill in the middle of a write, at any byte: no error, and nothing on half a line is taken as judged."""
    state, store = tmp_path / "verify.state", watched(sample.vault)
    store.dies_at = len(store.read) + 8
    with pytest.raises(KeyboardInterrupt):
        verify(sample.vault, state=state, workers=1)
    store.dies_at, kept = None, state.read_bytes()
    for cut in range(len(kept) - 400, len(kept), 37):
        state.write_bytes(kept[:cut])
        assert verify(sample.vault, state=state).findings == ()


def test_another_verifications_state_is_refused(sample: Sample, tmp_path: Path) -> None:
    """Another level, another moment, another vault, or no state at all: told, not mixed up."""
    state, store = tmp_path / "verify.state", watched(sample.vault)
    store.dies_at = len(store.read) + 5
    with pytest.raises(KeyboardInterrupt):
        verify(sample.vault, state=state)
    store.dies_at = None
    attempts: list[Callable[[], object]] = [
        lambda: verify(sample.vault, depth=INDEX, state=state),
        lambda: verify(sample.vault, "ledger", state=state),
        lambda: verify(sample.vault, as_of=sample.vault.clock(), state=state),
        lambda: verify(throwaway_vault(estate="other"), state=state),
    ]
    for attempt in attempts:
        with pytest.raises(PolicyError) as caught:
            attempt()
        assert caught.value.code == "verify.other_state"
    state.write_bytes(b"something else\n")
    with pytest.raises(PolicyError) as caught:
        verify(sample.vault, state=state)
    assert caught.value.code == "verify.bad_state"


def test_what_is_held_at_once_is_bounded() -> None:
    """However many threads, and however large the objects; and the order is kept."""
    held: list[int] = []
    now = 0

    def tell(size: int) -> int:
        nonlocal now
        now += size
        held.append(now)
        now -= size
        return size

    asked = [HELD_BYTES // 3, 5, HELD_BYTES * 2, HELD_BYTES // 2, HELD_BYTES // 2, 7] * 20
    assert [told for _, told in in_order(asked, tell, lambda size: size, 8)] == asked
    assert max(held) <= 2 * HELD_BYTES, "one that is larger than all that may be held runs by itself"


class Unset(MemoryStore):
    """A bucket that somebody changed."""

    settings = BucketSettings("Enabled", object_lock=True, default_lock="COMPLIANCE 14 d")

    def bucket_settings(self) -> BucketSettings:
        """As the test has it."""
        return self.settings


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (BucketSettings("Suspended", object_lock=True, default_lock="COMPLIANCE 14 d"), {"bucket_open"}),
        (BucketSettings("Enabled", object_lock=False, default_lock="COMPLIANCE 14 d"), {"bucket_open"}),
        (BucketSettings("Enabled", object_lock=True), {"bucket_changed"}),
        (BucketSettings("Enabled", object_lock=True, default_lock="x", expiring=("all",)), {"bucket_changed"}),
        (BucketSettings("Enabled", object_lock=True, default_lock="x", policy_sha256="ab"), {"bucket_changed"}),
        (BucketSettings(unread=("versioning", "object lock", "lifecycle")), set()),
    ],
)
def test_settings_of_the_bucket_are_judged(settings: BucketSettings, told: set[str]) -> None:
    """Versioning or Object Lock off is an error, all else a notice; what may not be read is not guessed."""
    clock = StillClock()
    store = Unset(clock)
    store.settings = settings
    vault = throwaway_vault(store=store, clock=clock)
    put(vault, "wal", "wal", 0, 5, b"money")
    assert {finding.kind for finding in verify(vault, depth=INDEX).findings} == told
    before = BucketSettings("Enabled", object_lock=True, default_lock="COMPLIANCE 30 d", unread=settings.unread)
    changed = verify(vault, depth=INDEX, settings_before=before)
    assert {finding.kind for finding in changed.findings} >= told
    assert changed.settings == settings
