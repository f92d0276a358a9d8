"""Kill real processes under load, restore from the vault alone, count what was lost.

    python scripts/crash_rounds.py --rounds 30 --output .demo/crash-rounds.json

Each round runs the casino's workload against a real primary, captures it into a real object store, and then sends
SIGKILL to the primary, to the primary and the capture at the same instant, or to the object store. What the workload
had acknowledged and the restored ledger lacks is the loss. Beside it stand the linger, how long a seal took, and the
age of the slowest unfinished put at the moment of the kill: together they say how much could be lost.

Exits 1 when a restore failed, a hole was restored over, the vault's WAL differs from the server's, the books don't
add up, a killed store lost anything, or a loss exceeds the dataset's RPO.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psycopg

from dr_assets.casino import schema
from dr_assets.casino.loss import Loss, measure_loss
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import Dataset, Estate
from dr_assets.reconciliation.run import reconcile
from dr_assets.stores.postgres.capture import Capture, CaptureOptions, CaptureReport
from dr_assets.stores.postgres.capture_facts import latest_anchor
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.chain import resolve
from dr_assets.vault.connect import init_vault, open_vault
from dr_assets.vault.vault import Vault

Kind = Literal["primary", "primary+capture", "store"]
KINDS: tuple[Kind, ...] = ("primary", "primary+capture", "store")
DATASET = "ledger"
SEGMENT_BYTES = 16 << 20
SNAPSHOT_EVERY = 6
STATUS_EVERY_S = 0.05
STATUS_ENV = "DR_CRASH_ROUNDS_STATUS"


@dataclass
class Round:
    """One kill and what came back. Times in milliseconds unless the name says otherwise."""

    number: int
    kind: Kind
    acknowledged: int
    lost: int
    loss_window_ms: float
    linger_ms: float
    seal_ms: float
    slowest_put_ms: float
    bound_ms: float
    recovery_point_age_s: float | None
    recovery_duration_s: float
    stored_lsn: str
    replayed_lsn: str
    orphans: int
    breaks: int
    wal_compared_bytes: int
    failures: list[str] = field(default_factory=list)


@dataclass
class Scene:
    """The estate that the rounds run in; `walked` is how far the chain was checked, with its header's digest."""

    folder: Path
    server: PostgresServer
    region: SeaweedRegion
    estate: Estate
    env: dict[str, str]
    vault: Vault
    rate: float
    walked: tuple[int, str | None] = (0, None)

    @property
    def dataset(self) -> Dataset:
        """The declared ledger."""
        return self.estate.datasets[DATASET]

    @property
    def dsn(self) -> str:
        """The casino's database on the primary."""
        return self.server.dsn("casino")


