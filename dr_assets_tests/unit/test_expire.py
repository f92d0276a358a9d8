"""Expiry over simulated months: what the window needs stays, what it doesn't goes, and verify is green all along."""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.base_manifest import Archive, BaseManifest, Parent, Part
from dr_assets.stores.postgres.expire import Expiry, expire, plan_expiry
from dr_assets.stores.postgres.expiry_plan import FACT, LEFT_PART, MANIFEST, MICRO, OLD_FULL, OLD_LIST, PART
from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.recovery_window import BaseBackup, base_backups, is_usable
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.vault.expiry_list import EXPIRY, EXPIRY_LIST
from dr_assets.vault.facts import facts
from dr_assets.vault.format.keys import part_stream
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.full_segment import FULL, FULL_LIST, joins
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify import verify
from dr_assets.vault.witness import check_witness
from dr_assets_tests.unit.test_rollup import T0, Clock, Wal

DAY = timedelta(days=1)
EVERY = timedelta(hours=4)
BEGIN_AT = T0 + 50 * EVERY
SEGMENT = 400
SMALL = Limits(size_bytes=300, span=timedelta(days=30), micros=100)
WINDOW = 8  # days; locks are then 16, and a micro's 14
GROWN = 22
NOTHING = Archive("base.tar", None, None, 0, 0, 0)


@dataclass
class Life:
    """A dataset that is captured, rolled up, backed up daily and expired, day by day."""

    clock: Clock = field(default_factory=lambda: Clock(BEGIN_AT))
    bases: list[BaseManifest] = field(default_factory=list)
    provider: MemoryKeyProvider = field(default_factory=MemoryKeyProvider)
    signer: Signer = field(default_factory=Signer.generate)
    vault: Vault = field(init=False)
    wal: Wal = field(init=False)

    def __post_init__(self) -> None:
        self.open(MemoryStore(self.clock))
        self.wal = Wal(self.vault)

    def open(self, store: MemoryStore) -> None:
        """The vault over these objects, with the same keys."""
        rules = {"ledger": (ThrowawayRetention(days=WINDOW), DAY)}
        self.vault = throwaway_vault(
            store=store, clock=self.clock, rules=rules, provider=self.provider, signer=self.signer
        )

    def twin(self) -> "Life":
        """The same life up to now, independent from here on."""
        twin = Life(Clock(self.clock.now), list(self.bases), self.provider, self.signer)
        store = MemoryStore(twin.clock)
        copied = self.store.copy()
        store.rows, store._count = copied.rows, copied._count
        twin.open(store)
        twin.wal = replace(self.wal, vault=twin.vault, bytes_at=dict(self.wal.bytes_at))
        return twin

    @property
    def store(self) -> MemoryStore:
        """In memory."""
        assert isinstance(self.vault.store, MemoryStore)
        return self.vault.store

    def a_day(self, *, base: bool = True, parent: BaseManifest | None = None) -> None:
        """Six pieces of WAL, a base backup in the middle, a roll-up."""
        for half in range(2):
            for _ in range(3):
                self.wal.put(1, every=EVERY)
                self.clock.now += EVERY
            if base and half == 0:
                self.back_up(parent)
        self.wal.tell()
        roll_up(self.vault, "ledger", limits=SMALL)

    def back_up(self, parent: BaseManifest | None = None) -> BaseManifest:
        """Two parts and a manifest; it needs the last piece of WAL."""
        end = self.wal.position
        name = f"b{end:x}"
        parts = []
        for ordinal in range(2):
            prepared = self.vault.prepare(
                dataset="ledger", stream=part_stream(name), kind="part", system_id="7", timeline=1, first=ordinal,
                last=ordinal + 1, begin_at=self.clock.now, end_at=self.clock.now, plaintext=b"heap" * 10,
            )  # fmt: skip
            put = self.vault.put(prepared.seal(), self.vault.locks.lock("ledger", "part", self.clock.now))
            parts.append(Part(str(put.key), put.sha256, put.size_bytes))
        manifest = BaseManifest(
            dataset="ledger", snapshot_id=name, system_id="7", timeline=1, server_version=170010,
            start_lsn=end - 100, stop_lsn=end, begin_at=self.clock.now, end_at=self.clock.now, segment_bytes=SEGMENT,
            data_checksums=True, next_xid=1000, superuser="postgres", dbname="ledger", settings={}, policy={},
            history=None, archives=(replace(NOTHING, last_part=2),),
            backup_manifest=replace(NOTHING, name="backup_manifest", first_part=2, last_part=2),
            parts=tuple(parts), parent=None if parent is None else self.parent_of(parent),
        )  # fmt: skip
        prepared = self.vault.prepare(
            dataset="ledger", stream="base", kind="manifest", system_id="7", timeline=1, first=end - 100, last=end,
            begin_at=self.clock.now, end_at=self.clock.now, plaintext=manifest.encode(),
        )  # fmt: skip
        self.vault.put(prepared.seal(), self.vault.locks.lock("ledger", "manifest", self.clock.now))
        self.bases.append(manifest)
        return manifest

    def parent_of(self, manifest: BaseManifest) -> Parent:
        """As an incremental names it."""
        (key,) = [str(obj.key) for obj in self.vault.objects("ledger", "base") if obj.key.last == manifest.stop_lsn]
        return Parent(manifest.snapshot_id, key, manifest.full_snapshot_id, manifest.depth + 1)

    def expire(self, limit: int = 20_000) -> Expiry:
        """All that may go."""
        return expire(self.vault, "ledger", limit=limit)

    def count(self, stream: str) -> int:
        """Objects of one stream."""
        return sum(1 for _ in self.vault.objects("ledger", stream))

    def usable(self) -> list[BaseBackup]:
        """Base backups of which all is there."""
        found = base_backups(self.vault, "ledger")
        return [one for one in found if is_usable(self.vault, "ledger", one, found)]

    def require_window(self) -> None:
        """Every instant of the window can be restored to: a base backup before it, and its WAL to the end, whole."""
        begin = self.clock.now - timedelta(days=WINDOW)
        carriers = [one for one in self.usable() if one.end_at <= begin]
        assert carriers or self.bases[0].end_at > begin
        for one in carriers[-1:]:
            chain = stored_wal(self.vault, "ledger", "7", 1, one.wal_begin)
            assert (chain.segments[0].key.first <= one.wal_begin, chain.end) == (True, self.wal.position)
            opened = [self.vault.open(obj) for obj in chain.segments]
            assert all(joins(earlier.header, later.header) for earlier, later in pairwise(opened))
            data = b"".join(piece.plaintext for piece in opened)
            assert data == self.wal.expected(chain.segments[0].key.first, chain.end)

    def require_sound(self) -> None:
        """Nothing that verify would call damaged."""
        report = verify(self.vault)
        assert [finding for finding in report.findings if finding.kind != "lock_expired"] == []


