"""The capture's Prometheus metrics, in a registry of their own.

What belongs here: names, units and meaning of each metric. What stays out: serving them (endpoint.py) and gathering
the numbers (stores/). The class fits the port that the Postgres capture counts into.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dr_assets.stores.postgres.report import CaptureReport, CaptureState, Durability
from dr_assets.stores.postgres.slot import SlotStatus
from dr_assets.stores.postgres.slot_room import Room

_LAG_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1, 1.5, 2, 5, 10, 30, 60, 300)
_STATES: Final[tuple[CaptureState, ...]] = ("streaming", "reconnecting", "stopped")
_DURABILITIES: Final[tuple[Durability, ...]] = ("asynchronous", "synchronous", "degraded")
_WAL_STATUSES: Final = ("reserved", "extended", "unreserved", "lost")


class PrometheusCaptureMetrics:
    """Counts for any number of captures, told apart by the label `dataset`; threads may share it.

    Ages are computed when they are scraped, from the newest report and the time that has passed since: a capture that
    hangs shows a growing age, not its last good one.
    """

    def __init__(self, registry: CollectorRegistry, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        of = ("dataset",)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._received = counter("dr_capture_received_bytes", "WAL received from the source", of)
        self._bytes = counter("dr_capture_segment_bytes", "WAL read back from the vault under its lock", of)
        self._stored = counter("dr_capture_object_bytes", "Size of the sealed objects of that WAL", of)
        self._segments = counter("dr_capture_segments", "WAL segments read back from the vault under their lock", of)
        self._errors = counter("dr_capture_upload_errors", "Puts that failed and were tried again or given up", of)
        self._lag = Histogram(
            "dr_capture_ingestion_lag_seconds",
            "From a commit's WAL reaching us to the vault holding everything up to it under lock",
            of,
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )
        self._age = gauge("dr_capture_recovery_point_age_seconds", "Age of the stored recovery point, source clock", of)
        self._report_age = gauge("dr_capture_report_age_seconds", "Time since the capture last reported", of)
        self._stored_lsn = gauge("dr_capture_stored_position_bytes", "End of the stored prefix, as a WAL position", of)
        self._behind = gauge("dr_capture_unstored_bytes", "WAL the source has written beyond the stored prefix", of)
        self._in_flight = gauge("dr_capture_in_flight_bytes", "WAL given to putters, not yet in the prefix", of)
        self._pieces = gauge("dr_capture_in_flight_segments", "Segments given to putters, not yet in the prefix", of)
        self._slowest = gauge("dr_capture_slowest_put_seconds", "Age of the oldest put under way", of)
        self._seal = gauge("dr_capture_seal_seconds", "How long the newest seal took", of)
        self._state = gauge("dr_capture_state_info", "1 for the state the capture is in", ("dataset", "state"))
        self._slot = gauge("dr_capture_slot_wal_status_info", "1 for the slot's wal_status", ("dataset", "wal_status"))
        self._slot_active = gauge("dr_capture_slot_active_info", "1 while somebody streams from the slot", of)
        self._retained = gauge("dr_capture_slot_retained_bytes", "WAL the source keeps for the slot", of)
        self._limit = gauge(
            "dr_capture_slot_limit_bytes", "WAL kept for the slot at which its room ends, +Inf unknown", of
        )
        self._full_in = gauge("dr_capture_slot_full_in_seconds", "Until that room ends at the last minute's growth", of)
        self._durability = gauge(
            "dr_capture_durability_info", "1 for how commits are acknowledged now", ("dataset", "durability")
        )
        self._spooled = gauge("dr_capture_spooled_bytes", "Sealed segments on the capture's disk, vault away", of)
        self._spool_max = gauge("dr_capture_spool_max_bytes", "What may lie there, 0 without a spool", of)
        self._warnings = gauge("dr_capture_warnings", "Things that come to an end some day, or are not as declared", of)
        self._safe = gauge("dr_capture_slot_safe_bytes", "WAL to be written until the slot may be lost", of)

    def received(self, dataset: str, size_bytes: int) -> None:
        """WAL came in."""
        self._received.labels(dataset).inc(size_bytes)

    def stored(self, dataset: str, size_bytes: int, stored_bytes: int) -> None:
        """A segment was read back under its lock."""
        self._segments.labels(dataset).inc()
        self._bytes.labels(dataset).inc(size_bytes)
        self._stored.labels(dataset).inc(stored_bytes)

    def lags(self, dataset: str, lags_s: Sequence[float]) -> None:
        """Samples of commit to locked."""
        histogram = self._lag.labels(dataset)
        for lag_s in lags_s:
            histogram.observe(lag_s)

    def upload_failed(self, dataset: str) -> None:
        """A put failed."""
        self._errors.labels(dataset).inc()

    def reported(self, report: CaptureReport) -> None:
        """Take over a report's numbers."""
        name = report.dataset
        reported_s = self._monotonic()
        self._report_age.labels(name).set_function(lambda: self._monotonic() - reported_s)
        if report.age_s is not None:
            age_s = report.age_s
            self._age.labels(name).set_function(lambda: age_s + self._monotonic() - reported_s)
        self._stored_lsn.labels(name).set(report.stored_lsn)
        self._behind.labels(name).set(max(0, report.server_lsn - report.stored_lsn))
        self._in_flight.labels(name).set(report.in_flight_bytes)
        self._pieces.labels(name).set(report.in_flight_pieces)
        self._slowest.labels(name).set(report.slowest_put_s)
        self._seal.labels(name).set(report.seal_s)
        for state in _STATES:
            self._state.labels(name, state).set(state == report.state)
        for durability in _DURABILITIES:
            self._durability.labels(name, durability).set(durability == report.durability)
        self._spooled.labels(name).set(report.spooled_bytes)
        self._spool_max.labels(name).set(report.spool_max_bytes)
        self._warnings.labels(name).set(len(report.warnings))
        if report.slot is not None:
            self._slot_reported(name, report.slot)
        if report.slot_room is not None:
            self._room_reported(name, report.slot_room)

    def _room_reported(self, dataset: str, room: Room) -> None:
        never = float("inf")
        self._limit.labels(dataset).set(never if room.limit_bytes is None else room.limit_bytes)
        self._full_in.labels(dataset).set(never if room.full_in_s is None else room.full_in_s)

    def _slot_reported(self, dataset: str, slot: SlotStatus) -> None:
        for status in _WAL_STATUSES:
            self._slot.labels(dataset, status).set(status == slot.wal_status)
        self._slot_active.labels(dataset).set(slot.active)
        self._retained.labels(dataset).set(slot.retained_bytes)
        self._safe.labels(dataset).set(float("inf") if slot.safe_bytes is None else slot.safe_bytes)
