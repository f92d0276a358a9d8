"""Watching, from outside, how far an archive lags behind the commits: from the server's own views.

What belongs here: sampling positions and the lag they mean. What stays out: who archives.

At an instant the server has flushed its WAL up to F and somebody keeps it safely up to S. A commit that returns at
that instant lies at F or before; it is safe at the first later instant at which S has reached that F.
"""

import bisect
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Self

import psycopg

from benchmarks.postgres.primary import segment_end

_EVERY_S: Final = 0.01
_STREAMED: Final = b"""
SELECT pg_current_wal_flush_lsn() - '0/0',
       (SELECT flush_lsn - '0/0' FROM pg_stat_replication WHERE application_name = %s)
"""
_ARCHIVED: Final = b"SELECT pg_current_wal_flush_lsn() - '0/0', last_archived_wal FROM pg_stat_archiver WHERE %s <> ''"


@dataclass(slots=True)
class Positions:
    """Samples in order: instants (monotonic seconds), flushed and safe positions."""

    at_s: list[float] = field(default_factory=list)
    flushed: list[int] = field(default_factory=list)
    safe: list[int] = field(default_factory=list)

    def add(self, at_s: float, flushed: int, safe: int) -> None:
        """One sample; a safe position never goes back."""
        self.at_s.append(at_s)
        self.flushed.append(flushed)
        self.safe.append(max(safe, self.safe[-1]) if self.safe else safe)


def lags_s(positions: Positions, begin_s: float, end_s: float) -> list[float]:
    """For each sample between two instants, how long it took until its flushed position was safe.

    What was not safe by the last sample is left out: let sampling go on until everything is.
    """
    lags = []
    for index, at_s in enumerate(positions.at_s):
        if begin_s <= at_s <= end_s:
            found = bisect.bisect_left(positions.safe, positions.flushed[index], lo=index)
            if found < len(positions.safe):
                lags.append(positions.at_s[found] - at_s)
    return lags


class PositionWatch:
    """Samples a primary in a thread and a session of its own, from entering until leaving."""

    def __init__(self, dsn: str, how: Literal["streamed", "archived"], name: str = "archiver") -> None:
        self.positions = Positions()
        self._dsn = dsn
        self._how = how
        self._name = name
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        statement = _STREAMED if self._how == "streamed" else _ARCHIVED
        with psycopg.connect(self._dsn, autocommit=True) as session:
            while not self._done.wait(_EVERY_S):
                row = session.execute(statement, (self._name,)).fetchone()
                if row is not None:
                    self.positions.add(time.monotonic(), int(row[0]), _safe(row[1]))


def _safe(found: Sequence[str] | int | None) -> int:
    if found is None:
        return 0
    return segment_end(found) if isinstance(found, str) else int(str(found))
