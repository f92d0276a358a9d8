"""`dr-assets capture DATASET`: the resident process that streams a source into the vault: WAL, or record batches."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from dr_assets.cli.context import (
    DatasetArgument,
    DefsOption,
    dataset_of,
    dsn_of,
    estate_of,
    patroni_of,
    spool_dir_of,
    vault_of,
)
from dr_assets.cli.stopping import stop_on_signals
from dr_assets.estate.commit import commit_of
from dr_assets.estate.declarations import default_defs_dir
from dr_assets.estate.errors import DrError, PolicyError, SourceError
from dr_assets.estate.model import Estate, PostgresDataset, TopicsDataset
from dr_assets.observability.capture_metrics import PrometheusCaptureMetrics
from dr_assets.observability.endpoint import metrics_endpoint
from dr_assets.stores.postgres.capture import Capture, CaptureOptions
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.stores.postgres.preflight import SLOT_LOST, preflight, require_ready
from dr_assets.stores.postgres.report import CaptureReport
from dr_assets.vault.retention.policy_change import record_policy
from dr_assets.vault.vault import Vault

log = logging.getLogger("dr_assets.capture")


def capture(
    dataset: DatasetArgument,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="serve Prometheus metrics on loopback; 0 picks a free port")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="tell Dagster (DAGSTER_HOME) whenever the recoverable point moved")
    ] = False,
    accept_gap: Annotated[
        bool,
        typer.Option(
            "--accept-gap",
            help="begin a new chain though the source lost WAL or was set back; take a base backup right after",
        ),
    ] = False,
    defs: DefsOption = None,
) -> None:
    """Stream a source (WAL, or record batches of topics) into the vault until stopped (SIGTERM or Ctrl-C)."""
    keep_freed_memory()  # before anything begins a thread
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    if not isinstance(declared, PostgresDataset | TopicsDataset):
        raise PolicyError(
            "cli.wrong_kind",
            f"'{dataset}' is of kind {declared.kind}, which is no stream",
            "see `dr-assets bucket copy`",
        )
    if accept_gap and isinstance(declared, TopicsDataset):
        raise PolicyError(
            "cli.wrong_kind", "--accept-gap is for a database's WAL",
            "a capture of topics goes on behind a gap by itself, with the gap on record",
        )  # fmt: skip
    vault = vault_of(estate, declared.vault, signing=True)
    arguments = (vault, estate, defs if defs is not None else default_defs_dir())
    threading.Thread(target=note_policy, args=arguments, name="policy", daemon=True).start()
    with ExitStack() as stack:
        registry = CollectorRegistry()
        if metrics_port is not None:
            endpoint = stack.enter_context(metrics_endpoint(registry, port=metrics_port))
            log.info("metrics at %s", endpoint.url)
        if isinstance(declared, TopicsDataset):
            from dr_assets.cli.capture_topics import capture_topics  # noqa: PLC0415 - only they need Kafka's client

            capture_topics(vault, declared, registry, report=report, stop=stop_on_signals())
        else:
            _capture_wal(vault, declared, registry, report=report, accept_gap=accept_gap)


def _capture_wal(
    vault: Vault, declared: PostgresDataset, registry: CollectorRegistry, *, report: bool, accept_gap: bool
) -> None:
    dsn, patroni = dsn_of(declared), patroni_of(declared)
    with ExitStack() as stack:
        listeners: list[Callable[[CaptureReport], None]] = [lambda said: log.info("%s", said)]
        if report:
            # Dagster takes seconds to import, and only this option needs it.
            from dr_assets.components.resident import reporting_to_dagster  # noqa: PLC0415 - see above

            listeners.append(stack.enter_context(reporting_to_dagster()))
        resident = Capture(
            vault,
            declared,
            dsn,
            listener=lambda said: _tell(listeners, said),
            metrics=PrometheusCaptureMetrics(registry),
            options=CaptureOptions(accept_gap=accept_gap),
            patroni=patroni,
            spool_dir=spool_dir_of(declared),
        )
        try:
            _require_ready(dsn, declared, patroni, accept_gap=accept_gap)
        except SourceError as error:
            resident.rescue(error)
            raise
        resident.run(stop_on_signals())


def note_policy(vault: Vault, estate: Estate, defs_dir: Path) -> None:
    """Whoever starts first with another policy than the one on record, records it; no capture waits for that."""
    try:
        changed = record_policy(vault, estate, commit_of(defs_dir, os.environ))
    except DrError as error:
        log.warning("the policy is not recorded: %s", error)
        return
    for change in changed or ():
        log.warning("policy: %s%s", "WEAKER: " if change.is_weaker else "", change)


def _require_ready(dsn: str, declared: PostgresDataset, patroni: Sequence[str], *, accept_gap: bool) -> None:
    """Refuse a source that can't be protected; a lost slot is the capture's to refuse, once the gap is sealed."""
    findings = preflight(dsn, declared, patroni)
    if accept_gap:
        findings = [replace(each, severity="warning") if each.code == SLOT_LOST else each for each in findings]
    for finding in findings:
        log.warning("%s", finding)
    require_ready([each for each in findings if each.code != SLOT_LOST], dsn)


def _tell(listeners: list[Callable[[CaptureReport], None]], report: CaptureReport) -> None:
    for listener in listeners:
        listener(report)
