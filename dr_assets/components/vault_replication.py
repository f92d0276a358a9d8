"""`vault/replication`: everything that a dataset wants in a second region is proven there, with its checks.

What belongs here: the asset, its job, schedule and checks for each route, and the verdicts. What stays out: proving
and copying (vault/replication), which a host without Dagster runs by `dr-assets replicate`.

The checks are judged from the newest sealed standing, so that they grow red when nobody proves any more.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import dagster as dg

from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import failure_of
from dr_assets.components.judgements import Judgement, Value, judge_unreadable
from dr_assets.components.labels import cadence_window, storing_keys
from dr_assets.components.parts import Parts, job_of, schedule_of
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.durations import format_duration
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import Estate
from dr_assets.vault.replication import Options, Route, Standing, replicate, routes_of, standing

KEY: Final = dg.AssetKey(["vault", "replication"])
CRON: Final = "*/5 * * * *"
LAG_WARNS: Final = timedelta(minutes=10)  # two passes
LAG_FAILS: Final = timedelta(minutes=30)
OVERDUE: Final = timedelta(minutes=15)  # an object that is older than this has to be proven
FULL_EVERY: Final = timedelta(hours=1)


def replication_parts(estate: Estate) -> Parts:
    """Asset with its checks, job and schedule."""
    routes = routes_of(estate)
    if not routes:
        return Parts()
    job = job_of(
        "vault_replication",
        KEY,
        "Proves every object in its second region, and brings there what our own replicator is to bring.",
    )
    schedule = schedule_of(
        "vault_replication",
        job,
        CRON,
        "Every five minutes. Two passes at once, or one beside `dr-assets replicate`, break nothing.",
    )
    return Parts([_asset(estate, routes)], [], [job], [schedule])


def replicated_key(route: Route) -> dg.AssetCheckKey:
    """`replicated_<source>_<replica>`."""
    return dg.AssetCheckKey(KEY, f"replicated_{route.source}_{route.replica}".replace("-", "_"))


def lag_key(route: Route) -> dg.AssetCheckKey:
    """`replication_lag_<source>_<replica>`."""
    return dg.AssetCheckKey(KEY, f"replication_lag_{route.source}_{route.replica}".replace("-", "_"))


def _asset(estate: Estate, routes: tuple[Route, ...]) -> dg.AssetsDefinition:
    copied = {name for route in routes for name in route.datasets}

    @dg.asset(
        key=KEY,
        deps=[key for key in storing_keys(estate) if key.path[0] in copied],
        description="Every object of the vault, seen in its second region: digest and lock were read back there.",
        kinds={"s3"},
        check_specs=_check_specs(routes),
        freshness_policy=cadence_window(timedelta(minutes=5)),
        required_resource_keys={resource_key(name) for route in routes for name in (route.source, route.replica)},
        owners=estate.owners,
        group_name="vault",
        tags={"dr_assets/estate": estate.name},
    )
    def replication(context: dg.AssetExecutionContext) -> Iterator[Any]:
        values: dict[str, Value] = {}
        failed: DrError | None = None
        for route in routes:
            try:
                values |= _pass(context.resources, estate, route)
            except DrError as error:  # a region that is away keeps no other from being proven
                failed = failed or error
            yield from _judged(context.resources, route)
        if failed is not None:
            raise failure_of(failed) from failed
        yield dg.MaterializeResult(asset_key=KEY, metadata=metadata_of(values))

    return replication


def _pass(resources: Any, estate: Estate, route: Route) -> Mapping[str, Value]:
    source = getattr(resources, resource_key(route.source)).open_vault(signing=True, role="replicator")
    replica = getattr(resources, resource_key(route.replica)).open_vault(role="replicator")
    known = standing(source, route.replica)
    full = known is None or known.full_at is None or source.clock() - known.full_at >= FULL_EVERY
    copies = estate.vaults[route.replica].replication == "own"
    done = replicate(source, replica, route.datasets, Options(copy=copies, full=full))
    told = {f"{route.replica}_{name}": count for name, count in done.tally.counts().items()}
    return told | {f"{route.replica}_{name}": value for name, value in _values(done.standing, source.clock()).items()}


def _check_specs(routes: tuple[Route, ...]) -> list[dg.AssetCheckSpec]:
    specs = []
    for route in routes:
        age = format_duration(OVERDUE)
        specs += [
            dg.AssetCheckSpec(
                replicated_key(route).name,
                asset=KEY,
                description=f"Every object of {route.source} that is older than {age} is proven in {route.replica}.",
                blocking=True,
            ),
            dg.AssetCheckSpec(
                lag_key(route).name,
                asset=KEY,
                description=f"What lies in {route.replica} is proven up to a moment not long ago, and somebody looks.",
            ),
        ]
    return specs


def _judged(resources: Any, route: Route) -> Iterator[dg.AssetCheckResult]:
    """Both verdicts, from the newest sealed standing: also when the pass of this run failed."""
    try:
        source = getattr(resources, resource_key(route.source)).open_vault()
        found, now = standing(source, route.replica), source.clock()
    except DrError as error:
        verdicts = [judge_unreadable(error)] * 2
    else:
        verdicts = [judge_replicated(found, now), judge_lag(found, now)]
    for key, verdict in zip((replicated_key(route), lag_key(route)), verdicts, strict=True):
        yield check_result(key, verdict)


def judge_replicated(found: Standing | None, now: datetime) -> Judgement:
    """Red when an object that had time to arrive is not proven in the other region, or when nobody ever looked."""
    if found is None:
        return Judgement(passed=False, reason="nobody proved any object there: run `dr-assets replicate`")
    values = _values(found, now)
    if found.full_at is None:
        return Judgement(passed=False, reason="no pass has gone through all objects yet", values=values)
    overdue = now - found.proven_at > OVERDUE and found.unproven_count
    if overdue:
        first = found.unproven[0]
        reason = f"{found.unproven_count} object(s) are not proven there, the first is {first.why}: {first.name}"
        return Judgement(passed=False, reason=reason, values=values)
    if found.unproven_count:
        reason = (
            f"{found.unproven_count} object(s) are on their way; all older than {format_duration(OVERDUE)} are there"
        )
        return Judgement(passed=True, reason=reason, values=values)
    return Judgement(passed=True, reason=f"all {values['objects_total']} objects are proven there", values=values)


def judge_lag(found: Standing | None, now: datetime) -> Judgement:
    """Yellow when two passes' worth of time isn't proven, red beyond half an hour: that much a lost region takes."""
    if found is None:
        return Judgement(passed=False, reason="nobody proved any object there: run `dr-assets replicate`")
    lag, values = found.lag(now), _values(found, now)
    told = f"everything up to {found.proven_at:%Y-%m-%d %H:%M:%S} UTC is proven there"
    if lag > LAG_FAILS:
        return Judgement(passed=False, reason=f"only {told}", values=values)
    if lag > LAG_WARNS:
        return Judgement(passed=False, reason=f"only {told}", values=values, is_warning=True)
    return Judgement(passed=True, reason=told, values=values)


def _values(found: Standing, now: datetime) -> dict[str, Value]:
    return {
        "lag_s": found.lag(now).total_seconds(),
        "proven_at": found.proven_at,
        "objects_total": sum(dataset.objects for dataset in found.datasets.values()),
        "unproven": found.unproven_count,
        "full_pass_at": found.full_at,
    }
