"""`estate/recovery_point`: the newest moment at which all stores agree, followed without runs, sealed every hour.

What belongs here: the asset, its sensor, schedule and checks, and the verdicts. What stays out: finding the moment
(recovery/), restoring to it (`dr-assets restore --estate`).

The sensor looks at the newest heartbeats in the vaults and writes a materialization when the moment has moved: so the
asset is as fresh as the estate could be restored, and stale while a store stands still. What costs more, each store's
position and the proof that a restore leads there, is the hourly run's.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from dr_assets.components.evaluations import check_result, evaluation, metadata_of, worth_writing
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judgements import Judgement, Value, judge_unreadable
from dr_assets.components.labels import FRESHNESS_FLOOR, estate_labels, storing_keys
from dr_assets.components.parts import Parts, job_of, schedule_of
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import Estate
from dr_assets.recovery.point import EstatePoint, StorePoint
from dr_assets.stores.objective import ahead_of
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.vault import Vault

KEY: Final = dg.AssetKey(["estate", "recovery_point"])
CONSISTENT: Final = dg.AssetCheckKey(KEY, "consistent")
ORPHANS: Final = dg.AssetCheckKey(KEY, "orphans")
CRON: Final = "7 * * * *"
INTERVAL_S: Final = 20
# What a replay of the outbox mends; any other orphan is somebody's to look at.
REPLAYED: Final = frozenset({"outbox_without_event", "posting_without_event"})


def recovery_point_parts(estate: Estate) -> Parts:
    """Asset, job, schedule and sensor; nothing at all where nothing is declared."""
    if not estate.datasets:
        return Parts()
    job = job_of("estate_recovery_point", KEY, "Finds the newest moment at which all stores agree, and seals it.")
    schedule = schedule_of("estate_recovery_point", job, CRON, "Hourly: a sealed fact. The sensor follows in between.")
    return Parts([_asset(estate)], [], [job], [schedule], [_sensor(estate)])


def _asset(estate: Estate) -> dg.AssetsDefinition:
    labels = estate_labels(estate)
    specs = [
        dg.AssetCheckSpec(
            CONSISTENT.name,
            asset=KEY,
            description="Every store stands within 2 s of the moment, and no clock is proven to be further off.",
        ),
        dg.AssetCheckSpec(
            ORPHANS.name,
            asset=KEY,
            description="The newest restore of the whole estate left nobody in one store whom another doesn't know.",
        ),
    ]

    @dg.asset(
        key=KEY,
        deps=storing_keys(estate, but="roll_up"),
        description="The newest moment at which ledger, topics and documents agree, and where each stands at it.",
        kinds={"s3"},
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=_window(estate)),
        check_specs=specs,
        required_resource_keys=_resource_keys(estate),
        owners=labels.owners,
        group_name=labels.group,
        tags=labels.tags,
    )
    def recovery_point(context: dg.AssetExecutionContext) -> Iterator[Any]:
        # Brokers' and buckets' readers take a second to import, which only a look at them should pay.
        from dr_assets.recovery.stores import record_point  # noqa: PLC0415 - see above

        with shown_as_failure():
            point, restored = _look(estate, context.resources, positions=True)
            for name in sorted({dataset.vault for dataset in estate.datasets.values()}):
                record_point(getattr(context.resources, resource_key(name)).open_vault(signing=True), point)
        yield check_result(CONSISTENT, judge_consistent(point))
        yield check_result(ORPHANS, judge_orphans(restored))
        yield dg.MaterializeResult(asset_key=KEY, metadata=point_metadata(point))

    return recovery_point


def _sensor(estate: Estate) -> dg.SensorDefinition:
    @dg.sensor(
        name="recovery_point",
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Follows the estate's recovery point by the vaults themselves. Launches nothing.",
        required_resource_keys=_resource_keys(estate),
    )
    def recovery_point(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        events: list[Any] = []
        cursor = context.cursor
        try:
            point, restored = _look(estate, context.resources, positions=False)
        except DrError as error:
            judged = dict.fromkeys((CONSISTENT, ORPHANS), judge_unreadable(error))
        else:
            judged = {CONSISTENT: judge_consistent(point), ORPHANS: judge_orphans(restored)}
            if cursor != point.at.isoformat():
                events.append(dg.AssetMaterialization(asset_key=KEY, metadata=point_metadata(point)))
                cursor = point.at.isoformat()
        due = worth_writing(context.instance, judged, datetime.now(UTC))
        events += [evaluation(*each) for each in due.items()]
        return dg.SensorResult(skip_reason=judged[CONSISTENT].reason, asset_events=events, cursor=cursor)

    return recovery_point


def _look(estate: Estate, resources: Any, *, positions: bool) -> tuple[EstatePoint, Fact | None]:
    """The point by the vaults, and the newest sealed restore of the estate."""
    from dr_assets.recovery.estate_restore import ESTATE_RESTORE  # noqa: PLC0415 - as in the asset
    from dr_assets.recovery.stores import DATASET, recovery_point  # noqa: PLC0415 - as above

    opened: dict[str, Vault] = {}
    for dataset in estate.datasets.values():
        if dataset.vault not in opened:
            opened[dataset.vault] = getattr(resources, resource_key(dataset.vault)).open_vault()
    vaults = {name: opened[dataset.vault] for name, dataset in estate.datasets.items()}
    point = recovery_point(estate, vaults, positions=positions)
    facts = [latest_fact(vault, DATASET, ESTATE_RESTORE) for vault in opened.values()]
    return point, max((fact for fact in facts if fact is not None), key=lambda fact: fact.at, default=None)


def _resource_keys(estate: Estate) -> set[str]:
    return {resource_key(dataset.vault) for dataset in estate.datasets.values()}


def _window(estate: Estate) -> Any:
    """The smallest RPO of the estate, or Dagster's floor."""
    return max(min(dataset.rpo for dataset in estate.datasets.values()), FRESHNESS_FLOOR)


