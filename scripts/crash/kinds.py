"""The kinds of rounds: what is killed, in which mode, and how many of each a hundred rounds hold.

What belongs here: names and flags. What stays out: the killing (faults.py).
"""

from dataclasses import dataclass
from typing import Final, Literal

What = Literal["primary", "primary+capture", "store", "outage", "switch-over", "fail-over"]


@dataclass(frozen=True)
class Kind:
    """One kind of round. `share` is its part of a hundred rounds."""

    name: str
    what: What
    share: int
    zero_loss: bool = False
    spool: bool = False
    fed: bool = False  # the standby gets its WAL from the vault alone, so nothing but the vault can bring it level

    @property
    def switches(self) -> bool:
        """Whether another server becomes the primary on the way."""
        return self.what in {"switch-over", "fail-over"}

    @property
    def store_survives(self) -> bool:
        """Whether everything acknowledged must come back though nobody was told to wait: the source lives on."""
        return self.what == "store"


KINDS: Final[tuple[Kind, ...]] = (
    Kind("primary", "primary", 8),
    Kind("primary+capture", "primary+capture", 10),
    Kind("store", "store", 8),
    Kind("outage", "outage", 8),
    Kind("outage, spool", "outage", 8, spool=True),
    Kind("switch-over", "switch-over", 6),
    Kind("fail-over", "fail-over", 6),
    Kind("primary, zero loss", "primary", 8, zero_loss=True),
    Kind("primary+capture, zero loss", "primary+capture", 10, zero_loss=True),
    Kind("store, zero loss", "store", 6, zero_loss=True),
    Kind("outage, zero loss", "outage", 6, zero_loss=True),
    Kind("outage, spool, zero loss", "outage", 4, zero_loss=True, spool=True),
    Kind("switch-over, zero loss", "switch-over", 6, zero_loss=True),
    Kind("fail-over, zero loss", "fail-over", 3, zero_loss=True),
    Kind("fail-over, fed, zero loss", "fail-over", 3, zero_loss=True, fed=True),
)


def named(names: str) -> tuple[Kind, ...]:
    """Kinds by their names, separated by semicolons; all of them for an empty text. Raises KeyError."""
    by_name = {kind.name: kind for kind in KINDS}
    return tuple(by_name[name.strip()] for name in names.split(";")) if names else KINDS


def laid_out(rounds: int, kinds: tuple[Kind, ...] = KINDS) -> list[Kind]:
    """So many rounds by the kinds' shares, every kind before any comes again: a short run sees all of them."""
    laid = list(kinds[:rounds])
    while len(laid) < rounds:
        laid.append(min(kinds, key=lambda kind: laid.count(kind) / kind.share))
    return laid
