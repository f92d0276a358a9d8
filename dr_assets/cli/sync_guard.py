"""`dr-assets sync-guard DATASET`: lets commits go on when the capture of a zero-loss dataset can't, because it died."""

import logging
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry, Gauge

from dr_assets.cli.context import DatasetArgument, DefsOption, dsn_of, estate_of, patroni_of, postgres_of
from dr_assets.cli.stopping import stop_on_signals
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import PostgresDataset
from dr_assets.observability.endpoint import metrics_endpoint
from dr_assets.stores.postgres.nodes import Nodes
from dr_assets.stores.postgres.source_stream import open_source
from dr_assets.stores.postgres.sync_guard import OUTSIDE, Guarded, SyncGuard

log = logging.getLogger("dr_assets.sync_guard")


def sync_guard(
    dataset: DatasetArgument,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="serve Prometheus metrics on loopback; 0 picks a free port")
    ] = None,
    defs: DefsOption = None,
) -> None:
    """Watch a zero-loss dataset's source until stopped; commits that waited `degrade_after` go on without the vault."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    declared = postgres_of(estate_of(defs), dataset)
    if declared.zero_loss is None or declared.zero_loss.degrade_after is None:
        raise PolicyError(
            "cli.nothing_to_guard",
            f"{dataset} does not declare `durability: zero_loss` with `on_capture_loss: {{degrade_after: ...}}`",
            "without it no guard may let commits go on: asynchronous ones never wait, blocking ones shall wait",
        )
    dsn = dsn_of(declared)
    nodes = Nodes(dsn, patroni_of(declared))
    guard = SyncGuard(
        dsn, declared, told_by=OUTSIDE, locate=(lambda: locate_primary(nodes)) if nodes.are_several else None
    )
    stop = stop_on_signals()
    told = _Told(declared)
    if metrics_port is None:
        guard.run(stop, told)
        return
    with metrics_endpoint(told.registry, port=metrics_port) as endpoint:
        log.info("metrics at %s", endpoint.url)
        guard.run(stop, told)


def locate_primary(nodes: Nodes) -> str:
    """The primary as a capture would choose it, by its DSN. Raises SourceError."""
    with open_source(nodes, f"dr-assets {OUTSIDE}", connect_timeout_s=3) as connection:
        return connection.dsn


class _Told:
    """Logs what changed, and counts."""

    def __init__(self, dataset: PostgresDataset) -> None:
        self.registry = CollectorRegistry()
        self._name = dataset.name
        self._synchronous = Gauge(
            "dr_sync_guard_synchronous_info", "1 while commits wait for the vault", ("dataset",), registry=self.registry
        )
        self._behind = Gauge(
            "dr_sync_guard_behind_seconds", "How long WAL has waited for the vault", ("dataset",),
            registry=self.registry,
        )  # fmt: skip
        self._last: tuple[object, ...] = ()

    def __call__(self, newest: Guarded) -> None:
        self._synchronous.labels(self._name).set(newest.mode == "synchronous")
        self._behind.labels(self._name).set(newest.behind_s)
        if self._last != (newest.mode, newest.since, newest.trouble):
            self._last = (newest.mode, newest.since, newest.trouble)
            log.info(
                "%s: %s since %s: %s%s", self._name, newest.mode, newest.since, newest.reason,
                f"; {newest.trouble}" if newest.trouble else "",
            )  # fmt: skip
