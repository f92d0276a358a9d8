"""`dr-assets prove` as the process that an operator starts, over an object store that a real capture fills."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dr_assets.estate.declarations import default_defs_dir
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.clone_shelf import CLONES_DIR_ENV
from dr_assets.proving.prover.points import Proven, latest_proven
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.vault.vault import Vault
from scripts.crash.kinds import Kind
from scripts.crash.processes import CaptureProcess
from scripts.crash.scene import DATASET, open_scene

pytestmark = pytest.mark.integration

DEADLINE_S = 180.0


@dataclass
class Ground:
    """A filled vault, and the command line over it."""

    vault: Vault
    env: dict[str, str]
    defs: Path
    work: Path

    def prove(self, *options: str) -> "subprocess.Popen[str]":
        """`dr-assets prove ledger …`, started."""
        program = Path(sys.executable).parent / "dr-assets"
        return subprocess.Popen(
            [str(program), "prove", DATASET, *options, "--defs", str(self.defs)],
            env={**os.environ, **self.env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def proven(self) -> Proven | None:
        """What is sealed."""
        return latest_proven(self.vault, DATASET)

    def servers(self) -> list[int]:
        """The processes of its sandboxes and clones."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                said = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "postgres" in said and str(self.work) in said:
                found.append(int(path.parent.name))
        return found

    def nothing_left(self) -> bool:
        """No folder, no server."""
        return not list(self.work.iterdir()) and not self.servers()


@pytest.fixture
def ground(engine_dir: Path, weed_programs: object, postgres_programs: Callable[[int], Any]) -> Iterator[Ground]:
    """A casino's ledger, captured into SeaweedFS with a base backup, and declarations of its own."""
    assert weed_programs
    assert postgres_programs(17)
    work, defs = engine_dir / "work", engine_dir / "defs"
    work.mkdir(mode=0o711)
    with open_scene(engine_dir, rate=50, players=20) as scene:
        capture = CaptureProcess(scene, Kind("once", "primary", 0))
        try:
            capture.wait_stored(scene.flushed(), "everything stored")
            taken = take_snapshot(scene.vault, scene.dataset(Kind("once", "primary", 0)), scene.dsn)
            capture.wait_stored(taken.stop_lsn, "the base backup's WAL stored")
            declare(defs)
            env = {**scene.env, WORK_DIR_ENV: str(work), CLONES_DIR_ENV: str(engine_dir / "clones")}
            yield Ground(scene.vault, env, defs, work)
        finally:
            capture.end()


def declare(folder: Path) -> None:
    """The packaged ledger in one region, with a prover that has something to do every ten seconds."""
    for name in ("estate", DATASET):
        document = yaml.safe_load((default_defs_dir() / name / "defs.yaml").read_text())
        attributes = document["attributes"]
        if name == DATASET:
            attributes |= {"replicas": [], "prove": {"reconcile_every": "10s"}}
        else:
            del attributes["subjects"]  # people's keys are for two regions
            del attributes["vaults"]["standby"]
        (folder / name).mkdir(parents=True)
        (folder / name / "defs.yaml").write_text(yaml.safe_dump(document))


def wait(wanted: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Until it is so, while the process lives."""
    deadline = time.monotonic() + DEADLINE_S
    while not wanted():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_command_proves_once_and_stays_until_it_is_told_to_end(ground: Ground) -> None:
    """Once: reconciled and deep, exit 0. Resident: it follows the capture, and SIGTERM ends it; nothing is left.

    Killed with SIGKILL its server goes with it, and the next one takes away what lies there.
    """
    once = ground.prove("--once")
    said = once.communicate(timeout=DEADLINE_S)[0]
    assert once.returncode == 0, said
    proven = ground.proven()
    assert proven is not None
    assert proven.reconciled is not None
    assert proven.deep is not None
    assert (proven.deep.ok, proven.failures) == (True, 0), proven.deep.reason
    assert ground.nothing_left()

    first = ground.prove()
    try:
        wait(ground.servers, first)
        folders = [path for path in ground.work.rglob("*") if path.name in {"data", "pg_wal"}]
        assert folders
        assert all(path.stat().st_mode & 0o077 == 0 for path in folders)
    finally:
        first.kill()
        first.communicate()
    deadline = time.monotonic() + DEADLINE_S
    while ground.servers():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not ground.nothing_left()

    second = ground.prove("--metrics-port", "0")
    try:
        wait(lambda: (now := ground.proven()) and now.begin_at > proven.begin_at and now.reconciled, second)
    finally:
        second.send_signal(signal.SIGTERM)
        said = second.communicate(timeout=DEADLINE_S)[0]
    assert second.returncode == 0, said
    assert "Traceback" not in said
    ended = ground.proven()
    assert ended is not None
    assert ended.state == "stopped"
    assert ground.nothing_left()
