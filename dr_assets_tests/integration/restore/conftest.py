"""A protected source in miniature: a server, a vault in memory, and WAL that is fed into it when a test says so.

What belongs here: fixtures of the tests of base backups and restores. What stays out: the capture, whose threads and
timing these tests must not depend on; the feed makes the same objects, one after the other.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest

from dr_assets.casino import schema
from dr_assets.casino.incident import Planted, plant_bad_transaction
from dr_assets.casino.workload import Workload
from dr_assets.engines.placement import give
from dr_assets.engines.postgres import PostgresServer, Setting
from dr_assets.engines.programs import Programs
from dr_assets.estate.model import TIERS, Drill, Location, PostgresDataset, RestoreTest, Retention, Snapshot
from dr_assets.stores.postgres.capture import Capture, CaptureOptions, CaptureReport
from dr_assets.stores.postgres.heartbeat import Heartbeat, ensure_heartbeat_table
from dr_assets.stores.postgres.history import parse_history
from dr_assets.stores.postgres.lineage import TIMELINE
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.pieces import Marks
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.protocol import ReplicationConnection, WalData
from dr_assets.stores.postgres.restore import Restored, restore
from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT
from dr_assets.stores.postgres.session import connect
from dr_assets.stores.postgres.snapshot import SnapshotResult, take_snapshot
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.prefix import ACKNOWLEDGED_TO, format_position
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets_tests.integration.capture.rig import wait_one_more_heartbeat

ESTATE = "house"
PIECE_BYTES = 256 * 1024
# Nobody but the test writes WAL: else its end may lie within a record, which no replay ever reaches.
QUIET: Mapping[str, Setting] = {"fsync": False, "autovacuum": False}
# Each is made once a session, in seconds: tests that share one run in the same worker.
SHARED = ("lived_casino", "lives", "history")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests by what they share; no other folder has fixtures of these names."""
    for item in items:
        shared = next((name for name in SHARED if name in getattr(item, "fixturenames", ())), None)
        if shared is not None:
            item.add_marker(pytest.mark.xdist_group(shared))


def make_dataset(name: str = "ledger") -> PostgresDataset:
    """A declaration as the estate would load it."""
    tier = TIERS["player_ledger"]
    return PostgresDataset(
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


@dataclass
class Source:
    """A server with its vault. `feed` brings the WAL written so far into the vault, in pieces of 256 KiB."""

    server: PostgresServer
    vault: Vault
    dataset: PostgresDataset
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
            cursor = session.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def lsn(self) -> int:
        """How far the source's WAL is."""
        return parse_lsn(str(self.sql("SELECT pg_current_wal_flush_lsn()::text")[0][0]))

    def clock(self) -> datetime:
        """The source's clock."""
        now = self.sql("SELECT clock_timestamp()")[0][0]
        assert isinstance(now, datetime)
        return now.astimezone(UTC)

    def pause(self) -> None:
        """Long enough for two commit times to differ beyond doubt."""
        self.sql("SELECT pg_sleep(0.02)")

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
                messages = connection.receive(1000)
                if not messages and connection.wait(5):
                    connection.read_socket()
                for message in messages:
                    if isinstance(message, WalData):
                        gathered += message.data
                    while len(gathered) >= self.piece_bytes and (self.position or 0) + self.piece_bytes <= until:
                        self._put(gathered[: self.piece_bytes], identity.system_id, identity.timeline)
                        gathered = gathered[self.piece_bytes :]
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
            extra={
                ACKNOWLEDGED_TO: format_position(self.position),
                **({} if at is None else {RECOVERY_POINT_AT: format_time(at)}),
            },
        )
        self.vault.put(prepared.seal(), self.vault.locks.lock(self.dataset.name, "wal", now))
        self.previous, self.position = prepared.header.digest, last

    def snapshot(self) -> SnapshotResult:
        """Take a base backup; its WAL is not fed."""
        if self.position is None:
            self.begin_stream()
        return take_snapshot(self.vault, self.dataset, self.dsn)

    def clone(self) -> "Source":
        """The same source seen through a copy of its store, to damage that one alone."""
        store = MemoryStore()
        store.rows = {key: list(rows) for key, rows in self.store.rows.items()}
        vault = Vault(
            store=store, estate=ESTATE, name="primary", keys=self.vault.keys, trust=self.vault.trust,
            signer=self.vault.signer, locks=self.vault.locks, clock=self.vault.clock,
        )  # fmt: skip
        return replace(self, vault=vault)


@pytest.fixture
def make_source(postgres_server: Callable[..., PostgresServer]) -> Callable[..., Source]:
    """`make_source(major=17, settings={})`: a running source and its empty vault."""

    def make(major: int = 17, store: ObjectStore | None = None, **settings: object) -> Source:
        dataset = make_dataset()
        server = postgres_server(major, {**QUIET, **settings})
        rules = {dataset.name: (dataset.retention, dataset.snapshot.every)}
        return Source(server, throwaway_vault(estate=ESTATE, rules=rules, store=store), dataset)

    return make


