"""What the capture's tests are put together from: a dataset, a vault, a capture in a thread, WAL to compare with."""

import json
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import psycopg

from dr_assets.estate.model import TIERS, Drill, Location, PostgresDataset, RestoreTest, Retention, Snapshot
from dr_assets.stores.postgres.capture import Capture, CaptureOptions, CaptureReport
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.vault.chain import Chain, resolve
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.keys.ring import KeyRing
from dr_assets.vault.retention import LockRules
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.vault import Vault

SEED = b"capture-tests-signing-seed-32byt"
SEGMENT_BYTES = 16 << 20
# On a busy machine a server notices late that a slot's consumer has gone, and what was received is stored late.
STEADY = {"patience_s": 180.0, "stop_within_s": 180.0}


def make_dataset(name: str = "ledger", *, linger_ms: int = 100, slot: str | None = None) -> PostgresDataset:
    """A declared dataset with a slot of its own: sessions share a server."""
    return PostgresDataset(
        name=name,
        kind="postgres",
        tier=TIERS["player_ledger"],
        dsn_env="LEDGER_DSN",
        slot=slot or f"dr_{name}_{secrets.token_hex(4)}",
        rpo=timedelta(seconds=30),
        rto=timedelta(minutes=15),
        snapshot=Snapshot(every=timedelta(hours=24)),
        retention=Retention(lock="governance", days=14, lock_days=14),
        location=Location("ovh", "gra", "MT"),
        vault="primary",
        replicas=(),
        restore_test=RestoreTest("0 3 * * *", "casino_ledger"),
        drill=Drill("0 4 1 * *", timedelta(days=35)),
        owners=("team:platform",),
        exception=None,
        linger=timedelta(milliseconds=linger_ms),
        source=Path("defs.yaml"),
        line=1,
    )


def make_vault(store: ObjectStore, keys_dir: Path, dataset: PostgresDataset) -> Vault:
    """A vault over `store`; the folder's key is made at first use, so that two processes can open the same vault."""
    if not any(keys_dir.glob("kek-*.hex")):
        FileKeyProvider.create(keys_dir)
    signer = Signer.from_seed(SEED)
    parts: dict[str, Any] = {
        "store": store,
        "estate": "casino",
        "trust": Trust.of(signer),
        "signer": signer,
        "locks": LockRules({dataset.name: (dataset.retention, dataset.snapshot.every)}),
        "clock": lambda: datetime.now(UTC),
    }
    return Vault(name="primary", keys=KeyRing(providers=Providers.of(FileKeyProvider(keys_dir)), **parts), **parts)


@dataclass
class Place:
    """Everything a child process needs to open the same vault and dataset."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    keys_dir: Path
    slot: str
    linger_ms: int = 100
    options: dict[str, Any] = field(default_factory=dict)

    def vault(self, **client: Any) -> Vault:
        """The vault, with the SDK's retries as given."""
        s3 = make_client(self.endpoint, self.access_key, self.secret_key, **client)
        return make_vault(S3Store(s3, self.bucket), self.keys_dir, self.dataset())

    def dataset(self) -> PostgresDataset:
        """The dataset."""
        return make_dataset(slot=self.slot, linger_ms=self.linger_ms)

    def to_json(self, dsn: str, status: Path) -> str:
        """What capture_child.py reads from its standard input."""
        return json.dumps({**vars(self), "keys_dir": str(self.keys_dir), "dsn": dsn, "status": str(status)})


