"""Dagster's instance for a resident process: opened from DAGSTER_HOME, closed with the process.

What belongs here: opening, and a clear word when there is none. What stays out: what is reported (reporting.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dr_assets.components.reporting import WalChainReporter
from dr_assets.estate.errors import PolicyError


@contextmanager
def reporting_to_dagster() -> Iterator[WalChainReporter]:
    """A listener for a capture that tells Dagster's instance. Raises PolicyError `dagster.no_instance`."""
    try:
        instance = dg.DagsterInstance.get()
    except dg.DagsterInvariantViolationError as error:
        raise PolicyError(
            "dagster.no_instance",
            "there is no Dagster instance to report to",
            "set DAGSTER_HOME to the folder with dagster.yaml, or capture without --report",
        ) from error
    with instance, WalChainReporter(instance) as reporter:
        yield reporter
