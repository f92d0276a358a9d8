"""A protected source in miniature: a server, a vault in memory, and WAL that is fed into it when a test says so.

What belongs here: fixtures of the tests of base backups and restores. What stays out: the capture, whose threads and
timing these tests must not depend on; the feed makes the same objects, one after the other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.model import TIERS, Dataset, Drill, Location, RestoreTest, Retention, Snapshot
from dr_assets.stores.postgres.heartbeat import Heartbeat, ensure_heartbeat_table
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.pieces import Marks
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.protocol import ReplicationConnection, WalData
from dr_assets.stores.postgres.restore import Restored, restore
from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT
from dr_assets.stores.postgres.session import connect
from dr_assets.stores.postgres.snapshot import SnapshotResult, take_snapshot
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.keys.ring import KeyRing
from dr_assets.vault.retention import LockRules
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.vault import Vault

ESTATE = "house"
PIECE_BYTES = 256 * 1024


def make_dataset(name: str = "ledger") -> Dataset:
    """A declaration as the estate would load it."""
    tier = TIERS["player_ledger"]
    return Dataset(
        name=name,
        kind="postgres",
        tier=tier,
        dsn_env="LEDGER_DSN",
        slot="dr_assets_ledger",
        rpo=tier.rpo,
        rto=tier.rto,
        snapshot=Snapshot(every=timedelta(hours=24)),
        retention=Retention("compliance", 30, 30),
        location=Location("ovh", "gra", "MT"),
        vault="primary",
        replicas=(),
        restore_test=RestoreTest("0 3 * * *", "casino_ledger"),
        drill=Drill("0 4 1 * *", timedelta(days=35)),
        owners=("team:platform",),
        exception=None,
        linger=timedelta(milliseconds=500),
        source=Path("defs.yaml"),
        line=1,
    )


def make_vault(folder: Path, dataset: Dataset, store: MemoryStore | None = None) -> Vault:
    """A vault in memory, with keys in `folder`."""

    def now() -> datetime:
        return datetime.now(UTC)

    keys = folder / "keys"
    if not keys.exists():
        FileKeyProvider.create(keys)
    store, signer = store or MemoryStore(), Signer.generate()
    trust, locks = Trust.of(signer), LockRules({dataset.name: (dataset.retention, dataset.snapshot.every)})
    ring = KeyRing(
        store=store, estate=ESTATE, provider=FileKeyProvider(keys), trust=trust, signer=signer, locks=locks, clock=now
    )
    return Vault(
        store=store, estate=ESTATE, name="primary", keys=ring, trust=trust, signer=signer, locks=locks, clock=now
    )


@dataclass
class Source:
    """A server with its vault. `feed` brings the WAL written so far into the vault, in pieces of 256 KiB."""

    server: PostgresServer
    vault: Vault
    dataset: Dataset
    piece_bytes: int = PIECE_BYTES
    position: int | None = None
    previous: str | None = None
    marks: Marks = field(default_factory=Marks)
    _heartbeat: Heartbeat | None = None

    @property
    def dsn(self) -> str:
        """The source's connection string."""
        return self.server.dsn()

    @property
    def store(self) -> MemoryStore:
        """The vault's store, to damage."""
        assert isinstance(self.vault.store, MemoryStore)
        return self.vault.store

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement, committed."""
        with psycopg.connect(self.dsn, autocommit=True) as session:
            cursor = session.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def lsn(self) -> int:
        """How far the source's WAL is."""
        return parse_lsn(str(self.sql("SELECT pg_current_wal_flush_lsn()::text")[0][0]))

    def begin_stream(self) -> None:
        """Make the slot, and begin where a capture would: at its segment's begin."""
        with ReplicationConnection.open(self.dsn) as connection:
            connection.create_slot(self.dataset.slot)
            slot = connection.read_slot(self.dataset.slot)
        assert slot is not None
        assert slot.restart_lsn is not None
        self.position = slot.restart_lsn - slot.restart_lsn % (16 << 20)

    def beat(self) -> datetime:
        """Write a heartbeat as the capture does; returns its time."""
        with connect(self.dsn, application_name="beat") as session:
            if self._heartbeat is None:
                ensure_heartbeat_table(session)
                system_id = self.sql("SELECT system_identifier::text FROM pg_control_system()")[0][0]
                assert self.vault.signer is not None
                self._heartbeat = Heartbeat(
                    self.vault.signer, estate=ESTATE, dataset=self.dataset.name, system_id=str(system_id), epoch=1
                )
            beat = self._heartbeat.write(session)
        self.marks.note(beat.lsn, beat.row.at)
        return beat.row.at

    def feed(self, until: int | None = None) -> int:
        """Stream what is written so far (or up to a byte) into the vault; returns the position reached."""
        if self.position is None:
            self.begin_stream()
        until = until or self.lsn()
        with ReplicationConnection.open(self.dsn) as connection:
            identity = connection.identify_system()
            connection.start_replication(self.dataset.slot, self.position or 0, identity.timeline)
            gathered = b""
            while (self.position or 0) + len(gathered) < until:
                for message in connection.receive(1000):
                    if isinstance(message, WalData):
                        gathered += message.data
                    while len(gathered) >= self.piece_bytes and (self.position or 0) + self.piece_bytes <= until:
                        self._put(gathered[: self.piece_bytes], identity.system_id, identity.timeline)
                        gathered = gathered[self.piece_bytes :]
                connection.wait(5)
                connection.read_socket()
            if rest := gathered[: until - (self.position or 0)]:
                self._put(rest, identity.system_id, identity.timeline)
        return until

    def _put(self, data: bytes, system_id: str, timeline: int) -> None:
        assert self.position is not None
        last, now = self.position + len(data), datetime.now(UTC)
        at = self.marks.at_position(last)
        prepared = self.vault.prepare(
            dataset=self.dataset.name,
            stream="wal",
            kind="wal",
            system_id=system_id,
            timeline=timeline,
            first=self.position,
            last=last,
            begin_at=now,
            end_at=now,
            plaintext=data,
            previous=self.previous,
            writer_epoch=1,
            extra={} if at is None else {RECOVERY_POINT_AT: format_time(at)},
        )
        self.vault.put(prepared.seal(), self.vault.locks.lock(self.dataset.name, "wal", now))
        self.previous, self.position = prepared.header.digest, last

    def snapshot(self) -> SnapshotResult:
        """Take a base backup; its WAL is not fed."""
        if self.position is None:
            self.begin_stream()
        return take_snapshot(self.vault, self.dataset, self.dsn)

    def clone(self, store: MemoryStore) -> "Source":
        """The same source seen through another store, to damage that one alone."""
        vault = Vault(
            store=store, estate=ESTATE, name="primary", keys=self.vault.keys, trust=self.vault.trust,
            signer=self.vault.signer, locks=self.vault.locks, clock=self.vault.clock,
        )  # fmt: skip
        return replace(self, vault=vault)


@pytest.fixture
def make_source(postgres_server: Callable[..., PostgresServer], tmp_path: Path) -> Callable[..., Source]:
    """`make_source(major=17, settings={})`: a running source and its empty vault."""

    def make(major: int = 17, **settings: object) -> Source:
        dataset = make_dataset()
        server = postgres_server(major, {"fsync": False, **settings})
        return Source(server, make_vault(tmp_path, dataset), dataset)

    return make


@pytest.fixture
def recover(engine_dir: Path) -> Iterator[Callable[..., Restored]]:
    """`recover(source, "latest", level="quick")`: a running restore, destroyed after the test."""
    from contextlib import ExitStack  # noqa: PLC0415 - used by this fixture alone

    with ExitStack() as stack:
        count = 0

        def run(source: Source, target: str = "latest", **options: object) -> Restored:
            nonlocal count
            count += 1
            plan = plan_restore(source.vault, source.dataset.name, Target.parse(target))
            return stack.enter_context(
                restore(plan, source.vault, engine_dir / f"restore{count}", **options)  # type: ignore[arg-type]
            )

        yield run
