"""A copy of a bucket under a fault at every store call: whole or unfinished, and the next run ends it."""

import shutil
import tempfile
from pathlib import Path

import pytest

from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.stores.bucket.copy import copy
from dr_assets.stores.bucket.position import BUCKET_COPY, recovery_point
from dr_assets.stores.bucket.verify import verify_copy
from dr_assets.stores.postgres import patience
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.format.keys import BASE
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.store.faulty_store import Fault
from dr_assets_tests.faults.store.sweep import assert_all_held, methods_of, sweep
from dr_assets_tests.integration.bucket.bucket_rig import NAME, World

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put is tried again at once."""
    monkeypatch.setattr(patience, "_BACKOFF_BEGIN_S", 0.01)


@pytest.fixture
def source(region: SeaweedRegion, tmp_path: Path) -> World:
    """Two people's documents, one deleted: a bucket that every case copies."""
    world = World(region, tmp_path)
    for person in ("anna", "boris"):
        world.put(f"kyc/{person}/passport.pdf", person.encode() * 50, Metadata={"of": person})
    world.client.delete_object(Bucket=world.bucket, Key="kyc/boris/passport.pdf")
    return world


class CopyCase:
    """The first copy of that bucket into a vault of its own."""

    def __init__(self, source: World) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bucket-faults-"))
        self.store: ObjectStore = MemoryStore()
        self._world = World.__new__(World)
        self._world.__dict__.update(source.__dict__ | {"store": self.store, "folder": self.folder})
        self._place = source.place()

    def run(self, store: ObjectStore) -> None:
        """One run, as a new process."""
        copy(self._world.site(store), self._place)

    def check_after_fault(self, fault: Fault) -> None:
        """No damage; parts without a manifest are named as unfinished; no fact speaks of a run that isn't whole."""
        assert fault
        vault = self._world.vault()
        report = verify(vault)
        assert not report.errors, report.errors
        assert {finding.kind for finding in report.notices} <= {"unfinished"}, report.notices
        manifests = {str(obj.key) for obj in vault.objects(NAME, BASE)}
        fact = latest_fact(vault, NAME, BUCKET_COPY)
        assert fact is None or str(fact.body["recovery_manifest_key"]) in manifests

    def check_complete(self) -> None:
        """Everything that the listing shows is stored once, opens, and is what the recovery point speaks of."""
        verified = verify_copy(self._world.site(), documents=True)
        assert verified.ok, verified.troubles
        assert (verified.sound.versions, verified.sound.markers) == (2, 1)
        point = recovery_point(self._world.vault(), NAME)
        assert point is not None
        assert point.at is not None
        assert not verify(self._world.vault()).errors

    def close(self) -> None:
        """Nothing is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)


def test_a_copy_survives_a_fault_at_every_store_call(source: World) -> None:
    """Killed before or after any call, refused, busy or lied to; the run after it goes on and is complete."""
    done = sweep(lambda: CopyCase(source), threads=4)
    assert_all_held(done)
    assert {"put", "head", "get", "list_versions", "now", "recent_now"} <= methods_of(done.points)
