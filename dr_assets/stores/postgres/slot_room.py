"""How much room the source has left for the WAL that it keeps for us, and when that comes to an end.

What belongs here: pure arithmetic over looks at the slot, and the words of the alarm. What stays out: asking (slot.py),
reporting (capture_loop.py). Two ends are possible: max_slot_wal_keep_size, where the slot is lost and with it WAL that
nobody else has, and the disk under pg_wal, where the source itself stops.
"""

from collections import deque
from dataclasses import dataclass, field

from dr_assets.stores.postgres.slot import SlotStatus

YELLOW_SHARE = 0.5
RED_SHARE = 0.8
_RATE_OVER_S = 60.0
_SOON_S = 1800.0


@dataclass(frozen=True, slots=True)
class Room:
    """What is kept for the slot of what can be. `limit_bytes` is None where neither limit is known.

    `full_in_s` goes by the last minute's growth, None while it doesn't grow. `ends` says what happens at the limit.
    """

    retained_bytes: int
    limit_bytes: int | None
    full_in_s: float | None
    ends: str

    @property
    def share(self) -> float | None:
        """How much of the limit is used, 1.0 at the end."""
        return None if self.limit_bytes is None else self.retained_bytes / max(1, self.limit_bytes)

    def alarm(self) -> str | None:
        """What to tell before the end, None while there is room and time."""
        if self.share is None or self.limit_bytes is None:
            return None
        soon = self.full_in_s is not None and self.full_in_s < _SOON_S and self.share > YELLOW_SHARE / 5
        if self.share < YELLOW_SHARE and not soon:
            return None
        word = "nearly at its end" if self.share >= RED_SHARE else "filling"
        when = "" if self.full_in_s is None else f", full in {self.full_in_s / 60:.0f} min at this rate"
        return (
            f"the source's room for our slot is {word}: {self.retained_bytes >> 20} of {self.limit_bytes >> 20} MiB WAL"
            f"{when}; then {self.ends}"
        )


@dataclass(slots=True)
class RoomWatch:
    """Follows one slot. `wal_volume_bytes` is the declared size of the volume that pg_wal lies on."""

    wal_volume_bytes: int | None
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def look(self, slot: SlotStatus, now_s: float) -> Room:
        """Take a new look in, `now_s` on a monotonic clock."""
        self._samples.append((now_s, slot.retained_bytes))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - _RATE_OVER_S:  # noqa: PLR2004 - a first and a last
            self._samples.popleft()
        limit_bytes, ends = self._limit(slot)
        return Room(slot.retained_bytes, limit_bytes, self._full_in_s(limit_bytes), ends)

    def _limit(self, slot: SlotStatus) -> tuple[int | None, str]:
        limits: list[tuple[int, str]] = []
        if slot.safe_bytes is not None:
            limits.append(
                (slot.retained_bytes + slot.safe_bytes, "the slot is lost, and the WAL that we have not vaulted")
            )
        if self.wal_volume_bytes is not None:
            limits.append((self.wal_volume_bytes, "its WAL volume is full and the source stops"))
        return min(limits) if limits else (None, "")

    def _full_in_s(self, limit_bytes: int | None) -> float | None:
        (begin_s, begin_bytes), (end_s, end_bytes) = self._samples[0], self._samples[-1]
        if limit_bytes is None or end_s <= begin_s or end_bytes <= begin_bytes:
            return None
        return max(0.0, (limit_bytes - end_bytes) / ((end_bytes - begin_bytes) / (end_s - begin_s)))
