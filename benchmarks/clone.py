"""`python -m benchmarks.clone`: how long until a copy of a 2 GB ledger at a random moment can be asked; and of what.

What belongs here: a day in miniature (a full, then incrementals with load between them, all of it captured), clones of
random moments of it by the command line, rows. What stays out: the clone's insides.

An hour here is so much WAL (`--hour-mb`), whatever time that takes; what an hour of a clock would add is nothing but
more of it. Each clone is asked from another process through the connection string that was printed.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.figures import Tell, concluded, teller, unwind_on_signals, write
from benchmarks.postgres.ours import DATASET, Ours
from benchmarks.postgres.primary import SETTINGS, SIMPLE_UPDATE, Primary, Scale, load
from benchmarks.postgres.rig import Rig
from benchmarks.postgres.rows import Floor, Row, row
from benchmarks.postgres.running import Process, ToolError
from benchmarks.prover import PROVER_RESULTS, redraw
from dr_assets.engines.placement import engine_user, give
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.declarations import load_estate
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.clone_shelf import CLONES_DIR_ENV, CloneShelf
from dr_assets.proving.prover.points import Proven, latest_proven
from dr_assets.vault.connect import open_vault

QUERYABLE: Final = Floor("ours", at_most=30.0)
_GONE_WITHIN_S: Final = 120.0
_STOPPED_WITHIN_S: Final = 600.0
_ASK: Final = "SELECT count(*), max(mtime) FROM public.pgbench_history"


class Cloning(Ours):
    """Our command line, with clones."""

    def _environment(self) -> dict[str, str]:
        folder = self._rig.folder
        return {**super()._environment(), CLONES_DIR_ENV: str(folder / "clones"), WORK_DIR_ENV: str(folder / "work")}

    def snapshot(self, *, incremental: bool) -> float:
        """A base backup; seconds."""
        return self._run("snapshot", DATASET, *(["--incremental"] if incremental else [])).duration_s

    def roll_up(self) -> None:
        """Micro-segments into full ones, as the resident roller does."""
        self._run("roll-up", DATASET)

    @contextmanager
    def clone(self, at: datetime) -> Iterator[tuple[float, dict[str, Any]]]:
        """Seconds until it was ready, and what was printed."""
        ran = self._run("clone", DATASET, "--at", at.isoformat(), "--by", "bench", "--reason", "bench", "--json")
        said = json.loads(ran.output[ran.output.index("{") :])
        try:
            yield ran.duration_s, said
        finally:
            process = Process(
                self._command("clone", "drop", str(said["clone_id"]))[:-2], env=self._environment()
            )  # it takes no --defs
            process.finished()

    @contextmanager
    def none_left(self) -> Iterator[None]:
        """Whatever ends the block: a clone's own process would hold it up for hours."""
        shelf = CloneShelf.of(self._environment())
        try:
            yield
        finally:
            for record in shelf.records():
                shelf.ask_to_end(record.clone_id)
            wait_until(
                lambda: all(not shelf.has_keeper(record.clone_id) for record in shelf.records()),
                timeout_s=_GONE_WITHIN_S, what="the clones' end",
            )  # fmt: skip

    @contextmanager
    def proving(self, tell: Tell) -> Iterator[None]:
        """`dr-assets prove` beside, once it follows and has looked at everything; it has to last."""
        with Process(self._command("prove", DATASET), env=self._environment()) as process:
            try:
                self._wait(lambda: (now := self._proven()) is not None and now.deep is not None, process, "proven", 1.0)
                tell(f"beside it {self._proven()}")
                yield
                if not process.alive:
                    raise ToolError(f"the prover ended: {process.said()[-3000:]}")
            finally:
                if process.alive:
                    process.stop(timeout_s=_STOPPED_WITHIN_S)  # not before its job is done
            tell(f"beside it {self._proven()}")

    def _proven(self) -> Proven | None:
        env = self._environment()
        vault = open_vault(load_estate(self._folder / "defs"), "primary", env, signing=False)
        return latest_proven(vault, DATASET)


def main() -> int:
    """Parse, live, clone, write; 1 when the floor was missed."""
    options = _parser().parse_args()
    if options.render:
        redraw(options.output)
        return 0
    unwind_on_signals()
    tell = teller()
    with tempfile.TemporaryDirectory(prefix="dr-assets-bench-", dir="/var/tmp") as folder, ExitStack() as stack:
        Path(folder).chmod(0o711)
        rig = _rig(Path(folder), Scale(options.scale, options.transfers), tell, stack)
        rows = _measured(rig, options, tell)
    write(options.output, rows)
    if options.output == PROVER_RESULTS:
        redraw(options.output)
    return concluded(tell, options.output, [asdict(each) for each in rows])


def _rig(folder: Path, scale: Scale, tell: Tell, stack: ExitStack) -> Rig:
    mine = folder / "tools"
    mine.mkdir(mode=0o700)
    give(mine, engine_user())
    tell("loading the primary")
    settings = {**SETTINGS, "archive_mode": False, "summarize_wal": True, "wal_keep_size": "1GB", "fsync": False}
    server = stack.enter_context(PostgresServer(folder / "primary", find_programs("postgres", 17), settings=settings))
    server.init()
    server.start()
    primary = Primary(server)
    load(primary, scale)
    region = stack.enter_context(SeaweedRegion(folder / "region", "bench", find_programs("weed"), tls=True))
    region.start()
    return Rig(folder, mine, primary, region, tell)


