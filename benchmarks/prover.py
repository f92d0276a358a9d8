"""`python -m benchmarks.prover`: a prover beside a capture under load: how old what it has proven is, and who pays.

What belongs here: the casino's traffic at a given rate, the capture, the prover, each a process of its own; looking at
all of them twice a second; rows. What stays out: the prover's insides, clones (clone.py).

In the time that is looked at, a prover does everything it does in a day: it follows, reconciles, makes a deep pass and
begins anew from the base backup. Where the machine is too slow for all of that, the time is made longer.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import RESULTS, ROOT, Tell, concluded, draw, teller, unwind_on_signals, write
from benchmarks.postgres.page import table
from benchmarks.postgres.rows import Floor, Row, percentile, row
from dr_assets.estate.prove import Prove
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.prover.ground import ground_of
from dr_assets.proving.prover.points import Proven
from dr_assets.proving.prover.prover import Prover
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.vault.connect import open_vault
from scripts.crash.kinds import Kind
from scripts.crash.processes import CaptureProcess, acknowledged_bytes, traffic
from scripts.crash.scene import DATASET, Scene, one_region, open_scene, wait_until

PROVER_RESULTS: Final = RESULTS / "prover.json"
BEGIN: Final = "<!-- measured, prover: begin (drawn by `python -m benchmarks.prover --render`) -->"
END: Final = "<!-- measured, prover: end -->"
_STATUS_ENV: Final = "DR_BENCH_PROVER_STATUS"
_RECONCILE_ENV: Final = "DR_BENCH_PROVER_RECONCILE_S"
_RESTART_ENV: Final = "DR_BENCH_PROVER_RESTART_S"
_LOOK_S: Final = 0.5
_RESTART_MIN_S: Final = 45.0
_ASKED_SHARE: Final = 0.95
_TOLD_EVERY_S: Final = 15.0
_BEGUN_WITHIN_S: Final = 900.0
_ENDED_WITHIN_S: Final = 180.0
# The time that is looked at is made longer by so many times itself at most.
_LONGER_MAX: Final = 5
_NICE: Final = 10
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Look:
    """One look at everything: ages and lags in seconds, None where nothing is known yet."""

    replayed_s: float | None
    commit_s: float | None
    reconciled_s: float | None
    capture_s: float | None
    silent_s: float


def main() -> int:
    """Parse, run, write; 1 when a floor was missed."""
    options = _parser().parse_args()
    if options.child:
        return _child()
    if options.render:
        redraw(options.output)
        return 0
    unwind_on_signals()
    tell = teller()
    with tempfile.TemporaryDirectory(prefix="dr-assets-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        rows = _measured(Path(folder), options, tell)
    for each in rows:
        tell(f"{each.what}: {each.ours:g} {each.unit} {each.floor or ''} {each.verdict}")
    write(options.output, rows)
    if options.output == PROVER_RESULTS:
        redraw(options.output)
    return concluded(tell, options.output, [asdict(each) for each in rows])


def redraw(results: Path) -> None:
    """The table on the page, of the prover and of clones beside it, and under which load it was measured."""
    rows = json.loads(results.read_text())
    notes = "\n".join(
        dict.fromkeys(f"- {each['what'].partition(':')[0]}: {each['note']}" for each in rows if each["note"])
    )
    draw(BEGIN, END, f"{table(rows)}\n\n{notes}")


def _measured(folder: Path, options: argparse.Namespace, tell: Tell) -> list[Row]:
    kind = Kind("bench", "primary", 0)
    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(folder, rate=options.rate))
        capture = CaptureProcess(scene, kind)
        stack.callback(capture.end)
        capture.wait_stored(scene.flushed(), "everything stored")
        taken = take_snapshot(scene.vault, scene.dataset(kind), scene.dsn)
        capture.wait_stored(taken.stop_lsn, "the base backup's WAL stored")
        tell("a base backup, and the capture behind it")
        acks = folder / "acks"
        stack.enter_context(traffic(scene, acks, options.seed, reconnect=False))
        wait_until(lambda: acknowledged_bytes(acks) > 0, "the workload")
        prover = _ProverProcess(scene, folder, options)
        stack.callback(prover.end)
        wait_until(
            lambda: bool(prover.status.get("reconciled_at") and prover.status.get("deep_s")),
            "a first reconciliation and deep pass", timeout_s=_BEGUN_WITHIN_S,
        )  # fmt: skip
        tell(f"following; {prover.told()}")
        count, cpu_s, begin_s = _acknowledged(acks), prover.cpu_s(), time.monotonic()
        looks = _looked(capture, prover, options, tell)
        took_s = time.monotonic() - begin_s
        tps = (_acknowledged(acks) - count) / took_s
        cpu = (prover.cpu_s() - cpu_s) / took_s
        if prover.status["failures"] or not prover.status["deep_ok"]:
            raise RuntimeError(f"the prover did not hold out: {prover.told()}")
        return _rows(looks, prover.status, tps, cpu, took_s, options)


def _looked(
    capture: CaptureProcess, prover: "_ProverProcess", options: argparse.Namespace, tell: Tell
) -> Sequence[Look]:
    """Looks for as long as was asked for, and until the prover has made a deep pass and begun anew meanwhile."""
    first, looks, begin_s = prover.status, list[Look](), time.monotonic()
    told_s = begin_s
    while (took_s := time.monotonic() - begin_s) < options.seconds or not _whole_day(first, prover.status):
        if took_s > _LONGER_MAX * options.seconds:
            raise RuntimeError(f"no deep pass and new beginning in {took_s:.0f} s: {prover.told()}")
        looks.append(_look(capture.status, prover.status))
        if time.monotonic() - told_s >= _TOLD_EVERY_S:
            told_s = time.monotonic()
            tell(f"{prover.told()}; now {looks[-1]}")
        time.sleep(_LOOK_S)
    return looks


def _whole_day(first: dict[str, Any], now: dict[str, Any]) -> bool:
    return bool(now["restarts"] > first["restarts"] and now["deep_at"] != first["deep_at"])


def _look(capture: dict[str, Any], prover: dict[str, Any]) -> Look:
    now = datetime.now(UTC)

    def age(name: str) -> float | None:
        text = prover.get(name)
        return None if text is None else (now - datetime.fromisoformat(text)).total_seconds()

    return Look(
        age("replayed_at"), age("last_commit_at"), age("reconciled_at"), capture.get("lag_s"),
        (now - datetime.fromisoformat(prover["now"])).total_seconds(),
    )  # fmt: skip


def _rows(
    looks: Sequence[Look], status: dict[str, Any], tps: float, cpu: float, took_s: float, options: argparse.Namespace
) -> list[Row]:
    every = options.reconcile_s
    note = (
        f"{tps:.0f} tps acknowledged of {options.rate:.0f} asked, {took_s:.0f} s, {os.cpu_count()} cores, "
        f"load average {os.getloadavg()[0]:.1f}; restarts {status['restarts']}, failures {status['failures']}"
    )

    def known(name: str) -> list[float]:
        return [value for look in looks if (value := getattr(look, name)) is not None]

    return [
        row("prove: replayed lag p50", "s", [percentile(known("replayed_s"), 0.5)], note=note),
        row("prove: replayed lag p99", "s", [percentile(known("replayed_s"), 0.99)],
            floor=Floor("ours", at_most=10.0), note=note),
        row("prove: newest replayed commit p99", "s", [percentile(known("commit_s"), 0.99)], note=note),
        row(
            f"prove: reconciled lag max, every {every:.0f} s", "s", [max(known("reconciled_s"))],
            floor=Floor("ours", at_most=2 * every), note=note,
        ),
        row("prove: the capture's lag p99 beside it", "s", [percentile(known("capture_s"), 0.99)],
            floor=Floor("ours", at_most=2.0), note=note),
        # Whatever is held beside less than was asked for shows nothing.
        row("prove: traffic beside it", "tps", [tps],
            floor=Floor("ours", at_least=_ASKED_SHARE * options.rate), note=note),
        row("prove: processor of prover and its servers", "cores", [cpu], note=note),
        row("prove: reconciliation", "s", [status["books_s"]], note=f"on the {status['books_place']}; {note}"),
        row("prove: deep pass", "s", [status["deep_s"]], note=note),
    ]  # fmt: skip


def _acknowledged(acks: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in acks.glob("*.acks"))


class _ProverProcess:
    """The prover as a process of its own, as nice as the command line makes it; its standing lies in a file."""

    def __init__(self, scene: Scene, folder: Path, options: argparse.Namespace) -> None:
        self._status = folder / "prover-status.json"
        work = folder / "work"
        work.mkdir()
        work.chmod(0o711)
        env = {
            **os.environ, **scene.env, _STATUS_ENV: str(self._status), WORK_DIR_ENV: str(work),
            _RECONCILE_ENV: str(options.reconcile_s), _RESTART_ENV: str(max(_RESTART_MIN_S, options.seconds * 0.6)),
        }  # fmt: skip
        self._log = (folder / "prover.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.prover", "--child"], env=env, stderr=self._log,
            cwd=ROOT,
        )  # fmt: skip

    @property
    def status(self) -> dict[str, Any]:
        """Where it stands, empty before the first word."""
        if self.process.poll() is not None:
            said = Path(self._log.name).read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"the prover ended with {self.process.returncode}: {said}")
        return dict(json.loads(self._status.read_text())) if self._status.exists() else {}

    def told(self) -> str:
        """Its standing in a line."""
        names = ("state", "trouble", "restarts", "failures", "books_s", "books_place", "deep_s", "deep")
        status = self.status
        return ", ".join(f"{name} {status.get(name)}" for name in names)

    def cpu_s(self) -> float:
        """Processor seconds of it and everything below it, ended children included."""
        return sum(_ticks(pid) for pid in _below(self.process.pid)) / _CLOCK_TICKS

    def end(self) -> None:
        """Stop it in order; its servers end with it even where it has to be killed."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(_ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def _below(root: int) -> list[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(fields[at]) for at in (11, 12, 13, 14))


