"""What a resident capture tells Dagster: that the recoverable point of a dataset has moved.

What belongs here: the materialization of `<dataset>/wal_chain`, how often it is written, and keeping Dagster's troubles
away from the capture. What stays out: judging (the `rpo` sensor reads the vault itself and believes no report).

The command line hands a `WalChainReporter` to the capture as its listener; nothing below this layer knows Dagster.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from typing import Final, Generic, Protocol, Self, TypeVar

import dagster as dg

from dr_assets.components.evaluations import evaluation, metadata_of, worth_writing
from dr_assets.components.failover_judgements import judge_backpressure
from dr_assets.components.instance_health import STORAGE_AWAY
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.report import CaptureReport

# The event log has no retention (~1.4 kB an event), so fine-grained lag belongs in Prometheus.
INTERVAL_S: Final = 5.0

_log = logging.getLogger(__name__)


class Report(Protocol):
    """What of a capture's report matters here."""

    @property
    def dataset(self) -> str:
        """Whose it is."""
        ...


Said = TypeVar("Said", bound=Report)
Write = Callable[[dg.DagsterInstance, Said], None]
OpenInstance = Callable[[], AbstractContextManager[dg.DagsterInstance]]


def backpressure_key(dataset: str) -> dg.AssetCheckKey:
    """The check `backpressure` on `<dataset>/wal_chain`."""
    return dg.AssetCheckKey(dg.AssetKey([dataset, "wal_chain"]), "backpressure")


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
        "durability": report.durability,
        "spooled_bytes": report.spooled_bytes,
        "warnings": "; ".join(report.warnings) or None,
    }
    key = dg.AssetKey([report.dataset, "wal_chain"])
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=key, metadata=metadata_of(values)))


def report_backpressure(instance: dg.DagsterInstance, report: CaptureReport) -> None:
    """Write the check `backpressure` when its verdict changed, or is a minute old: also while no point moves.

    Nothing before a capture that has begun this moment has looked at the source: that would be a false alarm.
    """
    if report.slot is None and report.slot_room is None and not report.spooled_bytes:
        return
    key = backpressure_key(report.dataset)
    due = worth_writing(instance, {key: judge_backpressure(report)}, datetime.now(UTC))
    for verdict in due.values():
        instance.report_runless_asset_event(evaluation(key, verdict))


class CaptureReporter(Generic[Said]):
    """A capture's listener that reports from a thread of its own, so that a slow Dagster never slows the stream.

    Reports at most every `interval_s`, and only when the recoverable point moved: a report that repeats an old point
    would keep the asset fresh while nothing is being stored. What could not be written is tried again with the newest
    report; between two reports only the newest is kept. `judge` writes verdicts that only the capture can see.

    That thread opens the instance as well, as often as it takes: a capture starts while Dagster's storage is away, too.
    """

    def __init__(
        self,
        open_instance: OpenInstance,
        *,
        write: Write[Said],
        point_of: Callable[[Said], object | None],
        judge: Write[Said] | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._open_instance = open_instance
        self._opened = ExitStack()
        self._instance: dg.DagsterInstance | None = None
        self._interval_s = interval_s
        self._write = write
        self._judge = judge
        self._point_of = point_of
        self._newest: Said | None = None
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

    def __call__(self, report: Said) -> None:
        """Take note of a report; returns at once."""
        self._newest = report
        self._arrived.set()

    def _run(self) -> None:
        with self._opened:
            self._go_on()

    def _go_on(self) -> None:
        written: object | None = None
        while not self._stop.is_set():
            self._arrived.wait()
            self._arrived.clear()
            report = self._newest
            if report is None:
                continue
            judged = self._judge is None or self._taken(self._judge, report)
            point = self._point_of(report)
            moved = point is not None and point != written
            if moved and self._taken(self._write, report):
                written, moved = point, False
            if moved or not judged:
                self._arrived.set()
            self._stop.wait(self._interval_s)

    def _taken(self, write: Write[Said], report: Said) -> bool:
        """Whether Dagster's storage took it. Its absence costs a stale asset, never the stream."""
        try:
            if self._instance is None:
                self._instance = self._opened.enter_context(self._open_instance())
            write(self._instance, report)
        except STORAGE_AWAY as error:
            _log.warning("%s was not reported to Dagster: %s", report.dataset, type(error).__name__)
            return False
        return True


class WalChainReporter(CaptureReporter[CaptureReport]):
    """The listener of a database's capture."""

    def __init__(
        self,
        open_instance: OpenInstance,
        *,
        interval_s: float = INTERVAL_S,
        write: Write[CaptureReport] = report_wal_chain,
        judge: Write[CaptureReport] = report_backpressure,
    ) -> None:
        super().__init__(open_instance, write=write, point_of=_point, judge=judge, interval_s=interval_s)


def _point(report: CaptureReport) -> tuple[object, int] | None:
    return None if report.recovery_point_at is None else (report.recovery_point_at, report.stored_lsn)
