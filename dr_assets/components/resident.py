"""Dagster's instance for a resident process: opened from DAGSTER_HOME, closed with the process.

What belongs here: opening, and a clear word when there is none. What stays out: what is reported (reporting.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dr_assets.components.reporting import CaptureReporter, WalChainReporter
from dr_assets.components.topics_reporting import kafka_export_reporter
from dr_assets.estate.errors import PolicyError
from dr_assets.stores.kafka.report import KafkaCaptureReport


@contextmanager
def reporting_to_dagster() -> Iterator[WalChainReporter]:
    """A listener for a database's capture that tells Dagster's instance. Raises PolicyError `dagster.no_instance`."""
    with _instance() as instance, WalChainReporter(instance) as reporter:
        yield reporter


@contextmanager
def topics_reporting_to_dagster() -> Iterator[CaptureReporter[KafkaCaptureReport]]:
    """The same for a capture of topics."""
    with _instance() as instance, kafka_export_reporter(instance) as reporter:
        yield reporter


@contextmanager
def _instance() -> Iterator[dg.DagsterInstance]:
    try:
        instance = dg.DagsterInstance.get()
    except dg.DagsterInvariantViolationError as error:
        raise PolicyError(
            "dagster.no_instance",
            "there is no Dagster instance to report to",
            "set DAGSTER_HOME to the folder with dagster.yaml, or capture without --report",
        ) from error
    with instance:
        yield instance
