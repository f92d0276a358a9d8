"""How the provider settles what it did: batches by span of time and currency, each paid to our bank account once.

What belongs here: which act belongs to which batch, and what the bank will see of it. What stays out: the formats in
which anybody is told (provider_files.py). All of it follows from the outsiders' record alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.casino.outsiders import Done

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Batch:
    """What the provider pays out to us, or takes from us, for one span of time in one currency."""

    number: int
    currency: str
    lines: int
    net_minor: int
    closed_at: datetime
    at_bank: datetime | None  # None: on its way

    @property
    def reference(self) -> str:
        """What the provider and the bank call it."""
        return f"po_{self.number:012d}"


@dataclass(frozen=True, slots=True)
class Line:
    """An act with its batch; None while that is still open."""

    done: Done
    at: datetime
    batch: Batch | None

    @property
    def net_minor(self) -> int:
        """What is left of it for us."""
        return self.done.act.gross_minor - self.done.fee_minor


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the provider knows at `until`."""

    lines: tuple[Line, ...]
    batches: tuple[Batch, ...]
    until: datetime


def settle(record: Sequence[Done], until: datetime, batch_every: timedelta) -> Settlement:
    """Settle what was done up to `until`. The bank has a batch one span after it was closed."""
    currencies = sorted({done.act.currency for done in record})
    found: dict[tuple[int, str], list[Done]] = defaultdict(list)
    for done in record:
        if moment(done.at_ns) <= until:
            found[int(moment(done.at_ns).timestamp() // batch_every.total_seconds()), done.act.currency].append(done)
    lines: list[Line] = []
    batches: list[Batch] = []
    for (span, currency), acts in sorted(found.items()):
        closed_at = datetime.fromtimestamp((span + 1) * batch_every.total_seconds(), UTC)
        at_bank = closed_at + batch_every
        net_minor = sum(done.act.gross_minor - done.fee_minor for done in acts)
        number = span * len(currencies) + currencies.index(currency)
        batch = Batch(number, currency, len(acts), net_minor, closed_at, at_bank if at_bank <= until else None)
        is_closed = closed_at <= until
        batches += [batch] if is_closed else []
        lines += [Line(done, moment(done.at_ns), batch if is_closed else None) for done in acts]
    return Settlement(tuple(lines), tuple(batches), until)


def moment(at_ns: int) -> datetime:
    """Cut to microseconds."""
    return _EPOCH + timedelta(microseconds=at_ns // 1000)
