"""What a resident prover tells Dagster: that the proven recovery point has moved, and how its checks stand.

What belongs here: the materialization of `<dataset>/proven` and the verdicts of a prover that speaks. What stays out:
how often, and Dagster's troubles (reporting.py); a prover that is silent, which the dataset's sensor judges.
"""

from datetime import UTC, datetime

import dagster as dg

from dr_assets.components.evaluations import evaluation, metadata_of, worth_writing
from dr_assets.components.proven import judge_proven, proven_values
from dr_assets.components.reporting import INTERVAL_S, CaptureReporter, OpenInstance
from dr_assets.estate.model import PostgresDataset
from dr_assets.proving.prover.points import Proven


def proven_reporter(
    open_instance: OpenInstance, dataset: PostgresDataset, *, interval_s: float = INTERVAL_S
) -> CaptureReporter[Proven]:
    """The listener of one dataset's prover. A point that stands still is not reported again: its asset goes stale."""

    def judge(instance: dg.DagsterInstance, proven: Proven) -> None:
        judged = judge_proven(dataset, proven, datetime.now(UTC))
        for key, verdict in worth_writing(instance, judged, datetime.now(UTC)).items():
            instance.report_runless_asset_event(evaluation(key, verdict))

    return CaptureReporter(open_instance, write=report_proven, point_of=_point, judge=judge, interval_s=interval_s)


def report_proven(instance: dg.DagsterInstance, proven: Proven) -> None:
    """Write one run-less materialization of `<dataset>/proven`."""
    key = dg.AssetKey([proven.dataset, "proven"])
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key=key, metadata=metadata_of(proven_values(proven)))
    )


def _point(proven: Proven) -> object | None:
    """What has to move for a report: replay with a date, while nothing is wrong."""
    replayed = proven.replayed
    if replayed is None or replayed.at is None or proven.trouble is not None:
        return None
    return replayed.at
