"""`dr-assets prove [DATASET…]`: the resident process that restores from the vault all the time, and says how far."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from prometheus_client import CollectorRegistry

from dr_assets.cli.context import DefsOption, estate_of, postgres_of, vault_of
from dr_assets.cli.stopping import stop_on_signals
from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.observability.endpoint import metrics_endpoint
from dr_assets.observability.prover_metrics import PrometheusProverMetrics
from dr_assets.proving.clone_shelf import CloneShelf
from dr_assets.proving.erasures import erasures_for
from dr_assets.proving.prover.ground import ground_of
from dr_assets.proving.prover.judged import reconciled_trouble, replayed_trouble
from dr_assets.proving.prover.points import Proven
from dr_assets.proving.prover.prover import Prover, ProverOptions
from dr_assets.stores.postgres.host import keep_freed_memory

log = logging.getLogger("dr_assets.prove")
BROKEN = 1
# A restore for proof's sake gives way to whatever else the host is for.
NICE: Final = 10
_TOLD_EVERY_S: Final = 30.0
_SWEPT_EVERY_S: Final = 60.0
Listener = Callable[[Proven], None]


def prove(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATASET]…", help="databases to prove; all that declare `prove:` by default"),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="prove each of them once, deep pass included; exit 1 if one is not proven")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="tell Dagster (DAGSTER_HOME) whenever a proven point moved")
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="serve Prometheus metrics on loopback; 0 picks a free port")
    ] = None,
    defs: DefsOption = None,
) -> None:
    """Restore databases from the vault all the time, reconcile them, and publish the proven recovery point."""
    keep_freed_memory()  # before anything begins a thread
    os.nice(NICE)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    estate = estate_of(defs)
    chosen = _chosen(estate, datasets or [])
    with ExitStack() as stack:
        registry = CollectorRegistry()
        metrics = PrometheusProverMetrics(registry)
        if metrics_port is not None:
            log.info("metrics at %s", stack.enter_context(metrics_endpoint(registry, port=metrics_port)).url)
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="prover-job"))
        stop = stop_on_signals()
        provers = [
            stack.enter_context(_prover(estate, dataset, pool, metrics, report=report, once=once)) for dataset in chosen
        ]
        proven = _run(provers, stop, swept=not once)
    troubles = _troubles(chosen, proven) if once else []
    for told in troubles:
        typer.echo(told)
    if troubles:
        raise typer.Exit(BROKEN)


def _chosen(estate: Estate, names: Sequence[str]) -> list[PostgresDataset]:
    if names:
        return [postgres_of(estate, name) for name in names]
    declared = [dataset for dataset in estate.postgres().values() if dataset.prove is not None]
    if not declared:
        raise PolicyError(
            "prover.nothing_declared",
            "no database of the estate declares `prove:`",
            "declare it (docs/prover.md), or name a database: `dr-assets prove ledger`",
        )
    return declared


@contextmanager
def _prover(
    estate: Estate,
    dataset: PostgresDataset,
    pool: ThreadPoolExecutor,
    metrics: PrometheusProverMetrics,
    *,
    report: bool,
    once: bool,
) -> Iterator[Prover]:
    """One dataset's prover on its own ground. It reads with the reader's rights, and writes facts with the writer's."""
    vault, records = vault_of(estate, dataset.vault, signing=False), vault_of(estate, dataset.vault, signing=True)
    listeners: list[Listener] = [_Teller(), metrics.reported]
    with ExitStack() as stack:
        if report:
            # Dagster takes seconds to import, and only this option needs it.
            from dr_assets.components.resident import proven_reporting_to_dagster  # noqa: PLC0415 - see above

            listeners.append(stack.enter_context(proven_reporting_to_dagster(dataset)))
        yield Prover(
            vault,
            records,
            dataset,
            stack.enter_context(ground_of(dataset.name, os.environ)),
            pool,
            erasures=lambda: erasures_for(estate, dataset, vault, os.environ),
            env=os.environ,
            listener=lambda proven: _tell(listeners, proven),
            options=ProverOptions(once=once),
        )


def _tell(listeners: Sequence[Listener], proven: Proven) -> None:
    for listener in listeners:
        listener(proven)


def _run(provers: Sequence[Prover], stop: threading.Event, *, swept: bool) -> list[Proven]:
    """All of them, each in a thread of its own; the first that can't go on ends them all."""
    stops = [threading.Event() for _ in provers]
    swept_s = float("-inf")
    with ThreadPoolExecutor(len(provers), thread_name_prefix="prover") as threads:
        runs: list[Future[Proven]] = [
            threads.submit(prover.run, own) for prover, own in zip(provers, stops, strict=True)
        ]
        try:
            while not all(run.done() for run in runs):
                if stop.wait(0.2) or any(run.done() and run.exception() for run in runs):
                    for own in stops:
                        own.set()
                if swept and time.monotonic() - swept_s > _SWEPT_EVERY_S:
                    swept_s = time.monotonic()
                    _sweep()
        finally:
            for own in stops:  # or leaving the block waits for threads that nobody tells
                own.set()
    return [run.result() for run in runs]


def _sweep() -> None:
    """Take overdue clones away; a shelf that can't be looked through is told each time, and stops no prover."""
    try:
        CloneShelf.of(os.environ).sweep(datetime.now(UTC))
    except (DrError, OSError) as error:
        log.warning("clones are not swept: %s", error)


def _troubles(datasets: Sequence[PostgresDataset], proven: Sequence[Proven]) -> list[str]:
    """What is not proven, of a single pass."""
    found = []
    for dataset, one in zip(datasets, proven, strict=True):
        told = replayed_trouble(dataset, one, one.now) or reconciled_trouble(dataset, one, one.now)
        if told is not None:
            found.append(f"{dataset.name}: {told}")
    return found


class _Teller:
    """Log lines: at once when the state, or what is proven, is another one, and now and then in between."""

    def __init__(self) -> None:
        self._told: object = None
        self._told_s = float("-inf")

    def __call__(self, proven: Proven) -> None:
        now_s = time.monotonic()
        matters = (
            proven.state,
            proven.trouble and proven.trouble.code,
            proven.reconciled,
            proven.deep,
            proven.restarts,
        )
        if matters == self._told and now_s - self._told_s < _TOLD_EVERY_S:
            return
        self._told, self._told_s = matters, now_s
        log.info("%s", proven)
