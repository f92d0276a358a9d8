"""What a sandbox's data is judged by: the books on their schedule, every page and index entry on theirs.

What belongs here: where each is done, and the verdict as a value. What stays out: when (prover.py), the checks
themselves (reconciliation/, stores/postgres/checks.py).

The books are read from the standby itself, which costs no copy. A standby cancels a reader that holds up its replay,
and lets nobody make a role for reading views: then they are read from a clone. The standby is tried again later, for a
reader is cancelled for what the source did, or the host, at that very moment.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import psycopg

from dr_assets.estate.errors import DrError, PolicyError, SourceError
from dr_assets.proving.prover.clone import Clone
from dr_assets.proving.prover.points import Books, DeepPass, Place, Point
from dr_assets.proving.prover.sandbox import Sandbox
from dr_assets.reconciliation.result import Reconciliation
from dr_assets.reconciliation.run import reconcile

log = logging.getLogger(__name__)
# Of a clone's server, its disk and the vault; what else happens is a bug of ours.
_FAILURES = (DrError, psycopg.Error, OSError)
_ON_CLONES_MAX: Final = 64
MakeClone = Callable[[Sandbox], AbstractContextManager[Clone]]
Seal = Callable[[Reconciliation], str | None]


@dataclass(slots=True)
class Judge:
    """Judges one dataset's sandboxes, one at a time. `seal` keeps the breaks that were found, and gives their digest.

    `refused` counts how often in a row the standby refused to be read, `on_clones` how many of the next reconciliations
    don't ask it: 2, 4, 8 and so on.
    """

    contract: str
    clone_of: MakeClone
    clock: Callable[[], datetime]
    seal: Seal
    refused: int = field(default=0)
    on_clones: int = field(default=0)

    def books(self, sandbox: Sandbox, point: Point) -> Books:
        """One reconciliation of what has reached `point` or more. What can't be done at all is told in its `reason`."""
        begin_s = time.monotonic()
        if self.on_clones == 0 and (dsn := sandbox.reader_dsn()) is not None:
            try:
                books = self._judged(dsn, point, begin_s, "standby")
            except (SourceError, PolicyError) as error:
                self.refused += 1
                self.on_clones = min(2**self.refused, _ON_CLONES_MAX) + 1
                log.warning("the standby can't be read, a clone is for now: %s: %s", error.code, error.found)
            else:
                self.refused = 0
                return books
        self.on_clones = max(0, self.on_clones - 1)
        try:
            with self.clone_of(sandbox) as clone:
                return self._judged(clone.reader_dsn(), clone.point, begin_s, "clone")
        except _FAILURES as error:
            reason = _told(error)
            return Books(point, self.clock(), ok=False, breaks_total=0, reason=reason, place="clone",
                         duration_s=time.monotonic() - begin_s)  # fmt: skip

    def deep(self, sandbox: Sandbox, point: Point) -> tuple[DeepPass, Books | None]:
        """Every page and every index entry of a clone, then the books, which a clone gives for little more."""
        begin_s, checks = time.monotonic(), tuple[str, ...]()
        books = None
        try:
            with self.clone_of(sandbox) as clone:
                point = clone.point
                checks = clone.look_deep()
                books = self._judged(clone.reader_dsn(), point, time.monotonic(), "clone")
        except _FAILURES as error:
            reason = _told(error)
            return DeepPass(point, self.clock(), False, reason, checks, time.monotonic() - begin_s), books  # noqa: FBT003 - a value's own field
        return DeepPass(point, self.clock(), books.ok, books.reason, checks, time.monotonic() - begin_s), books

    def _judged(self, dsn: str, point: Point, begin_s: float, place: Place) -> Books:
        found = reconcile(dsn, self.contract)
        duration_s = time.monotonic() - begin_s
        reason = found.verdict() if found.ok else f"the money does not add up: {found.verdict()}"
        return Books(point, self.clock(), found.ok, found.breaks_total, reason, place, duration_s, self.seal(found))


def _told(error: DrError | psycopg.Error | OSError) -> str:
    """In words; of a server's error its code alone, since its text may hold what is in the data."""
    if isinstance(error, DrError):
        return f"{error.code}: {error.found}"
    if isinstance(error, psycopg.Error):
        return f"prover.clone_failed: the clone's server refused, SQLSTATE {error.sqlstate or 'unknown'}"
    return f"prover.disk: {error.strerror or type(error).__name__}"
