"""Verdicts around the WAL chain: durability let go, a failover, the commits it left behind, room running out.

What belongs here: pure functions from sealed facts and capture reports to a verdict. What stays out: reading either,
and the promises themselves (judgements.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from dr_assets.components.judgements import Judgement, Value
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.objective import age_text
from dr_assets.stores.postgres.capture_facts import Anchor
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.objective import stream_of_base
from dr_assets.stores.postgres.position import RecoveryPoint
from dr_assets.stores.postgres.report import CaptureReport
from dr_assets.stores.postgres.slot import SlotStatus
from dr_assets.stores.postgres.slot_room import RED_SHARE, YELLOW_SHARE, Room
from dr_assets.stores.postgres.sync_standby import SYNCHRONOUS
from dr_assets.vault.facts import Fact

_SHOWN: Final = 5


def judge_durability(
    newest: Fact | None, dataset: PostgresDataset, point: RecoveryPoint | None, now: datetime
) -> Judgement:
    """Whether commits wait for the vault, by the newest sealed `durability` fact of a dataset declared zero loss.

    What was sealed holds up to the newest recovery point. Past it, the source may have been let go with nobody there to
    seal it, so where `point` is older than the RPO nothing is known.
    """
    if newest is None:
        return Judgement(passed=False, reason="no commit has waited for the vault yet: start the capture")
    mode, since = str(newest.body.get("mode")), str(newest.body.get("since"))
    at = None if point is None else point.at
    values: dict[str, Value] = {
        "mode": mode, "since": since, "reason": str(newest.body.get("reason")), "recovery_point_at": at,
    }  # fmt: skip
    if mode != SYNCHRONOUS:
        reason = f"since {since} commits do not wait for the vault ({mode}): {newest.body.get('reason')}"
        return Judgement(passed=False, reason=reason, values=values)
    if at is None or now - at > dataset.rpo:
        known = "no recovery point is known" if at is None else age_text(now, at)
        reason = f"commits waited for the vault since {since}; whether they still do nobody has sealed: {known}"
        return Judgement(passed=False, reason=reason, values=values)
    return Judgement(passed=True, reason=f"commits wait for the vault since {since}, up to {at}", values=values)


def judge_timeline(base: Fact | None, anchor: Anchor | None) -> Judgement:
    """Whether the newest base backup is of the system and timeline that is captured now; yellow while it isn't.

    A restore may well lead over the switch: whether it does is what `rpo` and `contiguous` say.
    """
    if anchor is None or base is None:
        return Judgement(passed=True, reason="there was no failover since the newest base backup")
    own = stream_of_base(base)
    values: dict[str, Value] = {"system_id": anchor.system_id, "timeline": anchor.timeline}
    if own == (anchor.system_id, anchor.timeline):
        return Judgement(passed=True, reason=f"timeline {anchor.timeline}, as the newest base backup", values=values)
    if own is not None and own[0] == anchor.system_id:
        what = f"the source failed over: timeline {anchor.timeline} is captured, the newest base backup is of {own[1]}"
    else:
        what = f"the source is another system now ({anchor.system_id}): it was upgraded, loaded anew or replaced"
    return Judgement(passed=False, reason=f"{what}; a base backup is due at once", values=values, is_warning=True)


def judge_diverged(found: Sequence[Fact], settled: Sequence[Fact]) -> Judgement:
    """Whether every commit that a failover left behind was settled by a person; red until then.

    `found` are the `diverged` facts, `settled` the `diverged_settled` facts that name them.
    """
    names = {str(fact.body.get("fact")) for fact in settled}
    lost = [fact for fact in found if _commits(fact) and str(fact.key) not in names]
    if not lost:
        return Judgement(passed=True, reason="no commit that a failover left behind waits for a person")
    newest = lost[-1]
    total = sum(_commits(fact) for fact in lost)
    values: dict[str, Value] = {"commits": total, "episodes": len(lost), "fact": str(newest.key), **_listed(newest)}
    where = f"after {newest.body.get('switch_lsn')} of timeline {newest.body.get('timeline')}"
    reason = (
        f"{total} commit(s) {where} are stored and not in the ledger any more: a failover left them behind. "
        "Find out what was paid, bet or booked with them, then `dr-assets settle`"
    )
    return Judgement(passed=False, reason=reason, values=values)


def judge_backpressure(report: CaptureReport) -> Judgement:
    """Whether the source's room for the slot and the capture's spool are far from their ends; yellow, then red."""
    room = judge_room(report.slot, report.slot_room)
    share = report.spooled_bytes / report.spool_max_bytes if report.spool_max_bytes else 0.0
    values = {**room.values, "spooled_bytes": report.spooled_bytes, "spool_max_bytes": report.spool_max_bytes}
    if share < YELLOW_SHARE:
        return replace(room, values=values)
    limit = report.spool_max_bytes >> 20
    spool = f"the spool is {share:.0%} full ({report.spooled_bytes >> 20} of {limit} MiB): is the vault away?"
    reason = spool if room.passed else f"{room.reason}; {spool}"
    yellow = share < RED_SHARE and (room.passed or room.is_warning)
    return Judgement(passed=False, reason=reason, values=values, is_warning=yellow)


def judge_room(slot: SlotStatus | None, room: Room | None) -> Judgement:
    """Whether the source may go on keeping WAL for the slot: red when it is lost or gone, or nearly at its end."""
    if slot is None or room is None:
        return Judgement(passed=False, reason="there is no slot: nothing keeps the WAL that is not captured yet")
    values: dict[str, Value] = {
        "slot_wal_status": slot.wal_status,
        "slot_retained_bytes": slot.retained_bytes,
        "slot_limit_bytes": room.limit_bytes,
        "slot_full_in_s": room.full_in_s,
    }
    if slot.is_lost:
        return Judgement(
            passed=False, reason=f"slot {slot.name} is lost: WAL is gone that was not captured", values=values
        )
    alarm = room.alarm()
    if alarm is None:
        return Judgement(passed=True, reason="slot and spool have room", values=values)
    return Judgement(passed=False, reason=alarm, values=values, is_warning=(room.share or 0.0) < RED_SHARE)


def _commits(fact: Fact) -> int:
    total = fact.body.get("commits_total")
    return total if isinstance(total, int) else 0


def _listed(fact: Fact) -> dict[str, Value]:
    """The first commits, for the page; all of them are in the fact."""
    commits = fact.body.get("commits")
    rows = [row for row in commits if isinstance(row, dict)] if isinstance(commits, list) else []
    shown = {f"commit_{n}": f"xid {row.get('xid')} at {row.get('at')}" for n, row in enumerate(rows[:_SHOWN], 1)}
    return {**shown}


def describe_stream(anchor: Anchor) -> str:
    """The captured stream, for run keys and logs."""
    return f"{anchor.system_id}-{anchor.timeline}-{format_lsn(anchor.begin).replace('/', '.')}"
