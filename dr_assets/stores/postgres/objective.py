"""Whether a stored recovery point keeps the promise: fresh enough, locked, and reached by a base backup.

What belongs here: pure rules from what the vault holds to the reason why not. What stays out: reading the vault, the
rules over ages (stores/objective.py), and how a verdict is shown.
"""

from collections.abc import Mapping
from datetime import datetime

from dr_assets.estate.errors import DrError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.objective import NOTHING_STORED, age_trouble
from dr_assets.stores.postgres.capture_facts import Anchor
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.position import RecoveryPoint
from dr_assets.vault.facts import Fact


def rpo_trouble(
    dataset: PostgresDataset, point: RecoveryPoint | None, base: Fact | None, left: Mapping[int, int], now: datetime
) -> str | None:
    """Why the RPO is not met, None if it is. `base` is the newest `snapshot` fact, `left` as for `unfollowed`.

    A recovery point that no base backup can be followed to is none, however fresh it is.
    """
    if point is None:
        return NOTHING_STORED
    troubles = (unfollowed(stream_of(point), base, left), age_trouble(dataset, point, now))
    return "; ".join(trouble for trouble in troubles if trouble) or None


Stream = tuple[str, int, int]


def stream_of(stored: RecoveryPoint | Anchor) -> Stream:
    """System, timeline and the position at which the chain of this recovery point or capture begins."""
    begin = stored.chain_begin if isinstance(stored, RecoveryPoint) else stored.begin
    return stored.system_id, stored.timeline, begin


def stream_of_base(base: Fact) -> tuple[str, int] | None:
    """System and timeline of a base backup (its `snapshot` fact); None for a fact that doesn't tell."""
    system_id, timeline = base.body.get("system_id"), base.body.get("timeline")
    return (system_id, timeline) if isinstance(system_id, str) and isinstance(timeline, int) else None


def unfollowed(stream: Stream, base: Fact | None, left: Mapping[int, int]) -> str | None:
    """Why a restore cannot go from the newest base backup (its `snapshot` fact) on into this chain; None if it can.

    For another server, or behind an accepted gap, the chain begins anew, and only a base backup that begins within it
    leads to its end. After a failover one of an older timeline does, too: `left` tells where each timeline was left on
    the stored way to this one (followed.py), and the base backup must have ended before that.
    """
    system_id, timeline, begin = stream
    chain = f"no base backup follows the beginning of this chain (system {system_id}, timeline {timeline}, "
    chain += f"{format_lsn(begin)}), so nothing of it can be restored: take one"
    if base is None:
        return chain
    start, own = _position(base, "start_lsn"), stream_of_base(base)
    if start is None or own is None:
        return f"{chain}; the newest names no position"
    if own[0] == system_id and own[1] in left:
        stop = _position(base, "stop_lsn")
        beyond = stop is None or stop > left[own[1]]
        return f"{chain}; the newest ends behind where timeline {own[1]} was left" if beyond else None
    if own != (system_id, timeline):
        return f"{chain}; the newest is of system {own[0]}, timeline {own[1]}"
    if start < begin:
        return f"{chain}; the newest begins at {format_lsn(start)}"
    return None


def _position(base: Fact, field: str) -> int | None:
    try:
        return parse_lsn(str(base.body.get(field)))
    except DrError:
        return None