class CaptureProcess:
    """`dr-assets capture` as a process of its own whose newest report lies in a file."""

    def __init__(self, scene: Scene) -> None:
        self._status = scene.folder / "capture-status.json"
        self._status.unlink(missing_ok=True)
        env = {**os.environ, **scene.env, STATUS_ENV: str(self._status)}
        self.process = subprocess.Popen([sys.executable, __file__, "--capture-child"], env=env)

    @property
    def status(self) -> dict[str, Any]:
        """The newest report, empty before the first."""
        return json.loads(self._status.read_text()) if self._status.exists() else {}

    def wait(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Until a report is as wanted."""
        deadline = time.monotonic() + 120
        while not ((status := self.status) and wanted(status)):
            if self.process.poll() is not None:
                raise RuntimeError(f"the capture ended with {self.process.returncode} before {what}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"no report with {what}: {status}")
            time.sleep(STATUS_EVERY_S)
        return status

    def end(self) -> None:
        """Stop it in order if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(120)


def capture_child() -> None:
    """Run the declared ledger's capture until SIGTERM, the newest report always whole in the status file."""
    estate = load_estate(default_defs_dir())
    status, stop = Path(os.environ[STATUS_ENV]), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def tell(report: CaptureReport) -> None:
        fresh = status.with_suffix(".new")
        fresh.write_text(json.dumps(dataclasses.asdict(report), default=str))
        fresh.replace(status)

    dataset = estate.datasets[DATASET]
    vault = open_vault(estate, dataset.vault, os.environ)
    options = CaptureOptions(report_every_s=STATUS_EVERY_S)
    Capture(vault, dataset, os.environ[dataset.dsn_env], listener=tell, options=options).run(stop)


@contextmanager
def open_scene(folder: Path, *, rate: float, players: int = 500) -> Iterator[Scene]:
    """A primary with the casino, an object store with the vault, and the packaged declarations over both."""
    with ExitStack() as stack:
        server = PostgresServer(
            folder / "primary", find_programs("postgres", 17), settings={"track_commit_timestamp": True}
        )
        region = SeaweedRegion(folder / "region", "crash", find_programs("weed"))
        stack.enter_context(server)
        stack.enter_context(region)
        server.init()
        server.start()
        region.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE casino")
        schema.create(server.dsn("casino"), players=players)
        estate = load_estate(default_defs_dir())
        env = _environment(folder, server, region)
        init_vault(estate, "primary", env)
        yield Scene(folder, server, region, estate, env, open_vault(estate, "primary", env), rate)


def _environment(folder: Path, server: PostgresServer, region: SeaweedRegion) -> dict[str, str]:
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "keys").mkdir(mode=0o700)
    return {
        "LEDGER_DSN": server.dsn("casino"),
        "DR_VAULT_PRIMARY_ENDPOINT": region.endpoint,
        "DR_VAULT_PRIMARY_ACCESS_KEY": region.access_key,
        "DR_VAULT_PRIMARY_SECRET_KEY": region.secret_key,
        "DR_KEYS_DIR": str(secrets / "keys"),
        "DR_TRUST_FILE": str(secrets / "trust.json"),
        "DR_SIGNING_KEY": str(secrets / "signing.pem"),
    }


