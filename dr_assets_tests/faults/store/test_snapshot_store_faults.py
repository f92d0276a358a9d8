from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dr_assets.engines.postgres import PostgresServer
from dr_assets.stores.postgres import patience
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.store.faulty_store import Fault
from dr_assets_tests.faults.store.sweep import assert_all_held, methods_of, sweep
from dr_assets_tests.integration.capture.rig import make_dataset

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def dsn(engines_dir: Path, postgres_programs: Callable[[int], Any]) -> Iterator[str]:
    """A cluster of one database only: what a sweep copies some hundred times."""
    settings = {"fsync": False, "autovacuum": False, "wal_init_zero": False}
    with PostgresServer(engines_dir / "snapshot-faults", postgres_programs(17), settings=settings) as server:
        server.init()
        server.start()
        with psycopg.connect(server.dsn("template1"), autocommit=True) as connection:
            connection.execute("UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'")
            for database in ("template0", "postgres"):
                connection.execute(f"DROP DATABASE {database}")
        yield server.dsn("template1")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put is tried again at once."""
    monkeypatch.setattr(patience, "_BACKOFF_BEGIN_S", 0.01)


class SnapshotCase:
    """A base backup into a vault without any."""

    def __init__(self, dsn: str) -> None:
        self.store: ObjectStore = MemoryStore()
        self._dsn, self._dataset = dsn, make_dataset()
        self._signer, self._provider = Signer.generate(), MemoryKeyProvider()

    def run(self, store: ObjectStore) -> None:
        """Take it."""
        take_snapshot(self._vault(store), self._dataset, self._dsn)

    def check_after_fault(self, fault: Fault) -> None:
        """No damage; parts without a manifest are named as unfinished, and no fact speaks of what isn't whole."""
        assert fault
        report = verify(self._vault(self.store))
        assert not report.errors, report.errors
        manifests, parts = self._listed()
        assert {finding.kind for finding in report.notices} <= {"unfinished"}, report.notices
        assert len(report.notices) == (0 if manifests else parts)
        fact = latest_fact(self._vault(self.store), self._dataset.name, "snapshot")
        assert fact is None or str(fact.body["manifest_key"]) in manifests

    def check_complete(self) -> None:
        """The newest backup is whole, and the fact that makes its asset green names it."""
        report = verify(self._vault(self.store))
        assert not report.errors, report.errors
        manifests, _ = self._listed()
        fact = latest_fact(self._vault(self.store), self._dataset.name, "snapshot")
        assert fact is not None
        assert fact.body["manifest_key"] == manifests[-1]

    def close(self) -> None:
        """Nothing is held."""

    def _vault(self, store: ObjectStore) -> Vault:
        return throwaway_vault(store=store, provider=self._provider, signer=self._signer)

    def _listed(self) -> tuple[list[str], int]:
        keys = [obj.key for obj in self._vault(self.store).objects(self._dataset.name)]
        manifests = sorted((key.first, str(key)) for key in keys if key.stream == "base")
        return [text for _, text in manifests], sum(key.stream.startswith("base-") for key in keys)


def test_a_base_backup_survives_a_fault_at_every_store_call(dsn: str) -> None:
    """Killed before or after any call, refused, busy or lied to: what is there is whole or named as unfinished.

    No fact ever speaks of a backup that isn't whole, and the next run takes one.
    """
    done = sweep(lambda: SnapshotCase(dsn), threads=4)
    assert_all_held(done)
    assert {"put", "head", "get", "list_versions", "list_level", "now", "recent_now"} <= methods_of(done.points)