def judge_consistent(point: EstatePoint) -> Judgement:
    """Red when a database or topics stand apart, or the moment lies in the future; yellow when only documents do."""
    values: dict[str, Value] = {"skew_ms": point.skew_ms, "age_s": round(point.age_s, 3)}
    values["held_back_by"] = point.held_back_by
    ahead = ahead_of(point.looked_at, point.at)
    if ahead is not None:
        return Judgement(passed=False, reason=f"the moment is {ahead}", values=values)
    apart = point.apart()
    if not apart:
        held = f", held back by {point.held_back_by}" if point.held_back_by else ""
        return Judgement(passed=True, reason=f"all stores agree, {point.age_s:.1f} s ago{held}", values=values)
    reason = "; ".join(_apart(one) for one in apart)
    only_documents = all(one.kind == "bucket" and not one.clock_ahead_ms for one in apart)
    return Judgement(passed=False, reason=reason, values=values, is_warning=only_documents)


def _apart(one: StorePoint) -> str:
    if one.clock_ahead_ms:
        return f"the clock of {one.dataset} is at least {one.clock_ahead_ms} ms ahead of the vault's"
    return one.told


def judge_orphans(restored: Fact | None) -> Judgement:
    """By the newest sealed restore of the estate; yellow where nobody has counted yet, and for what a replay mends."""
    body = {} if restored is None else restored.body
    orphans = body.get("orphans")
    if restored is None or not isinstance(orphans, dict):
        return Judgement(passed=False, reason="no whole restore of the estate has counted them yet", is_warning=True)
    counts = orphans.get("counts")
    told = {str(name): count for name, count in counts.items()} if isinstance(counts, dict) else {}
    found = {name: count for name, count in told.items() if isinstance(count, int) and count}
    values: dict[str, Value] = {**{name: _count(count) for name, count in told.items()}, "restored_at": restored.at}
    if not found:
        return Judgement(passed=True, reason="nobody in one store whom another doesn't know", values=values)
    reason = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.items())
    if set(found) <= REPLAYED:
        return Judgement(
            passed=False, reason=f"{reason}: `dr-assets outbox` replays them", values=values, is_warning=True
        )
    return Judgement(passed=False, reason=reason, values=values)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None


def point_metadata(point: EstatePoint) -> Mapping[str, dg.MetadataValue]:
    """What people look at: the moment, and a row for each store."""
    values: dict[str, Value] = {
        "recovery_point_at": point.at,
        "recovery_point_age_s": round(point.age_s, 3),
        "skew_ms": point.skew_ms,
        "held_back_by": point.held_back_by,
        **{f"skew_ms_{one.dataset}": one.skew_ms for one in point.stores.values()},
    }
    rows = [_row(one, point.held_back_by) for one in point.stores.values()]
    return {**metadata_of(values), "stores": dg.MetadataValue.table(records=rows)}


def _row(one: StorePoint, held_back_by: str | None) -> dg.TableRecord:
    position = {name: value for name, value in one.position.items() if isinstance(value, str | int)}
    return dg.TableRecord(
        {
            "dataset": one.dataset,
            "stands_at": one.at.isoformat(),
            "skew_ms": one.skew_ms,
            "grain_ms": one.grain_ms,
            "newest_at": one.newest_at.isoformat(),
            "clock": one.clock,
            "position": ", ".join(f"{name} {value}" for name, value in position.items()),
            "holds_back": one.dataset == held_back_by,
        }
    )