def _measured(rig: Rig, options: argparse.Namespace, tell: Tell) -> list[Row]:
    ours = Cloning(rig, "clone", declared={"snapshot": {"every": "24h", "incremental_every": "1h"}})
    ours.prepare()
    size_gb = rig.primary.size_bytes / 1e9
    rng = random.Random(options.seed)  # noqa: S311 - moments, no secrets
    with ours.none_left(), ours.capture() as capture:
        ours.wait_stored(rig.primary.flushed, capture)
        tell(f"{size_gb:.2f} GB; a full in {ours.snapshot(incremental=False):.1f} s")
        hours = [_hour(rig, ours, options, tell, last=hour == options.hours) for hour in range(1, options.hours + 1)]
        ours.wait_stored(rig.primary.flushed, capture)
        time.sleep(3)  # a heartbeat behind the last commit
        ours.wait_stored(rig.primary.flushed, capture)
        ours.roll_up()
        with ExitStack() as stack:
            if options.prover:
                stack.enter_context(ours.proving(tell))
            moments = [
                begin + (end - begin) * rng.random() for begin, end in (rng.choice(hours) for _ in range(options.runs))
            ]
            taken = [_cloned(rig, ours, at, tell) for at in moments]
        capture.stop()
    return _rows(taken, size_gb, options)


def _hour(rig: Rig, ours: Cloning, options: argparse.Namespace, tell: Tell, *, last: bool) -> tuple[datetime, datetime]:
    """Load, then an incremental (not behind the last hour); the source's clock at its begin and end."""
    begin, from_lsn = _clock(rig), rig.primary.flushed
    while rig.primary.flushed < from_lsn + options.hour_mb * 1_000_000:
        rig.primary.bench("-t", "500", script=SIMPLE_UPDATE)
    end = _clock(rig)
    if not last:
        tell(f"an hour of {(rig.primary.flushed - from_lsn) / 1e6:.0f} MB WAL, incremental in "
             f"{ours.snapshot(incremental=True):.1f} s")  # fmt: skip
    return begin, end


def _clock(rig: Rig) -> datetime:
    found = rig.primary.ask("SELECT clock_timestamp()")
    assert isinstance(found, datetime)  # noqa: S101 - for the type checker
    return found.astimezone(UTC)


def _cloned(rig: Rig, ours: Cloning, at: datetime, tell: Tell) -> tuple[float, dict[str, Any]]:
    """One clone, asked and compared with what the source says of that moment."""
    with ours.clone(at) as (ready_s, said):
        asked_s = time.monotonic()
        with psycopg.connect(str(said["dsn"])) as session:
            found = session.execute(_ASK).fetchone()
        took_s = ready_s + time.monotonic() - asked_s
    assert found is not None  # noqa: S101 - an aggregate has a row
    # mtime is a transaction's begin, its commit may lie behind `at`: what began well before it and is missing is lost.
    wanted = rig.primary.ask(
        "SELECT count(*) FROM public.pgbench_history WHERE mtime < %s",
        ((at - timedelta(seconds=2)).replace(tzinfo=None),),
    )
    if found[0] < wanted or (found[1] is not None and found[1].replace(tzinfo=UTC) > at):
        raise RuntimeError(f"the clone at {at} holds {found}, the source had {wanted} two seconds before")
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in said["phases_s"].items())
    tell(f"clone at {at:%H:%M:%S}: {took_s:.1f} s ({phases})")
    return took_s, said


def _rows(taken: Sequence[tuple[float, dict[str, Any]]], size_gb: float, options: argparse.Namespace) -> list[Row]:
    times = [took_s for took_s, _ in taken]
    note = (
        f"{size_gb:.2f} GB, a full and {options.hours - 1} incrementals, {options.hour_mb} MB of WAL in an hour, "
        f"random moments (seed {options.seed}){', the prover running' if options.prover else ''}"
    )
    phases: dict[str, list[float]] = {}
    for took_s, said in taken:
        for name, seconds in said["phases_s"].items():
            phases.setdefault(name, []).append(float(seconds))
        phases.setdefault("start-up of two processes", []).append(took_s - float(said["phases_s"]["in all"]))
    return [
        row("clone: until it answers", "s", times, floor=QUERYABLE, note=note),
        row("clone: until it answers, the slowest", "s", [max(times)], floor=QUERYABLE, note=note),
        *(
            row(f"clone: {name.replace('_', ' ')}", "s", each, note=note)
            for name, each in phases.items()
            if name != "in all" and statistics.median(each) > 0
        ),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Clones of random moments of a day, until they can be asked.")
    parser.add_argument("--runs", type=int, default=4, help="clones")
    parser.add_argument("--hours", type=int, default=4, help="stretches of load, an incremental between two")
    parser.add_argument("--hour-mb", type=int, default=150, help="WAL of one, 10^6 bytes")
    parser.add_argument("--scale", type=int, default=Scale().pgbench, help="pgbench's scale")
    parser.add_argument("--transfers", type=int, default=Scale().transfers, help="the ledger's transfers")
    parser.add_argument("--seed", type=int, default=7, help="of the moments")
    parser.add_argument("--prover", action="store_true", help="with `dr-assets prove` running beside")
    parser.add_argument("--output", type=Path, default=PROVER_RESULTS)
    parser.add_argument("--render", action="store_true", help="measure nothing, redraw the page from the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
