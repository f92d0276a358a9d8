from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise

import pytest

from dr_assets.stores.postgres.base_manifest import Archive, BaseManifest, Part
from dr_assets.stores.postgres.expire import expire, plan_expiry
from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.vault.format.keys import part_stream
from dr_assets.vault.full_segment import FULL, FULL_LIST, joins
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets.vault.vault import Receipt, Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.store.faulty_store import Fault
from dr_assets_tests.faults.store.sweep import assert_all_held, methods_of, sweep
from dr_assets_tests.unit.test_rollup import T0, Clock, Wal

DAY = timedelta(days=1)
KEEP_DAYS = 2
STEP = timedelta(days=4)
TWO_PIECES = Limits(size_bytes=200, span=timedelta(days=30), micros=100)


@dataclass
class Life:
    """A dataset's days in a vault in memory: two pieces of WAL and a base backup every fourth."""

    clock: Clock = field(default_factory=lambda: Clock(T0 + 25 * STEP))
    provider: MemoryKeyProvider = field(default_factory=MemoryKeyProvider)
    signer: Signer = field(default_factory=Signer.generate)
    store: MemoryStore = field(init=False)
    wal: Wal = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.wal = Wal(self.vault(self.store))

    def vault(self, store: ObjectStore) -> Vault:
        """As a new process opens it."""
        rules = {"ledger": (ThrowawayRetention(days=KEEP_DAYS), DAY)}
        return throwaway_vault(store=store, provider=self.provider, signer=self.signer, clock=self.clock, rules=rules)

    def live(self, steps: int) -> "Life":
        """Steps of four days: two pieces of WAL, a base backup, and word of it; the last one is not rolled up yet."""
        for _ in range(steps):
            roll_up(self.wal.vault, "ledger", limits=TWO_PIECES)
            for _ in range(2):
                self.wal.put(1, every=STEP / 2)
                self.clock.now += STEP / 2
            self._back_up()
            self.wal.tell()
        return self

    def _back_up(self) -> None:
        end, name = self.wal.position, f"b{self.wal.position:x}"
        parts = [self._put(part_stream(name), "part", number, number + 1, b"heap" * 10) for number in range(2)]
        archive = Archive("base.tar", None, None, 0, 0, 2)
        manifest = BaseManifest(
            dataset="ledger", snapshot_id=name, system_id="7", timeline=1, server_version=170010,
            start_lsn=end - 100, stop_lsn=end, begin_at=self.clock.now, end_at=self.clock.now, segment_bytes=400,
            data_checksums=True, next_xid=1000, superuser="postgres", dbname="ledger", settings={}, policy={},
            history=None, archives=(archive,), backup_manifest=replace(archive, name="backup_manifest", first_part=2),
            parts=tuple(Part(str(part.key), part.sha256, part.size_bytes) for part in parts),
        )  # fmt: skip
        self._put("base", "manifest", end - 100, end, manifest.encode())

    def _put(self, stream: str, kind: str, first: int, last: int, data: bytes) -> Receipt:
        vault, now = self.wal.vault, self.clock.now
        prepared = vault.prepare(
            dataset="ledger", stream=stream, kind=kind, system_id="7", timeline=1, first=first, last=last,
            begin_at=now, end_at=now, plaintext=data,
        )  # fmt: skip
        return vault.put(prepared.seal(), vault.locks.lock("ledger", kind, now))


