"""One round: load, a fault, a restore from the vault alone, the comparison.

What belongs here: the order of a round and what counts as its failure. What stays out: killing (faults.py), reading
both sides (compare.py).
"""

import random
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psycopg

from dr_assets.reconciliation.run import reconcile
from dr_assets.stores.postgres.capture_facts import GAP
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.snapshot import take_snapshot
from dr_assets.stores.postgres.spooling import SPOOL_AFTER_S
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import facts
from scripts.crash.compare import Told, Transfer, held, told, walk, window_ms
from scripts.crash.faults import Crash, Stage, crash, settle
from scripts.crash.kinds import Kind
from scripts.crash.processes import STATUS_EVERY_S, CaptureProcess, acknowledged_bytes, traffic
from scripts.crash.scene import DATASET, Scene, wait_until
from scripts.crash.table import Round

SNAPSHOT_EVERY: Final = 6
_SYNCHRONOUS: Final = "SELECT count(*) FROM pg_stat_replication WHERE application_name = %s AND sync_state = 'sync'"


def run_round(scene: Scene, number: int, kind: Kind, seed: int) -> Round:
    """Load, kill, restore from the vault alone, compare."""
    began_s = time.monotonic()
    rng = random.Random(f"{seed} {number}")  # noqa: S311 - seeded so that a round can be repeated
    gaps = _gaps(scene)
    ack_dir = scene.folder / f"acks-{number}"
    capture = _begin(scene, number, kind)
    timeline = capture.status["timeline"]
    try:
        with traffic(scene, ack_dir, number, reconnect=kind.switches) as clients:
            wait_until(lambda: acknowledged_bytes(ack_dir) > 0 or clients.poll() is not None, "the first commit")
            time.sleep(rng.uniform(1.0, 2.5))
            stage = Stage(scene, kind, capture, clients, ack_dir, rng)
            done = crash(stage)
        settle(stage)
        result = _new_row(number, kind, seed, told(ack_dir), done)
        _restore(scene, kind, result, told(ack_dir), done, timeline)
    finally:
        capture.end()
    _compare(scene, kind, result, timeline)
    result.gaps = _gaps(scene) - gaps
    if result.gaps:
        result.failures.append("a gap is on record")
    _leave(scene, number)
    scene.rounds += 1
    result.round_s = round(time.monotonic() - began_s, 1)
    return result


def _begin(scene: Scene, number: int, kind: Kind) -> CaptureProcess:
    """A capture that has caught up, in the round's mode, with a standby and a base backup where they are due."""
    scene.synchronize(None)
    if kind.switches and not kind.fed:
        scene.add_standby(number)
    capture = CaptureProcess(scene, kind)
    try:
        capture.wait_stored(scene.flushed(), "everything stored")
        if kind.fed:
            capture = _with_a_fed_standby(scene, number, kind, capture)
        if scene.rounds % SNAPSHOT_EVERY == 0:
            taken = take_snapshot(scene.vault, scene.dataset(kind), scene.dsn)
            capture.wait_stored(taken.stop_lsn, "the base backup's WAL stored")
        if kind.zero_loss:
            slot = scene.dataset(kind).slot
            scene.synchronize(slot)
            wait_until(lambda: _is_synchronous(scene, slot), "the capture to be a synchronous standby")
            # Which commits don't follow yet: the capture says so once it has seen one wait.
            capture.wait(lambda status: status["durability"] == "synchronous", "commits that wait for the vault")
    except BaseException:
        capture.end()
        raise
    return capture


def _with_a_fed_standby(scene: Scene, number: int, kind: Kind, capture: CaptureProcess) -> CaptureProcess:
    """Such a standby needs what was captured; and the capture has to know of both servers."""
    capture.end()
    scene.add_standby(number, fed=True)
    again = CaptureProcess(scene, kind)
    again.wait_stored(scene.flushed(), "everything stored, with a standby")
    return again


def _is_synchronous(scene: Scene, name: str) -> bool:
    with psycopg.connect(scene.dsn, autocommit=True) as connection:
        row = connection.execute(_SYNCHRONOUS, (name,)).fetchone()
    return row is not None and row[0] == 1


def _new_row(number: int, kind: Kind, seed: int, clients: Told, done: Crash) -> Round:
    linger_ms = max(status["linger_s"] for status in done.statuses) * 1000
    slowest_ms = max(status["slowest_put_s"] for status in done.statuses) * 1000
    return Round(
        number=number,
        kind=kind.name,
        zero_loss=kind.zero_loss,
        seed=seed,
        acknowledged=len(clients.acknowledged),
        lost=0,
        warned=len(clients.warned),
        warned_lost=0,
        diverged=0,
        loss_window_ms=0.0,
        linger_ms=linger_ms,
        seal_ms=round(done.statuses[-1]["seal_s"] * 1000, 1),
        slowest_put_ms=round(slowest_ms, 1),
        outage_ms=done.outage_ms,
        # A byte waits at most the linger for its cut, and its put was at most as old as the slowest; the report of it
        # is at most this old itself. An outage costs all that it lasts, or what is not on the spool yet.
        bound_ms=round(linger_ms + slowest_ms + STATUS_EVERY_S * 1000 + _outage_ms(kind, done), 1),
        detail=done.detail,
        durability=str(done.statuses[-1].get("durability", "")),
    )


