"""Stale episodes: from "the RPO is missed" to "start one restore test", exactly once per episode.

What belongs here: the pure rule and its text form for a sensor's cursor. What stays out: judging and launching.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

# An episode is over when green has held this long: an age that hovers around the RPO must not start restores in a row.
SETTLE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class StaleEpisode:
    """The episode under way, if any: since when stale, since when green again, whether its restore was asked for."""

    begin_at: datetime | None = None
    green_at: datetime | None = None
    requested: bool = False

    @property
    def run_key(self) -> str:
        """The same for the whole episode; a lost cursor makes it anew from the recovery point that got stale."""
        return f"stale-{self.begin_at:%Y%m%dT%H%M%S.%f}" if self.begin_at else ""

    def to_cursor(self) -> str:
        """Text for a sensor's cursor."""
        times = [at.isoformat() if at else None for at in (self.begin_at, self.green_at)]
        return json.dumps([*times, self.requested])

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Self:
        """The inverse of `to_cursor`; no cursor means nothing was stale."""
        if not cursor:
            return cls()
        begin_at, green_at, requested = json.loads(cursor)
        return cls(_time(begin_at), _time(green_at), requested)


def follow(episode: StaleEpisode, *, stale_since: datetime | None, now: datetime) -> StaleEpisode:
    """The episode after one more look; `stale_since` is None while the RPO is met."""
    if stale_since is not None:
        return StaleEpisode(episode.begin_at or stale_since, None, episode.requested)
    if episode.begin_at is None:
        return episode
    green_at = episode.green_at or now
    return StaleEpisode() if now - green_at >= SETTLE else StaleEpisode(episode.begin_at, green_at, episode.requested)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
