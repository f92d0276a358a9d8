"""The resident replicator: what Prometheus sees of it, and what it waits for."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from dr_assets.cli import replicate as command
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.observability.replication_metrics import PrometheusReplicationMetrics
from dr_assets.vault.facts import facts
from dr_assets.vault.replication import Options, routes_of
from dr_assets.vault.replication.standing import DATASET, replication_kind
from dr_assets.vault.storage.refusals import unreachable
from dr_assets_tests.unit.test_replication import Regions


def test_a_lag_grows_while_it_is_scraped() -> None:
    """Of a replicator that hangs the last good number is not shown for ever; what is unproven is counted by dataset."""
    regions = Regions()
    regions.mirror()
    del regions.there.rows[regions.some()]
    now_s = [0.0]
    registry = CollectorRegistry()
    metrics = PrometheusReplicationMetrics(registry, monotonic=lambda: now_s[0])
    metrics.passed("primary", regions.pass_(Options(samples=0)), regions.clock.now)
    route = {"source": "primary", "replica": "standby"}
    ledger = {**route, "dataset": "ledger"}
    first = registry.get_sample_value("dr_replication_lag_seconds", ledger)
    assert first == 120.0
    now_s[0] = 60.0
    assert registry.get_sample_value("dr_replication_lag_seconds", ledger) == first + 60
    assert registry.get_sample_value("dr_replication_pass_age_seconds", route) == 60.0
    assert registry.get_sample_value("dr_replication_unproven_objects", ledger) == 1
    assert registry.get_sample_value("dr_replication_objects", ledger) == len(regions.here.rows) - 2
    assert b"dr_replication_unproven_wal_bytes" in generate_latest(registry)
    metrics.failed("primary", "standby")
    assert registry.get_sample_value("dr_replication_failed_passes_total", route) == 1
    metrics.passed("primary", regions.pass_(Options(copy=True)), regions.clock.now)
    assert registry.get_sample_value("dr_replication_unproven_objects", ledger) == 0
    assert registry.get_sample_value("dr_replication_copied_objects_total", route) >= 1


def test_a_resident_waits_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that a store cuts short is told and counted, and the next one does its work; its word is said seldom."""
    regions, stop, away = Regions(), threading.Event(), [True]
    estate = load_estate(default_defs_dir()).only("ledger")

    def opened(_: object, name: str, **__: object) -> Any:
        return regions.vault(regions.here if name == "primary" else regions.there, name)

    def pause(_: float) -> bool:
        if regions.there.rows and not away[0]:
            stop.set()
        elif away[0]:
            away[0] = False
        regions.clock.now += timedelta(minutes=2)
        return stop.is_set()

    monkeypatch.setattr(command, "vault_of", opened)
    monkeypatch.setattr(regions.there, "list_versions", _refusing(regions.there.list_versions, away))
    monkeypatch.setattr(regions.there, "list_level", _refusing(regions.there.list_level, away))
    monkeypatch.setattr(stop, "wait", pause)
    (route,) = routes_of(estate)
    routed = command._Routed(estate, route, prove_only=False)
    routed._copies = True
    registry = CollectorRegistry()
    command._stay([routed], PrometheusReplicationMetrics(registry), 1.0, stop)
    labels = {"source": "primary", "replica": "standby"}
    assert registry.get_sample_value("dr_replication_failed_passes_total", labels) == 1
    assert regions.standing().unproven_count == 0
    told = list(facts(regions.vault(regions.here, "primary"), DATASET, replication_kind("standby")))
    assert len(told) == 1
    routed.pass_()
    assert len(list(facts(regions.vault(regions.here, "primary"), DATASET, replication_kind("standby")))) == 1


def _refusing(method: Any, away: list[bool]) -> Any:
    def asked(*arguments: Any) -> Any:
        if away[0]:
            raise unreachable("standby", "away")
        return method(*arguments)

    return asked