@pytest.fixture(scope="module")
def grown() -> Life:
    """A life of three weeks; take a twin of it."""
    life = Life()
    for _ in range(GROWN):
        life.a_day()
    record_inventory(life.vault, "ledger", settled=timedelta())
    return life


def test_day_by_day_the_window_stays_and_the_rest_goes(grown: Life) -> None:
    """Daily base backups, WAL and roll-ups: expiry keeps every instant of the window and bounded numbers of objects."""
    life = grown.twin()
    for day in range(12):
        life.a_day()
        if day % 4 == 3:
            life.expire()
            life.require_window()
            life.require_sound()
    assert len(life.usable()) <= 16 + 2
    assert life.count("wal") <= 6 * (14 + 2)
    assert life.count(FULL) == life.count(FULL_LIST) <= 2 * (16 + 2)
    assert life.count("facts-capture") <= 16 + 2


def test_a_dry_run_names_everything_and_removes_nothing(grown: Life) -> None:
    """Why, in the order of the work; the store is as it was."""
    life = grown.twin()
    before = sorted(life.store.rows)
    plan = plan_expiry(life.vault, "ledger")
    assert sorted(life.store.rows) == before
    assert list(plan.by_stage()) == [MANIFEST, PART, MICRO, OLD_FULL, OLD_LIST, FACT]
    assert plan.locked > 0
    assert plan.next_at is not None
    assert plan.next_at > life.clock.now
    life.expire()
    gone = set(before) - set(life.store.rows)
    assert gone >= {str(row.key) for row in plan.rows}


def test_when_base_backups_stop_nothing_that_the_last_one_needs_runs_out(grown: Life) -> None:
    """However old it gets: the newest usable base backup stays, with all its WAL."""
    life = grown.twin()
    for _ in range(18):
        life.a_day(base=False)
    life.expire()
    assert [one.manifest and one.manifest.snapshot_id for one in life.usable()] == [life.bases[-1].snapshot_id]
    life.require_window()
    life.require_sound()


