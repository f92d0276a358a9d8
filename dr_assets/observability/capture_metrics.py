"""The capture's Prometheus metrics, in a registry of their own.

What belongs here: names, units and meaning of each metric. What stays out: serving them (endpoint.py) and gathering
the numbers (stores/). The class fits the port that the Postgres capture counts into.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from dr_assets.observability.stream_metrics import StreamMetrics, StreamWords
from dr_assets.stores.postgres.report import CaptureReport, CaptureState, Durability
from dr_assets.stores.postgres.slot import SlotStatus
from dr_assets.stores.postgres.slot_room import Room

_STATES: Final[tuple[CaptureState, ...]] = ("streaming", "reconnecting", "stopped")
_DURABILITIES: Final[tuple[Durability, ...]] = ("asynchronous", "synchronous", "degraded")
_WAL_STATUSES: Final = ("reserved", "extended", "unreserved", "lost")
_WORDS: Final = StreamWords(
    received="WAL received from the source",
    sealed="WAL read back from the vault under its lock",
    stored="Size of the sealed objects of that WAL",
    segments="WAL segments read back from the vault under their lock",
    lag="From a commit's WAL reaching us to the vault holding everything up to it under lock",
    age="Age of the stored recovery point, source clock",
    in_flight="WAL given to putters, not yet in the prefix",
    pieces="Segments given to putters, not yet in the prefix",
)


class PrometheusCaptureMetrics(StreamMetrics):
    """Counts for any number of captures, told apart by the label `dataset`; threads may share it."""

    def __init__(self, registry: CollectorRegistry, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(registry, _WORDS, _STATES, monotonic)
        of = ("dataset",)
        gauge = partial(Gauge, registry=registry)
        self._stored_lsn = gauge("dr_capture_stored_position_bytes", "End of the stored prefix, as a WAL position", of)
        self._behind = gauge("dr_capture_unstored_bytes", "WAL the source has written beyond the stored prefix", of)
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
        self._safe = gauge("dr_capture_slot_safe_bytes", "WAL to be written until the slot may be lost", of)

    def reported(self, report: CaptureReport) -> None:
        """Take over a report's numbers."""
        self._take_over(report, report.in_flight_pieces)
        name = report.dataset
        self._stored_lsn.labels(name).set(report.stored_lsn)
        self._behind.labels(name).set(max(0, report.server_lsn - report.stored_lsn))
        for durability in _DURABILITIES:
            self._durability.labels(name, durability).set(durability == report.durability)
        self._spooled.labels(name).set(report.spooled_bytes)
        self._spool_max.labels(name).set(report.spool_max_bytes)
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
