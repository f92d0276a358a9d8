"""Running probes side by side, each with an end: what hangs costs one line and never the others'.

What belongs here: threads, deadlines, what a probe's failure looks like. What stays out: what is probed.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dr_assets.cli.doctor.line import Line
from dr_assets.estate.errors import DrError

# Probes talk to the network mostly; more threads than this would only fight for the host's cores.
_AT_ONCE: Final = 6


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at something. `look` yields lines as it finds them; a DrError ends it with a bad line."""

    subject: str
    check: str
    look: Callable[[], Iterator[Line]]


@dataclass(slots=True)
class _Running:
    probe: Probe
    lines: list[Line] = field(default_factory=list)
    begun_s: float | None = None
    done: threading.Event = field(default_factory=threading.Event)
    bug: BaseException | None = None

    def run(self, room: threading.Semaphore) -> None:
        with room:
            self.begun_s = time.monotonic()
            try:
                for line in self.probe.look():
                    self.lines.append(line)
            except DrError as error:
                self.lines.append(Line.of_error(self.probe.check, error))
            except BaseException as error:  # noqa: BLE001 - our own bug, raised again once every line was told
                self.bug = error
            finally:
                self.done.set()


def examine(probes: Sequence[Probe], *, within_s: float) -> tuple[list[tuple[Probe, Line]], list[BaseException]]:
    """Every probe's lines in the probes' order, and our own bugs that ended one (the caller raises them at last).

    A probe that isn't done `within_s` seconds after it began is left behind with what it had found until then and one
    bad line more; its thread cannot keep the process from ending.
    """
    room = threading.Semaphore(_AT_ONCE)
    running = [_Running(probe) for probe in probes]
    for each in running:
        threading.Thread(target=each.run, args=(room,), name=f"doctor-{each.probe.check}", daemon=True).start()
    for each in running:
        _wait(each, within_s, room)
    told = [(each.probe, line) for each in running for line in list(each.lines)]
    return told, [each.bug for each in running if each.bug is not None]


def _wait(each: _Running, within_s: float, room: threading.Semaphore) -> None:
    while not each.done.is_set():
        begun_s = each.begun_s
        left_s = within_s if begun_s is None else begun_s + within_s - time.monotonic()
        if left_s <= 0:
            hint = "it may hang, or only be slow: look at what it talks to, or give it longer with --within"
            each.lines.append(Line(each.probe.check, "bad", f"no answer within {within_s:g} s", hint))
            room.release()  # what hangs must not keep the others waiting for its place
            return
        each.done.wait(left_s if begun_s is not None else 0.05)
