"""Green or red, judged from what the vault itself holds: recovery points, sealed facts, a reading of its objects.

What belongs here: pure functions from those and a given `now` to a verdict with its reason. What stays out: reading the
vault and Dagster's events; the event log is no witness, since the web UI has no login.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate import cadence
from dr_assets.estate.durations import format_duration
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import Dataset, Estate, PostgresDataset
from dr_assets.stores.objective import age_text, ahead_of
from dr_assets.stores.postgres.capture_facts import Anchor
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.objective import rpo_trouble, stream_of, unfollowed
from dr_assets.stores.postgres.position import RecoveryPoint
from dr_assets.vault.chain import Chain
from dr_assets.vault.facts import Fact
from dr_assets.vault.verify import Finding, VerifyReport

PASSED: Final = "passed"
UNLOCKED: Final = "unlocked"

Value = str | int | float | bool | datetime | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, the sentence that explains it, and the measured values beside it (units in their names).

    `is_warning`: what did not pass is to be looked at and breaks no promise yet (yellow instead of red).
    """

    passed: bool
    reason: str
    values: Mapping[str, Value] = field(default_factory=dict)
    is_warning: bool = False


def judge_unreadable(error: DrError) -> Judgement:
    """What cannot be read cannot be green: the reason is the error's own."""
    return Judgement(passed=False, reason=f"cannot be judged: {error}", values={"error_code": error.code})


def judge_rpo(
    dataset: PostgresDataset, point: RecoveryPoint | None, base: Fact | None, left: Mapping[int, int], now: datetime
) -> Judgement:
    """Whether the newest recoverable commit is younger than the RPO, by the source's clock in the stored heartbeats.

    `base` is the newest `snapshot` fact: WAL that no base backup leads to recovers nothing. `left` is where timelines
    between its own and the captured one were left.
    """
    rpo = format_duration(dataset.rpo)
    values: dict[str, Value] = {"rpo_s": dataset.rpo.total_seconds()}
    trouble = rpo_trouble(dataset, point, base, left, now)
    if point is None or point.at is None:
        return Judgement(passed=False, reason=trouble or "nothing is known of the recovery point", values=values)
    values |= {
        "recovery_point_age_s": round((now - point.at).total_seconds(), 3),
        "recovery_point_at": point.at,
        "sealed_at": point.sealed_at,
        "lsn": format_lsn(point.lsn),
        "locked_until": point.retain_until,
        "object": point.key,
    }
    reason = trouble or f"{age_text(now, point.at)}, within the RPO of {rpo}"
    return Judgement(passed=trouble is None, reason=reason, values=values)


def judge_restorable(dataset: Dataset, fact: Fact | None, now: datetime) -> Judgement:
    """Whether the newest sealed restore test passed and is recent enough for its cadence."""
    return _judge_proof(dataset, fact, now, "restore test")


def judge_money(dataset: Dataset, fact: Fact | None, now: datetime) -> Judgement:
    """Whether the newest sealed reconciliation found no break and is recent enough for its cadence."""
    return _judge_proof(dataset, fact, now, "reconciliation")


def proof_window(dataset: Dataset) -> timedelta:
    """How old a proof may get: the longest wait of its cron line, and an eighth of it (at least an hour) of grace."""
    return cadence.with_grace(cadence.longest_interval(dataset.restore_test.cron))


def judge_verified(report: VerifyReport) -> Judgement:
    """Whether reading everything back found nothing wrong; locks are `judge_locked`'s."""
    return _judge_findings(report, [each for each in report.errors if each.kind != UNLOCKED], "read back as sealed")


def judge_locked(report: VerifyReport) -> Judgement:
    """Whether every object's lock was read back and holds, or was over when it was due to be."""
    unlocked = [each for each in report.errors if each.kind == UNLOCKED]
    judged = _judge_findings(report, unlocked, "locked")
    over = report.objects_total - report.objects_locked
    if not judged.passed or not over:
        return judged
    return replace(
        judged, reason=f"{report.objects_locked} objects locked; the locks of {over} more are over as planned"
    )


def judge_contiguous(
    base: Fact | None, chain: Chain | None, gap: Fact | None, anchor: Anchor | None, left: Mapping[int, int]
) -> Judgement:
    """Whether the WAL from the newest base backup on has no hole.

    `gap` is the newest the capture ever declared; `anchor` is where it stands: what is contiguous must be the stream
    that is captured now, not one that the source has left; `left` is where it left older timelines.
    """
    if base is None or chain is None:
        return Judgement(passed=False, reason="there is no base backup to continue from")
    off = "no capture has stored any WAL yet" if anchor is None else unfollowed(stream_of(anchor), base, left)
    if off is not None:
        return Judgement(passed=False, reason=off)
    begin = parse_lsn(str(base.body["start_lsn"]))
    values: dict[str, Value] = {
        "from_lsn": format_lsn(begin),
        "to_lsn": format_lsn(chain.end),
        "segments": len(chain.segments),
        "orphans": len(chain.orphans),
        "forks": len(chain.forks),
    }
    lost = judge_gap(base, gap)
    if lost is not None:
        return lost
    if chain.holes:
        hole = chain.holes[0]
        reason = f"{len(chain.holes)} hole(s), the first is [{format_lsn(hole.begin)}, {format_lsn(hole.end)})"
        return Judgement(passed=False, reason=reason, values=values)
    return Judgement(passed=True, reason=f"no hole up to {format_lsn(chain.end)}", values=values)


