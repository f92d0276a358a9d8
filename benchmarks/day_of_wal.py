"""`python -m benchmarks.day_of_wal`: a day of WAL at one micro-segment a second, rolled up, against the same in fulls.

What belongs here: real WAL of a throwaway server cut into pieces, their roll-up, and how long a restore takes to fetch,
open and lay them. What stays out: replay, which is the same for the same bytes and would only flatter the ratio.

The bytes compared with are laid down as full segments of 64 MiB at once, the best that any roll-up could make.
"""

import argparse
import json
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from dr_assets.engines.placement import engine_user
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.fetch import opened_wal
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.lay_wal import WalFrame, WalLayer
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.vault.chain import Chain, resolve
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.format.keys import WAL
from dr_assets.vault.format.segment import Prepared
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets.vault.vault import Vault

DAY: Final = 86_400
SEGMENT_BYTES: Final = 16 << 20
FULL_BYTES: Final = 64 << 20
T0: Final = datetime(2026, 1, 1, tzinfo=UTC)
WORKERS: Final = 16
SYSTEM_ID: Final = "7"
_RULES: Final = {name: (ThrowawayRetention(), timedelta(days=1)) for name in ("ledger", "reference", "tail")}
_RESULTS: Final = Path(__file__).parent / "results" / "day_of_wal.json"
_MIB: Final = 1 << 20
FLOOR: Final = 1.2


@dataclass(frozen=True)
class Source:
    """Real WAL [begin, end) in segment files."""

    folder: Path
    begin: int
    end: int

    def read(self, begin: int, end: int) -> bytes:
        """These bytes."""
        pieces = []
        while begin < end:
            size = min(end, begin - begin % SEGMENT_BYTES + SEGMENT_BYTES) - begin
            name = f"{1:08X}{begin >> 32:08X}{(begin & 0xFFFFFFFF) // SEGMENT_BYTES:08X}"
            with (self.folder / name).open("rb") as file:
                file.seek(begin % SEGMENT_BYTES)
                pieces.append(file.read(size))
            begin += size
        return b"".join(pieces)


def make_wal(work: Path, size_bytes: int) -> Source:
    """Ledger-like rows until the server has written enough; its segment files are kept when it is gone."""
    kept = work / "wal"
    with PostgresServer(
        work / "pg",
        find_programs("postgres", 17),
        settings={"fsync": False, "wal_keep_size": "20GB", "max_wal_size": "20GB"},
    ) as server:
        server.init()
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as session:
            session.execute("CREATE TABLE postings (id bigint PRIMARY KEY, account int, amount bigint, memo text)")
            begin = _position(session) // SEGMENT_BYTES * SEGMENT_BYTES
            first = 0
            while _position(session) - begin < size_bytes:
                session.execute(
                    "INSERT INTO postings SELECT i, mod(i, 997), mod(i * 7919, 100000), md5(i::text) "
                    "FROM generate_series(%s::bigint, %s::bigint) i",
                    (first, first + 49_999),
                )
                first += 50_000
        server.stop()
        shutil.copytree(server.data_dir / "pg_wal", kept, ignore=shutil.ignore_patterns("archive_status", "summaries"))
    return Source(kept, begin, begin + size_bytes)


def _position(session: psycopg.Connection[tuple[object, ...]]) -> int:
    row = session.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    return parse_lsn(str(row[0] if row else ""))


