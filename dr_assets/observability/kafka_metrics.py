"""The Kafka capture's Prometheus metrics, in a registry of their own.

What belongs here: names, units and meaning of each metric. What stays out: serving them (endpoint.py) and gathering
the numbers (stores/kafka/). Names are those of the Postgres capture where they mean the same, so that one rule of an
alert holds for both; a process captures one dataset, so they never meet in one registry.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dr_assets.stores.kafka.report import KafkaCaptureReport, KafkaState

_LAG_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1, 1.5, 2, 5, 10, 30, 60, 300)
_STATES: Final[tuple[KafkaState, ...]] = ("streaming", "standby", "reconnecting", "stopped")


class PrometheusKafkaMetrics:
    """Counts for any number of captures, told apart by the label `dataset`; threads may share it.

    Ages are computed when they are scraped, from the newest report and the time that has passed since: a capture that
    hangs shows a growing age, not its last good one.
    """

    def __init__(self, registry: CollectorRegistry, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        of = ("dataset",)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._received = counter("dr_capture_received_bytes", "Record batches fetched from the source", of)
        self._bytes = counter("dr_capture_segment_bytes", "Packs read back from the vault under their lock", of)
        self._stored = counter("dr_capture_object_bytes", "Size of the sealed objects of those packs", of)
        self._segments = counter("dr_capture_segments", "Packs read back from the vault under their lock", of)
        self._errors = counter("dr_capture_upload_errors", "Puts that failed and were tried again or given up", of)
        self._lag = Histogram(
            "dr_capture_ingestion_lag_seconds",
            "From a batch reaching us to the vault holding everything up to it under lock",
            of,
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )
        self._age = gauge("dr_capture_recovery_point_age_seconds", "Age of the stored recovery point", of)
        self._report_age = gauge("dr_capture_report_age_seconds", "Time since the capture last reported", of)
        self._packs = gauge("dr_capture_stored_packs", "Number behind the last pack of the stored prefix", of)
        self._behind = gauge(
            "dr_capture_behind_records", "How far the ends of the logs are ahead of what is fetched", of
        )
        self._in_flight = gauge("dr_capture_in_flight_bytes", "Batches fetched, not yet in the prefix", of)
        self._pieces = gauge("dr_capture_in_flight_segments", "Packs given to putters, not yet in the prefix", of)
        self._slowest = gauge("dr_capture_slowest_put_seconds", "Age of the oldest put under way", of)
        self._seal = gauge("dr_capture_seal_seconds", "How long the newest seal took", of)
        self._state = gauge("dr_capture_state_info", "1 for the state the capture is in", ("dataset", "state"))
        self._topics = gauge("dr_capture_topics", "Topics that are captured", of)
        self._throttled = gauge("dr_capture_throttled_seconds", "How long quotas have held fetches up", of)
        self._gaps = gauge("dr_capture_gaps", "Jumps in a partition since the capture started, each on record", of)
        self._warnings = gauge("dr_capture_warnings", "Things that come to an end some day, or are not as declared", of)

    def received(self, dataset: str, size_bytes: int) -> None:
        """Batches came in."""
        self._received.labels(dataset).inc(size_bytes)

    def stored(self, dataset: str, size_bytes: int, stored_bytes: int) -> None:
        """A pack was read back under its lock."""
        self._segments.labels(dataset).inc()
        self._bytes.labels(dataset).inc(size_bytes)
        self._stored.labels(dataset).inc(stored_bytes)

    def lags(self, dataset: str, lags_s: Sequence[float]) -> None:
        """Samples of fetched to locked."""
        histogram = self._lag.labels(dataset)
        for lag_s in lags_s:
            histogram.observe(lag_s)

    def upload_failed(self, dataset: str) -> None:
        """A put failed."""
        self._errors.labels(dataset).inc()

    def reported(self, report: KafkaCaptureReport) -> None:
        """Take over a report's numbers."""
        name = report.dataset
        reported_s = self._monotonic()
        self._report_age.labels(name).set_function(lambda: self._monotonic() - reported_s)
        if report.age_s is not None:
            age_s = report.age_s
            self._age.labels(name).set_function(lambda: age_s + self._monotonic() - reported_s)
        self._packs.labels(name).set(report.stored)
        self._behind.labels(name).set(report.behind_records)
        self._in_flight.labels(name).set(report.in_flight_bytes)
        self._pieces.labels(name).set(report.in_flight_packs)
        self._slowest.labels(name).set(report.slowest_put_s)
        self._seal.labels(name).set(report.seal_s)
        for state in _STATES:
            self._state.labels(name, state).set(state == report.state)
        self._topics.labels(name).set(report.topics)
        self._throttled.labels(name).set(report.throttled_s)
        self._gaps.labels(name).set(report.gaps)
        self._warnings.labels(name).set(len(report.warnings))
