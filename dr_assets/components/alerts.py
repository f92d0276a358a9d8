"""The `alerts` sensor: what is red in Dagster becomes a message, once when it begins and once when it ends.

What belongs here: reading the three kinds of state (failed checks, failed freshness, failed runs) from the instance and
driving the fold. What stays out: the fold (episodes.py) and the webhooks (delivery.py).

Judging red is the checks' business and they read the vault; this sensor carries the news. Who silences it silences
alerts, so watch the capture's own metrics from outside as well (docs/dagster.md).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg

from dr_assets.components.delivery import Channel, channels_of
from dr_assets.components.episodes import Condition, Episodes, Pending, fold
from dr_assets.components.evaluations import recorded_verdicts
from dr_assets.estate.model import Estate

INTERVAL_S: Final = 5
# A run may become visible a little after its own time stamp: look back this far and skip those already seen.
OVERLAP_S: Final = 60.0
RUNS_A_LOOK: Final = 1000
_FINISHED: Final = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)


@dataclass(frozen=True, slots=True)
class Subjects:
    """What the code location declares: only these can raise an alert."""

    checks: tuple[dg.AssetCheckKey, ...]
    assets: tuple[dg.AssetKey, ...]
    jobs: tuple[str, ...]


def alerts_sensor(estate: Estate) -> dg.SensorDefinition:
    """The estate's one alerting sensor. It launches nothing."""

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells Slack and a webhook about failed checks, missed freshness and failed runs, once an episode.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        channels = channels_of(estate.alerts, estate.name, os.environ)
        looked, conditions = look(context.instance, _subjects(context), Episodes.from_cursor(context.cursor))
        folded = fold(looked, conditions, [channel.name for channel in channels])
        after, troubles = deliver(folded, channels)
        for trouble in troubles:
            context.log.warning("not delivered, will be tried again: %s", trouble)
        return dg.SensorResult(skip_reason=_summary(after, channels), cursor=after.to_cursor())

    return alerts


def look(instance: dg.DagsterInstance, subjects: Subjects, before: Episodes) -> tuple[Episodes, list[Condition]]:
    """How everything stands, runs in the order they finished; the returned episodes remember which runs were seen."""
    finished = _finished_runs(instance, subjects.jobs, before.runs_until)
    until = max((record.update_timestamp.timestamp() for record in finished), default=before.runs_until or 0.0)
    fresh = [record for record in finished if record.dagster_run.run_id not in before.seen_runs]
    conditions = [
        *_check_conditions(instance, subjects.checks),
        *_freshness_conditions(instance, subjects.assets),
        *(_run_condition(record) for record in fresh),
    ]
    recent = _changed_runs(instance, until)
    seen = tuple(sorted(record.dagster_run.run_id for record in recent))
    return replace(before, seen_runs=seen, runs_until=until), conditions


def deliver(episodes: Episodes, channels: Sequence[Channel]) -> tuple[Episodes, list[str]]:
    """Hand each channel what it has not taken, in order; a channel that fails once is left alone for this tick."""
    kept: list[Pending] = []
    troubles: dict[str, str] = {}
    by_name = {channel.name: channel for channel in channels}
    for pending in episodes.pending:
        channel = by_name.get(pending.channel)
        trouble = None
        if channel is not None and channel.name not in troubles:
            trouble = channel.deliver(pending.notice)
        if trouble is not None:
            troubles[pending.channel] = trouble
        if channel is None or channel.name in troubles:
            kept.append(pending)
    return replace(episodes, pending=tuple(kept)), list(troubles.values())


def _subjects(context: dg.SensorEvaluationContext) -> Subjects:
    repository = context.repository_def
    if repository is None:
        message = "the alerts sensor needs the repository's definitions; the daemon always hands them in"
        raise AssertionError(message)
    graph = repository.asset_graph
    return Subjects(
        checks=tuple(sorted(graph.asset_check_keys, key=str)),
        assets=tuple(sorted(graph.get_all_asset_keys(), key=str)),
        jobs=tuple(sorted(repository.job_names)),
    )


def _check_conditions(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]) -> Iterator[Condition]:
    # A check that is planned or under way has no verdict yet: what was known before still holds.
    for key, verdict in sorted(recorded_verdicts(instance, keys).items(), key=str):
        subject = f"check {key.asset_key.to_user_string()}:{key.name}"
        yield Condition(subject, "check", not verdict.passed, verdict.at, verdict.description)


def _freshness_conditions(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> Iterator[Condition]:
    states = instance.get_freshness_state_records(keys)
    for key in keys:
        record = states.get(key)
        # WARN and UNKNOWN neither open nor close: only a window that was missed, or met again, is news.
        if record is None or record.freshness_state.value not in {"FAIL", "PASS"}:
            continue
        red = record.freshness_state.value == "FAIL"
        detail = "nothing new arrived within the window of its freshness policy" if red else "fresh again"
        yield Condition(f"freshness {key.to_user_string()}", "freshness", red, record.updated_at, detail)


def _finished_runs(
    instance: dg.DagsterInstance, jobs: Sequence[str], runs_until: float | None
) -> Sequence[dg.RunRecord]:
    """At the very first look only each job's newest result: old news is no news."""
    if runs_until is None:
        filters = [dg.RunsFilter(job_name=job, statuses=_FINISHED) for job in jobs]
        newest = [record for each in filters for record in instance.get_run_records(each, limit=1)]
        return sorted(newest, key=_finished_s)
    # A finished run whose record was touched later (a new tag) is old news as well.
    news = [run for run in _changed_runs(instance, runs_until) if _finished_s(run) >= runs_until - 2 * OVERLAP_S]
    return sorted((record for record in news if record.dagster_run.job_name in jobs), key=_finished_s)


def _changed_runs(instance: dg.DagsterInstance, until: float) -> Sequence[dg.RunRecord]:
    after = datetime.fromtimestamp(max(until - OVERLAP_S, 0.0), UTC)
    return instance.get_run_records(dg.RunsFilter(statuses=_FINISHED, updated_after=after), limit=RUNS_A_LOOK)


def _finished_s(record: dg.RunRecord) -> float:
    return record.end_time or record.update_timestamp.timestamp()


def _run_condition(record: dg.RunRecord) -> Condition:
    run = record.dagster_run
    red = run.status == dg.DagsterRunStatus.FAILURE
    at = datetime.fromtimestamp(0, UTC) + timedelta(seconds=_finished_s(record))
    detail = f"run {run.run_id} {'failed' if red else 'succeeded'}"
    return Condition(f"job {run.job_name}", "run", red, at, detail)


def _summary(episodes: Episodes, channels: Sequence[Channel]) -> str:
    named = ", ".join(channel.name for channel in channels) or "no channel is configured"
    return f"{len(episodes.open)} open, {len(episodes.pending)} to be delivered; channels: {named}"