@contextmanager
def workload(scene: Scene, ack_dir: Path, seed: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The casino's traffic as a process of its own; it ends by itself when its server is gone."""
    command = [
        *(sys.executable, "-m", "dr_assets.casino", "--dsn-env", "LEDGER_DSN", "--ack-dir", str(ack_dir)),
        *("--rate", str(scene.rate), "--workers", "8", "--seed", str(seed)),
    ]
    ack_dir.mkdir(parents=True)
    process = subprocess.Popen(command, env={**os.environ, **scene.env}, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def run_round(scene: Scene, number: int, kind: Kind, rng: random.Random) -> Round:
    """Load, kill, restore from the vault alone, compare."""
    capture = CaptureProcess(scene)
    ack_dir = scene.folder / f"acks-{number}"
    try:
        capture.wait(lambda status: status["stored_lsn"] >= _flushed(scene.dsn), "everything stored")
        if number % SNAPSHOT_EVERY == 0:
            taken = take_snapshot(scene.vault, scene.dataset, scene.dsn)
            capture.wait(lambda status: status["stored_lsn"] >= taken.stop_lsn, "the base backup's WAL stored")
        with workload(scene, ack_dir, seed=number) as traffic:
            _wait_for_acks(ack_dir, traffic)
            time.sleep(rng.uniform(1.0, 3.0))
            status, crashed_at = _crash(scene, capture, kind, traffic)
        _settle(scene, capture, kind)
        result = _restore(scene, number, kind, ack_dir, crashed_at, status)
    finally:
        capture.end()
    _compare(scene, result)
    return result


def _crash(
    scene: Scene, capture: CaptureProcess, kind: Kind, traffic: "subprocess.Popen[bytes]"
) -> tuple[dict[str, Any], datetime]:
    status = capture.status
    if kind == "primary":
        scene.server.kill()
    elif kind == "primary+capture":
        capture.process.kill()
        scene.server.kill()
    else:
        scene.region.kill()
    crashed_at = datetime.now(UTC)
    if kind == "store":
        time.sleep(1.0)
        scene.region.start()
        traffic.terminate()
    traffic.wait(60)
    return status, crashed_at


def _settle(scene: Scene, capture: CaptureProcess, kind: Kind) -> None:
    """What survived the kill finishes what it had received; nobody gets more from the source."""
    if kind == "primary":
        capture.wait(
            lambda status: status["state"] == "reconnecting" and status["stored_lsn"] == status["received_lsn"],
            "what was received is stored",
        )
    elif kind == "store":
        flushed = _flushed(scene.dsn)
        capture.wait(lambda status: status["stored_lsn"] >= flushed, "the backlog is caught up")


def _restore(
    scene: Scene, number: int, kind: Kind, ack_dir: Path, crashed_at: datetime, status: dict[str, Any]
) -> Round:
    plan = plan_restore(scene.vault, DATASET, Target.parse("latest"))
    with restore(plan, scene.vault, scene.folder / f"sandbox-{number}") as restored:
        loss = measure_loss(ack_dir, restored.dsn("casino"), crashed_at=crashed_at)
        books = reconcile(restored.reader_dsn("casino"))
        age = None if restored.recovered_at is None else (crashed_at - restored.recovered_at).total_seconds()
        result = _round(number, kind, loss, status, restored.duration_s)
        result.recovery_point_age_s = None if age is None else round(age, 3)
        result.replayed_lsn = format_lsn(restored.replayed_lsn)
        result.breaks = books.breaks_total
        if restored.replayed_lsn != restored.end_lsn:
            result.failures.append(f"replay ended at {result.replayed_lsn}, not at {format_lsn(restored.end_lsn)}")
        if not books.ok:
            result.failures.append("the books don't add up")
    if kind == "store" and loss.lost:
        result.failures.append("a killed store cost acknowledged commits")
    if loss.loss_window_ms > scene.dataset.rpo.total_seconds() * 1000:
        result.failures.append("the loss exceeds the RPO")
    return result


def _round(number: int, kind: Kind, loss: Loss, status: dict[str, Any], duration_s: float) -> Round:
    linger_ms, slowest_ms = status["linger_s"] * 1000, status["slowest_put_s"] * 1000
    return Round(
        number=number,
        kind=kind,
        acknowledged=loss.acknowledged,
        lost=loss.lost,
        loss_window_ms=round(loss.loss_window_ms, 1),
        linger_ms=linger_ms,
        seal_ms=round(status["seal_s"] * 1000, 1),
        slowest_put_ms=round(slowest_ms, 1),
        # A byte waits at most the linger for its cut, and its put was at most as old as the slowest; the report of it
        # is at most this old itself.
        bound_ms=round(linger_ms + slowest_ms + STATUS_EVERY_S * 1000, 1),
        recovery_point_age_s=None,
        recovery_duration_s=round(duration_s, 2),
        stored_lsn="",
        replayed_lsn="",
        orphans=0,
        breaks=0,
        wal_compared_bytes=0,
    )


def _compare(scene: Scene, result: Round) -> None:
    """Every new segment continues the one before it and holds the bytes that the server's own WAL files hold."""
    if not scene.server.running:
        scene.server.start()
    anchor = latest_anchor(scene.vault, DATASET)
    if anchor is None:
        raise RuntimeError("the capture left no fact")
    begin, previous = scene.walked if scene.walked[0] else (anchor.begin, None)
    listed = scene.vault.objects(
        DATASET, "wal", system_id=anchor.system_id, timeline=anchor.timeline, start_after_position=begin
    )
    chain = resolve(listed, scene.vault.header, begin)
    for segment in chain.segments:
        opened = scene.vault.open(segment)
        if opened.header.previous != previous:
            result.failures.append(f"{segment.key} does not continue the segment before it")
        if opened.plaintext != _server_wal(scene.server, anchor.timeline, segment.key.first, segment.key.last):
            result.failures.append(f"{segment.key} differs from the server's WAL")
        previous = opened.header.digest
    result.stored_lsn, result.orphans = format_lsn(chain.end), len(chain.orphans)
    result.wal_compared_bytes = chain.end - begin
    if parse_lsn(result.replayed_lsn) > chain.end:
        result.failures.append("replayed beyond the chain")
    scene.walked = (chain.end, previous)


def _server_wal(server: PostgresServer, timeline: int, begin: int, end: int) -> bytes:
    parts = []
    for number in range(begin // SEGMENT_BYTES, -(-end // SEGMENT_BYTES)):
        first = number * SEGMENT_BYTES
        data = (server.data_dir / "pg_wal" / f"{timeline:08X}{number // 256:08X}{number % 256:08X}").read_bytes()
        parts.append(data[max(begin, first) - first : min(end, first + SEGMENT_BYTES) - first])
    return b"".join(parts)


def final_restore(scene: Scene, rounds: int) -> dict[str, Any]:
    """After the last round nothing is killed: every commit that was ever acknowledged must come back."""
    capture = CaptureProcess(scene)
    flushed = _flushed(scene.dsn)
    try:
        capture.wait(lambda status: status["stored_lsn"] >= flushed, "everything stored")
    finally:
        capture.end()
    plan = plan_restore(scene.vault, DATASET, Target.parse("latest"))
    with restore(plan, scene.vault, scene.folder / "sandbox-final") as restored:
        losses = [measure_loss(scene.folder / f"acks-{number}", restored.dsn("casino")) for number in range(rounds)]
    return {"acknowledged": sum(loss.acknowledged for loss in losses), "lost": sum(loss.lost for loss in losses)}


def _flushed(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    return parse_lsn(str(row[0] if row else ""))


def _wait_for_acks(ack_dir: Path, traffic: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in ack_dir.glob("*")):
        if traffic.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the workload acknowledged nothing")
        time.sleep(0.05)


def run(folder: Path, rounds: int, *, rate: float, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """All rounds in one estate; the table as a dictionary, `ok` over all of it."""
    rng = random.Random(seed)  # noqa: S311 - seeded so that a run can be repeated
    results: list[Round] = []
    with open_scene(folder, rate=rate) as scene:
        tell(_HEAD)
        for number in range(rounds):
            results.append(run_round(scene, number, KINDS[number % len(KINDS)], rng))
            shutil.rmtree(scene.folder / f"sandbox-{number}", ignore_errors=True)
            tell(_line(results[-1]))
        final = final_restore(scene, rounds)
    return {
        "rounds": [dataclasses.asdict(result) for result in results],
        "summary": _summary(results),
        "final": final,
        "ok": not any(result.failures for result in results) and final["lost"] == 0,
    }


def _summary(results: list[Round]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for kind in KINDS:
        own = [result for result in results if result.kind == kind]
        if own:
            summary[kind] = {
                "rounds": len(own),
                "acknowledged": sum(result.acknowledged for result in own),
                "lost": sum(result.lost for result in own),
                "loss_window_max_ms": max(result.loss_window_ms for result in own),
                "within_bound": sum(result.loss_window_ms <= result.bound_ms for result in own),
                "failures": sum(bool(result.failures) for result in own),
            }
    return summary


_HEAD = (
    f"{'round':>5} {'kind':<16} {'acked':>7} {'lost':>5} {'window ms':>10} {'linger':>7} {'seal ms':>8} "
    f"{'put ms':>8} {'bound ms':>9} {'restore s':>10} {'orphans':>8} {'breaks':>7}  failures"
)


def _line(result: Round) -> str:
    return (
        f"{result.number:>5} {result.kind:<16} {result.acknowledged:>7} {result.lost:>5} {result.loss_window_ms:>10} "
        f"{result.linger_ms:>7.0f} {result.seal_ms:>8} {result.slowest_put_ms:>8} {result.bound_ms:>9} "
        f"{result.recovery_duration_s:>10} {result.orphans:>8} {result.breaks:>7}  {'; '.join(result.failures) or '-'}"
    )


def main() -> int:
    """Parse, run, write; the exit code."""
    parser = argparse.ArgumentParser(description="Kill, restore from the vault alone, count what was lost.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--rate", type=float, default=400, help="offered transactions per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(".demo/crash-rounds.json"))
    parser.add_argument("--capture-child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.capture_child:
        capture_child()
        return 0
    with tempfile.TemporaryDirectory(prefix="dr-assets-crash-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)  # the engines run as another user
        table = run(
            Path(folder),
            options.rounds,
            rate=options.rate,
            seed=options.seed,
            tell=lambda line: print(line, flush=True),
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"{options.output}: {'every round held' if table['ok'] else 'FAILED, see the last column'}")
    return 0 if table["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