def put_day(vault: Vault, dataset: str, source: Source, pieces: int) -> float:
    """The WAL in `pieces` micro-segments, evenly over a day of the source's clock, and one behind; seconds it took.

    The one behind shows that the last hour is over, so that all of the day can be rolled up.
    """
    begin_s = time.perf_counter()
    edges = [source.begin + (source.end - source.begin) * number // (pieces + 1) for number in range(pieces + 2)]
    every = timedelta(days=1) / pieces
    previous: str | None = None
    under_way: deque[Future[None]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for number in range(pieces + 1):
            first, last = edges[number], edges[number + 1]
            at = T0 + number * every
            prepared = vault.prepare(
                dataset=dataset, stream=WAL, kind="wal", system_id=SYSTEM_ID, timeline=1, first=first, last=last,
                begin_at=at, end_at=at + every, plaintext=source.read(first, last), previous=previous,
                writer_epoch=1, extra={"recovery_point_at": format_time(at), "acknowledged_to": f"{first:016X}"},
            )  # fmt: skip
            previous = prepared.header.digest
            under_way.append(pool.submit(_put, vault, prepared))
            if len(under_way) > 4 * WORKERS:
                under_way.popleft().result()
        while under_way:
            under_way.popleft().result()
    stored = Anchor(SYSTEM_ID, 1, source.begin, source.end, None, None, 1, None)
    record_capture(vault, dataset, "stopped", stored)
    return time.perf_counter() - begin_s


def _put(vault: Vault, prepared: Prepared) -> None:
    """Without reading back, which the vault does: here only the objects matter, not their putting."""
    sealed = prepared.seal()
    vault.store.put(str(sealed.key), sealed.data, sealed.sha256, vault.locks.lock("ledger", "micro", vault.clock()))


def put_reference(vault: Vault, source: Source) -> None:
    """The same bytes in as few objects as there can be: pieces of 64 MiB."""
    previous = None
    for first in range(source.begin, source.end, FULL_BYTES):
        last = min(first + FULL_BYTES, source.end)
        prepared = vault.prepare(
            dataset="reference", stream=WAL, kind="wal", system_id=SYSTEM_ID, timeline=1, first=first, last=last,
            begin_at=T0, end_at=T0, plaintext=source.read(first, last), previous=previous,
        )  # fmt: skip
        previous = prepared.header.digest
        _put(vault, prepared)


def restore_s(vault: Vault, chain: Chain, source: Source, work: Path) -> float:
    """Seconds to fetch, open, verify and lay the chain as a restore does."""
    folder = work / "laid"
    folder.mkdir()
    frame = WalFrame(SYSTEM_ID, 1, source.begin, chain.end, SEGMENT_BYTES)
    begin_s = time.perf_counter()
    WalLayer(folder, [frame], engine_user()).lay(opened_wal(vault, chain.segments))
    took_s = time.perf_counter() - begin_s
    shutil.rmtree(folder)
    return took_s


def planned(vault: Vault, dataset: str, source: Source) -> tuple[Chain, float]:
    """The chain as a plan finds it, and the seconds that took."""
    begin_s = time.perf_counter()
    chain = stored_wal(vault, dataset, SYSTEM_ID, 1, source.begin)
    return chain, time.perf_counter() - begin_s


def unrolled(vault: Vault, source: Source) -> tuple[Chain, float]:
    """The micro-segments alone, as if nobody had rolled them up."""
    begin_s = time.perf_counter()
    listed = vault.objects("ledger", WAL, system_id=SYSTEM_ID, timeline=1, start_after_position=source.begin)
    chain = resolve(listed, vault.header, source.begin)
    return chain, time.perf_counter() - begin_s


def peak_mib() -> float:
    """Peak memory of this process since `forget_peak`."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def forget_peak() -> None:
    """Begin to measure anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def measured(vault: Vault, source: Source, work: Path, runs: int, pieces: int, store: str) -> Iterator[dict[str, Any]]:
    """Every row of the result."""
    versions = f"python {platform.python_version()}, {store}, {pieces} micro-segments"

    def row(what: str, ours: float, theirs: float | None, unit: str) -> dict[str, Any]:
        ratio = None if not theirs else round(ours / theirs, 3)
        there = None if theirs is None else round(theirs, 3)
        return {
            "what": what,
            "ours": round(ours, 3),
            "theirs": there,
            "ratio": ratio,
            "unit": unit,
            "versions": versions,
        }

    mib = (source.end - source.begin) / _MIB
    yield row(f"WAL of the day, in {pieces} micro-segments", mib, None, "MiB")
    within = "and of the store within it" if store == "memory" else "the interpreter and its libraries included"
    forget_peak()
    begin_s = time.perf_counter()
    done = roll_up(vault, "ledger")
    yield row(f"roll-up of the day into {done.fulls} full segments", time.perf_counter() - begin_s, None, "s")
    yield row(f"roll-up: peak memory of the process, {within}", peak_mib(), None, "MiB")
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(runs):
        for dataset, taken in (("ledger", ours), ("reference", theirs)):
            chain, plan_s = planned(vault, dataset, source)
            if chain.end != source.end:
                raise SystemExit(f"{dataset} ends at {chain.end:X}, not at {source.end:X}")
            taken.append(plan_s + restore_s(vault, chain, source, work))
        waiting = sum(1 for obj in planned(vault, "ledger", source)[0].segments if obj.key.stream == WAL)
    what = f"plan, fetch, open and lay the day: {done.fulls} fulls and {waiting} micros, against pieces of 64 MiB"
    yield row(f"{what} (median of {runs})", statistics.median(ours), statistics.median(theirs), "s")
    chain, plan_s = unrolled(vault, source)
    raw_s = plan_s + restore_s(vault, chain, source, work)
    yield row("the same from micro-segments that nobody rolled up", raw_s, statistics.median(theirs), "s")
    yield row("what one micro-segment that waits costs a restore", raw_s / len(chain.segments) * 1000, None, "ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all; exit 1 when the rolled-up day is over its floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pieces", type=int, default=DAY)
    parser.add_argument("--mib", type=int, default=640, help="WAL of the day")
    parser.add_argument("--store", choices=("seaweedfs", "memory"), default="seaweedfs")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=_RESULTS)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dr-day-")))
        work.chmod(0o711)
        source = make_wal(work, options.mib * _MIB)
        vault = throwaway_vault(store=_store(stack, work, options.store), rules=_RULES)
        print(f"putting {options.pieces} micro-segments", file=sys.stderr, flush=True)  # noqa: T201 - a benchmark talks
        took_s = put_day(vault, "ledger", source, options.pieces)
        print(f"put in {took_s:.0f} s", file=sys.stderr, flush=True)  # noqa: T201 - as above
        put_reference(vault, source)
        rows = []
        for row in measured(vault, source, work, options.runs, options.pieces, options.store):
            print(json.dumps(row), flush=True)  # noqa: T201 - as above
            rows.append(row)
        options.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    over = [row for row in rows if row["what"].startswith("plan,") and row["ratio"] > FLOOR]
    return 1 if over else 0


def _store(stack: ExitStack, work: Path, kind: str) -> ObjectStore:
    if kind == "memory":
        return MemoryStore()
    region = stack.enter_context(SeaweedRegion(work / "weed", "day", find_programs("weed")))
    region.start()
    store = S3Store(make_client(region.endpoint, region.access_key, region.secret_key), "day")
    store.create_bucket("GOVERNANCE", 14)
    return store


if __name__ == "__main__":
    sys.exit(main())
