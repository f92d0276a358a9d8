"""A dataset's sensor that judges from the vault every few seconds, without launching a run.

What belongs here: looking, and writing verdicts worth writing. What stays out: reading the vault and the verdicts; each
kind of dataset brings them along.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from dr_assets.components.evaluations import evaluation, worth_writing
from dr_assets.components.judgements import Judgement
from dr_assets.components.vault_resource import VaultResource, resource_key
from dr_assets.estate.model import Dataset

INTERVAL_S: Final = 5
Judged = Mapping[dg.AssetCheckKey, Judgement]


def judging_sensor(
    dataset: Dataset, judge: Callable[[VaultResource], Judged], shown: dg.AssetCheckKey
) -> dg.SensorDefinition:
    """`<dataset>_rpo`: what `judge` says, on change and once a minute; `shown` is the verdict that a tick tells.

    `judge` never raises what a person has to act on: a vault that cannot be read makes its verdicts red.
    """

    @dg.sensor(
        name=f"{dataset.name}_rpo",
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Judges the recovery point's age and the newest proofs from the vault itself. Launches nothing.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def rpo(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        judged = judge(getattr(context.resources, resource_key(dataset.vault)))
        due = worth_writing(context.instance, judged, datetime.now(UTC))
        reason = judged[shown].reason
        if not due:
            return dg.SkipReason(reason)
        return dg.SensorResult(skip_reason=reason, asset_events=[evaluation(*each) for each in due.items()])

    return rpo
