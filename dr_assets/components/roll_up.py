"""`<dataset>/roll_up`: micro-segments into full segments every ten minutes, with the check `rolled_up`.

What belongs here: the asset, its job, schedule and check, and the verdict on a backlog. What stays out: rolling up
(stores/postgres/rollup_run.py), which a host without Dagster runs by `dr-assets roll-up`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import dagster as dg

from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judgements import Judgement, Value
from dr_assets.components.labels import artefact_key, cadence_window, dataset_labels
from dr_assets.components.parts import Parts, job_of, schedule_of
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.backlog import Backlog, backlogs
from dr_assets.stores.postgres.rollup_run import RollUp, require_untroubled, roll_up

CRON: Final = "*/10 * * * *"


def roll_up_parts(dataset: PostgresDataset) -> Parts:
    """Asset, check, job and schedule."""
    name, key = f"{dataset.name}_roll_up", artefact_key(dataset, "roll_up")
    job = job_of(name, key, "Rolls micro-segments up into full segments, and looks at what waits.")
    told = "Rolls up every ten minutes. Two rollers at once make duplicates, and never a break."
    return Parts([_asset(dataset)], [_check(dataset)], [job], [schedule_of(name, job, CRON, told)])


def rolled_up_key(dataset: PostgresDataset) -> dg.AssetCheckKey:
    """The check `rolled_up` on `<dataset>/roll_up`."""
    return dg.AssetCheckKey(artefact_key(dataset, "roll_up"), "rolled_up")


def _asset(dataset: PostgresDataset) -> dg.AssetsDefinition:
    labels = dataset_labels(dataset)

    @dg.asset(
        key=artefact_key(dataset, "roll_up"),
        deps=[artefact_key(dataset, "wal_chain")],
        description="The WAL in full segments of 64 MiB or an hour, so that a restore costs by bytes, not by objects.",
        kinds={"postgres", "s3"},
        freshness_policy=cadence_window(timedelta(hours=1)),
        required_resource_keys={resource_key(dataset.vault)},
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )
    def rolled(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        with shown_as_failure():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault(signing=True, role="roller")
            done = roll_up(vault, dataset.name, replicas=dataset.replicas)
            require_untroubled(done)
        return dg.MaterializeResult(metadata=metadata_of(_values(done)))

    return rolled


def _check(dataset: PostgresDataset) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=artefact_key(dataset, "roll_up"),
        name="rolled_up",
        description="No micro-segment waits for its full segment for half of its lock: the roller is at work.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def rolled_up(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with shown_as_failure():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
            verdict = judge_backlogs(backlogs(vault, dataset.name), vault.clock())
        return check_result(rolled_up_key(dataset), verdict)

    return rolled_up


def judge_backlogs(waiting: Sequence[Backlog], now: datetime) -> Judgement:
    """Red when a backlog is at half of its lock; a warning when no roller can have been at work for hours."""
    values = _backlog_values(waiting, now)
    oldest = max(waiting, key=lambda backlog: backlog.age(now), default=None)
    if oldest is None or oldest.oldest_at is None:
        return Judgement(passed=True, reason="no micro-segment waits", values=values)
    colours = {backlog.colour(now) for backlog in waiting}
    told = f"{values['backlog_micros']} micro-segments wait, the oldest for {oldest.age(now).total_seconds():.0f} s"
    if "red" in colours:
        return Judgement(
            passed=False, reason=f"{told}: half of its lock is over; run `dr-assets roll-up`", values=values
        )
    if "yellow" in colours:
        reason = f"{told}: no roller was at work for hours, or a stream can't go on; see `dr-assets roll-up`"
        return Judgement(passed=False, reason=reason, values=values, is_warning=True)
    return Judgement(passed=True, reason=told, values=values)


def _backlog_values(waiting: Sequence[Backlog], now: datetime) -> dict[str, Value]:
    locked = [backlog.locked_until for backlog in waiting if backlog.locked_until is not None]
    return {
        "backlog_micros": sum(backlog.micros for backlog in waiting),
        "backlog_bytes": sum(backlog.size_bytes for backlog in waiting),
        "backlog_age_s": max((backlog.age(now).total_seconds() for backlog in waiting), default=0.0),
        "locked_until": min(locked, default=None),
    }


def _values(done: RollUp) -> dict[str, Value]:
    rolled: dict[str, Value] = {
        "fulls": done.fulls,
        "micros_rolled": done.micros,
        "rolled_bytes": done.size_bytes,
        "locks_extended": done.extended,
    }
    return rolled | _backlog_values(done.backlogs, done.at)
