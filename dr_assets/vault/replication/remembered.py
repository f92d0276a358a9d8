"""What was proven before, so that a pass over a million objects asks for none of them again.

What belongs here: stretches of proven names and the sums that tell whether a listing is still the one that was proven.
What stays out: proving, listing, and where this is kept (standing.py).

A stretch is a run of names, all proven, none left out. Its sum is the sum modulo 2²⁵⁶ of the SHA-256 of each name with
the ids of all its versions in both regions: whatever vanishes, is added or is overlaid on either side changes it, and
the stretch is proven anew. Sums add up, so stretches grow and join without being read again. They guard against what
happens, not against a store that lies in its listings; samples read in full are for that.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.vault.format.canonical import Json, malformed
from dr_assets.vault.replication.walk import Pair

FULL_COUNT: Final = 16384
MODULUS: Final = 1 << 256
NEAR_END: Final = timedelta(days=4)  # of a lock: by then a longer one at the source must have been followed
LOOK_AGAIN: Final = timedelta(days=1)
PROVEN_FOR: Final = timedelta(days=7)  # then locks and holds are compared again, whatever the listings say
_FIELDS: Final = 6


@dataclass(frozen=True, slots=True)
class Stretch:
    """Names `first` to `last` (without their place). `proven_at` is the oldest proof, `locked_until` the first end."""

    first: str
    last: str
    count: int
    total: int
    proven_at: datetime
    locked_until: datetime | None

    def is_due(self, now: datetime) -> bool:
        """Whether locks may have to be followed: the first of them ends soon, or the proof is a week old."""
        if now - self.proven_at >= PROVEN_FOR:
            return True
        if self.locked_until is None or now - self.proven_at < LOOK_AGAIN:
            return False
        return self.locked_until - now < NEAR_END and self.proven_at < self.locked_until

    def joined(self, later: "Stretch") -> "Stretch":
        """This one and the one behind it."""
        ends = [until for until in (self.locked_until, later.locked_until) if until is not None]
        return replace(
            self, last=later.last, count=self.count + later.count, total=(self.total + later.total) % MODULUS,
            proven_at=min(self.proven_at, later.proven_at), locked_until=min(ends, default=None),
        )  # fmt: skip

    def to_json(self) -> Json:
        """As a fact holds it; times in whole seconds since 1970."""
        until = None if self.locked_until is None else int(self.locked_until.timestamp())
        return [self.first, self.last, self.count, f"{self.total:064x}", int(self.proven_at.timestamp()), until]


def parse_stretch(raw: Json, *, name: str) -> Stretch:
    """The stretch; raises VaultError `vault.malformed`."""
    if not isinstance(raw, list) or len(raw) != _FIELDS:
        raise malformed(f"{name}: no stretch of proven names")
    first, last, count, total, proven_at, until = raw
    if not (isinstance(first, str) and isinstance(last, str) and isinstance(count, int) and isinstance(total, str)):
        raise malformed(f"{name}: no stretch of proven names")
    if not isinstance(proven_at, int) or not (until is None or isinstance(until, int)):
        raise malformed(f"{name}: no stretch of proven names")
    try:
        value, at = int(total, 16), from_seconds(proven_at)
        ends = None if until is None else from_seconds(until)
    except (ValueError, OverflowError, OSError):
        raise malformed(f"{name}: no stretch of proven names") from None
    return Stretch(first, last, count, value, at, ends)


def value_of(pair: Pair) -> int:
    """What a name adds to its stretch's sum."""
    ids = [" ".join(sorted(row.version_id for row in rows)) for rows in (pair.source, pair.replica)]
    return int.from_bytes(hashlib.sha256("\n".join([pair.text, *ids]).encode()).digest())


def total_of(pairs: Iterable[Pair]) -> int:
    """Of several."""
    return sum(map(value_of, pairs)) % MODULUS


def from_seconds(seconds: int) -> datetime:
    """Aware UTC."""
    return datetime.fromtimestamp(seconds, UTC)


class Stretches:
    """Stretches in the order of their names, as a pass makes them anew; it joins what lies side by side."""

    def __init__(self, carried: Iterable[Stretch] = (), *, goes_on: bool = False) -> None:
        """`carried` are kept as they are; whether the next name follows the last of them at once, `goes_on` says."""
        self.done: list[Stretch] = list(carried)
        self._broken = not goes_on

    def add(self, stretch: Stretch) -> None:
        """The next one in order."""
        last = self.done[-1] if self.done else None
        if last is None or self._broken or last.count + stretch.count > FULL_COUNT:
            self.done.append(stretch)
        else:
            self.done[-1] = last.joined(stretch)
        self._broken = False

    def interrupt(self) -> None:
        """A name that is not proven (or not settled yet) comes here: no stretch reaches over it."""
        self._broken = True