def test_what_is_kept_for_longer_stays_locked(grown: Life) -> None:
    """When base backups stop, the last one, its parts and the fulls behind it never lose their locks."""
    life = grown.twin()
    for _ in range(24):
        life.a_day(base=False)
    life.expire()
    names = [name for name in life.store.rows if "/base" in name or "/full/" in name]
    assert names
    for name in names:
        lock = life.store.rows[name][0].lock
        assert lock is not None
        assert lock.retain_until > life.clock.now + timedelta(days=6)


def test_a_full_stays_as_long_as_an_incremental_builds_on_it() -> None:
    """Of the chain of base backups that leads to a kept one, none goes."""
    life = Life()
    life.a_day()
    full = life.bases[0]
    for _ in range(10):
        life.a_day(base=False)
    for _ in range(3):
        life.a_day(parent=life.bases[-1])
    for _ in range(6):
        life.a_day()
    life.expire()
    assert full.snapshot_id in {one.manifest.snapshot_id for one in life.usable() if one.manifest}
    life.require_sound()


def test_an_unusable_base_backup_carries_nothing(grown: Life) -> None:
    """If the newest before the window lacks a part, the one before it is kept as well."""
    life = grown.twin()
    begin = life.clock.now - timedelta(days=WINDOW)
    before = [one for one in life.bases if one.end_at < begin]
    del life.store.rows[before[-1].parts[0].key]
    kept = {one.manifest.snapshot_id for one in plan_expiry(life.vault, "ledger").kept if one.manifest}
    assert before[-2].snapshot_id in kept
    assert before[-1].snapshot_id not in kept


def flip(life: Life, name: str) -> None:
    """Other bytes under the same name."""
    row = life.store.rows[name][0]
    assert row.data is not None
    row.data = row.data[:-150] + bytes(150)


def kept_ids(life: Life) -> list[str]:
    """Snapshot ids of the base backups that are there."""
    return [one.manifest.snapshot_id for one in base_backups(life.vault, "ledger") if one.manifest]


def test_no_base_backup_goes_on_the_strength_of_one_that_cannot_be_opened(grown: Life) -> None:
    """All names are there and a part is damaged: the one before stays, and so does what is damaged; that is told."""
    life = grown.twin()
    for _ in range(18):
        life.a_day(base=False)
    newest, before = life.bases[-1], life.bases[-2]
    flip(life, newest.parts[0].key)
    done = life.expire()
    assert kept_ids(life) == [before.snapshot_id, newest.snapshot_id]
    assert done.last is not None
    assert any("can't be restored from" in trouble for trouble in done.last.troubles)


def test_what_an_incremental_builds_on_is_opened_with_it() -> None:
    """A damaged full makes its incremental worth nothing, so the base backup before the two stays."""
    life = Life()
    for _ in range(3):
        life.a_day()
    sound, full = life.bases[1], life.bases[2]
    life.a_day(parent=full)
    for _ in range(26):
        life.a_day(base=False)
    flip(life, full.parts[1].key)
    life.expire()
    assert kept_ids(life) == [one.snapshot_id for one in (sound, full, life.bases[3])]


