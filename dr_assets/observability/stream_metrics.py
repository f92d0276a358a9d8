"""What every capture's Prometheus metrics share: names and meaning that hold for any stream.

What belongs here: metrics that each kind of capture has, so that one rule of an alert holds for all. What stays out:
what only one kind can tell (capture_metrics.py, kafka_metrics.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LAG_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1, 1.5, 2, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True)
class StreamWords:
    """What the shared metrics are of, in the words of one kind of source."""

    received: str
    sealed: str
    stored: str
    segments: str
    lag: str
    age: str
    in_flight: str
    pieces: str


class StreamReport(Protocol):
    """What of a report is shown for every kind of capture."""

    @property
    def dataset(self) -> str:
        """Whose capture."""
        ...

    @property
    def state(self) -> str:
        """One of the states that its kind has."""
        ...

    @property
    def age_s(self) -> float | None:
        """Of the stored recovery point; None while there is none."""
        ...

    @property
    def in_flight_bytes(self) -> int:
        """Not yet in the stored prefix."""
        ...

    @property
    def slowest_put_s(self) -> float:
        """Age of the oldest put under way."""
        ...

    @property
    def seal_s(self) -> float:
        """How long the newest seal took."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What comes to an end some day, or is not as declared."""
        ...


class StreamMetrics:
    """Counts for any number of captures, told apart by the label `dataset`; threads may share it.

    Ages are computed when they are scraped, from the newest report and the time that has passed since: a capture that
    hangs shows a growing age, not its last good one.
    """

    def __init__(
        self, registry: CollectorRegistry, words: StreamWords, states: Sequence[str], monotonic: Callable[[], float]
    ) -> None:
        self._monotonic = monotonic
        self._states = tuple(states)
        of = ("dataset",)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._received = counter("dr_capture_received_bytes", words.received, of)
        self._bytes = counter("dr_capture_segment_bytes", words.sealed, of)
        self._stored = counter("dr_capture_object_bytes", words.stored, of)
        self._segments = counter("dr_capture_segments", words.segments, of)
        self._errors = counter("dr_capture_upload_errors", "Puts that failed and were tried again or given up", of)
        self._lag = Histogram(
            "dr_capture_ingestion_lag_seconds", words.lag, of, buckets=_LAG_BUCKETS_S, registry=registry
        )
        self._age = gauge("dr_capture_recovery_point_age_seconds", words.age, of)
        self._report_age = gauge("dr_capture_report_age_seconds", "Time since the capture last reported", of)
        self._in_flight = gauge("dr_capture_in_flight_bytes", words.in_flight, of)
        self._pieces = gauge("dr_capture_in_flight_segments", words.pieces, of)
        self._slowest = gauge("dr_capture_slowest_put_seconds", "Age of the oldest put under way", of)
        self._seal = gauge("dr_capture_seal_seconds", "How long the newest seal took", of)
        self._state = gauge("dr_capture_state_info", "1 for the state the capture is in", ("dataset", "state"))
        self._warnings = gauge("dr_capture_warnings", "Things that come to an end some day, or are not as declared", of)

    def received(self, dataset: str, size_bytes: int) -> None:
        """Bytes of the stream came in."""
        self._received.labels(dataset).inc(size_bytes)

    def stored(self, dataset: str, size_bytes: int, stored_bytes: int) -> None:
        """A piece was read back under its lock."""
        self._segments.labels(dataset).inc()
        self._bytes.labels(dataset).inc(size_bytes)
        self._stored.labels(dataset).inc(stored_bytes)

    def lags(self, dataset: str, lags_s: Sequence[float]) -> None:
        """Samples of arrived to locked."""
        histogram = self._lag.labels(dataset)
        for lag_s in lags_s:
            histogram.observe(lag_s)

    def upload_failed(self, dataset: str) -> None:
        """A put failed."""
        self._errors.labels(dataset).inc()

    def _take_over(self, report: StreamReport, pieces: int) -> None:
        """What every kind of report says; `pieces` are in flight."""
        name = report.dataset
        reported_s = self._monotonic()
        self._report_age.labels(name).set_function(lambda: self._monotonic() - reported_s)
        if report.age_s is not None:
            age_s = report.age_s
            self._age.labels(name).set_function(lambda: age_s + self._monotonic() - reported_s)
        self._in_flight.labels(name).set(report.in_flight_bytes)
        self._pieces.labels(name).set(pieces)
        self._slowest.labels(name).set(report.slowest_put_s)
        self._seal.labels(name).set(report.seal_s)
        for state in self._states:
            self._state.labels(name, state).set(state == report.state)
        self._warnings.labels(name).set(len(report.warnings))
