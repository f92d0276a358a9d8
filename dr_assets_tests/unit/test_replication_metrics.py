"""What Prometheus sees of replication."""

from prometheus_client import CollectorRegistry, generate_latest

from dr_assets.observability.replication_metrics import PrometheusReplicationMetrics
from dr_assets.vault.replication import Options
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