def judge_gap(base: Fact | None, gap: Fact | None) -> Judgement | None:
    """Red when the capture put on record that WAL since the newest base backup is lost; None when it did not.

    This part of `contiguous` needs no listing, so that a lost slot shows within seconds.
    """
    if gap is None or (base is not None and _begins_behind(base, gap)):
        return None
    lost_from = str(gap.body["chain_end"])
    reason = f"the source no longer had the WAL after {lost_from}: take a new base backup"
    return Judgement(passed=False, reason=reason, values={"lost_from_lsn": lost_from, "gap_at": gap.at})


def judge_drills(estate: Estate, newest: Mapping[str, Fact | None], now: datetime) -> Judgement:
    """Whether each dataset's newest sealed drill passed within RTO and RPO, and none is overdue."""
    troubles: list[str] = []
    values: dict[str, Value] = {}
    for name, dataset in estate.datasets.items():
        trouble, measured = _judge_drill(dataset, newest[name], now)
        troubles += [f"{name}: {trouble}"] if trouble else []
        values |= {f"{name}_{key}": value for key, value in measured.items()}
    reason = "; ".join(troubles) or "every dataset's newest drill met its RTO and RPO"
    return Judgement(passed=not troubles, reason=reason, values=values)


def _begins_behind(base: Fact, gap: Fact) -> bool:
    """Whether a base backup needs nothing of what a gap lost. Positions of two systems don't compare; times do."""
    if base.body["system_id"] != gap.body["system_id"]:
        return base.at > gap.at
    return parse_lsn(str(base.body["start_lsn"])) > parse_lsn(str(gap.body["chain_end"]))


def _judge_drill(dataset: Dataset, fact: Fact | None, now: datetime) -> tuple[str | None, dict[str, Value]]:
    if fact is None:
        return "never drilled", {}
    values = _measured(fact)
    if fact.body.get("outcome") != PASSED:
        return f"the drill of {fact.at:%Y-%m-%d} {fact.body.get('outcome')}", values
    ahead = ahead_of(now, fact.at)
    if ahead is not None:
        return f"the newest drill is {ahead}", values
    if now - fact.at > dataset.drill.overdue_after:
        return f"the last drill was on {fact.at:%Y-%m-%d}, overdue", values
    for measure, limit in (("recovery_duration_s", dataset.rto), ("recovery_point_age_s", dataset.rpo)):
        took = values.get(measure)
        if not isinstance(took, int | float) or took > limit.total_seconds():
            return f"{measure} {took} against {limit.total_seconds():.0f}", values
    return None, values


def _judge_proof(dataset: Dataset, fact: Fact | None, now: datetime, what: str) -> Judgement:
    if fact is None:
        return Judgement(passed=False, reason=f"no {what} is on record: nothing counts until it was restored")
    values = {"sealed_at": fact.at, "fact": str(fact.key), **_measured(fact)}
    if fact.body.get("outcome") != PASSED:
        reason = f"the newest {what} {fact.body.get('outcome')}: {fact.body.get('reason', 'no reason given')}"
        return Judgement(passed=False, reason=reason, values=values)
    ahead = ahead_of(now, fact.at)
    if ahead is not None:
        return Judgement(passed=False, reason=f"the newest {what} is {ahead}", values=values)
    window = proof_window(dataset)
    if now - fact.at > window:
        reason = f"the newest {what} is of {fact.at:%Y-%m-%d %H:%M} UTC, older than {format_duration(window)}"
        return Judgement(passed=False, reason=reason, values=values)
    return Judgement(passed=True, reason=f"the {what} of {fact.at:%Y-%m-%d %H:%M} UTC passed", values=values)


def _judge_findings(report: VerifyReport, findings: Sequence[Finding], word: str) -> Judgement:
    values: dict[str, Value] = {
        "objects_total": report.objects_total,
        "objects_locked": report.objects_locked,
        "size_bytes": report.size_bytes,
        "duration_s": report.duration_s,
        "findings": len(findings),
    }
    if findings:
        first = findings[0]
        reason = f"{len(findings)} finding(s), the first is {first.kind} at {first.key}: {first.detail}"
        return Judgement(passed=False, reason=reason, values=values)
    if report.objects_total == 0:
        return Judgement(passed=False, reason="the vault holds nothing of this dataset", values=values)
    return Judgement(passed=True, reason=f"all {report.objects_total} objects {word}", values=values)


def _measured(fact: Fact) -> dict[str, Value]:
    """The numbers of a fact that people compare: its own, its phases', and each check's breaks."""
    values: dict[str, Value] = {name: value for name, value in fact.body.items() if isinstance(value, int | float)}
    phases, checks = fact.body.get("phases_s"), fact.body.get("checks")
    if isinstance(phases, dict):
        values |= {f"phase_{name}_s": value for name, value in phases.items() if isinstance(value, int | float)}
    if isinstance(checks, dict):
        counts = {name: check.get("breaks") for name, check in checks.items() if isinstance(check, dict)}
        values |= {f"breaks_{name}": count for name, count in counts.items() if isinstance(count, int)}
    return values
