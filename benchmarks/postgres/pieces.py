"""What is measured: base backup, restore, PITR, WAL archiving. Each piece runs by itself and adds its rows.

What belongs here: the order of one measurement and which floor it has. What stays out: how a tool is run.
"""

import time
from typing import Final

from benchmarks.postgres.bench import Bench, Runs, Wal
from benchmarks.postgres.ours import Ours
from benchmarks.postgres.pgbackrest import PgBackRest
from benchmarks.postgres.primary import SEGMENT_BYTES
from benchmarks.postgres.rows import Floor

NO_SLOWER: Final = Floor("ratio", at_most=1.0)
TWICE: Final = Floor("ratio", at_least=2.0)
_SLOW_SHARE: Final = 24  # segments a run for who archives a few a second: it is a rate
_BARE_NOTE: Final = "barman-cloud encrypts nothing itself and compresses with lz4"


def data(bench: Bench) -> None:
    """What is protected, and how well it compresses."""
    primary = bench.rig.primary
    shrinks = primary.compressibility()
    bench.add("data: size", "GB", [primary.size_bytes / 1e9])
    for codec, ratio in shrinks.items():
        bench.add(f"data: compressibility by {codec}", "x", [ratio])


def backup(bench: Bench) -> None:
    """Wall time of a full base backup, from the command's start to its end."""
    runs = Runs()
    for number, tool in bench.rounds():
        ran = bench.backup(tool)
        runs.note(tool, "s", ran.duration_s)
        bench.rig.tell(f"backup {number + 1}: {tool.name} {ran.duration_s:.1f} s, {ran.cpu_s:.1f} s of processor time")
    for tool in bench.theirs:
        floor, note = (NO_SLOWER, "") if tool is bench.pgbackrest else (None, _BARE_NOTE)
        bench.add(
            "base backup",
            "s",
            runs.of(bench.ours, "s"),
            against=tool,
            theirs=runs.of(tool, "s"),
            floor=floor,
            note=note,
        )


def restore(bench: Bench) -> None:
    """Restore of the newest backup to the end of the WAL, which is short: until it lies, ends, answers."""
    for tool in bench.tools:
        bench.ensure_backup(tool)
    wanted = bench.rig.primary.contents()
    runs = Runs()
    for number, tool in bench.rounds():
        came = tool.restore(None)
        bench.check(tool, came, wanted)
        runs.note(tool, "command", came.command_s)
        runs.note(tool, "answers", came.answers_s)
        runs.note(tool, "laid", came.command_s if came.laid_s is None else came.laid_s)
        bench.rig.tell(
            f"restore {number + 1}: {tool.name} {came.command_s:.1f} s, answers after {came.answers_s:.1f} s"
        )
        if came.phases_s:
            bench.rig.tell(f"  phases: {_phases(came.phases_s)}")
    figures = {
        "restore: data laid": ("laid", "theirs is the whole command, ours the phases that do the same"),
        "restore: command": ("command", "ours also verifies, replays, promotes, checks and stops the cluster"),
        "restore: until the recovered server answers": ("answers", "from the command's start; theirs verifies nothing"),
    }
    for what, (figure, note) in figures.items():
        for tool in bench.theirs:
            floor = NO_SLOWER if tool is bench.pgbackrest and figure != "laid" else None
            mine, other = runs.of(bench.ours, figure), runs.of(tool, figure)
            bench.add(what, "s", mine, against=tool, theirs=other, floor=floor, note=note)


def archive(bench: Bench) -> None:
    """WAL that lies waiting, drained: MB/s from the order (theirs) or from the resident capture's connection (ours)."""
    wal = bench.ensure_wal()
    single = PgBackRest(bench.rig, asynchronous=False)
    runs = Runs()
    for number in range(bench.options.runs):
        _drain_theirs(bench, runs, wal, single, number)
        _drain_ours(bench, runs, wal, number)
    mine = runs.of(bench.ours, "streaming MB/s")
    for tool, name, figure, floor, note in (
        (bench.pgbackrest, "pgBackRest, archive-async", "async", TWICE, ""),
        (single, "pgBackRest, one by one", "single", TWICE, ""),
        (bench.barman, bench.barman.name, bench.barman.name, None, _BARE_NOTE),
    ):
        theirs = runs.of(figure, "MB/s")
        bench.add("WAL archiving", "MB/s", mine, against=tool, theirs=theirs, floor=floor, name=name, note=note)
    bench.add(
        "WAL archiving, with the start of our process", "MB/s", runs.of(bench.ours, "MB/s"),
        against=bench.pgbackrest, theirs=runs.of("async", "MB/s"), name="pgBackRest, archive-async",
    )  # fmt: skip


def pitr(bench: Bench) -> None:
    """A position behind the whole stretch of WAL, from the command's start until the recovered server answers."""
    wal = bench.ensure_wal()
    for tool in bench.tools:
        bench.rig.tell(f"{tool.name} gets the WAL")
        bench.ensure_archived(tool)
    runs = Runs()
    for number, tool in bench.rounds():
        came = tool.restore(wal.target)
        bench.check(tool, came, wal.contents)
        runs.note(tool, "answers", came.answers_s)
        bench.rig.tell(f"PITR {number + 1}: {tool.name} {came.answers_s:.1f} s")
        if came.phases_s:
            bench.rig.tell(f"  phases: {_phases(came.phases_s)}")
    what = "PITR over at least 1 GB of WAL: until the server answers"
    for tool in bench.theirs:
        floor = NO_SLOWER if tool is bench.pgbackrest else None
        note = f"{wal.size_bytes / 1e9:.2f} GB of WAL"
        mine, other = runs.of(bench.ours, "answers"), runs.of(tool, "answers")
        bench.add(what, "s", mine, against=tool, theirs=other, floor=floor, note=note)


def _drain_theirs(bench: Bench, runs: Runs, wal: Wal, single: PgBackRest, number: int) -> None:
    part = min(wal.end, wal.begin + _SLOW_SHARE * SEGMENT_BYTES)
    for name, command, end in (
        ("async", bench.pgbackrest.archive_command(f"archive{number}"), wal.end),
        ("single", single.archive_command(f"single{number}"), part),
        (bench.barman.name, bench.barman.archive_command(f"archive{number}"), part),
    ):
        rate = (end - wal.begin) / bench.drain(command, wal.begin, end) / 1e6
        runs.note(name, "MB/s", rate)
        bench.rig.tell(f"archiving {number + 1}: {name} {rate:.0f} MB/s")


def _drain_ours(bench: Bench, runs: Runs, wal: Wal, number: int) -> None:
    source: Ours = bench.fresh_source(f"archive{number}")
    begin_s = time.monotonic()
    with source.capture() as capture:
        streaming_s = source.wait_streaming(capture)
        end_s = source.wait_stored(wal.end, capture)
        capture.stop()
    runs.note(source, "MB/s", wal.size_bytes / (end_s - begin_s) / 1e6)
    runs.note(source, "streaming MB/s", wal.size_bytes / (end_s - streaming_s) / 1e6)
    took = f"{streaming_s - begin_s:.1f} s until it streams, {end_s - streaming_s:.1f} s streaming"
    bench.rig.tell(f"archiving {number + 1}: {source.name} {runs.of(source, 'MB/s')[-1]:.0f} MB/s ({took})")


def _phases(phases_s: object) -> str:
    return str(phases_s)
