"""`dr-assets replicate`: bring everything to the second region, or prove that the stores did; role `replicator`."""

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated, Final

import typer
from prometheus_client import CollectorRegistry
from rich.console import Console

from dr_assets.cli.context import DefsOption, JsonOption, estate_of, vault_of
from dr_assets.cli.stopping import stop_on_signals
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.estate.model import Estate
from dr_assets.observability.endpoint import metrics_endpoint
from dr_assets.observability.replication_metrics import PrometheusReplicationMetrics
from dr_assets.vault.replication import Options, Pass, Route, replicate, routes_of
from dr_assets.vault.vault import Vault

UNPROVEN: Final = 1
FULL_EVERY_S: Final = 3600.0
RECORD_EVERY_S: Final = 120.0

log = logging.getLogger(__name__)


def replicate_command(
    to: Annotated[
        str | None, typer.Option("--to", help="only to this replica; all that are declared by default")
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", help="stay, and look again after this long, e.g. 10s; else one pass")
    ] = None,
    prove_only: Annotated[
        bool, typer.Option("--prove-only", help="copy nothing, whatever the vault's `replication` says")
    ] = False,
    metrics_port: Annotated[int | None, typer.Option("--metrics-port", help="serve /metrics on loopback")] = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove each object in every replica, and copy there what our own replicator is to bring; exit 1 if one lacks."""
    estate = estate_of(defs)
    routes = [_Routed(estate, route, prove_only=prove_only) for route in _routes(estate, to)]
    pause_s = parse_duration(every).total_seconds() if every else None
    registry = CollectorRegistry()
    metrics = PrometheusReplicationMetrics(registry)
    with ExitStack() as stack:
        if metrics_port is not None:
            stack.enter_context(metrics_endpoint(registry, port=metrics_port))
        if pause_s is None:
            _once(routes, metrics, as_json=as_json)
        else:
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
            _stay(routes, metrics, pause_s, stop_on_signals())


class _Routed:
    """One route with both its vaults, and what this process knows of it."""

    def __init__(self, estate: Estate, route: Route, *, prove_only: bool) -> None:
        self.route = route
        self.source: Vault = vault_of(estate, route.source, signing=True, role="replicator")
        self.replica: Vault = vault_of(estate, route.replica, signing=False, role="replicator")
        self._copies = estate.vaults[route.replica].replication == "own" and not prove_only
        self._before: Pass | None = None
        self._full_s = self._recorded_s = float("-inf")

    def pass_(self, monotonic: Callable[[], float] = time.monotonic) -> Pass:
        """Full, and on record, when that is due."""
        now_s = monotonic()
        full, record = now_s - self._full_s >= FULL_EVERY_S, now_s - self._recorded_s >= RECORD_EVERY_S
        options = Options(copy=self._copies, full=full, record=record or full)
        done = replicate(self.source, self.replica, self.route.datasets, options, before=self._before)
        self._full_s = now_s if full else self._full_s
        self._recorded_s = now_s if record or full else self._recorded_s
        self._before = done
        return done


def _routes(estate: Estate, to: str | None) -> list[Route]:
    routes = [route for route in routes_of(estate) if to in {None, route.replica}]
    if not routes:
        declared = ", ".join(sorted({route.replica for route in routes_of(estate)})) or "none"
        raise PolicyError("cli.no_replica", f"no dataset declares the replica '{to or ''}'", f"declared: {declared}")
    return routes


def _once(routes: list[_Routed], metrics: PrometheusReplicationMetrics, *, as_json: bool) -> None:
    said: list[dict[str, object]] = []
    unproven = 0
    for routed in routes:
        done = routed.pass_()
        metrics.passed(routed.route.source, done, routed.source.clock())
        unproven += done.standing.unproven_count
        said.append(_to_json(routed, done))
        if not as_json:
            _show(routed, done, Console(highlight=False, soft_wrap=True))
    if as_json:
        typer.echo(json.dumps(said, indent=2))
    if unproven:
        raise typer.Exit(UNPROVEN)


def _stay(routes: list[_Routed], metrics: PrometheusReplicationMetrics, pause_s: float, stop: threading.Event) -> None:
    """Pass after pass until a signal. A store that is away is told and waited for; each route goes on by itself."""
    while not stop.is_set():
        for routed in routes:
            try:
                done = routed.pass_()
            except DrError as error:
                metrics.failed(routed.route.source, routed.route.replica)
                log.warning("%s: %s: %s", routed.route, error.code, error.found)
                continue
            metrics.passed(routed.route.source, done, routed.source.clock())
            if done.tally.copied or done.standing.unproven_count:
                log.info("%s: %s", routed.route, _text(routed, done))
        stop.wait(pause_s)


def _show(routed: _Routed, done: Pass, console: Console) -> None:
    console.print(f"{routed.route}: {_text(routed, done)}")
    for each in done.standing.unproven:
        console.print(f"  {each.why}: {each.name}: {each.detail}", markup=False)


def _text(routed: _Routed, done: Pass) -> str:
    found, tally = done.standing, done.tally
    objects = sum(dataset.objects for dataset in found.datasets.values())
    lag_s = found.lag(routed.source.clock()).total_seconds()
    return (
        f"{objects - found.unproven_count} of {objects} objects proven, {tally.asked} of them asked for now; "
        f"{tally.copied} copied ({tally.copied_bytes / 1e6:.1f} MB), {tally.extended} locks extended; lag {lag_s:.0f} s"
    )


def _to_json(routed: _Routed, done: Pass) -> dict[str, object]:
    found = done.standing
    return {
        **done.tally.counts(),
        "source": routed.route.source,
        "replica": routed.route.replica,
        "as_of": found.as_of.isoformat(),
        "lag_s": found.lag(routed.source.clock()).total_seconds(),
        "datasets": {
            name: {"objects": each.objects, "unproven": each.unproven} for name, each in found.datasets.items()
        },
        "unproven": [{"name": each.name, "why": each.why, "detail": each.detail} for each in found.unproven],
    }
