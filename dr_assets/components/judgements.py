"""Green or red, judged from what the vault itself holds: recovery points, sealed facts, a reading of its objects.

What belongs here: pure functions from those and a given `now` to a verdict with its reason. What stays out: reading the
vault and Dagster's events; the event log is no witness, since the web UI has no login.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.durations import format_duration
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import Dataset
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.position import RecoveryPoint

# A recovery point dated after `now` means two clocks disagree; up to this much, the vault's own limit, is tolerated.
CLOCK_SKEW: Final = timedelta(seconds=5)

Value = str | int | float | bool | datetime | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, the sentence that explains it, and the measured values beside it (units in their names)."""

    passed: bool
    reason: str
    values: Mapping[str, Value] = field(default_factory=dict)


def judge_unreadable(error: DrError) -> Judgement:
    """What cannot be read cannot be green: the reason is the error's own."""
    return Judgement(passed=False, reason=f"cannot be judged: {error}", values={"error_code": error.code})


def judge_rpo(dataset: Dataset, point: RecoveryPoint | None, now: datetime) -> Judgement:
    """Whether the newest recoverable commit is younger than the RPO, by the source's clock in the stored heartbeats."""
    rpo = format_duration(dataset.rpo)
    values: dict[str, Value] = {"rpo_s": dataset.rpo.total_seconds()}
    if point is None:
        return Judgement(passed=False, reason="nothing recoverable is stored yet", values=values)
    age = now - point.at
    values |= {
        "recovery_point_age_s": round(age.total_seconds(), 3),
        "recovery_point_at": point.at,
        "sealed_at": point.sealed_at,
        "lsn": format_lsn(point.lsn),
        "locked_until": point.retain_until,
        "object": str(point.key),
    }
    if age < -CLOCK_SKEW:
        ahead = f"the recovery point is dated {-age.total_seconds():.1f} s in the future: the clocks disagree"
        return Judgement(passed=False, reason=ahead, values=values)
    relation = "within" if age <= dataset.rpo else "over"
    reason = f"the newest recoverable commit is {max(age.total_seconds(), 0.0):.1f} s old, {relation} the RPO of {rpo}"
    return Judgement(passed=age <= dataset.rpo, reason=reason, values=values)