def test_a_base_backup_is_opened_once_and_only_before_another_goes(
    grown: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many lists a run works off; while all that could go is locked, none is opened."""
    life = grown.twin()
    opened: list[str] = []
    opens = life.vault.open

    def counting(obj: StoredObject, **named: bool) -> Opened:
        opened.extend([str(obj.key)] if "/base-" in str(obj.key) else [])
        return opens(obj, **named)

    monkeypatch.setattr(life.vault, "open", counting)
    life.expire(limit=20)
    assert len(opened) == len(set(opened)) == 2
    life.expire()
    assert len(opened) == 2


def test_a_full_and_a_manifest_that_were_never_ours_stop_nothing(grown: Life) -> None:
    """Rubbish under our names, whatever positions they claim, keeps neither micros nor old WAL."""
    plain, life = grown.twin(), grown.twin()
    for stream, timeline, last in ((FULL, 1, 1 << 62), ("base", 0, 1)):
        data = b"rubbish" + stream.encode()
        sha256 = hashlib.sha256(data).hexdigest()
        name = f"{life.vault.estate}/ledger/{stream}/7/{timeline:08X}/{0:016X}-{last:016X}-{sha256[:32]}"
        life.store.put(name, data, sha256, Lock("GOVERNANCE", life.clock.now + 4000 * DAY))
    assert life.expire().removed == plain.expire().removed


def test_micros_stay_while_their_full_cannot_be_opened(grown: Life) -> None:
    """A full is read back in the very run that removes what lies beneath it."""
    life = grown.twin()
    for _ in range(16):
        life.a_day(base=False)
    needed = life.bases[-1].stop_lsn
    first = next(obj for obj in life.vault.objects("ledger", FULL) if obj.key.first >= needed)
    row = life.store.rows[str(first.key)][0]
    assert row.data is not None
    row.data = row.data[:-200] + bytes([row.data[-200] ^ 1]) + row.data[-199:]
    done = life.expire()
    first_left = [obj.key.first for obj in life.vault.objects("ledger", "wal")][:4]
    assert first_left == [*range(first.key.first, first.key.last, 100), first_left[3]]
    assert first_left[3] > first.key.last + 100
    assert done.last is not None
    assert any(str(first.key) in trouble for trouble in done.last.troubles)


def test_what_is_locked_is_never_tried_and_a_refusal_is_told(grown: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only names without a lock are asked for; should one have been locked meanwhile, the store's no is reported."""
    life = grown.twin()
    tried: list[str] = []
    delete = life.store.delete_version

    def delete_and_lock(key: str, version_id: str) -> None:
        head = life.store.head(key, version_id)
        assert head is not None
        assert head.lock is None or head.lock.retain_until <= life.clock.now
        tried.append(key)
        if len(tried) == 5:
            raise VaultError("vault.lock_refused", f"{key}: the version is locked", "a lock only ever grows")
        delete(key, version_id)

    monkeypatch.setattr(life.store, "delete_version", delete_and_lock)
    done = life.expire()
    assert len(done.refused) == 1
    assert done.removed == len(tried) - 1


def test_each_list_is_on_record_before_and_after(grown: Life) -> None:
    """Two facts a list; a list of few names at a time comes to the same end as one of many."""
    one, many = grown.twin(), grown.twin()
    assert one.expire().lists == 1
    assert many.expire(limit=20).lists > 3
    strip = [sorted(name.rpartition("-")[0] for name in life.store.rows) for life in (one, many)]
    kept = [[name for name in names if "expiry" not in name and "inventory" not in name] for names in strip]
    assert kept[0] == kept[1]
    events = [fact.body["event"] for fact in facts(many.vault, "ledger", EXPIRY)]
    assert events == ["begun", "done"] * (len(events) // 2)
    assert many.count(EXPIRY_LIST) == len(events) // 2
    many.require_sound()


def test_killed_half_way_it_names_what_is_unfinished_and_a_run_again_completes_it(
    grown: Life,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At any removal: manifests go first, so no base backup looks whole that isn't."""
    for at in (1, 3, 9, 30, 60):
        life = grown.twin()
        left = {"calls": at}
        delete = life.store.delete_version

        def killed(key: str, version_id: str, left: dict[str, int] = left, delete=delete) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 - bound early
            left["calls"] -= 1
            if left["calls"] < 0:
                raise VaultError("vault.unreachable", "killed", "run again")
            delete(key, version_id)

        monkeypatch.setattr(life.store, "delete_version", killed)
        with pytest.raises(VaultError, match="killed"):
            life.expire()
        monkeypatch.undo()
        report = verify(life.vault)
        assert report.errors == ()
        assert {finding.kind for finding in report.notices} - {"lock_expired"} == {"unfinished"}
        parts_of = {one.key: one.manifest for one in base_backups(life.vault, "ledger")}
        there = set(life.store.rows)
        assert all(part.key in there for one in parts_of.values() if one for part in one.parts)
        life.expire()
        life.require_window()
        life.require_sound()


def test_parts_without_a_manifest_go_once_their_lock_is_over() -> None:
    """What a base backup that never ended left behind."""
    life = Life()
    life.a_day()
    name = next(name for name in life.store.rows if "/base/" in name)
    del life.store.rows[name]
    life.clock.now += 17 * DAY
    plan = plan_expiry(life.vault, "ledger")
    assert plan.by_stage()[LEFT_PART][0] == 2


def test_a_witness_does_not_miss_what_expired_on_record(grown: Life) -> None:
    """Neither before a restore nor in a verification, which then forgets it; what is gone otherwise is missed."""
    life = grown.twin()
    witness = verify(life.vault).witness
    life.expire()
    gone = [key for key in witness.newest.values() if str(key) not in life.store.rows]
    assert gone
    check_witness(life.vault, witness)
    report = verify(life.vault, witness=witness)
    assert report.errors == ()
    moved = witness.moved_on(report.witness, "casino", None)
    assert not set(gone) & set(moved.newest.values())
    assert witness.moved_on(report.witness, "other", None).newest.keys() >= witness.newest.keys()
    newest = next(key for key in moved.newest.values() if key.stream == "wal")
    del life.store.rows[str(newest)]
    with pytest.raises(VaultError, match="older_than_witness"):
        check_witness(life.vault, moved)
