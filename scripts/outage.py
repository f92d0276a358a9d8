"""Take the object store away from a capture under load for ten minutes, and write what happened.

    python scripts/outage.py --seconds 600 --output benchmarks/results/outage.json

The store dies, hangs, or lets through a trickle (--how), seen from the capture only: a door stands between. Traffic
goes on all the while. Once a second are looked at: the capture's memory, what lies on its spool, what the source keeps
for the slot, what the capture warns of. When the store is back the time to be level again is measured, and everything
that was acknowledged must come back from a restore. Exits 1 when a bound was broken, an end came without a warning
before it, the capture caught up no faster than it fell behind, or a commit is missing.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.stores.postgres.target import Target
from scripts.crash.compare import held, told
from scripts.crash.kinds import Kind
from scripts.crash.processes import CaptureProcess, traffic
from scripts.crash.scene import DATASET, SPOOL_BYTES_ENV, SPOOL_ENV, Scene, open_scene, wait_until
from scripts.outage.door import Door, Mode
from scripts.outage.watching import MIB, Phases, Sample, as_dicts, judged, sample, verdicts

_BEFORE_S: Final = 20.0
_PICTURE_ROWS: Final = 60


@dataclass
class Watch:
    """Looks once a second until told otherwise; each look is told to a person now and then."""

    scene: Scene
    capture: CaptureProcess
    ack_dir: Path
    began_s: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)

    @property
    def now_s(self) -> float:
        """Seconds since the watch began."""
        return time.monotonic() - self.began_s

    def look(self) -> Sample:
        """One look."""
        lines = sum(path.read_bytes().count(b"\n") for path in self.ack_dir.glob("*.acks"))
        seen = sample(
            self.began_s, self.capture.status, self.capture.process.pid,
            spool=Path(self.scene.env[SPOOL_ENV]), acknowledged=lines, flushed=self.scene.flushed(),
        )  # fmt: skip
        self.samples.append(seen)
        if len(self.samples) % 10 == 1:
            print(
                f"{seen.at_s:>6} s  rss {seen.rss_bytes // MIB:>4} MiB  behind "
                f"{(seen.server_lsn - seen.stored_lsn) // MIB:>4} MiB  spool {seen.spool_files_bytes // MIB:>4} MiB  "
                f"slot {seen.retained_bytes // MIB:>4} MiB  {seen.durability}  {'; '.join(seen.warnings)[:160]}",
                flush=True,
            )
        return seen

    def during(self, seconds: float) -> None:
        """Look for so long."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.look()
            time.sleep(1.0)


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One outage from its beginning to the restore after it; the row."""
    kind = Kind(f"{options.how} for {options.seconds:g} s", "outage", 0, options.zero_loss, options.spool_mib > 0)
    with (
        open_scene(folder, rate=options.rate) as scene,
        Door(scene.region.endpoint, slow_bytes_s=options.slow_kib_s << 10) as door,
    ):
        _limit(scene, options)
        ack_dir = folder / "acks"
        behind_door = {"DR_VAULT_PRIMARY_ENDPOINT": door.endpoint}
        capture = CaptureProcess(scene, kind, behind_door, degrade_after_s=options.degrade_after)
        try:
            capture.wait_stored(scene.flushed(), "everything stored")
            taken = take_snapshot(scene.vault, scene.dataset(kind), scene.dsn)
            capture.wait_stored(taken.stop_lsn, "the base backup's WAL stored")
            if kind.zero_loss:
                scene.synchronize(scene.dataset(kind).slot)
            watch = Watch(scene, capture, ack_dir)
            with traffic(scene, ack_dir, options.seed, reconnect=False):
                phases = _take_away(watch, door, options)
            capture.wait_stored(scene.flushed(), "the end stored")
        finally:
            capture.end()
        row = {
            "what": f"object store {kind.name}, {'zero loss' if kind.zero_loss else 'default mode'}, "
            f"spool {options.spool_mib} MiB",
            "how": options.how, "rate_per_s": options.rate,
            **judged(watch.samples, phases, spool_max_bytes=options.spool_mib * MIB,
                     slot_max_bytes=options.slot_mib * MIB),
            **_restored(scene, ack_dir),
        }  # fmt: skip
    row["failures"] = verdicts(row)
    row["versions"] = {
        "postgres": ".".join(map(str, scene.server.programs.version)),
        "python": platform.python_version(),
    }
    row["cores"] = os.cpu_count()
    row["looks"] = as_dicts(watch.samples, max(1, len(watch.samples) // _PICTURE_ROWS))
    return row


def _limit(scene: Scene, options: argparse.Namespace) -> None:
    """The two ends that a long outage runs towards: the spool's size, and what the source keeps for a slot."""
    scene.env[SPOOL_BYTES_ENV] = str(options.spool_mib * MIB)
    with psycopg.connect(scene.server.dsn(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET wal_keep_size = 0")
        connection.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{int(options.slot_mib)}MB'")
        connection.execute("SELECT pg_reload_conf()")


def _take_away(watch: Watch, door: Door, options: argparse.Namespace) -> Phases:
    wait_until(lambda: any(watch.ack_dir.glob("*.acks")), "the workload")
    watch.during(_BEFORE_S)
    began_s = watch.now_s
    door.be(options.how)
    watch.during(options.seconds)
    ended_s = watch.now_s
    door.be("open")
    print(f"{ended_s:.0f} s: the store is back", flush=True)
    while watch.look().stored_lsn < watch.samples[-1].server_lsn - options.level_kib * 1024:
        if watch.now_s > ended_s + options.seconds + 120:
            raise RuntimeError("not level again after as long as the outage lasted")
        time.sleep(0.5)
    caught_up_s = watch.now_s
    watch.during(10)
    return Phases(began_s, ended_s, caught_up_s)


def _restored(scene: Scene, ack_dir: Path) -> dict[str, Any]:
    clients = told(ack_dir)
    plan = plan_restore(scene.vault, DATASET, Target.parse("latest"))
    with restore(plan, scene.vault, scene.folder / "sandbox") as restored:
        found = held(restored.dsn("casino"), clients.runs)
    lost = sum(one not in found for one in clients.acknowledged)
    return {"acknowledged": len(clients.acknowledged), "warned": len(clients.warned), "lost": lost}


def _written(path: Path, row: dict[str, Any]) -> None:
    """A file of rows, one for each `what`; a new one takes the place of an old one of the same name."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError):
        rows = json.loads(path.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [*(old for old in rows if old["what"] != row["what"]), row]
    path.write_text(json.dumps(rows, indent=1, default=str) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    modes: tuple[Mode, ...] = ("dead", "hung", "slow")
    parser = argparse.ArgumentParser(description="Take the object store away for minutes and watch.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--how", choices=modes, default="hung")
    parser.add_argument("--rate", type=float, default=60, help="offered transactions per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--spool-mib", type=int, default=64, help="the spool's limit; 0 for no spool")
    parser.add_argument("--slot-mib", type=int, default=512, help="max_slot_wal_keep_size")
    parser.add_argument("--slow-kib-s", type=int, default=16, help="what a slow store lets through")
    parser.add_argument("--level-kib", type=int, default=1024, help="being so little behind counts as level")
    parser.add_argument("--zero-loss", action="store_true")
    parser.add_argument("--degrade-after", type=float, default=None, help="seconds; with --zero-loss (default: block)")
    parser.add_argument("--output", type=Path, default=Path(".demo/outage.json"))
    return parser.parse_args()


def main() -> int:
    """Run one outage and write its row; the exit code."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="dr-assets-outage-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the engines run as another user
        row = run(folder, options)
    _written(options.output, row)
    print(json.dumps({key: value for key, value in row.items() if key != "looks"}, indent=1))
    return 1 if row["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
