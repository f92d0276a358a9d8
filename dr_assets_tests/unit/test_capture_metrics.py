import http.client
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from dr_assets.estate.errors import PolicyError
from dr_assets.observability.capture_metrics import PrometheusCaptureMetrics
from dr_assets.observability.endpoint import Endpoint, metrics_endpoint
from dr_assets.stores.postgres.report import CaptureReport
from dr_assets.stores.postgres.slot import SlotStatus
from dr_assets.stores.postgres.slot_room import Room

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SLOT = SlotStatus("dr_ledger", "physical", True, 7, "extended", 900, 123, None)
REPORT = CaptureReport(
    dataset="ledger", state="streaming", at=AT, system_id="7", timeline=1, writer_epoch=1, stored_lsn=1000,
    received_lsn=1200, server_lsn=1500, recovery_point_at=AT, age_s=3.0, lag_s=0.2, linger_s=0.5, seal_s=0.01,
    slowest_put_s=0.1, in_flight_pieces=2, in_flight_bytes=200, segments_stored=4, bytes_stored=1000, upload_errors=1,
    slot=SLOT, trouble=None,
)  # fmt: skip


def _value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"dataset": "ledger", **labels})


def _get(endpoint: Endpoint) -> str:
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_ages_grow_while_nothing_is_reported() -> None:
    """A capture that hangs shows a growing age at each scrape, never its last good one."""
    now_s, registry = [100.0], CollectorRegistry()
    PrometheusCaptureMetrics(registry, monotonic=lambda: now_s[0]).reported(REPORT)
    assert _value(registry, "dr_capture_recovery_point_age_seconds") == 3.0
    now_s[0] += 60
    assert _value(registry, "dr_capture_recovery_point_age_seconds") == 63.0
    assert _value(registry, "dr_capture_report_age_seconds") == 60.0


def test_a_report_becomes_gauges() -> None:
    """Position, backlog, what is in flight and the slot's state are all to be had."""
    registry = CollectorRegistry()
    metrics = PrometheusCaptureMetrics(registry)
    metrics.reported(REPORT)
    assert _value(registry, "dr_capture_unstored_bytes") == 500
    assert _value(registry, "dr_capture_in_flight_bytes") == 200
    assert _value(registry, "dr_capture_slot_retained_bytes") == 123
    assert _value(registry, "dr_capture_slot_wal_status_info", wal_status="extended") == 1
    assert _value(registry, "dr_capture_slot_wal_status_info", wal_status="lost") == 0
    room = Room(10, 100, 60.0, "the slot is lost")
    metrics.reported(
        replace(REPORT, durability="degraded", spooled_bytes=5, spool_max_bytes=50, warnings=("a",), slot_room=room)
    )
    assert _value(registry, "dr_capture_durability_info", durability="degraded") == 1
    assert _value(registry, "dr_capture_durability_info", durability="synchronous") == 0
    assert _value(registry, "dr_capture_spooled_bytes") == 5
    assert _value(registry, "dr_capture_spool_max_bytes") == 50
    assert _value(registry, "dr_capture_warnings") == 1
    assert _value(registry, "dr_capture_slot_limit_bytes") == 100
    assert _value(registry, "dr_capture_slot_full_in_seconds") == 60
    metrics.reported(replace(REPORT, state="reconnecting"))
    assert _value(registry, "dr_capture_state_info", state="streaming") == 0
    assert _value(registry, "dr_capture_state_info", state="reconnecting") == 1


def test_counters_count_and_the_lag_is_a_histogram() -> None:
    """Bytes, segments, upload errors and commit-to-locked samples add up per dataset."""
    registry = CollectorRegistry()
    metrics = PrometheusCaptureMetrics(registry)
    metrics.received("ledger", 10)
    metrics.stored("ledger", 10, 6)
    metrics.stored("other", 1000, 1000)
    metrics.upload_failed("ledger")
    metrics.lags("ledger", [0.04, 0.3, 700])
    assert _value(registry, "dr_capture_received_bytes_total") == 10
    assert _value(registry, "dr_capture_segment_bytes_total") == 10
    assert _value(registry, "dr_capture_object_bytes_total") == 6
    assert _value(registry, "dr_capture_segments_total") == 1
    assert _value(registry, "dr_capture_upload_errors_total") == 1
    assert _value(registry, "dr_capture_ingestion_lag_seconds_count") == 3
    assert _value(registry, "dr_capture_ingestion_lag_seconds_bucket", le="0.05") == 1
    assert _value(registry, "dr_capture_ingestion_lag_seconds_bucket", le="0.3") == 2


def test_the_endpoint_serves_its_own_registry_and_ends() -> None:
    """One registry, nothing of the process beside it, and a port that is free again afterwards."""
    registry = CollectorRegistry()
    PrometheusCaptureMetrics(registry).reported(REPORT)
    with metrics_endpoint(registry) as endpoint:
        text = _get(endpoint)
        with pytest.raises(PolicyError, match=r"metrics\.port_taken"), metrics_endpoint(registry, port=endpoint.port):
            pass
    assert 'dr_capture_recovery_point_age_seconds{dataset="ledger"}' in text
    assert "python_info" not in text
    with pytest.raises(ConnectionRefusedError):
        _get(endpoint)


def test_metrics_stay_on_loopback() -> None:
    """Plain HTTP without a login is not offered to a network."""
    with (
        pytest.raises(PolicyError, match=r"metrics\.not_loopback"),
        metrics_endpoint(CollectorRegistry(), host="0.0.0.0"),  # noqa: S104 - it is refused
    ):
        pass
