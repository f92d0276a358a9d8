"""One worker of the workload: its own connection, its own acknowledgement files, one transaction at a time.

What belongs here: attempting a move and telling its outcomes apart: acknowledged, warned, replayed, refused, unknown.
What stays out: choosing moves (moves.py), timing (pace.py), starting and stopping workers (workload.py).
"""

import threading
import time
from collections import Counter, deque
from typing import Any

import psycopg
from psycopg.types.numeric import Int8Dumper

from dr_assets.casino.acks import AckLog
from dr_assets.casino.moves import Chooser, Move
from dr_assets.casino.pace import Pace
from dr_assets.casino.source import connect
from dr_assets.estate.errors import SourceError

_RECONNECT_EVERY_S = 0.2


class Session:
    """A connection that knows whether to come back after the server died (`reconnect`)."""

    def __init__(self, dsn: str, stop: threading.Event, *, reconnect: bool) -> None:
        self._dsn = dsn
        self._stop = stop
        self._reconnect = reconnect
        self._warnings: list[str] = []
        self.connection = self._open()

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection = connect(self._dsn)
        # One statement, one parameter type: else each size of number would be prepared anew.
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.prepare_threshold = 0
        connection.add_notice_handler(self._notice)
        return connection

    def _notice(self, said: psycopg.errors.Diagnostic) -> None:
        if (said.severity_nonlocalized or said.severity) == "WARNING":
            self._warnings.append(said.message_primary or "")

    def take_warnings(self) -> list[str]:
        """What the server warned of since the last call: an answer with one of these is no promise."""
        taken, self._warnings = self._warnings, []
        return taken

    @property
    def alive(self) -> bool:
        """Whether the server has not hung up."""
        return not self.connection.closed

    def revive(self) -> bool:
        """Connect again until it works or the workload stops; False when it is not to be or not to continue."""
        self.connection.close()
        while self._reconnect and not self._stop.wait(_RECONNECT_EVERY_S):
            try:
                self.connection = self._open()
            except SourceError:
                continue
            return True
        return False

    def cancel(self) -> None:
        """Ask the server to end the running statement (from another thread)."""
        self.connection.cancel_safe(timeout=2)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()


class Worker:
    """Runs moves at its pace until stopped or, without `reconnect`, until the server is gone."""

    def __init__(self, session: Session, log: AckLog, chooser: Chooser, pace: Pace, stop: threading.Event) -> None:
        self.session = session
        self._log = log
        self._chooser = chooser
        self._pace = pace
        self._stop = stop
        self._attempts = 0
        self.acknowledged = 0
        self.warned = 0
        self.replayed = 0
        self.unknown = 0
        self.refused: Counter[str] = Counter()  # by SQLSTATE
        self.latencies_s: deque[float] = deque(maxlen=10_000)
        self.backlog_s = 0.0
        self.source_lost = False

    @property
    def shed(self) -> int:
        """Arrivals given up because the backlog was full."""
        return self._pace.shed

    def run(self) -> None:
        """The worker's thread. Returns; a bug raises."""
        with self._log:
            while not self.source_lost and self._wait_for_turn():
                self._attempt(self._chooser.next_move())
        self.session.close()

    def _wait_for_turn(self) -> bool:
        now_s = time.monotonic()
        self._due_s = self._pace.next_due_s(now_s)
        self.backlog_s = max(0.0, now_s - self._due_s)
        return not self._stop.wait(max(0.0, self._due_s - now_s))

    def _attempt(self, move: Move) -> None:
        """Try until the outcome is known: an attempt repeated under its key can only count once."""
        self._attempts += 1
        key, is_repeated = f"{self._log.key_prefix}{self._attempts}", False
        while True:
            self.session.take_warnings()
            try:
                answer = self.session.connection.execute(move.sql, (key, *move.arguments)).fetchone()
            except psycopg.Error as error:
                if self.session.alive:  # the server answered, and the answer was no
                    self.refused[error.sqlstate or "none"] += 1
                    return
                self._log.unknown(self._attempts)
                self.unknown += 1
                if not self.session.revive():
                    self.source_lost = True
                    return
                is_repeated = True
                continue
            if answer is None:
                raise AssertionError(move)  # every call returns exactly one row
            self._answered(answer[0], is_repeated=is_repeated)
            self._chooser.succeeded(move, answer)
            return

    def _answered(self, transfer_id: int, *, is_repeated: bool) -> None:
        """Committed; acknowledged only if no warning came along: a cancelled wait is answered as a success.

        Nor if it was repeated: what is answered from what is there already writes nothing, and so waits for no standby.
        """
        if self.session.take_warnings():
            self._log.warned(transfer_id, self._attempts)
            self.warned += 1
            return
        if is_repeated:
            self._log.replayed(transfer_id, self._attempts)
            self.replayed += 1
            return
        self._log.acknowledged(transfer_id, self._attempts)
        self.acknowledged += 1
        self.latencies_s.append(time.monotonic() - self._due_s)


class Relay:
    """Publishes the outbox in small steps and so brings the wallets forward, as a casino's own relay would."""

    def __init__(self, session: Session, stop: threading.Event, *, every_s: float = 0.25, batch: int = 500) -> None:
        self.session = session
        self._stop = stop
        self._every_s = every_s
        self._batch = batch
        self.published = 0
        self.refused: Counter[str] = Counter()  # by SQLSTATE

    def run(self) -> None:
        """The relay's thread."""
        full = False
        while not self._stop.wait(self._every_s / 5 if full else self._every_s):  # behind: faster, not flat out
            try:
                row = self.session.connection.execute("SELECT casino.publish_outbox(%s)", (self._batch,)).fetchone()
            except psycopg.Error as error:
                full = False
                if self.session.alive:
                    self.refused[error.sqlstate or "none"] += 1
                elif not self.session.revive():
                    break
                continue
            step = row[0] if row else 0
            self.published += step
            full = step == self._batch
        self.session.close()
