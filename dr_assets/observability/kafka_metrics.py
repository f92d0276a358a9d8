"""The Kafka capture's Prometheus metrics, in a registry of their own.

What belongs here: names, units and meaning of each metric. What stays out: serving them (endpoint.py) and gathering
the numbers (stores/kafka/). Names are those of the Postgres capture where they mean the same, so that one rule of an
alert holds for both; a process captures one dataset, so they never meet in one registry.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from dr_assets.observability.stream_metrics import StreamMetrics, StreamWords
from dr_assets.stores.kafka.report import KafkaCaptureReport, KafkaState

_STATES: Final[tuple[KafkaState, ...]] = ("streaming", "standby", "reconnecting", "stopped")
_WORDS: Final = StreamWords(
    received="Record batches fetched from the source",
    sealed="Packs read back from the vault under their lock",
    stored="Size of the sealed objects of those packs",
    segments="Packs read back from the vault under their lock",
    lag="From a batch reaching us to the vault holding everything up to it under lock",
    age="Age of the stored recovery point",
    in_flight="Batches fetched, not yet in the prefix",
    pieces="Packs given to putters, not yet in the prefix",
)


class PrometheusKafkaMetrics(StreamMetrics):
    """Counts for any number of captures, told apart by the label `dataset`; threads may share it."""

    def __init__(self, registry: CollectorRegistry, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(registry, _WORDS, _STATES, monotonic)
        of = ("dataset",)
        gauge = partial(Gauge, registry=registry)
        self._packs = gauge("dr_capture_stored_packs", "Number behind the last pack of the stored prefix", of)
        self._behind = gauge(
            "dr_capture_behind_records", "How far the ends of the logs are ahead of what is fetched", of
        )
        self._topics = gauge("dr_capture_topics", "Topics that are captured", of)
        self._throttled = gauge("dr_capture_throttled_seconds", "How long quotas have held fetches up", of)
        self._gaps = gauge("dr_capture_gaps", "Jumps in a partition since the capture started, each on record", of)

    def reported(self, report: KafkaCaptureReport) -> None:
        """Take over a report's numbers."""
        self._take_over(report, report.in_flight_packs)
        name = report.dataset
        self._packs.labels(name).set(report.stored)
        self._behind.labels(name).set(report.behind_records)
        self._topics.labels(name).set(report.topics)
        self._throttled.labels(name).set(report.throttled_s)
        self._gaps.labels(name).set(report.gaps)
