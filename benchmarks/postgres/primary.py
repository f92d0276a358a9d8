"""The one source that everybody protects: Debian's Postgres 15 with pgbench's tables and the casino's ledger.

What belongs here: its settings, its data, making WAL, its archiver. What stays out: the tools.
"""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import zstandard
from psycopg import sql

from benchmarks.postgres.running import run
from dr_assets.casino import schema
from dr_assets.engines.placement import give
from dr_assets.engines.postgres import PostgresServer, Setting
from dr_assets.engines.programs import find_programs
from dr_assets.engines.waiting import wait_until

MAJOR: Final = 15
DBNAME: Final = "bench"
SEGMENT_BYTES: Final = 16 << 20
CLIENTS: Final = ("-n", "-c", "8", "-j", "2", "-M", "prepared")
SIMPLE_UPDATE: Final = ("-b", "simple-update")
# Each transaction touches five pages instead of one, so that a gigabyte of WAL doesn't take minutes to write.
_WIDE_UPDATE: Final = """\
\\set a random(1, 100000 * :scale)
\\set b random(1, 100000 * :scale)
\\set c random(1, 100000 * :scale)
\\set d random(1, 100000 * :scale)
\\set e random(1, 100000 * :scale)
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid IN (:a, :b, :c, :d, :e);
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :a, 1, CURRENT_TIMESTAMP);
"""
SETTINGS: Final[dict[str, Setting]] = {
    "shared_buffers": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",  # no checkpoint of its own accord in the middle of a measurement
    "wal_keep_size": "20GB",  # WAL is archived again and again
    "archive_mode": True,
    "archive_command": "",  # WAL piles up until a tool is given the job
    "max_wal_senders": 20,
    "max_replication_slots": 20,
}
_SAMPLED_SHARE: Final = 16
_PLAYERS: Final = 2000
# A ledger of years, written as sets: its rows have the sizes and the randomness of real ones, but the hashes are not
# chained and the balances are made up, which no backup tool can tell. Its triggers would take an hour.
_LEDGER: Final = (
    "SET session_replication_role = replica",
    (
        "INSERT INTO casino.transfers (transfer_id, kind, idempotency_key, payload_hash, created_at, digest)"
        " OVERRIDING SYSTEM VALUE"
        " SELECT 1000000 + n, (ARRAY['bet', 'win', 'deposit'])[1 + n % 3], 'round/' || n * 7919,"
        " sha256(n::text::bytea), now() - n * interval '40 ms',"
        " sha256(('d' || n)::bytea)"
        " FROM generate_series(1::bigint, {transfers}) AS n"
    ),
    (
        "INSERT INTO casino.postings SELECT 1000000 + n % 40000, 1 + n / 40000, 1000000 + 1 + n / 2, 'EUR',"
        " (1 - 2 * (n % 2)) * (100 + (n / 2 * 7919) % 9900), (n * 104729) % 1000003, sha256(('p' || n)::bytea)"
        " FROM generate_series(0::bigint, 2 * {transfers} - 1) AS n"
    ),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much data: pgbench's scale (15 MB each) and the casino's transfers (0.5 kB each with their postings)."""

    pgbench: int = 90
    transfers: int = 1_500_000


class Primary:
    """A running primary; LSNs are byte positions."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    @property
    def dsn(self) -> str:
        """The measured database, as superuser."""
        return self.server.dsn(DBNAME)

    def ask(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        """The first column of the first row."""
        with psycopg.connect(self.dsn, autocommit=True) as session:
            found = session.execute(statement.encode(), parameters).fetchone()
        return None if found is None else found[0]

    def tell(self, *statements: str | sql.Composed) -> None:
        """Run statements."""
        with psycopg.connect(self.dsn, autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode() if isinstance(statement, str) else statement)

    @property
    def size_bytes(self) -> int:
        """All databases together."""
        return int(self.ask("SELECT sum(pg_database_size(oid)) FROM pg_database"))

    @property
    def flushed(self) -> int:
        """The end of the WAL on its disk."""
        return int(self.ask("SELECT pg_current_wal_flush_lsn() - '0/0'"))

    def switch(self) -> int:
        """End the current WAL segment; where the next one begins."""
        self.tell("SELECT pg_switch_wal()")
        return -(-self.flushed // SEGMENT_BYTES) * SEGMENT_BYTES

    def checkpoint(self) -> None:
        """Make one now, so that none comes while a clock runs."""
        self.tell("CHECKPOINT")

    def set(self, name: str, value: str) -> None:
        """Change a setting of the running server."""
        setting = sql.Identifier(name)
        # In sessions' own hands: a change of what commits wait for must not wait for it itself.
        self.tell(
            "SET synchronous_commit = local",
            sql.SQL("ALTER SYSTEM SET {} = {}").format(setting, sql.Literal(value)),
            "SELECT pg_reload_conf()",
        )
        wait_until(lambda: self.ask(f"SHOW {name}") == value, timeout_s=10, what=f"{name} set")

    def bench(self, *args: str, script: tuple[str, ...] = SIMPLE_UPDATE) -> float:
        """Run pgbench with eight clients; transactions per second."""
        env = {"PATH": "/usr/bin:/bin", "PGPASSWORD": self.server.password or "", "LC_ALL": "C"}
        program = self.server.programs.path("pgbench")
        address = ["-h", "127.0.0.1", "-p", str(self.server.port), "-U", "postgres"]
        said = run([program, *script, *CLIENTS, *address, *args, DBNAME], env=env).output
        line = next(line for line in said.splitlines() if line.startswith("tps = "))
        return float(line.split()[2])

    def grow_wal(self, wanted_bytes: int) -> tuple[int, int]:
        """Write at least so much WAL by pgbench; its begin and end, both on segment ends."""
        script = self.server.run_dir / "wide-update.sql"
        script.write_text(_WIDE_UPDATE)
        scale = str(self.ask("SELECT count(*) FROM pgbench_branches"))
        begin = self.switch()
        while self.flushed < begin + wanted_bytes:
            self.bench("-t", "300", "-s", scale, script=("-f", str(script)))
        return begin, self.switch()

    def grow_data(self, wanted_bytes: int) -> None:
        """Copy pgbench's accounts until the databases hold at least so much."""
        while self.size_bytes < wanted_bytes:
            name = sql.Identifier(f"more_{secrets.token_hex(3)}")
            self.tell(sql.SQL("CREATE TABLE {} AS SELECT * FROM pgbench_accounts").format(name))
        self.checkpoint()

    # -- the archiver -----------------------------------------------------------------------------------------------

    def archive_with(self, command: str) -> None:
        """Give the archiver a command; an empty one lets WAL pile up."""
        self.set("archive_command", command)

    def make_ready(self, begin: int, end: int) -> int:
        """Have the finished segments from `begin` to `end` archived anew, whoever did it before; their number."""
        folder = self.server.data_dir / "pg_wal" / "archive_status"
        names = [segment_name(lsn) for lsn in range(begin - begin % SEGMENT_BYTES, end, SEGMENT_BYTES)]
        for name in names:
            done, ready = folder / f"{name}.done", folder / f"{name}.ready"
            if done.exists():
                done.rename(ready)
            elif not ready.exists():
                ready.touch(mode=0o600)
                give(ready, self.server.user)
        return len(names)

    def unarchived(self) -> int:
        """How many segments wait for the archiver."""
        return sum(1 for _ in (self.server.data_dir / "pg_wal" / "archive_status").glob("*.ready"))

    def forget_ready(self) -> None:
        """Call everything archived that waits."""
        for path in (self.server.data_dir / "pg_wal" / "archive_status").glob("*.ready"):
            path.rename(path.with_suffix(".done"))

    # -- what it holds ----------------------------------------------------------------------------------------------

    def contents(self) -> dict[str, int]:
        """Row counts by which a restored copy is recognised."""
        return contents(self.dsn)

    def compressibility(self) -> dict[str, float]:
        """By how much zstd shrinks a sixteenth of the data, in 1 MiB pieces, at levels 1 and 3."""
        files = [path for path in (self.server.data_dir / "base").rglob("*") if path.is_file()]
        return compressibility(sorted(files))

    def wal_compressibility(self, begin: int, end: int) -> dict[str, float]:
        """The same for finished WAL segments."""
        folder = self.server.data_dir / "pg_wal"
        return compressibility([folder / segment_name(lsn) for lsn in range(begin, end, SEGMENT_BYTES)])


def compressibility(files: list[Path]) -> dict[str, float]:
    """Plain size over compressed size of every sixteenth MiB, by level."""
    plain, packed, number = 0, {1: 0, 3: 0}, 0
    packers = {level: zstandard.ZstdCompressor(level=level) for level in packed}
    for path in files:
        with path.open("rb") as file:
            for begin in range(0, path.stat().st_size, 1 << 20):
                number += 1
                if number % _SAMPLED_SHARE == 0:
                    file.seek(begin)
                    data = file.read(1 << 20)
                    plain += len(data)
                    for level, packer in packers.items():
                        packed[level] += len(packer.compress(data))
    return {f"zstd-{level}": round(plain / size, 2) for level, size in packed.items() if size}


def segment_name(lsn: int, timeline: int = 1) -> str:
    """The WAL file that holds a position, of 16 MiB each."""
    number = lsn // SEGMENT_BYTES
    return f"{timeline:08X}{number // 256:08X}{number % 256:08X}"


def segment_end(name: str) -> int:
    """Where a WAL file of 16 MiB ends."""
    return (int(name[8:16], 16) * 256 + int(name[16:24], 16) + 1) * SEGMENT_BYTES


def contents(dsn: str) -> dict[str, int]:
    """Row counts of a copy: cheap ones, and one that counts commits."""
    with psycopg.connect(dsn) as session:
        counts = {}
        for table in ("pgbench_branches", "pgbench_history", "casino.transfers"):
            name = sql.SQL(".").join(map(sql.Identifier, table.split(".")))
            found = session.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
            counts[table] = int(found[0]) if found else -1
    return counts


@contextmanager
def open_primary(folder: Path, scale: Scale, *, cache: Path | None = None) -> Iterator[Primary]:
    """A loaded, running primary below `folder`; with `cache` its data is kept there and copied the next time."""
    data_dir = folder / "primary"
    programs = find_programs("postgres", MAJOR)
    kept = None if cache is None else cache / f"data-{scale.pgbench}-{scale.transfers}"
    if kept is not None and kept.is_dir():
        password = json.loads((kept.with_suffix(".json")).read_text())["password"]
        subprocess.run(["cp", "-a", "--reflink=auto", str(kept), str(data_dir)], check=True)  # noqa: S607 - coreutils
        server = PostgresServer(data_dir, programs, settings=SETTINGS, password=password)
    else:
        server = PostgresServer(data_dir, programs, settings=SETTINGS)
        server.init()
    with server:
        server.start()
        primary = Primary(server)
        if kept is None or not kept.is_dir():
            load(primary, scale)
            if kept is not None:
                _keep(server, kept)
        primary.checkpoint()
        yield primary


def load(primary: Primary, scale: Scale) -> None:
    """Fill an empty server: pgbench's tables and the ledger, by the scale."""
    with psycopg.connect(primary.server.dsn(), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {DBNAME}")
    primary.server.run_tool("pgbench", ["-i", "-q", "-s", str(scale.pgbench), DBNAME])
    schema.create(primary.dsn, players=_PLAYERS)
    primary.tell(*(statement.format(transfers=scale.transfers) for statement in _LEDGER))
    primary.tell("VACUUM ANALYZE")
    primary.forget_ready()


def _keep(server: PostgresServer, kept: Path) -> None:
    server.stop()
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(server.data_dir), str(kept)], check=True)  # noqa: S607 - coreutils
    secret = kept.with_suffix(".json")
    secret.touch(mode=0o600)
    secret.write_text(json.dumps({"password": server.password}))
    server.start()
