"""What is done to a round's processes, and what the survivors are given time for.

What belongs here: killing, stopping, promoting, and letting what lives finish. What stays out: judging the outcome.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from scripts.crash.kinds import Kind
from scripts.crash.processes import CaptureProcess, acknowledged_bytes
from scripts.crash.scene import Scene, standby_at, wait_until

_RECORD_BYTES: Final = 64 << 10


@dataclass
class Crash:
    """When what died, and the capture's newest reports of before each death."""

    at: list[datetime]
    statuses: list[dict[str, Any]]
    outage_ms: float = 0.0
    detail: str = ""


@dataclass
class Stage:
    """A round under way: who runs in it."""

    scene: Scene
    kind: Kind
    capture: CaptureProcess
    traffic: "subprocess.Popen[bytes]"
    ack_dir: Path
    rng: random.Random

    def goes_on(self, what: str) -> None:
        """Wait until more was acknowledged than by now."""
        before = acknowledged_bytes(self.ack_dir)
        wait_until(lambda: acknowledged_bytes(self.ack_dir) > before, f"commits {what}")


def crash(stage: Stage) -> Crash:
    """Do what the round is about; afterwards nobody writes any more."""
    what = {
        "primary": _primary,
        "primary+capture": _primary_and_capture,
        "store": _store,
        "outage": _in_an_outage,
        "switch-over": _switch_over,
        "fail-over": _fail_over,
    }[stage.kind.what]
    return what(stage)


def _primary(stage: Stage) -> Crash:
    status = stage.capture.status
    stage.scene.server.kill()
    done = Crash([datetime.now(UTC)], [status])
    stage.traffic.wait(180)
    return done


def _primary_and_capture(stage: Stage) -> Crash:
    """Both at the same instant, as near as two signals come: which is first is left to chance."""
    status = stage.capture.status
    kills = [stage.capture.kill, stage.scene.server.kill]
    stage.rng.shuffle(kills)
    for kill in kills:
        kill()
    done = Crash([datetime.now(UTC)], [status])
    stage.traffic.terminate()
    stage.traffic.wait(180)
    return done


def _store(stage: Stage) -> Crash:
    status = stage.capture.status
    stage.scene.region.kill()
    at = datetime.now(UTC)
    time.sleep(1.0)
    stage.scene.region.start()
    stage.goes_on("after the store is back")
    stage.traffic.terminate()
    stage.traffic.wait(180)
    return Crash([at], [status])


def _in_an_outage(stage: Stage) -> Crash:
    """The store is dead, or hangs and answers nobody; some seconds later primary and capture die."""
    with _store_away(stage) as detail:
        began_s = time.monotonic()
        time.sleep(stage.rng.uniform(3.5, 6.0) if stage.kind.spool else stage.rng.uniform(1.5, 4.0))
        done = _primary_and_capture(stage)
        done.outage_ms = round((time.monotonic() - began_s) * 1000)
        done.detail = detail
    return done


@contextmanager
def _store_away(stage: Stage) -> Iterator[str]:
    region = stage.scene.region
    if stage.rng.choice((True, False)):
        region.kill()
        yield "store dead"
        region.start()
        return
    os.kill(region.pid, signal.SIGSTOP)
    try:
        yield "store hung"
    finally:
        os.kill(region.pid, signal.SIGCONT)
    region.wait_ready()


def _switch_over(stage: Stage) -> Crash:
    """The primary is stopped in order, its standby promoted; the capture follows, and then both die."""
    stage.scene.server.stop("fast")
    return _after_promotion(stage, [], [])


def _fail_over(stage: Stage) -> Crash:
    """The primary dies, its standby is promoted; the capture follows, and then both die."""
    status = stage.capture.status
    stage.scene.server.kill()
    at = datetime.now(UTC)
    if stage.kind.fed:
        _feed(stage)
    return _after_promotion(stage, [at], [status])


def _feed(stage: Stage) -> None:
    """Everything that was captured reaches the standby before it is promoted, though it never spoke to the primary.

    The vault's end is often within a record, which no server replays: so wait until the standby stands still near it.
    """
    stored = _wait_settled(stage)
    standby = stage.scene.standby
    if standby is None:
        raise RuntimeError("this round has no standby")
    wait_until(lambda: standby_at(standby) > stored - _RECORD_BYTES, "the standby to be fed")
    time.sleep(1.5)  # one more look of its own into the archive


def _wait_settled(stage: Stage) -> int:
    status = stage.capture.wait(
        lambda status: status["state"] == "reconnecting" and status["stored_lsn"] == status["received_lsn"],
        "what was received is stored",
    )
    return int(status["stored_lsn"])


def _after_promotion(stage: Stage, at: list[datetime], statuses: list[dict[str, Any]]) -> Crash:
    scene = stage.scene
    timeline = stage.capture.status["timeline"]
    if scene.standby is None:
        raise RuntimeError("this round has no standby")
    began_s = time.monotonic()
    scene.standby.promote()
    promoted_s = time.monotonic() - began_s
    scene.switched()
    stage.goes_on("on the new primary")
    flushed = scene.flushed()
    stage.capture.wait(
        lambda status: status["timeline"] > timeline and status["stored_lsn"] >= flushed, "the new timeline captured"
    )
    followed_s = time.monotonic() - began_s
    time.sleep(stage.rng.uniform(0.3, 1.0))
    last = _primary_and_capture(stage)
    detail = f"promoted in {promoted_s:.1f} s, captured on in {followed_s:.1f} s"
    return Crash([*at, *last.at], [*statuses, *last.statuses], detail=detail)


def settle(stage: Stage) -> None:
    """What survived finishes what it had received; nobody gets more from the source.

    A spool survives the process that wrote it: the next capture empties it into the vault, source or no source.
    """
    if stage.kind.what == "primary":
        _wait_settled(stage)
    elif stage.kind.what == "store":
        stage.capture.wait_stored(stage.scene.flushed(), "the backlog caught up")
    elif stage.kind.spool:
        emptying = CaptureProcess(stage.scene, stage.kind)
        try:
            emptying.process.wait(180)
        finally:
            emptying.end()
