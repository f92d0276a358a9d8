"""Whether what a prover published is good enough.

What belongs here: pure rules from a published standing and a given `now` to what is wrong, in words. What stays out:
reading it, and how a verdict is shown (components/, cli/).
"""

from datetime import datetime, timedelta
from typing import Final

from dr_assets.estate.cadence import with_grace
from dr_assets.estate.durations import format_duration
from dr_assets.estate.model import PostgresDataset
from dr_assets.estate.prove import Prove
from dr_assets.proving.prover.points import Point, Proven
from dr_assets.stores.objective import ahead_of

# A prover that has nothing else to say says this often that it lives.
SAID_EVERY: Final = timedelta(minutes=3)
# Silent for longer than this it counts as dead.
SILENT_AFTER: Final = timedelta(minutes=8)
_NEVER: Final = "no prover has published anything yet: start `dr-assets prove`"


def prove_rules(dataset: PostgresDataset) -> Prove:
    """What is declared, or what holds where nothing is."""
    return dataset.prove or Prove()


def replayed_trouble(dataset: PostgresDataset, proven: Proven | None, now: datetime) -> str | None:
    """Why the replayed recovery point can't be counted on; None if it can.

    Its age is measured at the moment of publishing: between two words of a prover that lives nothing is known.
    """
    if proven is None:
        return _NEVER
    if (silent := _silence(proven, now)) is not None:
        return silent
    if proven.trouble is not None:
        return f"{proven.trouble.code}: {proven.trouble.found}"
    if proven.replayed is None:
        return "nothing is replayed yet"
    return _age_trouble(dataset, proven, proven.replayed)


def _age_trouble(dataset: PostgresDataset, proven: Proven, replayed: Point) -> str | None:
    age_s = replayed.age_s(proven.now)
    if age_s is None or replayed.at is None:
        return "what is replayed holds no heartbeat yet, so it has no age"
    ahead = ahead_of(proven.now, replayed.at)
    if ahead is not None:
        return f"the replayed recovery point is {ahead}"
    if age_s > dataset.rpo.total_seconds():
        return f"the newest replayed commit was {age_s:.1f} s old, over the RPO of {format_duration(dataset.rpo)}"
    return None


def reconciled_trouble(dataset: PostgresDataset, proven: Proven | None, now: datetime) -> str | None:
    """Why the reconciled recovery point can't be counted on: breaks, or none for longer than its schedule allows."""
    if proven is None:
        return _NEVER
    if proven.books is not None and not proven.books.ok:
        return proven.books.reason
    if proven.reconciled is None:
        return "nothing is reconciled yet"
    if proven.deep is not None and not proven.deep.ok:
        return f"the deep pass failed: {proven.deep.reason}"
    at = proven.reconciled.at or (proven.books.end_at if proven.books is not None else proven.now)
    return _reconciled_age_trouble(dataset, at, now) or _late(dataset, proven, now)


def _reconciled_age_trouble(dataset: PostgresDataset, at: datetime, now: datetime) -> str | None:
    if (ahead := ahead_of(now, at)) is not None:  # or a clock that went ahead would keep it young
        return f"the reconciled recovery point is {ahead}"
    allowed = reconciled_window(dataset)
    if now - at <= allowed:
        return None
    age_s = (now - at).total_seconds()
    return f"the newest reconciled commit is {age_s:.0f} s old, {format_duration(allowed)} are allowed by the schedule"


def reconciled_window(dataset: PostgresDataset) -> timedelta:
    """How old the reconciled point may get: its interval twice (one may run late), and the RPO."""
    return 2 * prove_rules(dataset).reconcile_every + dataset.rpo + SAID_EVERY


def _late(dataset: PostgresDataset, proven: Proven, now: datetime) -> str | None:
    if proven.unbegun is not None:
        return f"nothing can be begun from a base backup: {proven.unbegun.code}: {proven.unbegun.found}"
    rules = prove_rules(dataset)
    for what, every, at in (
        ("deep pass", rules.deep_every, None if proven.deep is None else proven.deep.end_at),
        ("beginning from a base backup", rules.restart_every, proven.restarted_at),
    ):
        if now - (at or proven.begin_at) > with_grace(every):
            return f"the last {what} is overdue: declared every {format_duration(every)}"
    return None


def _silence(proven: Proven, now: datetime) -> str | None:
    if proven.state == "stopped":
        trouble = "" if proven.trouble is None else f", in trouble: {proven.trouble.code}: {proven.trouble.found}"
        return f"nobody follows any more: the prover was stopped at {proven.now:%Y-%m-%d %H:%M:%S} UTC{trouble}"
    if now - proven.now <= SILENT_AFTER:
        return None
    return f"the prover has been silent since {proven.now:%Y-%m-%d %H:%M:%S} UTC: is `dr-assets prove` running?"
