"""The processes that a round starts and kills: the capture and the casino's traffic.

What belongs here: starting, watching and ending them; the capture's own main. What stays out: when they are killed.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from dr_assets.stores.postgres.capture import Capture, CaptureOptions, CaptureReport
from dr_assets.vault.connect import open_vault
from scripts.crash.kinds import Kind
from scripts.crash.scene import DATASET, SPOOL_BYTES_ENV, SPOOL_ENV, Scene, one_region, with_mode

STATUS_EVERY_S: Final = 0.05
_STATUS_ENV: Final = "DR_CRASH_ROUNDS_STATUS"
_MODE_ENV: Final = "DR_CRASH_ROUNDS_MODE"
_ROOT: Final = Path(__file__).parents[2]


class CaptureProcess:
    """The capture as a process of its own whose newest report lies in a file."""

    def __init__(
        self, scene: Scene, kind: Kind, env: Mapping[str, str] | None = None, *, degrade_after_s: float | None = None
    ) -> None:
        self._status = scene.folder / "capture-status.json"
        self._status.unlink(missing_ok=True)
        mode = {
            "zero_loss": kind.zero_loss,
            "spool_bytes": int(scene.env[SPOOL_BYTES_ENV]) if kind.spool else 0,
            "degrade_after_s": degrade_after_s,
        }
        env = {
            **os.environ, **scene.env, "LEDGER_DSN": scene.cluster_dsn, **(env or {}),
            _STATUS_ENV: str(self._status), _MODE_ENV: json.dumps(mode),
        }  # fmt: skip
        self._log = (scene.folder / "capture.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.crash.processes"], env=env, cwd=_ROOT, stderr=self._log
        )

    @property
    def status(self) -> dict[str, Any]:
        """The newest report, empty before the first."""
        return json.loads(self._status.read_text()) if self._status.exists() else {}

    def wait(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Until a report is as wanted."""
        deadline = time.monotonic() + 180
        while not ((status := self.status) and wanted(status)):
            if self.process.poll() is not None:
                raise RuntimeError(f"the capture ended with {self.process.returncode} before {what}: {self.said()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"no report with {what}: {status}")
            time.sleep(STATUS_EVERY_S)
        return status

    def wait_stored(self, lsn: int, what: str) -> None:
        """Until the vault holds everything up to `lsn`."""
        self.wait(lambda status: status["stored_lsn"] >= lsn, what)

    def said(self) -> str:
        """The end of what it wrote to its standard error."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")[-1500:].strip()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(180)

    def end(self) -> None:
        """Stop it in order if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(180)
        self._log.close()


@contextmanager
def traffic(scene: Scene, ack_dir: Path, seed: int, *, reconnect: bool) -> Iterator["subprocess.Popen[bytes]"]:
    """The casino's traffic as a process of its own; without `reconnect` it ends by itself when its server is gone."""
    command = [
        *(sys.executable, "-m", "dr_assets.casino", "--dsn-env", "LEDGER_DSN", "--ack-dir", str(ack_dir)),
        *("--rate", str(scene.rate), "--workers", "8", "--seed", str(seed)),
        *(["--reconnect"] if reconnect else []),
    ]
    ack_dir.mkdir(parents=True)
    env = {**os.environ, **scene.env, "LEDGER_DSN": scene.cluster_dsn}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(180)


def acknowledged_bytes(ack_dir: Path) -> int:
    """How much the workload has written down so far."""
    return sum(path.stat().st_size for path in ack_dir.glob("*.acks"))


def main() -> None:
    """Run the declared ledger's capture until SIGTERM, the newest report always whole in the status file."""
    estate = one_region()
    status, stop = Path(os.environ[_STATUS_ENV]), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def tell(report: CaptureReport) -> None:
        fresh = status.with_suffix(".new")
        fresh.write_text(json.dumps(dataclasses.asdict(report), default=str))
        fresh.replace(status)

    dataset = with_mode(estate.datasets[DATASET], **json.loads(os.environ[_MODE_ENV]))
    vault = open_vault(estate, dataset.vault, os.environ)
    options = CaptureOptions(report_every_s=STATUS_EVERY_S)
    spool_dir = Path(os.environ[SPOOL_ENV]) if dataset.spool else None
    capture = Capture(vault, dataset, os.environ[dataset.dsn_env], listener=tell, options=options, spool_dir=spool_dir)
    capture.run(stop)


if __name__ == "__main__":
    main()