@dataclass(frozen=True)
class History:
    """A source whose life is over, fed into its vault, and what each target must bring back.

    `targets` maps a target's text to the highest id that its restore holds; ids 1 to that one are there. Base backup
    A ended with id 100, B with id 104; the end is 106. Two tables lie in tablespaces of their own.
    """

    source: Source
    a: SnapshotResult
    b: SnapshotResult
    begin_at: datetime
    end_at: datetime
    end: int
    targets: dict[str, int]


@pytest.fixture(scope="session")
def history(
    engines_dir: Path, postgres_programs: Callable[[int], Programs], init_cluster: Callable[[PostgresServer], None]
) -> Iterator[History]:
    """One life of a Postgres 17 with two tablespaces; damage only clones of its store."""
    dataset = make_dataset()
    vault = throwaway_vault(estate=ESTATE, rules={dataset.name: (dataset.retention, dataset.snapshot.every)})
    server = PostgresServer(engines_dir / "history", postgres_programs(17), settings=QUIET)
    with server:
        init_cluster(server)
        server.start()
        yield _live(Source(server, vault, dataset), engines_dir)


def _live(source: Source, folder: Path) -> History:
    begin_at = source.clock()
    for name in ("one", "two"):
        space = folder / f"space_{name}"
        space.mkdir()
        give(space, source.server.user)
        source.sql(f"CREATE TABLESPACE {name} LOCATION '{space}'")
        source.sql(f"CREATE TABLE in_{name} TABLESPACE {name} AS SELECT generate_series(1, 5000) AS id")
    source.sql("CREATE TABLE t (id int PRIMARY KEY, filler text)")
    source.sql("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 100) n")
    a = source.snapshot()
    targets: dict[str, int] = {}

    def insert(number: int) -> str:
        xid = source.sql(f"INSERT INTO t SELECT {number}, repeat('y', 500) RETURNING pg_current_xact_id()::text")
        source.pause()
        return str(xid[0][0])

    insert(101)
    targets[source.clock().isoformat()] = 101
    source.pause()
    targets[f"xid:{insert(102)}"] = 102
    insert(103)
    targets[f"lsn:{source.sql('SELECT pg_current_wal_insert_lsn()::text')[0][0]}"] = 103
    source.sql("SELECT pg_create_restore_point('release')")
    targets["name:release"] = 103
    insert(104)
    # A few pieces of WAL that nothing is in, so that damage has room before the end.
    source.sql("CREATE TABLE noise AS SELECT n, repeat('z', 900) AS filler FROM generate_series(1, 3000) n")
    b = source.snapshot()
    targets["immediate"] = 104
    insert(105)
    targets[source.clock().isoformat()] = 105
    source.pause()
    source.sql("INSERT INTO noise SELECT n, repeat('z', 900) FROM generate_series(1, 3000) n")
    insert(106)
    end_at = source.beat()
    targets["latest"] = 106
    end = source.feed()
    return History(source, a, b, begin_at, end_at, end, targets)


@dataclass(frozen=True)
class LivedCasino:
    """A casino that was captured for real while it lived, backed up in between, and is gone now.

    `planted` is a bad transaction behind the base backup. The casino's database is not called postgres.
    """

    source: Source
    planted: Planted


