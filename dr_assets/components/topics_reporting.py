"""What the resident capture of topics tells Dagster: that the recoverable point has moved.

What belongs here: the materialization of `<dataset>/kafka_export`. What stays out: how often it is written and
Dagster's troubles (reporting.py); judging, which the sensors do from the vault itself.
"""

import dagster as dg

from dr_assets.components.evaluations import metadata_of
from dr_assets.components.reporting import CaptureReporter, OpenInstance
from dr_assets.stores.kafka.report import KafkaCaptureReport


def report_kafka_export(instance: dg.DagsterInstance, report: KafkaCaptureReport) -> None:
    """Write one run-less materialization of `<dataset>/kafka_export` with the measured lag, bytes and records."""
    values = {
        "state": report.state,
        "recovery_point_at": report.recovery_point_at,
        "recovery_point_age_s": report.age_s,
        "lag_s": report.lag_s,
        "behind_records": report.behind_records,
        "topics": report.topics,
        "streams": report.streams,
        "packs_stored": report.packs_stored,
        "records_stored": report.records_stored,
        "stored_bytes": report.bytes_stored,
        "next_pack": report.stored,
        "upload_errors": report.upload_errors,
        "throttled_s": report.throttled_s,
        "gaps": report.gaps,
        "writer_epoch": report.writer_epoch,
        "warnings": "; ".join(report.warnings) or None,
    }
    key = dg.AssetKey([report.dataset, "kafka_export"])
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=key, metadata=metadata_of(values)))


def kafka_export_reporter(open_instance: OpenInstance) -> CaptureReporter[KafkaCaptureReport]:
    """The listener of a capture of topics; also an idle one moves its point on, by its heartbeats."""
    return CaptureReporter(open_instance, write=report_kafka_export, point_of=lambda report: report.recovery_point_at)
