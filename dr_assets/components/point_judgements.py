"""Verdicts on topics and buckets: recovery points, gaps, topics made again, groups, completeness.

What belongs here: pure functions from what a vault holds and a given `now` to a verdict with its reason. What stays
out: reading the vault; what all kinds of dataset share (judgements.py).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from dr_assets.components.judgements import Judgement, Value
from dr_assets.estate.cadence import with_grace
from dr_assets.estate.durations import format_duration
from dr_assets.estate.model import BucketDataset, Dataset
from dr_assets.stores.kafka.capture_facts import StreamGap
from dr_assets.stores.objective import StoredPoint, age_text, age_trouble
from dr_assets.vault.facts import Fact
from dr_assets.vault.format.canonical import parse_time
from dr_assets.vault.format.pack import Row

TOLD: Final = 3


class Committed(Protocol):
    """What of a group's position matters here."""

    @property
    def offset(self) -> int:
        """The next record that it wants."""
        ...


Groups = Mapping[str, Mapping[tuple[str, int], "Committed"]]
Positions = Mapping[tuple[str, int], Row]


def judge_point(
    dataset: Dataset, point: StoredPoint | None, now: datetime, more: Mapping[str, Value] | None = None
) -> Judgement:
    """Whether everything that is older than the RPO is stored and locked; `more` is shown beside the age."""
    values: dict[str, Value] = {"rpo_s": dataset.rpo.total_seconds(), **(more or {})}
    trouble = age_trouble(dataset, point, now)
    if point is None or point.at is None:
        return Judgement(passed=False, reason=trouble or "nothing is known of the recovery point", values=values)
    values |= {
        "recovery_point_age_s": round((now - point.at).total_seconds(), 3),
        "recovery_point_at": point.at,
        "locked_until": point.retain_until,
    }
    reason = trouble or f"{age_text(now, point.at)}, within the RPO of {format_duration(dataset.rpo)}"
    return Judgement(passed=trouble is None, reason=reason, values=values)


def judge_gaps(gaps: Sequence[tuple[Fact, StreamGap]]) -> Judgement:
    """Red for offsets that retention removed before they were fetched, or that the source has given up since."""
    lost = sum(gap.end - gap.begin for _, gap in gaps)
    values: dict[str, Value] = {"gaps": len(gaps), "offsets_lost": lost}
    if not gaps:
        return Judgement(passed=True, reason="no gap waits to be settled", values=values)
    words = {"gap": "were removed by retention before they were fetched", "diverged": "are other records at the source"}
    told = [f"{gap.topic}-{gap.partition} [{gap.begin}, {gap.end}) {words[gap.why]}" for _, gap in gaps]
    values |= {"oldest_gap_at": gaps[0][0].at}
    return Judgement(passed=False, reason=f"{len(gaps)} gap(s): {_some(told)}", values=values)


def judge_contiguous(
    gaps: Sequence[tuple[Fact, StreamGap]], holes: Sequence[tuple[int, int]], streams: Sequence[Row], packs: int
) -> Judgement:
    """Red for a gap on record or a missing pack; a warning while some partition was never fetched to its end."""
    open_gaps = judge_gaps(gaps)
    lacking = sum(not row.complete for row in streams)
    values: dict[str, Value] = {**open_gaps.values, "packs": packs, "streams": len(streams), "holes": len(holes)}
    if not open_gaps.passed:
        return Judgement(passed=False, reason=open_gaps.reason, values=values)
    if holes:
        reason = f"{len(holes)} hole(s) in the packs, the first is [{holes[0][0]}, {holes[0][1]})"
        return Judgement(passed=False, reason=reason, values=values)
    if lacking:
        reason = f"{lacking} partition(s) were never fetched to their end yet"
        return Judgement(passed=False, reason=reason, values=values, is_warning=True)
    return Judgement(
        passed=True, reason=f"no hole up to pack {packs}, {len(streams)} streams without a gap", values=values
    )


def judge_topics_kept(recreated: Sequence[Fact]) -> Judgement:
    """Red for topics that were deleted, or deleted and made again, until a person has settled it."""
    values: dict[str, Value] = {"topics": len(recreated)}
    if not recreated:
        return Judgement(passed=True, reason="no topic was deleted or made again", values=values)
    told = [
        f"{fact.body.get('topic')} was {'deleted' if fact.body.get('now') is None else 'deleted and made again'}"
        for fact in recreated
    ]
    values |= {"since": recreated[0].at}
    reason = f"{_some(told)}: what it held before is in the vault; `dr-assets kafka settle` when that is dealt with"
    return Judgement(passed=False, reason=reason, values=values)


def judge_groups(groups: Groups, stored: Positions) -> Judgement:
    """Red where a group's next record lies before the first stored one: restored, it would skip what it never read.

    A group that stands beyond the last stored record reads nothing twice: it is restored at the end of what there is.
    """
    behind: list[str] = []
    offsets = ahead = 0
    for group, committed in groups.items():
        for (topic, partition), at in committed.items():
            part = stored.get((topic, partition))
            if part is None:
                continue
            offsets += 1
            ahead += at.offset > part.next
            if at.offset < part.begin:
                behind.append(f"{group} stands at {topic}-{partition}:{at.offset}, stored from {part.begin}")
    values: dict[str, Value] = {"groups": len(groups), "offsets": offsets, "ahead": ahead, "behind": len(behind)}
    if behind:
        return Judgement(passed=False, reason=f"{len(behind)} offset(s) lead nowhere: {_some(behind)}", values=values)
    if not groups:
        return Judgement(passed=True, reason="no consumer group has committed anything", values=values)
    return Judgement(
        passed=True, reason=f"{offsets} offsets of {len(groups)} groups lead into the export", values=values
    )


def judge_complete(dataset: BucketDataset, newest: Fact | None, now: datetime) -> Judgement:
    """Whether the newest comparison saw the whole listing and everything in it is stored; red when nobody compares."""
    if newest is None:
        return Judgement(passed=False, reason="nothing was copied yet: run `<dataset>/bucket_copy`")
    values = copy_values(newest)
    is_complete, at = newest.body.get("is_complete"), newest.at
    if newest.body.get("is_whole_listing") is False:  # single names that events told of: it has compared nothing
        is_complete, compared_at = newest.body.get("compared_complete"), newest.body.get("compared_at")
        if compared_at is None:
            return Judgement(passed=False, reason="the listing was never compared: run `<dataset>/bucket_copy`")
        at = parse_time(compared_at, f"{newest.key}: compared_at")
    if is_complete is not True:
        unread = newest.body.get("unread")
        reason = f"{unread or 'some'} version(s) of the listing could not be read: the log of the run names why"
        return Judgement(passed=False, reason=reason, values=values)
    if now - at > with_grace(dataset.copy_every):
        reason = f"the newest comparison was {at:%Y-%m-%d %H:%M} UTC, declared every"
        return Judgement(passed=False, reason=f"{reason} {format_duration(dataset.copy_every)}", values=values)
    return Judgement(passed=True, reason="everything that the newest listing showed is stored", values=values)


def copy_values(fact: Fact) -> dict[str, Value]:
    """The numbers of a `bucket_copy` fact: its own, and those of what was listed and what is held."""
    values: dict[str, Value] = {
        name: value for name, value in fact.body.items() if isinstance(value, int | float) and value is not None
    }
    for part in ("listed", "held"):
        tally = fact.body.get(part)
        if isinstance(tally, dict):
            values |= {f"{part}_{name}": value for name, value in tally.items() if isinstance(value, int | float)}
    return values


def _some(told: Sequence[str]) -> str:
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return "; ".join(told[:TOLD]) + more
