"""Kill real processes under load, restore from the vault alone, count what was lost.

    python scripts/crash_rounds.py --rounds 100 --output benchmarks/results/crash.json

Each round runs the casino's workload against a real primary, captures it into a real object store, and then sends
SIGKILL: to the primary, to the primary and the capture at the same instant, to the object store, to primary and capture
while the store has been dead or hung for seconds, to primary and capture after a standby was promoted; in the default
mode and with zero loss (scripts/crash/kinds.py). What the workload had acknowledged without a warning and the restored
ledger lacks is the loss. Beside it stand the linger, how long a seal took, and the age of the slowest unfinished put
at the moment of the kill: together they say how much could be lost.

Rounds run in batches of ten, each in an estate of its own; a batch that is done is kept in --state, so that a run which
was stopped goes on where it was. Exits 1 when a restore failed, a gap is on record, the vault's WAL differs from the
server's, the books don't add up, a killed store or zero loss lost anything, a loss exceeds the dataset's RPO, or a
vault does not verify in the end.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg

from dr_assets.estate.errors import DrError
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.verify import verify
from scripts.crash.compare import held, told
from scripts.crash.kinds import KINDS, Kind, laid_out, named
from scripts.crash.processes import CaptureProcess
from scripts.crash.rounds import run_round
from scripts.crash.scene import DATASET, Scene, open_scene
from scripts.crash.table import HEAD, Round, failed, line, whole

BATCH: Final = 10
# What keeps a round from its end: somebody waited in vain, a server or a vault that refuses, a process that stays.
_TROUBLE: Final = (RuntimeError, DrError, psycopg.Error, subprocess.TimeoutExpired, OSError)
Tell = Callable[[str], None]


def run_batch(kinds: list[Kind], first: int, *, rate: float, seed: int, tell: Tell) -> dict[str, Any]:
    """Rounds numbered from `first`; their rows and what the last look at each vault found.

    One estate for all of them, or another one after a round that could not be ended: that one has failed, the rest
    are run all the same.
    """
    rows: list[Round] = []
    finals: list[dict[str, Any]] = []
    while len(rows) < len(kinds):
        with tempfile.TemporaryDirectory(prefix="dr-assets-crash-", dir="/var/tmp") as folder:
            Path(folder).chmod(0o711)  # the engines run as another user
            begun = len(rows)
            try:
                with open_scene(Path(folder), rate=rate) as scene:
                    for number, kind in enumerate(kinds[begun:], start=first + begun):
                        rows.append(run_round(scene, number, kind, seed))
                        tell(line(rows[-1]))
                    finals.append(_final(scene, [row.number for row in rows[begun:]]))
            except _TROUBLE as error:
                if len(rows) == len(kinds):  # it was the last look that failed
                    rows[-1].failures.append(f"the last look at the estate: {error}")
                else:
                    rows.append(failed(first + len(rows), kinds[len(rows)], seed, error))
                tell(line(rows[-1]))
    return {"rounds": [dataclasses.asdict(row) for row in rows], "finals": finals}


def _final(scene: Scene, numbers: list[int]) -> dict[str, Any]:
    """After the last round nothing is killed: every commit that was ever acknowledged must come back.

    But for those that a fail-over left on the old timeline. Then every object is read and verified.
    """
    scene.synchronize(None)
    plain = KINDS[0]
    capture = CaptureProcess(scene, plain)
    try:
        capture.wait_stored(scene.flushed(), "everything stored")
    finally:
        capture.end()
    plan = plan_restore(scene.vault, DATASET, Target.parse("latest"))
    with restore(plan, scene.vault, scene.folder / "sandbox-final") as restored:
        acknowledged = lost = 0
        for number in numbers:
            clients = told(scene.folder / f"acks-{number}")
            found = held(restored.dsn("casino"), clients.runs)
            acknowledged += len(clients.acknowledged)
            lost += sum(one not in found and one[1] not in scene.gone for one in clients.acknowledged)
    report = verify(scene.vault)
    return {
        "acknowledged": acknowledged,
        "lost": lost,
        "verified_objects": report.objects_total,
        "verify_errors": [finding.to_json() for finding in report.errors],
    }


def run(
    state: Path, rounds: int, *, rate: float, seed: int, tell: Tell, kinds: tuple[Kind, ...] = KINDS
) -> dict[str, Any]:
    """All rounds; batches that `state` already holds are not run again. The table as a dictionary."""
    state.mkdir(parents=True, exist_ok=True)
    laid = laid_out(rounds, kinds)
    began_at = datetime.now(UTC)
    batches: list[dict[str, Any]] = []
    tell(HEAD)
    for first in range(0, rounds, BATCH):
        path = state / f"batch-{seed}-{rate:g}-{first:03d}.json"
        own = laid[first : first + BATCH]
        batch = _kept(path, own)
        if batch is None:
            batch = run_batch(own, first, rate=rate, seed=seed, tell=tell)
            path.write_text(json.dumps(batch), encoding="utf-8")
        else:
            tell(f"{first:>5} … {first + len(own) - 1}: done before, kept in {path}")
        batches.append(batch)
    rows = [Round(**row) for batch in batches for row in batch["rounds"]]
    about = {"rounds": rounds, "seed": seed, "rate_per_s": rate, "began_at": began_at.isoformat(timespec="seconds"),
             "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}  # fmt: skip
    return whole(rows, [final for batch in batches for final in batch["finals"]], about)


def _kept(path: Path, kinds: list[Kind]) -> dict[str, Any] | None:
    """A batch that was run before, if it is of the same kinds."""
    if not path.exists():
        return None
    batch: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    same = "finals" in batch and [row["kind"] for row in batch["rounds"]] == [kind.name for kind in kinds]
    return batch if same else None


def main() -> int:
    """Parse, run, write; the exit code."""
    parser = argparse.ArgumentParser(description="Kill, restore from the vault alone, count what was lost.")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--rate", type=float, default=400, help="offered transactions per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="", help="names of kinds, separated by semicolons (all of them by default)")
    parser.add_argument(
        "--state", type=Path, default=Path(".demo/crash-rounds"), help="where finished batches are kept"
    )
    parser.add_argument("--afresh", action="store_true", help="forget the finished batches first")
    parser.add_argument("--output", type=Path, default=Path(".demo/crash-rounds.json"))
    options = parser.parse_args()
    if options.afresh:
        shutil.rmtree(options.state, ignore_errors=True)
    table = run(
        options.state,
        options.rounds,
        rate=options.rate,
        seed=options.seed,
        tell=lambda text: print(text, flush=True),
        kinds=named(options.kinds),
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"{options.output}: {'every round held' if table['ok'] else 'FAILED, see the last column'}")
    return 0 if table["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
