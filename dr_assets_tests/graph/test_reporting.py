import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
from sqlalchemy.exc import OperationalError

from dr_assets.components.reporting import WalChainReporter, report_wal_chain
from dr_assets.stores.postgres.report import CaptureReport

AT = datetime(2026, 3, 1, tzinfo=UTC)
REPORT = CaptureReport(
    dataset="ledger", state="streaming", at=AT, system_id="1", timeline=1, writer_epoch=1, stored_lsn=0x2000,
    received_lsn=0x3000, server_lsn=0x3000, recovery_point_at=AT, age_s=0.7, lag_s=0.4, linger_s=0.5, seal_s=0.01,
    slowest_put_s=0.1, in_flight_pieces=1, in_flight_bytes=10, segments_stored=7, bytes_stored=4096, upload_errors=0,
    slot=None, trouble=None,
)  # fmt: skip


class Written:
    """Stands for Dagster's storage: keeps reports, and fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.reports: list[CaptureReport] = []
        self.arrived = threading.Semaphore(0)

    def __call__(self, instance: dg.DagsterInstance, report: CaptureReport) -> None:
        """Take a report, or fail."""
        del instance
        if self.failures:
            self.failures -= 1
            raise OperationalError("INSERT", {}, ConnectionError("gone"))
        self.reports.append(report)
        self.arrived.release()

    def wait(self) -> None:
        """Until one more report was written."""
        assert self.arrived.acquire(timeout=180), "no report was written"


def test_the_materialization_carries_the_measures(instance: dg.DagsterInstance) -> None:
    """`ledger/wal_chain` shows lag, bytes and positions, with their units in the names."""
    report_wal_chain(instance, REPORT)
    event = instance.get_latest_materialization_event(dg.AssetKey(["ledger", "wal_chain"]))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert metadata["recovery_point_age_s"] == 0.7
    assert metadata["behind_server_bytes"] == 0x1000
    assert metadata["stored_lsn"] == "0/2000"


def test_a_point_that_stands_still_is_not_reported_again(instance: dg.DagsterInstance) -> None:
    """Repeating an old point would keep the asset fresh while nothing is stored any more."""
    written = Written()
    with WalChainReporter(lambda: nullcontext(instance), interval_s=0.01, write=written) as reporter:
        reporter(REPORT)
        written.wait()
        for size in range(20):
            reporter(replace(REPORT, bytes_stored=size))
            time.sleep(0.02)  # long enough for the thread to take each of them
        moved = replace(REPORT, recovery_point_at=AT + timedelta(seconds=1))
        reporter(moved)
        written.wait()
    assert written.reports == [REPORT, moved]


def test_before_the_first_heartbeat_there_is_nothing_to_report(instance: dg.DagsterInstance) -> None:
    """A capture that stores WAL of unknown age has no recovery point to show."""
    written = Written()
    with WalChainReporter(lambda: nullcontext(instance), interval_s=0.01, write=written) as reporter:
        reporter(replace(REPORT, recovery_point_at=None))
        reporter(REPORT)
        written.wait()
    assert written.reports == [REPORT]


def test_a_storage_that_is_away_costs_nothing_but_the_wait(instance: dg.DagsterInstance) -> None:
    """The capture goes on while Dagster's database is down, and the newest point arrives when it is back."""
    written = Written(failures=3)
    with WalChainReporter(lambda: nullcontext(instance), interval_s=0.01, write=written) as reporter:
        reporter(REPORT)
        written.wait()
    assert written.reports == [REPORT]
