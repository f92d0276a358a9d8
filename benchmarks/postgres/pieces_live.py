"""What is measured while the primary works: lag, what archiving costs it, and how much memory we take.

What belongs here: the order of one measurement and which floor it has. What stays out: how a tool is run.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

from benchmarks.postgres.bench import Bench, Runs
from benchmarks.postgres.ours import Ours
from benchmarks.postgres.rig import ArchivingTool, base_environment
from benchmarks.postgres.rows import Floor, percentile
from benchmarks.postgres.running import Process
from benchmarks.postgres.watching import PositionWatch, lags_s
from dr_assets.engines.waiting import wait_until

LAG_TPS: Final = 2500
ZERO_LOSS: Final = "dr_assets, zero loss"
ZERO_LOSS_MANY: Final = "dr_assets, zero loss, 64 clients"
_SEGMENT_NOTE: Final = (
    "theirs: until the commit's WAL segment is archived. Right after a checkpoint, when segments fill fastest, and the "
    "last one is switched for them; otherwise it takes archive_timeout"
)


def lag(bench: Bench) -> None:
    """Commit to safe at 2,500 transactions a second, both read from the server's own views every 10 ms."""
    runs = Runs()
    for number in range(bench.options.runs):
        _lag_of_ours(bench, runs)
        for tool in bench.theirs:
            _lag_of_theirs(bench, runs, tool)
        shown = ", ".join(f"{name} {figure} {values[-1]:.3f}" for (name, figure), values in runs.numbers.items())
        bench.rig.tell(f"lag {number + 1}: {shown}")
    for figure, floor in (("p50", None), ("p99", Floor("ours", at_most=1.0))):
        for tool in bench.theirs:
            mine, other = runs.of(bench.ours, figure), runs.of(tool, figure)
            what = f"lag from commit to locked, {figure}"
            judged = floor if tool is bench.pgbackrest else None  # our own figure: judged once
            bench.add(what, "s", mine, against=tool, theirs=other, floor=judged, note=_SEGMENT_NOTE)
    bench.add("load during the lag", "tps", runs.of(bench.ours, "tps"), floor=Floor("ours", at_least=2000))


def cost(bench: Bench) -> None:
    """What the primary still does under pgbench's simple updates, as fast as it can, beside an unprotected one."""
    runs = Runs()
    ways: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "bare": nullcontext,
        "pg_receivewal": lambda: _receivewal(bench),
        bench.pgbackrest.name: lambda: _archiving(bench, bench.pgbackrest),
        bench.ours.name: lambda: _capturing(bench),
        ZERO_LOSS: lambda: _zero_loss(bench),
        ZERO_LOSS_MANY: lambda: _zero_loss(bench),
    }
    for number in range(bench.options.runs):
        for name in _rotated(list(ways), number):
            bench.rig.primary.checkpoint()
            with ways[name]():
                clients = ("-c", "64") if name == ZERO_LOSS_MANY else ()
                tps = bench.rig.primary.bench("-T", str(bench.options.load_s), *clients)
            runs.note(name, "tps", tps)
            bench.rig.tell(f"cost {number + 1}: {name} {tps:.0f} tps")
    mine, bare = runs.of(bench.ours, "tps"), runs.of("bare", "tps")
    for name, what in ((ZERO_LOSS, "zero loss"), (ZERO_LOSS_MANY, "zero loss with 64 clients")):
        note = "every commit waits until the vault has it under lock: clients make up for the wait"
        bench.add(
            f"throughput of the primary, {what}", "tps", runs.of(name, "tps"), theirs=bare, name="bare", note=note
        )
    for name in ("bare", "pg_receivewal", bench.pgbackrest.name):
        tool = bench.pgbackrest if name == bench.pgbackrest.name else None
        what = "throughput of the primary while captured"
        bench.add(what, "tps", mine, against=tool, theirs=runs.of(name, "tps"), name=name)