def _outage_ms(kind: Kind, done: Crash) -> float:
    return min(done.outage_ms, SPOOL_AFTER_S * 1000) if kind.spool else done.outage_ms


def _restore(scene: Scene, kind: Kind, result: Round, clients: Told, done: Crash, timeline: int) -> None:
    with ExitStack() as stack:
        plan = plan_restore(scene.vault, DATASET, Target.parse("latest"))
        restored = stack.enter_context(restore(plan, scene.vault, scene.folder / f"sandbox-{result.number}"))
        found = held(restored.dsn("casino"), clients.runs)
        books = reconcile(restored.reader_dsn("casino"))
        result.recovery_duration_s = round(restored.duration_s, 2)
        if restored.recovered_at is not None:
            result.recovery_point_age_s = round((done.at[-1] - restored.recovered_at).total_seconds(), 3)
        result.replayed_lsn = format_lsn(restored.replayed_lsn)
        result.breaks = books.breaks_total
        if restored.replayed_lsn != restored.end_lsn:
            result.failures.append(f"replay ended at {result.replayed_lsn}, not at {format_lsn(restored.end_lsn)}")
        if not books.ok:
            result.failures.append("the books don't add up")
    lost = _lacking(clients, found)
    if kind.what == "fail-over" and lost:
        found |= _left_behind(scene, result, clients, timeline)
        scene.gone |= {key for _, key in lost}
        result.diverged = len(lost) - len(_lacking(clients, found))
        lost = _lacking(clients, found)
    _judge(scene, kind, result, clients, lost, found, done)


def _lacking(clients: Told, found: set[Transfer]) -> dict[Transfer, int]:
    return {transfer: at_ns for transfer, at_ns in clients.acknowledged.items() if transfer not in found}


def _left_behind(scene: Scene, result: Round, clients: Told, timeline: int) -> set[Transfer]:
    """What the timeline that was left holds: the other side of the switch can be restored, too."""
    plan = plan_restore(scene.vault, DATASET, Target.parse("latest"), timeline=timeline)
    with restore(plan, scene.vault, scene.folder / f"sandbox-{result.number}-old") as restored:
        return held(restored.dsn("casino"), clients.runs)


def _judge(
    scene: Scene, kind: Kind, result: Round, clients: Told, lost: dict[Transfer, int], found: set[Transfer], done: Crash
) -> None:
    result.lost = len(lost)
    result.warned_lost = len(clients.warned - found)
    result.loss_window_ms = window_ms(lost, done.at)
    if kind.zero_loss and lost:
        result.failures.append("zero loss lost acknowledged commits")
    if kind.zero_loss and result.durability != "synchronous":
        result.failures.append(f"commits did not wait for the vault: {result.durability}")
    if kind.fed and result.diverged:
        result.failures.append("the vault had commits that the standby it fed was promoted without")
    if kind.store_survives and lost:
        result.failures.append("a killed store cost acknowledged commits")
    if result.loss_window_ms > scene.dataset(kind).rpo.total_seconds() * 1000:
        result.failures.append("the loss exceeds the RPO")
    if not clients.acknowledged:
        result.failures.append("nothing was acknowledged, so nothing was tried")


def _compare(scene: Scene, kind: Kind, result: Round, timeline: int) -> None:
    """Each timeline that this round wrote, against the files of the server that wrote it."""
    if not scene.server.running:
        scene.server.start()
    if kind.switches:
        old = walk(scene, scene.retired[-1], timeline)
        result.wal_compared_bytes += old.size_bytes
        result.failures += old.failures
    now = _timeline(scene.dsn)
    new = walk(scene, scene.server, now)
    result.timeline = now
    result.wal_compared_bytes += new.size_bytes
    result.failures += new.failures
    result.stored_lsn, result.orphans, result.holes = format_lsn(new.end), new.orphans, new.holes
    if parse_lsn(result.replayed_lsn) > new.end:
        result.failures.append("replayed beyond the chain")


def _timeline(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)").fetchone()
    return int(str(row[0] if row else ""), 16)


def _gaps(scene: Scene) -> int:
    return sum(1 for _ in facts(scene.vault, DATASET, GAP))


def _leave(scene: Scene, number: int) -> None:
    """Remove what no later round needs."""
    if scene.feeder is not None:
        scene.feeder.close()
        scene.feeder = None
    for folder in (f"sandbox-{number}", f"sandbox-{number}-old"):
        shutil.rmtree(scene.folder / folder, ignore_errors=True)
    while scene.retired:
        server = scene.retired.pop()
        server.stop("immediate")
        shutil.rmtree(Path(server.data_dir), ignore_errors=True)
