"""From a judgement to what Dagster shows: check results, metadata, and whether it is worth writing again.

What belongs here: translation and the write-on-change rule. What stays out: judging (judgements.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg

from dr_assets.components.judgements import Judgement, Value

# The event log keeps everything for ever: an unchanged verdict is repeated this often and no more.
REPEAT: Final = timedelta(minutes=1)


def metadata_of(values: Mapping[str, Value]) -> dict[str, dg.MetadataValue]:
    """Typed metadata: numbers plot themselves, times show in the reader's zone; what is None is left out."""
    return {name: _metadata_value(value) for name, value in values.items() if value is not None}


def check_result(key: dg.AssetCheckKey, judgement: Judgement) -> dg.AssetCheckResult:
    """A check's result inside a run."""
    return dg.AssetCheckResult(
        passed=judgement.passed,
        severity=_severity(judgement),
        asset_key=key.asset_key,
        check_name=key.name,
        description=judgement.reason,
        metadata=metadata_of(judgement.values),
    )


def evaluation(key: dg.AssetCheckKey, judgement: Judgement) -> dg.AssetCheckEvaluation:
    """A check's result without a run."""
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=judgement.passed,
        severity=_severity(judgement),
        description=judgement.reason,
        metadata=metadata_of(judgement.values),
    )


def _severity(judgement: Judgement) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.WARN if judgement.is_warning else dg.AssetCheckSeverity.ERROR


@dataclass(frozen=True, slots=True)
class Recorded:
    """The newest verdict that the event log shows for a check."""

    passed: bool
    at: datetime
    description: str
    is_warning: bool = False


def recorded_verdicts(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, Recorded]:
    """Checks that were never judged, or whose newest execution is only planned or under way, are left out."""
    verdicts = {}
    for key, record in instance.event_log_storage.get_latest_asset_check_execution_by_key(keys).items():
        shown = record.evaluation
        # For a planned execution Dagster hands out another class under the same name, and it has no verdict.
        if record.event is not None and isinstance(shown, dg.AssetCheckEvaluation):
            at = datetime.fromtimestamp(record.event.timestamp, UTC)
            warned = not shown.passed and shown.severity == dg.AssetCheckSeverity.WARN
            verdicts[key] = Recorded(shown.passed, at, shown.description or "no description", warned)
    return verdicts


def worth_writing(
    instance: dg.DagsterInstance, judged: Mapping[dg.AssetCheckKey, Judgement], now: datetime
) -> dict[dg.AssetCheckKey, Judgement]:
    """Those whose recorded verdict differs or is a minute old.

    The comparison is with what the log shows, not with what was written last: a verdict that somebody else posted to
    the web server is overwritten at the next look.
    """
    shown = recorded_verdicts(instance, list(judged))
    return {
        key: judgement
        for key, judgement in judged.items()
        if key not in shown or _differs(shown[key], judgement) or now - shown[key].at >= REPEAT
    }


def _differs(shown: Recorded, judgement: Judgement) -> bool:
    warned = not judgement.passed and judgement.is_warning
    return (shown.passed, shown.is_warning) != (judgement.passed, warned)


def _metadata_value(value: Value) -> dg.MetadataValue:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    if isinstance(value, datetime):
        return dg.MetadataValue.timestamp(value)
    return dg.MetadataValue.text(str(value))
