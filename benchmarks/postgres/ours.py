"""dr_assets through its command line, as an operator runs it; declarations, bucket, keys and slot of its own.

What belongs here: its declarations for the benchmark and its commands. What stays out: its insides: everything is
read from its output or, where possible, from the server's own views.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.postgres.rig import Came, Rig, answered, base_environment, remove
from benchmarks.postgres.running import Process, Ran, ToolError, run
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.declarations import default_defs_dir
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.vault.connect import CA_ENV

DATASET: Final = "ledger"
LAYING: Final = ("plan", "fetch_base", "lay_wal")
_WAIT_S: Final = 600


class Ours:
    """One vault with one capture's slot; `tag` tells several of them on the same primary apart."""

    name = "dr_assets"

    def __init__(self, rig: Rig, tag: str = "main", *, declared: Mapping[str, Any] | None = None) -> None:
        self._rig = rig
        self._tag = tag
        self._folder = rig.folder / f"ours-{tag}"
        self._declared = dict(declared or {})
        self.slot = f"dr_assets_{tag}"
        self.versions: Mapping[str, str] = {"dr_assets": version("dr_assets")}

    def prepare(self) -> None:
        """Declarations, vault and keys."""
        self._folder.mkdir(mode=0o711)
        self._declare()
        self._run("vault", "init")

    def backup(self, *, watch_memory: bool = False) -> Ran:
        """`dr-assets snapshot`."""
        return self._run("snapshot", DATASET, watch_memory=watch_memory)

    def restore(self, target_lsn: int | None, *, watch_memory: bool = False) -> Came:
        """`dr-assets restore`, which verifies, replays, checks and leaves a stopped cluster; then its start."""
        place = self._rig.folder / f"back-{time.monotonic_ns()}"
        target = "latest" if target_lsn is None else f"lsn:{format_lsn(target_lsn)}"
        begin_s = time.monotonic()
        try:
            ran = self._run(
                *("restore", DATASET, "--into", str(place), "--to", target, "--json"), watch_memory=watch_memory
            )
            said = json.loads(ran.output[ran.output.index("{") :])
            answers_s, found = answered(Path(said["data_dir"]), begin_s, {})
        finally:
            remove(place)
        phases_s: dict[str, float] = said["phases_s"]
        overhead_s = ran.duration_s - sum(phases_s.values())  # the interpreter's start and the hand-over
        laid_s = sum(phases_s.get(phase, 0.0) for phase in LAYING)
        return Came(
            command_s=ran.duration_s,
            answers_s=answers_s,
            laid_s=laid_s,
            peak_bytes=ran.peak_bytes,
            cpu_s=ran.cpu_s,
            contents=found,
            phases_s={**phases_s, "start-up and hand-over": round(overhead_s, 3)},
        )

    def capture(self, *, watch_memory: bool = False) -> Process:
        """`dr-assets capture`, running."""
        return Process(self._command("capture", DATASET), env=self._environment(), watch_memory=watch_memory)

    def prime(self) -> None:
        """Let the capture make its slot and begin its chain here; from now on the server keeps WAL for it."""
        with self.capture() as capture:
            self.wait_stored(self._rig.primary.flushed, capture)
            capture.stop()

    def stored(self) -> int | None:
        """Up to where the vault holds everything, as the capture told the server; None while it isn't connected."""
        found = self._rig.primary.ask(
            "SELECT flush_lsn - '0/0' FROM pg_stat_replication WHERE application_name = %s", (self.slot,)
        )
        return None if found is None else int(found)

    def wait_stored(self, lsn: int, capture: Process, *, every_s: float = 0.05) -> float:
        """Wait until everything up to a position is stored; the instant (monotonic seconds)."""
        return self._wait(lambda: (self.stored() or 0) >= lsn, capture, f"stored to {format_lsn(lsn)}", every_s)

    def wait_streaming(self, capture: Process, *, every_s: float = 0.02) -> float:
        """Wait until the capture streams; the instant (monotonic seconds)."""
        return self._wait(lambda: self.stored() is not None, capture, "streaming", every_s)

    def forget(self) -> None:
        """Drop the slot as soon as its capture has let go, so that the server keeps nothing for it any longer."""
        primary = self._rig.primary
        active = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s AND active"
        wait_until(lambda: primary.ask(active, (self.slot,)) == 0, timeout_s=30, what=f"{self.slot} let go")
        drop = "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name = %s"
        primary.ask(drop, (self.slot,))

    def _wait(self, done: Callable[[], bool], capture: Process, what: str, every_s: float) -> float:
        deadline_s = time.monotonic() + _WAIT_S
        while not done():
            if not capture.alive:
                raise ToolError(f"the capture ended before it was {what}: {capture.said()[-3000:]}")
            if time.monotonic() > deadline_s:
                raise ToolError(f"the capture was not {what} in {_WAIT_S} s: {capture.said()[-3000:]}")
            time.sleep(every_s)
        return time.monotonic()

    def _declare(self) -> None:
        """The packaged declarations with this vault's bucket and slot."""
        for source in default_defs_dir().glob("*/defs.yaml"):
            document = yaml.safe_load(source.read_text())
            attributes = document["attributes"]
            if attributes.get("dataset") not in {None, DATASET}:
                continue
            if "vaults" in attributes:
                attributes["vaults"]["primary"]["bucket"] = f"dr-assets-{self._tag}"
            if attributes.get("dataset") == DATASET:
                # One region here; a declared replica would have to hold each new data key too.
                attributes |= {"slot": self.slot, "replicas": [], **self._declared}
            target = self._folder / "defs" / source.parent.name / "defs.yaml"
            target.parent.mkdir(parents=True)
            target.write_text(yaml.safe_dump(document))

    def _command(self, *args: str) -> list[str]:
        return [str(Path(sys.executable).parent / "dr-assets"), *args, "--defs", str(self._folder / "defs")]

    def _run(self, *args: str, watch_memory: bool = False) -> Ran:
        return run(self._command(*args), env=self._environment(), watch_memory=watch_memory)

    def _environment(self) -> dict[str, str]:
        region, secrets = self._rig.region, self._folder / "secrets"
        return {
            **base_environment(),
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},  # to measure another checkout
            "LEDGER_DSN": self._rig.primary.dsn,
            "DR_VAULT_PRIMARY_ENDPOINT": region.endpoint,
            "DR_VAULT_PRIMARY_ACCESS_KEY": region.access_key,
            "DR_VAULT_PRIMARY_SECRET_KEY": region.secret_key,
            CA_ENV: str(region.ca_file),
            "DR_KEYS_DIR": str(secrets / "keys"),
            "DR_TRUST_FILE": str(secrets / "trust.json"),
            "DR_SIGNING_KEY": str(secrets / "signing.pem"),
        }
