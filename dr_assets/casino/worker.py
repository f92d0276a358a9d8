"""One worker of the workload: its own connection, its own files, one transaction at a time.

What belongs here: attempting a move and telling its outcomes apart: acknowledged, warned, replayed, refused, unknown.
What stays out: choosing moves (moves.py), timing (pace.py), starting and stopping workers (workload.py).
"""

import threading
import time
from collections import Counter, deque

import psycopg

from dr_assets.casino.acks import AckLog
from dr_assets.casino.moves import Chooser, Move
from dr_assets.casino.outsiders import OutsideLog, Told
from dr_assets.casino.pace import Pace
from dr_assets.casino.session import Session


class Worker:
    """Runs moves at its pace until stopped or, without `reconnect`, until the server is gone."""

    def __init__(
        self,
        session: Session,
        log: AckLog,
        outside: OutsideLog,
        chooser: Chooser,
        pace: Pace,
        stop: threading.Event,
    ) -> None:
        self.session = session
        self._log = log
        self._outside = outside
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
        with self._log, self._outside:
            while not self.source_lost and self._wait_for_turn():
                self._take(self._chooser.next_move())
        self.session.close()

    def _wait_for_turn(self) -> bool:
        now_s = time.monotonic()
        self._due_s = self._pace.next_due_s(now_s)
        self.backlog_s = max(0.0, now_s - self._due_s)
        return not self._stop.wait(max(0.0, self._due_s - now_s))

    def _take(self, move: Move) -> None:
        """What the payment provider does is done before the ledger is told, and undone where the ledger refuses."""
        if move.act is not None:
            self._outside.did(move.act)
        if move.is_outside:
            return
        self._attempts += 1
        key = f"{self._log.key_prefix}{self._attempts}"
        told = self._attempt(move, key)
        if move.stake is not None:
            self._outside.told(move.stake, key, told)
        if told == "refused" and move.act is not None:
            self._outside.did(move.act.undone)

    def _attempt(self, move: Move, key: str) -> Told:
        """Try until the outcome is known: an attempt repeated under its key can only count once."""
        is_repeated = False
        while True:
            self.session.take_warnings()
            try:
                answer = self.session.connection.execute(move.sql, (key, *move.arguments)).fetchone()
            except psycopg.Error as error:
                if self.session.alive:  # the server answered, and the answer was no
                    self.refused[error.sqlstate or "none"] += 1
                    return "refused"
                self._log.unknown(self._attempts)
                self.unknown += 1
                if not self.session.revive():
                    self.source_lost = True
                    return "unknown"
                is_repeated = True
                continue
            if answer is None:
                raise AssertionError(move)  # every call returns exactly one row
            self._answered(answer[0], is_repeated=is_repeated)
            self._chooser.succeeded(move, answer, key)
            return "acknowledged"

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
