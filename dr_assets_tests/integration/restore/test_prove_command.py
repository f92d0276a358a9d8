"""`dr-assets prove` and `clone` as processes that operators start, over an object store that a real capture fills."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import PostgresDataset
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.proving.clone_shelf import CLONES_DIR_ENV, CloneRecord, CloneShelf
from dr_assets.proving.clones import CLONE
from dr_assets.proving.prover.judged import replayed_trouble
from dr_assets.proving.prover.points import Proven, latest_proven
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.vault.facts import facts
from dr_assets.vault.vault import Vault
from scripts.crash.kinds import Kind
from scripts.crash.processes import CaptureProcess
from scripts.crash.scene import DATASET, open_scene

pytestmark = pytest.mark.integration

# The prover gives way to whatever else the machine does.
DEADLINE_S = 600.0


@dataclass
class Ground:
    """A filled vault, and the command line over it."""

    vault: Vault
    env: dict[str, str]
    defs: Path
    work: Path
    clones: Path
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, verb: str, *options: str) -> "subprocess.Popen[str]":
        """`dr-assets VERB ledger …`, started."""
        program = Path(sys.executable).parent / "dr-assets"
        process = subprocess.Popen(
            [str(program), verb, DATASET, *options, "--defs", str(self.defs)],
            env={**os.environ, **self.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def prove(self, *options: str) -> "subprocess.Popen[str]":
        """`dr-assets prove ledger …`, started."""
        return self.start("prove", *options)

    def clone(self) -> "subprocess.Popen[str]":
        """`dr-assets clone ledger …`, started."""
        return self.start("clone", "--by", "eve", "--reason", "case 17", "--json")

    def cloned(self) -> list[CloneRecord]:
        """The clones on its shelf."""
        return CloneShelf(self.clones).records()

    @property
    def dataset(self) -> PostgresDataset:
        """The ledger as it is declared."""
        return load_estate(self.defs).postgres()[DATASET]

    def proven(self) -> Proven | None:
        """What is sealed."""
        return latest_proven(self.vault, DATASET)

    def servers(self) -> list[int]:
        """The processes of its provers' sandboxes and clones, and of clones for investigators."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                said = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "postgres" in said and (str(self.work) in said or str(self.clones) in said):
                found.append(int(path.parent.name))
        return found

    def nothing_left(self) -> bool:
        """No folder, no file, no server."""
        return not [*self.work.iterdir(), *self.clones.iterdir()] and not self.servers()


@pytest.fixture(scope="module")
def ground(engines_dir: Path, weed_programs: object, postgres_programs: Callable[[int], Any]) -> Iterator[Ground]:
    """A casino's ledger, captured into SeaweedFS with a base backup, and declarations of its own."""
    assert weed_programs
    assert postgres_programs(17)
    folder = engines_dir / "commands"
    folder.mkdir(mode=0o711)
    work, clones, defs = folder / "work", folder / "clones", folder / "defs"
    work.mkdir(mode=0o711)
    clones.mkdir(mode=0o711)
    with open_scene(folder, rate=50, players=20) as scene:
        capture = CaptureProcess(scene, Kind("once", "primary", 0))
        try:
            capture.wait_stored(scene.flushed(), "everything stored")
            taken = take_snapshot(scene.vault, scene.dataset(Kind("once", "primary", 0)), scene.dsn)
            capture.wait_stored(taken.stop_lsn, "the base backup's WAL stored")
            declare(defs)
            env = {**scene.env, WORK_DIR_ENV: str(work), CLONES_DIR_ENV: str(clones)}
            ground = Ground(scene.vault, env, defs, work, clones)
            yield ground
            for process in ground.started:
                if process.poll() is None:  # of a test that failed
                    process.kill()
                    process.communicate()
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
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_end(gone: Callable[[], object]) -> None:
    """Until it is so."""
    deadline = time.monotonic() + DEADLINE_S
    while not gone():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_command_proves_once_and_stays_until_it_is_told_to_end(ground: Ground) -> None:
    """Once: reconciled and deep, exit 0. Resident: it follows the capture, and SIGTERM ends it; nothing is left.

    Killed with SIGKILL its server goes with it, and the next one takes away what lies there. Whenever one has ended,
    what it sealed last says that nobody follows any more.
    """
    once = ground.prove("--once")
    said = once.communicate(timeout=DEADLINE_S)
    assert once.returncode == 0, said
    proven = ground.proven()
    assert proven is not None
    assert proven.reconciled is not None
    assert proven.deep is not None
    assert (proven.deep.ok, proven.failures) == (True, 0), proven.deep.reason
    assert "nobody follows any more" in (replayed_trouble(ground.dataset, proven, proven.now) or "")
    assert ground.nothing_left()

    first = ground.prove()
    try:
        wait(ground.servers, first)
        # A server at work makes folders and removes them while one looks.
        folders = [path for name, *_ in os.walk(ground.work) if (path := Path(name)).name in {"data", "pg_wal"}]
        assert folders
        assert all(path.stat().st_mode & 0o077 == 0 for path in folders)
    finally:
        first.kill()
        first.communicate()
    wait_end(lambda: not ground.servers())
    assert not ground.nothing_left()

    second = ground.prove("--metrics-port", "0")
    try:
        wait(lambda: (now := ground.proven()) and now.begin_at > proven.begin_at and now.reconciled, second)
    finally:
        second.send_signal(signal.SIGTERM)
        said = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 0, said
    assert "Traceback" not in "".join(said)
    ended = ground.proven()
    assert ended is not None
    assert ended.state == "stopped"
    assert ground.nothing_left()


def test_nothing_is_left_of_a_clone_whose_process_is_told_to_end(ground: Ground) -> None:
    """SIGTERM to the process that holds a clone up: server, folder and registration go, and it is on record why.

    So it is while it is only being made, whoever is told: the command that waits, or the process behind.
    """
    made = ground.clone()
    said = made.communicate(timeout=DEADLINE_S)
    assert made.returncode == 0, said
    ready = json.loads(said[0])
    with psycopg.connect(ready["dsn"]) as session:
        assert session.execute("SELECT count(*) FROM casino.players").fetchone() == (20,)
    assert ground.servers()
    os.kill(ready["pid"], signal.SIGTERM)
    wait_end(ground.nothing_left)
    told = [fact.body["why"] for fact in facts(ground.vault, DATASET, CLONE) if fact.body["event"] == "ended"]
    assert told == ["stopped"]

    waits = ground.clone()
    wait(ground.cloned, waits)
    waits.send_signal(signal.SIGTERM)
    said = waits.communicate(timeout=DEADLINE_S)
    assert waits.returncode not in {0, -signal.SIGTERM}
    assert "was dropped" in said[1]
    wait_end(ground.nothing_left)

    waits = ground.clone()
    wait(lambda: any(record.phase == "fetch_base" for record in ground.cloned()), waits)
    os.kill(ground.cloned()[0].pid, signal.SIGTERM)
    said = waits.communicate(timeout=DEADLINE_S)
    assert waits.returncode != 0
    assert "was dropped" in said[1]
    assert ground.nothing_left()
    assert len(list(facts(ground.vault, DATASET, CLONE))) == 2, "nobody was let into those two"
