"""The newest moment at which the stores of an estate agree, and where each of them stands at it.

What belongs here: the values, and the rule that picks the moment: pure. What stays out: reading a store's own point
(`stores`), restoring to it (`estate_restore`), who lacks whom then (`orphans`).

Whose clock. A commit's time is Postgres': its heartbeats date the WAL, and a moment cuts behind the last commit that
is not younger. A record's time is the broker's (LogAppendTime) or its producer's (CreateTime), to the millisecond; how
far topics are stored is told by the capture's clock. An object's time is the bucket's store's, in whole seconds, and
so is the beginning of a listing. A moment is one number on clocks that differ, so no more is claimed than this: each
store holds what *its own* clock dates up to `at`, may hold `grain_ms` more, and is `skew_ms` from the moment.
What can be proven of the clocks themselves is `clock_ahead_ms`: a store's newest moment lies so much after the vault
had taken the object that tells of it. Less than that can't be known from the vault; `orphans` measures it on the data.

Databases and topics hold the moment back: it is the oldest of their newest. A bucket doesn't (docs/decisions/0171):
it stands at the moment, or, where its newest whole listing is older, at that, with a negative skew.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import DatasetKind
from dr_assets.vault.format.canonical import Json, format_time

LATEST: Final = "latest-consistent"
TOLERANCE: Final = timedelta(seconds=2)
_MILLISECOND: Final = timedelta(milliseconds=1)
# What of a listing's time nobody can tell: stores give whole seconds.
_STORE_CLOCK_STEP: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest moment that one store could be restored to, by its own clock.

    `stored_at` is when the vault took the object that says so, by the vault's store. `oldest_at` is the oldest moment
    that can be asked for, where that is known without reading much.
    """

    dataset: str
    kind: DatasetKind
    at: datetime
    stored_at: datetime
    clock: str
    grain: timedelta

    @property
    def clock_ahead_ms(self) -> int:
        """By how much its clock is proven to be ahead of the vault's store; 0 where nothing is proven."""
        return max(0, -(-(self.at - self.stored_at - _STORE_CLOCK_STEP) // _MILLISECOND))


@dataclass(frozen=True, slots=True)
class Moment:
    """What was agreed: everything at `at`, save those `behind`, which stand at a point of their own before it."""

    at: datetime
    held_back_by: str | None
    behind: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StorePoint:
    """One store at the estate's moment. `at` is what it would be restored to, `skew_ms` that minus the moment.

    `position` is where that is in its stream; `beyond` what the vault holds of it that is newer and not used.
    """

    dataset: str
    kind: DatasetKind
    at: datetime
    skew_ms: int
    grain_ms: int
    clock: str
    clock_ahead_ms: int
    newest_at: datetime
    stored_at: datetime
    position: Mapping[str, Json]
    beyond: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """How far from the moment it stands, in words."""
        side = "before" if self.skew_ms < 0 else "after"
        return f"{self.dataset} stands {abs(self.skew_ms) / 1000:.1f} s {side} the moment"

    def to_json(self) -> dict[str, Json]:
        """For facts and `--json`."""
        return {
            "dataset": self.dataset,
            "kind": self.kind,
            "at": format_time(self.at),
            "skew_ms": self.skew_ms,
            "grain_ms": self.grain_ms,
            "clock": self.clock,
            "clock_ahead_ms": self.clock_ahead_ms,
            "newest_at": format_time(self.newest_at),
            "stored_at": format_time(self.stored_at),
            "position": dict(self.position),
            "beyond": dict(self.beyond),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class EstatePoint:
    """The estate's recovery point: `at`, each store there, and which of them holds the whole back.

    `looked_at` is the host's clock when it was asked. `held_back_by` is None where a moment was asked for, or where
    there is one store only.
    """

    estate: str
    asked: str
    at: datetime
    looked_at: datetime
    stores: Mapping[str, StorePoint]
    held_back_by: str | None
    is_strict: bool = False
    tolerance: timedelta = TOLERANCE

    @property
    def skew_ms(self) -> int:
        """The largest distance of a store from the moment, signed as that store's."""
        return max((store.skew_ms for store in self.stores.values()), key=abs, default=0)

    @property
    def is_consistent(self) -> bool:
        """Whether every store is within the tolerance of the moment, and no clock is proven to be further off."""
        limit_ms = self.tolerance // _MILLISECOND
        return all(abs(one.skew_ms) <= limit_ms and one.clock_ahead_ms <= limit_ms for one in self.stores.values())

    @property
    def age_s(self) -> float:
        """How old the moment was when it was asked for."""
        return (self.looked_at - self.at).total_seconds()

    def apart(self) -> list[StorePoint]:
        """Those beyond the tolerance."""
        limit_ms = self.tolerance // _MILLISECOND
        return [one for one in self.stores.values() if abs(one.skew_ms) > limit_ms or one.clock_ahead_ms > limit_ms]

    def to_json(self) -> dict[str, Json]:
        """For facts and `--json`."""
        return {
            "estate": self.estate,
            "asked": self.asked,
            "at": format_time(self.at),
            "looked_at": format_time(self.looked_at),
            "age_ms": round(self.age_s * 1000),
            "held_back_by": self.held_back_by,
            "strict": self.is_strict,
            "skew_ms": self.skew_ms,
            "tolerance_ms": self.tolerance // _MILLISECOND,
            "consistent": self.is_consistent,
            "stores": [store.to_json() for store in self.stores.values()],
        }


def common_moment(
    newest: Sequence[Newest], asked: datetime | None, *, strict: bool = False, apart: Iterable[str] = ()
) -> Moment:
    """The newest moment that all reach, or the one that was asked for.

    Buckets hold nothing back unless `strict`; neither do those named in `apart`: they stand where they can. Raises
    PolicyError `recovery_point.beyond` for a moment that a store which counts doesn't reach.
    """
    holding = [one for one in newest if one.dataset not in set(apart) and (strict or one.kind != "bucket")]
    holding = holding or list(newest)
    if not holding:
        raise PolicyError("recovery_point.no_dataset", "the estate declares no dataset", "declare one in defs/")
    oldest = min(holding, key=lambda one: one.at)
    if asked is not None and asked > oldest.at:
        raise PolicyError(
            "recovery_point.beyond",
            f"{asked.isoformat()} lies beyond what is stored of {oldest.dataset}: {oldest.at.isoformat()}",
            f"ask for {LATEST}, for a moment up to that, or let it stand apart: --apart {oldest.dataset}",
        )
    at = oldest.at if asked is None else asked
    held_back_by = oldest.dataset if asked is None and len(newest) > 1 else None
    return Moment(at, held_back_by, frozenset(one.dataset for one in newest if one.at < at))


def skew_ms(at: datetime, moment: datetime) -> int:
    """Signed milliseconds, rounded away from nothing: 1 µs behind is -1."""
    apart = at - moment
    return apart // _MILLISECOND if apart < timedelta() else -(-apart // _MILLISECOND)
