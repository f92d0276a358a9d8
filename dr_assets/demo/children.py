"""The processes around the embedded estate: workload, capture, Dagster. Each under a guard, each with a log.

What belongs here: their command lines and when they count as ready. What stays out: engines (embedded.py).
"""

import json
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dr_assets.demo.embedded import EmbeddedEstate
from dr_assets.engines.ports import LOOPBACK, free_port
from dr_assets.engines.supervise import Child, start_child
from dr_assets.estate.errors import SourceError

ROOT = Path(__file__).parents[2]
_READY_TIMEOUT_S = 300.0
_MATERIALIZE_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Children:
    """Starts what runs beside the engines of `estate`, as ourselves and with its environment."""

    estate: EmbeddedEstate

    def workload(self, *, rate_per_s: float, reconnect: bool = False) -> Child:
        """Money transactions at the offered rate until stopped, published as events; `estate.ack_dir` has the acks."""
        args = ["-m", "dr_assets.casino", "--dsn-env", "CASINO_DSN", "--ack-dir", str(self.estate.ack_dir)]
        args += ["--rate", str(rate_per_s), "--seed", "1", "--brokers", self.estate.broker.bootstrap]
        return self._python("workload", [*args, "--reconnect"] if reconnect else args)

    def capture(self, dataset: str, *, metrics_port: int) -> Child:
        """`dr-assets capture` of a dataset, reporting to Dagster, with its metrics on loopback."""
        args = ["-m", "dr_assets.cli", "capture", dataset, "--report", "--metrics-port", str(metrics_port)]
        return self._python(f"capture-{dataset}", args)

    def code_server(self) -> Child:
        """What has loaded the definitions, once, for `daemon` and `webserver`, which are to be started after it.

        Without it each of them loads its own, and the daemon a new one every minute: a run that it launches between
        two of them on a machine that is short of time has no server to start in, and fails.
        """
        port, name = free_port(), "dr_assets"
        args = ["-m", "dagster", "api", "grpc", "-m", "dr_assets.definitions", "-h", LOOPBACK, "-p", str(port)]
        # Runs that it starts are of this very Python, whatever `dagster` is on PATH.
        args += ["--location-name", name, "--use-python-environment-entry-point"]
        child = self._python("code-server", args, minds_people=True)
        _wait_until_ready(lambda: _listens(port), f"{LOOPBACK}:{port}", child)
        server = {"grpc_server": {"host": LOOPBACK, "port": port, "location_name": name}}
        self._served.write_text(json.dumps({"load_from": [server]}))  # which is YAML, too
        return child

    def webserver(self, *, port: int) -> Child:
        """The Dagster UI on loopback: it has no login, so nothing else may reach it."""
        args = ["-m", "dagster_webserver", "-w", str(self._workspace), "-h", LOOPBACK, "-p", str(port)]
        child = self._python("webserver", args, minds_people=True)
        url = f"http://{LOOPBACK}:{port}/server_info"
        _wait_until_ready(lambda: _has_page(url), url, child)
        return child

    def daemon(self) -> Child:
        """Sensors, schedules, queues and freshness."""
        args = ["-m", "dagster._daemon", "run", "-w", str(self._workspace)]
        return self._python("daemon", args, minds_people=True)

    def materialize(self, selection: str, *, minds_people: bool = False) -> float:
        """Materializes assets as one Dagster run; returns how long that took, in seconds. Raises SourceError.

        `minds_people` for what works on the ring of people's keys, as the daemon's own runs may.
        """
        begin = time.monotonic()
        args = ["-m", "dagster", "asset", "materialize", "--select", selection, "-m", "dr_assets.definitions"]
        child = self._python("materialize", args, minds_people=minds_people)
        if child.wait(_MATERIALIZE_TIMEOUT_S) != 0:
            raise SourceError(
                "demo.materialize_failed",
                f"Dagster could not materialize {selection}; its output ends:\n{child.log_tail(15)}",
                f"the whole log is {child.log_path}",
            )
        return time.monotonic() - begin

    @property
    def _workspace(self) -> Path:
        """Where Dagster's processes find the code server, or what they load themselves where there is none."""
        return self._served if self._served.is_file() else ROOT / "workspace.yaml"

    @property
    def _served(self) -> Path:
        return self.estate.home / "dagster_home" / "workspace.yaml"

    def _python(self, name: str, args: list[str], *, minds_people: bool = False) -> Child:
        log_path, env = self.estate.logs / f"{name}.log", self.estate.child_env(minds_people=minds_people)
        return start_child([sys.executable, *args], cwd=ROOT, env=env, log_path=log_path)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=5).close()
    except OSError:
        return False
    return True


def _has_page(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - always http on loopback
    except (urllib.error.URLError, OSError):
        return False
    return True


def _wait_until_ready(answers: Callable[[], bool], where: str, child: Child) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline and child.alive:
        if answers():
            return
        time.sleep(0.3)
    raise SourceError(
        "demo.not_ready",
        f"{child.name} did not answer at {where}; its log ends:\n{child.log_tail(15)}",
        f"the whole log is {child.log_path}",
    )
