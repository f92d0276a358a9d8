"""Dagster's instance for a resident process: opened from DAGSTER_HOME, closed with the process.

What belongs here: where it is, and a clear word when there is none. What stays out: what is reported (reporting.py).
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg

from dr_assets.components.proven_reporting import proven_reporter
from dr_assets.components.reporting import CaptureReporter, WalChainReporter
from dr_assets.components.topics_reporting import kafka_export_reporter
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import PostgresDataset
from dr_assets.proving.prover.points import Proven
from dr_assets.stores.kafka.report import KafkaCaptureReport


def reporting_to_dagster() -> WalChainReporter:
    """A listener for a database's capture that tells Dagster's instance. Raises PolicyError `dagster.no_instance`."""
    _require_home()
    return WalChainReporter(_instance)


def topics_reporting_to_dagster() -> CaptureReporter[KafkaCaptureReport]:
    """The same for a capture of topics."""
    _require_home()
    return kafka_export_reporter(_instance)


def proven_reporting_to_dagster(dataset: PostgresDataset) -> CaptureReporter[Proven]:
    """The same for a prover."""
    _require_home()
    return proven_reporter(_instance, dataset)


def _require_home() -> None:
    home = os.environ.get("DAGSTER_HOME", "")
    if not home or not Path(home).is_dir():
        raise PolicyError(
            "dagster.no_instance",
            "there is no Dagster instance to report to",
            "set DAGSTER_HOME to the folder with dagster.yaml, or run it without --report",
        )


def _instance() -> AbstractContextManager[dg.DagsterInstance]:
    return dg.DagsterInstance.get()
