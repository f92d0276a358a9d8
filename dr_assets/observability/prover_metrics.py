"""The resident prover's Prometheus metrics, in a registry of their own.

What belongs here: names, units and meaning of each metric. What stays out: serving them (endpoint.py), what a prover
does (proving/prover/), which this layer doesn't know: what it is told fits the ports below.
"""

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Gauge

_STATES: Final = ("building", "following", "vault_away", "stalled", "failed", "stopped")
_PLACES: Final = ("standby", "clone")


class Point(Protocol):
    """What of a recovery point is shown."""

    @property
    def lsn(self) -> int:
        """Its position."""
        ...

    def age_s(self, now: datetime) -> float | None:
        """How old it is; None while nothing dates it."""
        ...


class Job(Protocol):
    """What of a reconciliation or a deep pass is shown."""

    @property
    def ok(self) -> bool:
        """Whether everything was in order."""
        ...

    @property
    def duration_s(self) -> float:
        """How long it took."""
        ...


class Books(Job, Protocol):
    """What of a reconciliation is shown beside."""

    @property
    def breaks_total(self) -> int:
        """All breaks."""
        ...

    @property
    def place(self) -> str:
        """Where it was read."""
        ...


class Standing(Protocol):
    """What a prover publishes."""

    @property
    def dataset(self) -> str: ...  # noqa: D102 - as its name says
    @property
    def now(self) -> datetime: ...  # noqa: D102 - as its name says
    @property
    def state(self) -> str: ...  # noqa: D102 - as its name says
    @property
    def replayed(self) -> Point | None: ...  # noqa: D102 - as its name says
    @property
    def reconciled(self) -> Point | None: ...  # noqa: D102 - as its name says
    @property
    def end_lsn(self) -> int: ...  # noqa: D102 - as its name says
    @property
    def books(self) -> Books | None: ...  # noqa: D102 - as its name says
    @property
    def deep(self) -> Job | None: ...  # noqa: D102 - as its name says
    @property
    def unbegun(self) -> object | None: ...  # noqa: D102 - as its name says
    @property
    def restarts(self) -> int: ...  # noqa: D102 - as its name says
    @property
    def failures(self) -> int: ...  # noqa: D102 - as its name says
    @property
    def size_bytes(self) -> int: ...  # noqa: D102 - as its name says


class PrometheusProverMetrics:
    """Counts for any number of provers, told apart by the label `dataset`; threads may share it.

    Ages grow while they are scraped: a prover that hangs shows a growing age, not its last good one.
    """

    def __init__(self, registry: CollectorRegistry, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        gauge, of = partial(Gauge, registry=registry), ("dataset",)
        self._age = gauge(
            "dr_prover_recovery_point_age_seconds", "Age of the newest replayed, or reconciled, commit, source clock",
            ("dataset", "point"),
        )  # fmt: skip
        self._position = gauge("dr_prover_position_bytes", "As a WAL position", ("dataset", "point"))
        self._behind = gauge("dr_prover_unreplayed_bytes", "Complete WAL on the sandbox's disk, not yet replayed", of)
        self._state = gauge("dr_prover_state_info", "1 for the state it is in", ("dataset", "state"))
        self._breaks = gauge("dr_prover_breaks", "Breaks that the newest reconciliation found", of)
        self._place = gauge("dr_prover_books_info", "1 for where the books are read", ("dataset", "place"))
        self._seconds = gauge("dr_prover_job_seconds", "How long the newest one took", ("dataset", "job"))
        self._ok = gauge("dr_prover_job_ok", "1 if the newest one passed, 0 if it failed", ("dataset", "job"))
        self._restarts = gauge("dr_prover_restarts", "Beginnings from a base backup since it runs", of)
        self._failures = gauge("dr_prover_failures", "What stopped it from following since it runs", of)
        self._size = gauge("dr_prover_disk_bytes", "What its sandboxes and clones take on disk", of)

    def reported(self, standing: Standing) -> None:
        """Take over what a prover published."""
        name, at_s = standing.dataset, self._monotonic()
        for label, point in (("replayed", standing.replayed), ("reconciled", standing.reconciled)):
            age_s = None if point is None else point.age_s(standing.now)
            if point is not None and age_s is not None:
                self._age.labels(name, label).set_function(partial(self._grown, age_s, at_s))
                self._position.labels(name, label).set(point.lsn)
        if standing.replayed is not None:
            self._behind.labels(name).set(max(0, standing.end_lsn - standing.replayed.lsn))
        for state in _STATES:
            self._state.labels(name, state).set(state == standing.state)
        for label, job in (("books", standing.books), ("deep", standing.deep)):
            if job is not None:
                self._seconds.labels(name, label).set(job.duration_s)
                self._ok.labels(name, label).set(job.ok)
        if standing.restarts or standing.unbegun is not None:
            self._ok.labels(name, "restart").set(standing.unbegun is None)
        if standing.books is not None:
            self._breaks.labels(name).set(standing.books.breaks_total)
            for place in _PLACES:
                self._place.labels(name, place).set(place == standing.books.place)
        self._restarts.labels(name).set(standing.restarts)
        self._failures.labels(name).set(standing.failures)
        self._size.labels(name).set(standing.size_bytes)

    def _grown(self, age_s: float, at_s: float) -> float:
        return age_s + self._monotonic() - at_s