@pytest.fixture(scope="session")
def lived_casino(
    engines_dir: Path,
    postgres_programs: Callable[[int], Programs],
    init_cluster: Callable[[PostgresServer], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> LivedCasino:
    """Its vault alone is left: the server was killed."""
    dataset = make_dataset()
    vault = throwaway_vault(estate=ESTATE, rules={dataset.name: (dataset.retention, dataset.snapshot.every)})
    with PostgresServer(engines_dir / "casino", postgres_programs(17), settings={"fsync": False}) as server:
        init_cluster(server)
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute('CREATE DATABASE "the casino"')
        source = Source(server, vault, dataset)
        planted = _live_and_die(source, server.dsn("the casino"), tmp_path_factory.mktemp("acks"))
    return LivedCasino(source, planted)


def _live_and_die(source: Source, dsn: str, ack_dir: Path) -> Planted:
    schema.create(dsn, players=40)
    stop = Event()
    reports: list[CaptureReport] = []
    options = CaptureOptions(heartbeat_every_s=0.2, report_every_s=0.1)
    capture = Capture(source.vault, source.dataset, dsn, listener=reports.append, options=options)
    capturing = Thread(target=capture.run, args=(stop,))
    workload = Workload(dsn, ack_dir, rate_per_s=300, workers=4)
    capturing.start()
    workload.start()
    try:
        _lives_on(workload, 200)
        take_snapshot(source.vault, source.dataset, dsn)
        _lives_on(workload, 600)
        planted = plant_bad_transaction(dsn)
        _lives_on(workload, 200)
    finally:
        workload.stop()
        wait_one_more_heartbeat(reports)
        stop.set()
        capturing.join(180)
        source.server.kill()
    return planted


def _lives_on(workload: Workload, acknowledged: int) -> None:
    """So many more, and for some seconds: a drill wants a moment that lies well behind the base backup's end."""
    acknowledged += workload.stats().acknowledged
    Event().wait(2)
    while workload.stats().acknowledged < acknowledged:
        Event().wait(0.05)


@pytest.fixture
def recover(engine_dir: Path) -> Iterator[Callable[..., Restored]]:
    """`recover(source, "latest", level="quick")`: a running restore, destroyed after the test."""
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


@dataclass(frozen=True)
class Lives:
    """A source that was failed over twice, and which notes in table `t` each target (with its timeline) brings back.

    The old primaries lived on for a while, so notes called `lost…` are only on what the source had left. `switches`
    are where that happened. All of it is captured; the only base backup is the first one's.
    """

    source: Source
    switches: tuple[int, int]
    targets: dict[tuple[str, int | None], str]


@pytest.fixture(scope="session")
def lives(
    engines_dir: Path, postgres_programs: Callable[[int], Programs], init_cluster: Callable[[PostgresServer], None]
) -> Iterator[Lives]:
    """Three servers of Postgres 17 on timelines 1, 2 and 3; they are gone."""
    dataset = make_dataset()
    vault = throwaway_vault(estate=ESTATE, rules={dataset.name: (dataset.retention, dataset.snapshot.every)})
    settings: dict[str, Setting] = {**QUIET, "wal_keep_size": "256MB"}
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer(engines_dir / "life1", postgres_programs(17), settings=settings))
        init_cluster(server)
        server.start()
        yield _fail_over_twice(Source(server, vault, dataset), engines_dir, stack)


@pytest.fixture
def promoted() -> Callable[[Source, PostgresServer], tuple[Source, int]]:
    """Promotes a standby, which is the source from then on; returns it and where the old timeline was left."""
    return _promoted


def _fail_over_twice(first: Source, folder: Path, stack: ExitStack) -> Lives:
    targets: dict[tuple[str, int | None], str] = {}
    first.sql("CREATE TABLE t (note text)")
    first.snapshot()
    _note(first, "a1")
    first.beat()
    targets[_now(first), None] = "a1"
    second = stack.enter_context(PostgresServer.standby_of(first.server, folder / "life2", name="second"))
    second.start()
    targets[f"xid:{_note(first, 'a2')}", None] = "a1 a2"
    new, switch = _promoted(first, second)
    targets[f"lsn:{format_lsn(switch)}", None] = "a1 a2"
    _note(first, "lost1")
    targets[_now(first), None] = "a1 a2"
    targets[_now(first), 1] = "a1 a2 lost1"
    first.beat()
    first.feed()
    _note(new, "b1")
    targets[_now(new), None] = "a1 a2 b1"
    new.beat()
    third = stack.enter_context(PostgresServer.standby_of(new.server, folder / "life3", name="third"))
    third.start()
    _note(new, "b2")
    newest, second_switch = _promoted(new, third)
    _note(new, "lost2")
    new.feed()
    targets["latest", 1] = "a1 a2 lost1"
    targets["latest", 2] = "a1 a2 b1 b2 lost2"
    _note(newest, "c1")
    newest.beat()
    newest.feed()
    targets["latest", None] = "a1 a2 b1 b2 c1"
    for server in (third, second):
        server.kill()
    return Lives(first, (switch, second_switch), targets)


def _note(source: Source, note: str) -> str:
    with psycopg.connect(source.dsn, autocommit=True) as session:
        row = session.execute("INSERT INTO t VALUES (%s) RETURNING pg_current_xact_id()::text", (note,)).fetchone()
    assert row is not None
    return str(row[0])


def _now(source: Source) -> str:
    """A moment between two commits."""
    source.pause()
    now = source.clock().isoformat()
    source.pause()
    return now


def _promoted(old: Source, standby: PostgresServer) -> tuple[Source, int]:
    """`standby` as the source once it has all that `old` wrote, and where that was; its history is on record."""
    reached = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
    with psycopg.connect(standby.dsn(), autocommit=True) as session:
        while session.execute(reached, (format_lsn(old.lsn()),)).fetchone() != (True,):
            Event().wait(0.05)
    standby.promote()
    with ReplicationConnection.open(standby.dsn()) as connection:
        connection.create_slot(old.dataset.slot)
        identity = connection.identify_system()
        history = parse_history(identity.timeline, connection.timeline_history(identity.timeline))
    parent, switch = history.switches[-1]
    body: dict[str, Json] = {"system_id": identity.system_id, "timeline": identity.timeline, "history": history.text}
    body |= {"parent": parent, "switch_lsn": format_lsn(switch), "followed_at": format_time(datetime.now(UTC))}
    record_fact(old.vault, old.dataset.name, TIMELINE, body)
    return Source(standby, old.vault, old.dataset, position=switch), switch