class LifeCase:
    """A copy of one life's vault; runs share nothing but its keys and its clock."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.store: ObjectStore = life.store.copy()

    def require_sound(self, *, but_for: frozenset[str] = frozenset()) -> None:
        """No damage, and nothing to tell but what may be left unfinished."""
        report = verify(self.life.vault(self.store))
        assert not report.errors, report.errors
        assert {finding.kind for finding in report.notices} <= {"lock_expired", *but_for}, report.notices

    def require_wal(self) -> None:
        """The chain from the oldest usable base backup's WAL to the end, byte for byte what was put."""
        vault = self.life.vault(self.store)
        begin = min(obj.key.first for stream in ("wal", FULL) for obj in vault.objects("ledger", stream))
        chain = stored_wal(vault, "ledger", "7", 1, begin)
        opened = [vault.open(obj) for obj in chain.segments]
        assert all(joins(earlier.header, later.header) for earlier, later in pairwise(opened))
        assert b"".join(one.plaintext for one in opened) == self.life.wal.expected(begin, self.life.wal.position)

    def close(self) -> None:
        """Nothing is held."""


class RollUpCase(LifeCase):
    """The last days' pieces wait to be rolled up, and the locks of those that wait to be extended."""

    def run(self, store: ObjectStore) -> None:
        """Roll up."""
        roll_up(self.life.vault(store), "ledger", limits=TWO_PIECES)

    def check_after_fault(self, fault: Fault) -> None:
        """Sound, a full without its list named as unfinished at most; all WAL can be read."""
        assert fault
        self.require_sound(but_for=frozenset({"unfinished"}))
        self.require_wal()

    def check_complete(self) -> None:
        """Every two pieces but the newest two are a full, each with its list, once."""
        self.require_sound()
        self.require_wal()
        vault = self.life.vault(self.store)
        fulls, lists, micros = (list(vault.objects("ledger", stream)) for stream in (FULL, FULL_LIST, "wal"))
        assert len(fulls) == len(lists) == len(micros) // 2 - 1
        assert [full.key.first for full in fulls] == [micro.key.first for micro in micros[:-2:2]]


class ExpireCase(LifeCase):
    """A day's worth of base backups, WAL, fulls, lists and facts that nothing needs any more."""

    def run(self, store: ObjectStore) -> None:
        """Expire."""
        expire(self.life.vault(store), "ledger")

    def check_after_fault(self, fault: Fault) -> None:
        """Sound: what is gone is accounted for, and what is left can be restored."""
        assert fault
        self.require_sound(but_for=frozenset({"unfinished"}))
        self.require_wal()

    def check_complete(self) -> None:
        """Nothing is left that may go, and the newest base backups are whole."""
        self.require_sound()
        self.require_wal()
        assert not plan_expiry(self.life.vault(self.store), "ledger").rows
        assert sum(1 for _ in self.life.vault(self.store).objects("ledger", "base")) >= 1


@pytest.fixture(scope="module")
def waiting() -> Life:
    """Some days of which the last are not rolled up, and a roller that was away until locks wanted extending."""
    life = Life().live(2)
    life.wal.put(2, every=STEP / 2)
    life.clock.now += STEP
    life.wal.tell()
    life.clock.now += 2 * STEP
    return life


@pytest.fixture(scope="module")
def outlived() -> Life:
    """Some weeks, expired but for the last days."""
    life = Life().live(6)
    expire(life.wal.vault, "ledger")
    return life.live(1)


def test_a_roll_up_survives_a_fault_at_every_store_call(waiting: Life) -> None:
    """Killed before or after any call, refused, busy or lied to: every byte of WAL can be read all along.

    What is left is whole or named as unfinished, and the next run makes the very fulls that were to be made.
    """
    done = sweep(lambda: RollUpCase(waiting), threads=2)
    assert_all_held(done)
    assert {"put", "head", "get", "list_versions", "recent_now", "extend"} <= methods_of(done.points)


@pytest.mark.parametrize("part", [0, 1])
def test_an_expiry_survives_a_fault_at_every_store_call(outlived: Life, part: int) -> None:
    """The same of what deletes: nothing that is needed goes, nothing that went is missed, and the next run ends it."""
    done = sweep(lambda: ExpireCase(outlived), threads=2, only=lambda call, _: call.number % 2 == part)
    assert_all_held(done)
    assert {"head", "delete_version", "list_versions"} <= methods_of(done.points)