def memory(bench: Bench) -> None:
    """Peak memory of our processes (without database servers) at the size the data has, and at 6 GB."""
    peaks = Runs()
    small = bench.fresh_source("small")
    bench.rig.primary.grow_wal(bench.options.wal_bytes // 2)  # growing the data writes the WAL of the large case
    _peaks(bench, peaks, "small", small)
    large = bench.fresh_source("large")
    bench.rig.tell("growing the data")
    bench.rig.primary.grow_data(bench.options.grown_bytes)
    _peaks(bench, peaks, "large", large)
    for verb in ("backup", "restore", "capture"):
        at_first, grown = peaks.of(verb, "small"), peaks.of(verb, "large")
        bench.add(f"memory of {verb}, 2 GB", "MB", at_first, floor=Floor("ours", at_most=512))
        bench.add(f"memory of {verb}, 6 GB", "MB", grown, floor=Floor("ours", at_most=512))
        growth = [grown[0] / at_first[0]]
        bench.add(f"memory of {verb}, 6 GB over 2 GB", "x", growth, floor=Floor("ours", at_most=1.1))


def _peaks(bench: Bench, peaks: Runs, size: str, source: Ours) -> None:
    primary = bench.rig.primary
    with source.capture(watch_memory=True) as capture:
        source.wait_stored(primary.flushed, capture)
        peaks.note("capture", size, capture.stop().peak_bytes / 1e6)
    peaks.note("backup", size, bench.backup(source, watch_memory=True).peak_bytes / 1e6)
    peaks.note("restore", size, source.restore(None, watch_memory=True).peak_bytes / 1e6)
    bench.rig.tell(f"memory, {size}: { {verb: round(peaks.of(verb, size)[0]) for verb, _ in peaks.numbers} } MB")


def _lag_of_ours(bench: Bench, runs: Runs) -> None:
    primary = bench.rig.primary
    primary.checkpoint()
    with _capturing(bench) as (ours, capture), PositionWatch(primary.dsn, "streamed", ours.slot) as watch:
        begin_s = time.monotonic()
        tps = primary.bench("-T", str(bench.options.load_s), "-R", str(LAG_TPS))
        end_s = time.monotonic()
        ours.wait_stored(primary.flushed, capture)
        time.sleep(0.1)
    _note(runs, ours.name, lags_s(watch.positions, begin_s, end_s), tps)


def _lag_of_theirs(bench: Bench, runs: Runs, tool: ArchivingTool) -> None:
    primary = bench.rig.primary
    primary.switch()
    primary.checkpoint()
    primary.forget_ready()
    with _archiving(bench, tool), PositionWatch(primary.dsn, "archived") as watch:
        begin_s = time.monotonic()
        tps = primary.bench("-T", str(bench.options.load_s), "-R", str(LAG_TPS))
        end_s = time.monotonic()
        primary.switch()  # else the last segment, which nothing fills any more, would take archive_timeout
        wait_until(lambda: primary.unarchived() == 0, timeout_s=120, what="the archiver done", every_s=0.05)
        time.sleep(0.1)
    _note(runs, tool.name, lags_s(watch.positions, begin_s, end_s), tps)


def _note(runs: Runs, name: str, lags: list[float], tps: float) -> None:
    runs.note(name, "p50", percentile(lags, 0.5))
    runs.note(name, "p99", percentile(lags, 0.99))
    runs.note(name, "tps", tps)


@contextmanager
def _capturing(bench: Bench) -> Iterator[tuple[Ours, Process]]:
    """A capture runs and has caught up."""
    with bench.passing_source() as source, source.capture() as capture:
        source.wait_stored(bench.rig.primary.flushed, capture)
        yield source, capture
        capture.stop()


@contextmanager
def _zero_loss(bench: Bench) -> Iterator[None]:
    """Commits wait for the vault: our capture is the primary's synchronous standby."""
    primary = bench.rig.primary
    with bench.passing_source(durability="zero_loss", on_capture_loss="block") as source:
        primary.set("synchronous_standby_names", source.slot)  # first, or the capture refuses to promise anything
        try:
            with source.capture() as capture:
                source.wait_stored(primary.flushed, capture)
                yield
                primary.set("synchronous_standby_names", "")
                capture.stop()
        finally:
            primary.set("synchronous_standby_names", "")


@contextmanager
def _archiving(bench: Bench, tool: ArchivingTool) -> Iterator[None]:
    """The server archives with a tool, from here on."""
    primary = bench.rig.primary
    primary.forget_ready()
    primary.archive_with(tool.archive_command())
    yield
    bench.stop_archiving()


@contextmanager
def _receivewal(bench: Bench) -> Iterator[None]:
    """Postgres's own receiver, into a folder."""
    rig = bench.rig
    server, folder = rig.primary.server, rig.fresh("receivewal")
    address = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    env = {**base_environment(), "PGPASSWORD": server.password or ""}
    receiver: list[str | Path] = [server.programs.path("pg_receivewal"), "-D", folder, "--no-loop", *address]
    with Process(receiver, env=env, user=rig.user) as process:
        wait_until(
            lambda: rig.primary.ask(
                "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'"
            ),
            timeout_s=30,
            what="pg_receivewal streaming",
        )
        yield
        process.end()


def _rotated(names: list[str], by: int) -> list[str]:
    return names[by % len(names) :] + names[: by % len(names)]
