"""The Prometheus metrics of replication, in a registry of their own.

What belongs here: names, units and meaning of each metric. What stays out: serving them (endpoint.py), passes
(vault/replication).
"""

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from dr_assets.vault.replication import Pass

_ROUTE: Final = ("source", "replica")


class PrometheusReplicationMetrics:
    """Counts for any number of routes, told apart by `source` and `replica`; threads may share it.

    Lags grow while they are scraped: a replicator that hangs shows a growing lag, not its last good one.
    """

    def __init__(self, registry: CollectorRegistry, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        of = (*_ROUTE, "dataset")
        self._lag = gauge("dr_replication_lag_seconds", "Since the moment up to which all that was put is proven", of)
        self._unproven = gauge(
            "dr_replication_unproven_objects", "Objects that the replica can't be counted on for", of
        )
        self._objects = gauge("dr_replication_objects", "Objects that have to lie in the replica", of)
        self._behind = gauge(
            "dr_replication_unproven_wal_bytes", "WAL in the source's vault beyond the proven position", (*of, "place")
        )
        self._copied = counter("dr_replication_copied_objects", "Objects that our replicator brought", _ROUTE)
        self._bytes = counter("dr_replication_copied_bytes", "Sealed bytes that our replicator brought", _ROUTE)
        self._asked = counter("dr_replication_asked_objects", "Objects that both regions were asked for", _ROUTE)
        self._sampled = counter("dr_replication_sampled_objects", "Proven objects that were read in full again", _ROUTE)
        self._failed = counter("dr_replication_failed_passes", "Passes that a store cut short", _ROUTE)
        self._age = gauge("dr_replication_pass_age_seconds", "Since the newest whole pass ended", _ROUTE)

    def passed(self, source: str, done: Pass, now: datetime) -> None:
        """Take over what a pass found at `now`."""
        found, tally, at_s = done.standing, done.tally, self._monotonic()
        route = (source, found.replica)
        for name, dataset in found.datasets.items():
            lag_s = found.lag(now, name).total_seconds()
            self._lag.labels(*route, name).set_function(partial(self._grown, lag_s, at_s))
            self._unproven.labels(*route, name).set(dataset.unproven)
            self._objects.labels(*route, name).set(dataset.objects)
        for prefix, place in found.places.items():
            if place.stored_to is not None and "/wal/" in prefix:
                behind = place.stored_to - (place.proven_to or 0)
                self._behind.labels(*route, place.dataset, prefix).set(behind)
        self._copied.labels(*route).inc(tally.copied)
        self._bytes.labels(*route).inc(tally.copied_bytes)
        self._asked.labels(*route).inc(tally.asked)
        self._sampled.labels(*route).inc(tally.sampled)
        self._age.labels(*route).set_function(partial(self._grown, 0.0, at_s))

    def _grown(self, age_s: float, at_s: float) -> float:
        return age_s + self._monotonic() - at_s

    def failed(self, source: str, replica: str) -> None:
        """A pass did not come to its end."""
        self._failed.labels(source, replica).inc()
