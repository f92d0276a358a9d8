"""The relay: takes the outbox's rows, publishes them, marks them, and so brings the wallets forward.

What belongs here: one thread's steps and their order. What stays out: brokers (events.py), SQL (sql/030_outbox.sql).

A row is marked after the broker acknowledged it, in the transaction that held it: what is lost in between is published
again, under the same idempotency key.
"""

import threading
from collections import Counter
from typing import Any

import psycopg

from dr_assets.casino.events import Event, Publisher
from dr_assets.casino.session import Session
from dr_assets.estate.errors import SourceError


class Relay:
    """Publishes in small steps until stopped or, where the session doesn't come back, until the server is gone.

    Without a `publisher` nobody listens: rows are marked and wallets brought forward.
    """

    def __init__(
        self,
        session: Session,
        stop: threading.Event,
        publisher: Publisher | None = None,
        *,
        every_s: float = 0.25,
        batch: int = 500,
    ) -> None:
        self.session = session
        self._stop = stop
        self._publisher = publisher
        self._every_s = every_s
        self._batch = batch
        self.published = 0
        self.refused: Counter[str] = Counter()  # by SQLSTATE, or `broker`

    def run(self) -> None:
        """The relay's thread."""
        full = False
        while not self._stop.wait(self._every_s / 5 if full else self._every_s):  # behind: faster, not flat out
            try:
                step = self._step()
            except SourceError:
                full = False
                self.refused["broker"] += 1
                continue
            except psycopg.Error as error:
                full = False
                if self.session.alive:
                    self.refused[error.sqlstate or "none"] += 1
                elif not self.session.revive():
                    break
                continue
            self.published += step
            full = step == self._batch
        self.session.close()
        if self._publisher is not None:
            self._publisher.close()

    def _step(self) -> int:
        connection = self.session.connection
        if self._publisher is None:
            return _number(connection.execute("SELECT casino.publish_outbox(%s)", (self._batch,)).fetchone())
        with connection.transaction():
            rows = connection.execute("SELECT * FROM casino.take_outbox(%s)", (self._batch,)).fetchall()
            if not rows:
                return 0
            events = [Event(*row) for row in rows]
            self._publisher.publish(events)
            marked = [event.transfer_id for event in events]
            return _number(connection.execute("SELECT casino.mark_published(%s::bigint[])", (marked,)).fetchone())


def _number(row: tuple[Any, ...] | None) -> int:
    return int(row[0]) if row else 0
