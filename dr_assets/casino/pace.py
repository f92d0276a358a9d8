"""An open loop's schedule: when the next transaction is due, whether or not the database keeps up.

What belongs here: arithmetic over seconds handed in. What stays out: clocks and sleeping.
"""

import random


class Pace:
    """Seeded Poisson arrivals at `rate_per_s`, at most `backlog_cap_s` behind.

    An open loop shows a stall as it is: arrivals go on, so latency counts from when a transaction was due. Without a
    cap a long stall would turn into an endless burst; what lies further back than the cap is shed, and counted.
    """

    def __init__(self, rate_per_s: float, rng: random.Random, *, start_s: float, backlog_cap_s: float = 1.0) -> None:
        self._rate_per_s = rate_per_s
        self._rng = rng
        self._due_s = start_s
        self._backlog_cap_s = backlog_cap_s
        self.shed = 0

    def next_due_s(self, now_s: float) -> float:
        """When the next arrival is due, on the caller's clock; in the past when there is a backlog."""
        self._due_s += self._rng.expovariate(self._rate_per_s)
        oldest_s = now_s - self._backlog_cap_s
        while self._due_s < oldest_s:
            self._due_s += self._rng.expovariate(self._rate_per_s)
            self.shed += 1
        return self._due_s
