"""A throwaway emulator that speaks Kafka (`noida-db`, a wheel), for hosts without Java.

What belongs here: finding it and one server's life. What stays out: any proof that rests on it. It keeps everything
in RAM plus a JSON file, ignores a fetch's max_bytes, does not long-poll, and a crash right after an acknowledgement can
lose a topic: Apache Kafka (`server`) is the truth.
"""

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dr_assets.engines.errors import EngineError
from dr_assets.engines.kafka.life import Life
from dr_assets.engines.placement import RunAs, engine_home, engine_user, give, reachable_trees
from dr_assets.engines.ports import LOOPBACK, free_port, is_free, start_on_free_ports
from dr_assets.engines.supervise import Child, start_child
from dr_assets.engines.waiting import START_TIMEOUT_S, wait_until
from dr_assets.estate.errors import PolicyError

SETTING: Final = "DR_ASSETS_NOIDA"
_NAME: Final = "noida-db"
_STARTED: Final = b"press Ctrl-C to stop"


@dataclass(frozen=True)
class NoidaProgram:
    """The emulator's program and its version; `note` says where it had to be copied, and why."""

    path: Path
    version: str
    note: str = ""

    def describe(self) -> str:
        """One line for people."""
        return f"noida-db {self.version}, an emulator that speaks Kafka ({self.path})"

    def reachable(self, user: RunAs | None = None) -> "NoidaProgram":
        """The same program where the engine's user can run it; a copy if need be."""
        base, place = reachable_trees([self.path], user)
        if not place.moved:
            return self
        return NoidaProgram(place.path / self.path.resolve().relative_to(base), self.version, place.why)


def find_noida(env: Mapping[str, str] | None = None) -> NoidaProgram:
    """The program: by setting, from the wheel, or on PATH; raises PolicyError `engine.no_programs`."""
    env = os.environ if env is None else env
    spec = importlib.util.find_spec("noida_db")
    wheel = [Path(place) / _NAME for place in (spec and spec.submodule_search_locations) or ()]
    on_path = shutil.which(_NAME, path=env.get("PATH"))
    named = env.get(SETTING)
    for path in [Path(named)] if named else [*wheel, *([Path(on_path)] if on_path else [])]:
        if path.is_file() and (version := _version(path)):
            return NoidaProgram(path.resolve(), version)
    raise PolicyError(
        "engine.no_programs",
        f"no program {_NAME} that runs here found{f' ({SETTING} is {named})' if named else ''}",
        f"set {SETTING}, or install the extra: pip install 'dr_assets[engines]'",
    )


class NoidaServer(Life):
    """One emulator on loopback with an open door only; leaving the context crashes it. As KafkaServer elsewhere."""

    stop_grace_s = 20.0

    def __init__(self, data_dir: Path, program: NoidaProgram, *, name: str = "") -> None:
        self.user = engine_user()
        place = engine_home(data_dir.parent, self.user)
        self.data_dir = place.path / data_dir.name
        self.run_dir = place.path / f"{data_dir.name}.run"
        self.program = program.reachable(self.user)
        self.notes = [note for note in (place.why, self.program.note) if note]
        self.name = name or data_dir.name
        self.log_path = self.run_dir / "noida.log"
        self.child: Child | None = None
        known = self.run_dir / "ports.json"
        self._port_fixed = known.exists() and self.data_dir.exists()
        self.port = int(json.loads(known.read_text())["PLAINTEXT"]) if self._port_fixed else free_port()

    def describe(self) -> str:
        """Product and version, for evidence and benchmark rows."""
        return f"noida-db {self.program.version}"

    @property
    def bootstrap(self) -> str:
        """The open door's address."""
        return f"{LOOPBACK}:{self.port}"

    def client_config(self) -> dict[str, str]:
        """What a librdkafka client wants."""
        return {"bootstrap.servers": self.bootstrap, "security.protocol": "PLAINTEXT"}

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and wait until it listens; raises EngineError `engine.did_not_start` with the tail of the log."""
        assert not self.running, f"{self.name} runs already"  # noqa: S101 - a bug of ours if it fails
        self._prepare()

        def start() -> None:
            begin = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._launch()
            self._wait_ready(begin, timeout_s)

        start_on_free_ports(start, self.kill, self._moved)
        self._port_fixed = True
        self.run_dir.joinpath("ports.json").write_text(json.dumps({"PLAINTEXT": self.port}))

    def _moved(self) -> bool:
        """Take another port if another process has ours; never once a first start has fixed it."""
        if self._port_fixed or is_free(self.port):
            return False
        self.port = free_port()
        return True

    def _prepare(self) -> None:
        for folder, mode in ((self.run_dir, 0o711), (self.data_dir, 0o700)):
            folder.mkdir(mode=mode, exist_ok=True)
            folder.chmod(mode)
        give(self.data_dir, self.user)

    def _launch(self) -> None:
        self.child = start_child(
            [
                *(self.program.path, "start", "--only", "kafka", "--host", LOOPBACK),
                *("--kafka-port", str(self.port), "--data-dir", self.data_dir),
            ],
            cwd=self.run_dir,
            env={"PATH": os.defpath, "HOME": str(self.data_dir)},
            log_path=self.log_path,
            user=self.user,
            grace_s=2.0,
        )

    def _wait_ready(self, begin: int, timeout_s: float) -> None:
        child = self.child
        assert child is not None, "the broker was not started"  # noqa: S101 - a bug of ours if it fails
        try:
            wait_until(
                lambda: not child.alive or _STARTED in self.log_path.read_bytes()[begin:],
                timeout_s=timeout_s,
                what=f"{self.name} listening",
            )
        except EngineError as error:
            raise self._did_not_start(error.found) from None
        if not child.alive:
            raise self._did_not_start(f"{self.name} ended with return code {child.poll()}")


def _version(path: Path) -> str | None:
    """What it says of itself; None where it can't run (another platform's program)."""
    try:
        result = subprocess.run(
            [path, "version"], capture_output=True, text=True, check=False, timeout=60, env={"HOME": "/"}
        )
    except OSError:
        return None
    words = result.stdout.split()
    return words[1] if result.returncode == 0 and len(words) > 1 else None