class CaptureThread:
    """A capture that runs beside the test; leaving the context stops it and raises what it raised."""

    def __init__(
        self,
        vault: Vault,
        dataset: PostgresDataset,
        dsn: str,
        spool_dir: Path | None = None,
        *,
        patroni: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.vault, self.dataset, self.dsn = vault, dataset, dsn
        self.reports: list[CaptureReport] = []
        self.stop_event = threading.Event()
        self.error: BaseException | None = None
        options = {**STEADY, "report_every_s": 0.05, "heartbeat_every_s": 0.2, **options}
        self.capture = Capture(
            vault,
            dataset,
            dsn,
            listener=self.reports.append,
            options=CaptureOptions(**options),
            spool_dir=spool_dir,
            patroni=patroni,
        )
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.capture.run(self.stop_event)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error

    @property
    def report(self) -> CaptureReport:
        """The newest report."""
        return self.reports[-1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop_event.set()
        self._thread.join(180)
        assert not self._thread.is_alive()
        if self.error is not None and kind is None:
            raise self.error

    def ended_with(self) -> BaseException | None:
        """Wait for the capture to end by itself; what it raised."""
        self._thread.join(180)
        assert not self._thread.is_alive()
        error, self.error = self.error, None
        return error

    def wait(self, wanted: Callable[[CaptureReport], object], what: str, timeout_s: float = 180) -> CaptureReport:
        """Until a report is as wanted, or the capture ended."""
        deadline = time.monotonic() + timeout_s
        while not (self.reports and wanted(self.report)):
            if self.error is not None:
                raise self.error
            assert time.monotonic() < deadline, f"no report with {what}; the last: {self.reports[-1:]}"
            time.sleep(0.01)
        return self.report

    def wait_stored(self, lsn: int) -> CaptureReport:
        """Until the vault holds everything up to `lsn`."""
        return self.wait(lambda report: report.stored_lsn >= lsn, f"stored >= {lsn:#x}")


def wait_one_more_heartbeat(reports: Sequence[CaptureReport], timeout_s: float = 180) -> None:
    """Until the vault holds a heartbeat of after this call: then all that was committed before is stored, and dated."""
    now, deadline = datetime.now(UTC), time.monotonic() + timeout_s
    while not (reports and (newest := reports[-1].recovery_point_at) and newest >= now):
        assert time.monotonic() < deadline, f"no heartbeat; the last report: {reports[-1:]}"
        time.sleep(0.02)


def flushed(dsn: str) -> int:
    """How far the source's WAL is flushed."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").fetchone()
        assert row is not None
        return int(row[0])


def write_rows(dsn: str, rows: int, table: str = "load") -> int:
    """Commit `rows` rows in one transaction; the position it is flushed to."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (id bigserial, filler text)")
        connection.execute(
            f"INSERT INTO {table} (filler) SELECT repeat(md5(n::text), 8) FROM generate_series(1, %s) n",  # noqa: S608 - the test's own table
            (rows,),
        )
    return flushed(dsn)


def drop_slot(dsn: str, slot: str) -> None:
    """Once nobody uses it: a server notices a moment later that whoever did has gone."""
    deadline = time.monotonic() + 180
    dropped = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not connection.execute(dropped, (slot,)).fetchall():
            assert time.monotonic() < deadline, f"somebody still uses {slot}, or it is not there"
            time.sleep(0.02)


def chain_of(vault: Vault, dataset: PostgresDataset) -> Chain:
    """The whole chain of the dataset's newest system and timeline, from where that chain begins."""
    anchor = latest_anchor(vault, dataset.name)
    assert anchor is not None
    objects = vault.objects(dataset.name, "wal", system_id=anchor.system_id, timeline=anchor.timeline)
    return resolve(objects, vault.header, anchor.begin)


def check_links(vault: Vault, chain: Chain) -> None:
    """Every segment names the header before it, and the first continues nothing."""
    previous = None
    for segment in chain.segments:
        header = vault.header(segment)
        assert header.previous == previous
        previous = header.digest


def vault_wal(vault: Vault, chain: Chain) -> bytes:
    """The chain's bytes, every object opened and verified."""
    return b"".join(vault.open(segment).plaintext for segment in chain.segments)


def server_wal(data_dir: Path, timeline: int, begin: int, end: int) -> bytes:
    """The bytes [begin, end) of the server's own WAL files."""
    parts = []
    for number in range(begin // SEGMENT_BYTES, -(-end // SEGMENT_BYTES)):
        name = f"{timeline:08X}{number // 256:08X}{number % 256:08X}"
        first = number * SEGMENT_BYTES
        data = (data_dir / "pg_wal" / name).read_bytes()
        parts.append(data[max(begin, first) - first : min(end, first + SEGMENT_BYTES) - first])
    return b"".join(parts)


def copy_tree(source: Path, target: Path) -> None:
    """A data directory's copy in place of whatever is there, owner and modes kept."""
    subprocess.run(["rm", "-rf", str(target)], check=True)  # noqa: S607 - coreutils, in a test
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)  # noqa: S607 - coreutils, in a test


def assert_same_wal(vault: Vault, dataset: PostgresDataset, data_dir: Path) -> Chain:
    """The vault's chain has no hole and holds byte for byte what the server's WAL files hold."""
    chain = chain_of(vault, dataset)
    assert chain.segments
    check_links(vault, chain)
    timeline = chain.segments[0].key.timeline
    stored = vault_wal(vault, chain)
    assert len(stored) == chain.end - chain.begin
    assert stored == server_wal(data_dir, timeline, chain.begin, chain.end)
    return chain
