"""What a resident capture tells Dagster: that the recoverable point of a dataset has moved.

What belongs here: the materialization of `<dataset>/wal_chain`, how often it is written, and keeping Dagster's troubles
away from the capture. What stays out: judging (the `rpo` sensor reads the vault itself and believes no report).

The command line hands a `WalChainReporter` to the capture as its listener (resident.py opens the instance); nothing
below this layer knows Dagster.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final, Self

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from dr_assets.components.evaluations import metadata_of
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.report import CaptureReport

# The event log has no retention (~1.4 kB an event), so fine-grained lag belongs in Prometheus.
INTERVAL_S: Final = 5.0

_log = logging.getLogger(__name__)


def report_wal_chain(instance: dg.DagsterInstance, report: CaptureReport) -> None:
    """Write one run-less materialization of `<dataset>/wal_chain` with the measured lag, bytes and positions."""
    values = {
        "state": report.state,
        "stored_lsn": format_lsn(report.stored_lsn),
        "recovery_point_at": report.recovery_point_at,
        "recovery_point_age_s": report.age_s,
        "lag_s": report.lag_s,
        "behind_server_bytes": max(report.server_lsn - report.stored_lsn, 0),
        "segments_stored": report.segments_stored,
        "stored_bytes": report.bytes_stored,
        "upload_errors": report.upload_errors,
        "timeline": report.timeline,
        "writer_epoch": report.writer_epoch,
    }
    key = dg.AssetKey([report.dataset, "wal_chain"])
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=key, metadata=metadata_of(values)))


class WalChainReporter:
    """A capture's listener that reports from a thread of its own, so that a slow Dagster never slows the stream.

    Reports at most every `interval_s`, and only when the recoverable point moved: a report that repeats an old point
    would keep the asset fresh while nothing is being stored. What could not be written is tried again with the newest
    report; between two reports only the newest is kept.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        *,
        interval_s: float = INTERVAL_S,
        write: Callable[[dg.DagsterInstance, CaptureReport], None] = report_wal_chain,
    ) -> None:
        self._instance = instance
        self._interval_s = interval_s
        self._write = write
        self._newest: CaptureReport | None = None
        self._arrived = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dagster-reporter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._arrived.set()
        self._thread.join(timeout=2 * self._interval_s)

    def __call__(self, report: CaptureReport) -> None:
        """Take note of a report; returns at once."""
        self._newest = report
        self._arrived.set()

    def _run(self) -> None:
        written: tuple[object, int] | None = None
        while not self._stop.is_set():
            self._arrived.wait()
            self._arrived.clear()
            report = self._newest
            if report is None or report.recovery_point_at is None or _point(report) == written:
                continue
            if self._written(report):
                written = _point(report)
            else:
                self._arrived.set()
            self._stop.wait(self._interval_s)

    def _written(self, report: CaptureReport) -> bool:
        """Whether Dagster's storage took it. Its absence costs a stale asset, never the stream."""
        try:
            self._write(self._instance, report)
        except (SQLAlchemyError, dg.DagsterError, OSError) as error:
            _log.warning("%s/wal_chain was not reported to Dagster: %s", report.dataset, type(error).__name__)
            return False
        return True


def _point(report: CaptureReport) -> tuple[object, int]:
    return report.recovery_point_at, report.stored_lsn
