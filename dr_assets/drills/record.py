"""What a drill puts on record, whatever it recovered: how it ended, what it took, how much damage was caught.

What belongs here: the fact `drill` and the objectives that every drill is held to. What stays out: each scenario.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from dr_assets.drills.planted import Controls
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import Dataset
from dr_assets.proving.record import plain
from dr_assets.vault.facts import record_fact
from dr_assets.vault.vault import Vault

DRILL: Final = "drill"


class Measured(Protocol):
    """What of a restore's measurement matters here."""

    @property
    def ok(self) -> bool:
        """Whether it passed."""
        ...

    @property
    def recovery_duration_s(self) -> float:
        """From the decision until everything was judged."""
        ...

    @property
    def recovery_point_age_s(self) -> float | None:
        """The decision minus the recovery point that came back; None while nobody knows it."""
        ...


def objectives_missed(dataset: Dataset, latest: Measured, controls: Controls) -> list[str]:
    """Every objective that was missed, in words."""
    broken = []
    rto_s, rpo_s = dataset.rto.total_seconds(), dataset.rpo.total_seconds()
    if latest.recovery_duration_s > rto_s:
        broken.append(f"recovery took {latest.recovery_duration_s:.0f} s, the RTO is {rto_s:.0f} s")
    if latest.recovery_point_age_s is None and latest.ok:
        broken.append("the recovered data holds no heartbeat, so its age is unknown")
    elif latest.recovery_point_age_s is not None and latest.recovery_point_age_s > rpo_s:
        broken.append(f"the recovered point was {latest.recovery_point_age_s:.0f} s old, the RPO is {rpo_s:.0f} s")
    if controls.missed:
        broken.append(f"planted damage went unnoticed: {', '.join(controls.missed)}")
    return broken


def record_drill(
    vault: Vault,
    dataset: Dataset,
    verdict: tuple[str, str],
    begin_at: datetime,
    latest: Measured,
    controls: Controls,
    more: Mapping[str, Any],
) -> None:
    """Seal a drill that came to its end; `verdict` is its outcome and the reason."""
    body = {
        "outcome": verdict[0],
        "reason": verdict[1],
        "begin_at": begin_at,
        "recovery_duration_s": latest.recovery_duration_s,
        "recovery_point_age_s": latest.recovery_point_age_s,
        "rto_s": dataset.rto.total_seconds(),
        "rpo_s": dataset.rpo.total_seconds(),
        "controls_planted": controls.planted,
        "controls_caught": controls.caught,
        "controls_missed": list(controls.missed),
        "catch_rate": controls.caught / controls.planted if controls.planted else None,
        **more,
    }
    record_fact(vault, dataset.name, DRILL, plain(body))


def record_end(
    vault: Vault, dataset: Dataset, outcome: str, reason: str, begin_at: datetime, ended: BaseException
) -> None:
    """Seal a drill that did not come to its end. A failure to seal never hides what ended it."""
    body = {"outcome": outcome, "reason": reason, "begin_at": begin_at}
    try:
        record_fact(vault, dataset.name, DRILL, plain(body))
    except DrError as unsealed:
        ended.add_note(f"and this drill is not on record: {unsealed.code}: {unsealed.found}")