def _child() -> int:
    """The declared ledger's prover until SIGTERM, its newest standing always whole in the status file."""
    os.nice(_NICE)
    keep_freed_memory()
    estate, status, stop = one_region(), Path(os.environ[_STATUS_ENV]), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    prove = Prove(
        reconcile_every=timedelta(seconds=float(os.environ[_RECONCILE_ENV])),
        deep_every=timedelta(seconds=float(os.environ[_RESTART_ENV])),
        restart_every=timedelta(seconds=float(os.environ[_RESTART_ENV])),
    )
    dataset = replace(estate.postgres()[DATASET], prove=prove)
    reader, writer = open_vault(estate, "primary", os.environ), open_vault(estate, "primary", os.environ, signing=True)

    def tell(proven: Proven) -> None:
        fresh = status.with_suffix(".new")
        fresh.write_text(json.dumps(_told(proven)))
        fresh.replace(status)

    with ground_of(DATASET, os.environ) as ground, ThreadPoolExecutor(1) as pool:
        Prover(
            reader, writer, dataset, ground, pool, erasures=lambda: None, env=os.environ, listener=tell
        ).run(stop)  # fmt: skip
    return 0


def _told(proven: Proven) -> dict[str, Any]:
    replayed, reconciled = proven.replayed, proven.reconciled

    def iso(at: datetime | None) -> str | None:
        return None if at is None else at.isoformat()

    return {
        "now": proven.now.isoformat(),
        "state": proven.state,
        "trouble": proven.trouble.code if proven.trouble else None,
        "replayed_at": iso(replayed.at) if replayed else None,
        "last_commit_at": iso(replayed.last_commit_at) if replayed else None,
        "reconciled_at": iso(reconciled.at) if reconciled else None,
        "books_s": proven.books.duration_s if proven.books else None,
        "books_place": proven.books.place if proven.books else None,
        "books": proven.books.reason if proven.books else None,
        "deep_s": proven.deep.duration_s if proven.deep else None,
        "deep_at": iso(proven.deep.end_at) if proven.deep else None,
        "deep_ok": proven.deep.ok if proven.deep else None,
        "deep": proven.deep.reason if proven.deep else None,
        "restarts": proven.restarts,
        "failures": proven.failures,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500.0, help="transfers asked of the casino, a second")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long everything is looked at")
    parser.add_argument("--reconcile-s", type=float, default=30.0, help="the interval of reconciliations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=PROVER_RESULTS)
    parser.add_argument("--render", action="store_true", help="measure nothing, redraw the page from the results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
