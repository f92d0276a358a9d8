"""The first region is dead, and its KMS and its host with it: the money comes back from the second one, or a disk."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from dr_assets.casino import schema
from dr_assets.casino.loss import measure_loss
from dr_assets.casino.workload import Workload
from dr_assets.engines.openbao import BaoServer
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.errors import VaultError
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.restore_test import RestoreTestResult, run_restore_test
from dr_assets.reconciliation.run import reconcile
from dr_assets.stores.postgres.capture import Capture, CaptureOptions, CaptureReport
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.keys.bao_client import BaoSession, Entry
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.keys.openbao_provider import OpenBaoKeyProvider
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.replication import Options, Pass, replicate
from dr_assets.vault.replication.bundle import BundleStore, export_bundle
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.integration.capture.rig import make_dataset, wait_one_more_heartbeat

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LEDGER = ("ledger",)
ESTATE = "house"
ACKNOWLEDGED = 300


class World:
    """Two regions, two who keep keys, and a casino in the first."""

    def __init__(self, stack: ExitStack, folder: Path, weed: Programs, bao: BaoServer) -> None:
        self.dataset = make_dataset()
        self.signer = Signer.generate()
        self.regions = [
            stack.enter_context(SeaweedRegion(folder / name, name, weed)) for name in ("primary", "standby")
        ]
        for region in self.regions:
            region.start()
            region.create_bucket("vault")
        bao.make_key("dr-assets")
        self.bao = bao
        role_id, secret_id = bao.make_role()
        session = BaoSession(bao.address, Entry(role_id=role_id, secret_id=secret_id), timeout_s=60.0)
        keys = folder / "keys"
        keys.mkdir(mode=0o700)
        FileKeyProvider.create(keys)
        self.both = Providers.of(OpenBaoKeyProvider(session, "dr-assets"), FileKeyProvider(keys))
        self.other = Providers.of(FileKeyProvider(keys))
        self.gone = Providers.of(OpenBaoKeyProvider(session, "dr-assets"))

    def vault(self, number: int, providers: Providers, store: ObjectStore | None = None) -> Vault:
        """A region's vault, as a new process opens it."""
        region = self.regions[number]
        rules = {"ledger": (self.dataset.retention, self.dataset.snapshot.every)}
        return throwaway_vault(
            store=store or S3Store(make_client(region.endpoint, region.access_key, region.secret_key), "vault"),
            estate=ESTATE, name=region.name, rules=rules, providers=providers, signer=self.signer,
        )  # fmt: skip

    def live(self, server: PostgresServer, acks: Path) -> int:
        """Play while a capture runs, a base backup is taken and our replicator follows; how many were acknowledged."""
        dsn, stop = server.dsn("ledger"), Event()
        schema.create(dsn, players=40)
        source = self.vault(0, self.both)
        reports: list[CaptureReport] = []
        options = CaptureOptions(heartbeat_every_s=0.2, report_every_s=0.1)
        capture = Capture(source, self.dataset, dsn, listener=reports.append, options=options)
        threads = [Thread(target=capture.run, args=(stop,)), Thread(target=self.follow, args=(stop,))]
        workload = Workload(dsn, acks, rate_per_s=200, workers=4)
        for thread in threads:
            thread.start()
        workload.start()
        try:
            _until(workload, 100)
            take_snapshot(source, self.dataset, dsn)
            _until(workload, ACKNOWLEDGED)
        finally:
            workload.stop()
            wait_one_more_heartbeat(reports)
            stop.set()
            for thread in threads:
                thread.join(180)
        return workload.stats().acknowledged

    def follow(self, stop: Event) -> None:
        """Our own replicator, pass after pass beside the capture."""
        before: Pass | None = None
        while not stop.is_set():
            before = self.replicate(Options(copy=True, full=before is None), before)
            stop.wait(0.5)

    def replicate(self, options: Options, before: Pass | None = None) -> Pass:
        """One pass."""
        return replicate(self.vault(0, self.both), self.vault(1, self.both), LEDGER, options, before=before)

    def restore(self, vault: Vault, folder: Path, acks: Path) -> RestoreTestResult:
        """Restored and reconciled, and compared with what the casino's clients were told."""
        lost: list[int] = []
        result = run_restore_test(
            vault, self.dataset, Target.parse("latest"), env={WORK_DIR_ENV: str(folder)},
            inspect=lambda restored, _: lost.append(measure_loss(acks, restored.reader_dsn()).lost),
        )  # fmt: skip
        assert lost == [0]
        return result


def _until(workload: Workload, acknowledged: int) -> None:
    while workload.stats().acknowledged < acknowledged:
        Event().wait(0.05)


def test_the_money_comes_back_from_the_second_region(
    engine_dir: Path, tmp_path: Path, weed_programs: Programs, bao_server: Any, postgres_programs: Callable[[int], Any]
) -> None:
    """Server, first region and its KMS are killed; standby and the other provider give every acknowledged bet back.

    Then the standby dies, too: a bundle that was written from it restores without any store.
    """
    with ExitStack() as stack:
        world = World(stack, engine_dir, weed_programs, bao_server())
        server = PostgresServer(engine_dir / "casino", postgres_programs(17), settings={"fsync": False})
        stack.enter_context(server)
        server.init()
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE ledger")
        acknowledged = world.live(server, tmp_path)
        Event().wait(2)  # of the second that is not over a pass says nothing
        done = world.replicate(Options(copy=True))
        assert (done.standing.unproven_count, done.tally.strangers) == (0, 0)
        server.kill()
        world.regions[0].kill()
        world.bao.kill()

        standby = world.vault(1, world.other)
        assert not verify(standby).errors
        with pytest.raises(VaultError):
            verify_opens(world.vault(1, world.gone))
        result = world.restore(standby, engine_dir, tmp_path)
        assert result.ok, result.reason
        assert result.books is not None
        assert acknowledged >= ACKNOWLEDGED
        assert result.details["replayed_lsn"] == result.details["end_lsn"]

        export_bundle(standby, tmp_path / "bundle", LEDGER, volume_bytes=3 << 20)
        world.regions[1].kill()
        bundle = BundleStore(tmp_path / "bundle", Trust.of(world.signer))
        assert len(bundle.bundle.volumes) > 1
        assert not verify(world.vault(1, world.other, bundle)).errors
        plan = plan_restore(world.vault(1, world.other, bundle), "ledger", Target.parse("latest"))
        with restore(plan, world.vault(1, world.other, bundle), engine_dir / "from-bundle") as restored:
            books = reconcile(restored.reader_dsn(), "casino_ledger")
            assert books.ok
            assert measure_loss(tmp_path, restored.reader_dsn()).lost == 0
            assert restored.replayed_lsn == restored.end_lsn == parse_lsn(str(result.details["end_lsn"]))


def verify_opens(vault: Vault) -> None:
    """Open one object."""
    vault.open(next(iter(vault.objects("ledger", "wal"))))
