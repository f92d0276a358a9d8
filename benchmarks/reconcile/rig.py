"""The two sides on disk and in a throwaway Postgres, and processes of which the memory is sampled.

What belongs here: making, running, watching. What stays out: what is measured (pieces.py).
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb
import psycopg

from benchmarks.postgres.rows import Row
from benchmarks.reconcile.books import Books
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import find_programs

CONTRACT: Final = Path(__file__).parent / "contract"
MAJOR: Final = 17
_EVERY_S: Final = 0.1
_CHUNK: Final = 1 << 20


@dataclass
class Bench:
    """What the pieces share."""

    folder: Path
    server: PostgresServer
    tell: Callable[[str], None]
    scale: float
    runs: int
    memory: str
    reladiff: Path
    rows: list[Row] = field(default_factory=list)

    def books(self, rows: int) -> Books:
        """Books of so many rows, by the scale that was asked for."""
        return Books(max(1_000_000, int(rows * self.scale)))

    def versions(self, **more: str) -> dict[str, str]:
        """What ran."""
        return {"duckdb": duckdb.__version__, "postgres": str(MAJOR), **more}

    def execute(self, *statements: str) -> None:
        """Run statements in the database of the books."""
        with psycopg.connect(self.server.dsn(), autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())

    def write(self, query: str, path: Path, form: str) -> Path:
        """A query's rows as a file, made by DuckDB."""
        settings: dict[str, Any] = {
            "memory_limit": "2GB",
            "threads": 2,
            "preserve_insertion_order": False,
            "temp_directory": str(self.folder / "making"),
        }
        with duckdb.connect(config=settings) as database:
            database.execute(f"COPY ({query}) TO '{path}' ({form})")
        return path

    def ask(self, **asked: Any) -> "Watched":
        """A child's answer, and the most memory that it had with all its own children."""
        workdir = self.folder / "work"
        workdir.mkdir(exist_ok=True)
        whole = {
            "workdir": str(workdir),
            "contract": str(CONTRACT),
            "memory": self.memory,
            "max_breaks": 20_000,
        } | asked
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reconcile.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with _sampled(child.pid) as peak:
            out, _ = child.communicate(json.dumps(whole))
        if child.returncode:
            raise RuntimeError(f"the child ended with {child.returncode}")
        return Watched(json.loads(out), max(peak))


@dataclass(frozen=True)
class Watched:
    """What a process said, and its peak."""

    said: dict[str, Any]
    peak_bytes: int


@contextmanager
def open_bench(folder: Path, tell: Callable[[str], None], **asked: Any) -> Iterator[Bench]:
    """A server with room for a large table; everything goes when the block ends."""
    settings: dict[str, Any] = {"shared_buffers": "256MB", "fsync": False, "max_wal_size": "4GB"}
    with PostgresServer(folder / "books", find_programs("postgres", MAJOR), settings=settings) as server:
        server.init()
        server.start()
        yield Bench(folder, server, tell, **asked)


@contextmanager
def _sampled(pid: int) -> Iterator[list[int]]:
    """The memory of a process and its descendants, again and again; proportional, so that nothing counts twice."""
    peaks, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(_EVERY_S):
            peaks.append(sum(_resident(each) for each in _family(pid)))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def copy_in(dsn: str, path: Path, table: str) -> float:
    """A CSV into a table of Postgres; seconds."""
    begin_s = time.monotonic()
    with (
        psycopg.connect(dsn) as session,
        path.open("rb") as file,
        session.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv, HEADER)") as copy,
    ):
        while chunk := file.read(_CHUNK):
            copy.write(chunk)
    return time.monotonic() - begin_s
