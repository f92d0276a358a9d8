"""The CRM at work: players change their minds about being written to, and the contacts follow.

What belongs here: one thread's steps. What stays out: SQL (sql/070_crm.sql), and whether the two
agree (reconciliation/).
"""

import random
import threading
from collections import Counter

import psycopg

from dr_assets.casino.session import Session

_STEP_CONTACTS = 500


class CrmSync:
    """Brings contacts up to date and lets a player change their mind, in turns, until stopped or the server is gone.

    What is said in one step is with the CRM in the next: at any moment some contact is behind.
    """

    def __init__(
        self, session: Session, stop: threading.Event, rng: random.Random, players: list[int], *, every_s: float = 0.5
    ) -> None:
        self.session = session
        self._stop = stop
        self._rng = rng
        self._players = players
        self._every_s = every_s
        self.synced = 0
        self.refused: Counter[str] = Counter()  # by SQLSTATE

    def run(self) -> None:
        """The thread."""
        while not self._stop.wait(self._every_s):
            try:
                self._step()
            except psycopg.Error as error:
                if self.session.alive:
                    self.refused[error.sqlstate or "none"] += 1
                elif not self.session.revive():
                    break
        self.session.close()

    def _step(self) -> None:
        row = self.session.connection.execute("SELECT casino.sync_contacts(%s)", (_STEP_CONTACTS,)).fetchone()
        self.synced += int(row[0]) if row else 0
        wish = (self._rng.choice(self._players), self._rng.random() < 0.5, self._rng.random() < 0.5)  # noqa: PLR2004
        self.session.connection.execute("SELECT casino.change_consent(%s, %s, %s)", wish)
