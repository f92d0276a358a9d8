"""What is judged of topics without a run: recovery point, proofs, gaps, topics made again.

What belongs here: reading the vault, and the keys of the checks. What stays out: the verdicts (point_judgements.py),
writing them (judging_sensor.py).
"""

from datetime import datetime

import dagster as dg

from dr_assets.components.judgements import Judgement, judge_unreadable
from dr_assets.components.labels import artefact_key
from dr_assets.components.point_judgements import (
    judge_contiguous,
    judge_gaps,
    judge_groups,
    judge_point,
    judge_topics_kept,
)
from dr_assets.components.proofs import judge_proofs, proof_keys
from dr_assets.components.restore_sensor import Standing
from dr_assets.components.vault_resource import VaultResource
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import TopicsDataset
from dr_assets.stores.kafka.capture_facts import TIMELINE, latest_anchor, recreated, unsettled_gaps
from dr_assets.stores.kafka.expired import begin_on_record
from dr_assets.stores.kafka.position import stored_recovery_point
from dr_assets.stores.kafka.resume import StoredEnd, find_stored_end
from dr_assets.stores.objective import age_text, age_trouble
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.format.keys import PACKS
from dr_assets.vault.format.pack import Row
from dr_assets.vault.vault import Vault


def export_check(dataset: TopicsDataset, name: str) -> dg.AssetCheckKey:
    """A check on `<dataset>/kafka_export`: `rpo`, `contiguous`, `topics_kept`, `groups_restorable`."""
    return dg.AssetCheckKey(artefact_key(dataset, "kafka_export"), name)


def judge_topics(resource: VaultResource, dataset: TopicsDataset) -> dict[dg.AssetCheckKey, Judgement]:
    """The verdicts that need no run. What cannot be read is red, with the reason.

    `contiguous` is among them only while a gap is on record: that the chain of packs has no hole is a run's to say.
    """
    own = [export_check(dataset, name) for name in ("rpo", "topics_kept")]
    try:
        vault = resource.open_vault()
        judged = {
            export_check(dataset, "rpo"): _judge_rpo(vault, dataset),
            export_check(dataset, "topics_kept"): judge_topics_kept(recreated(vault, dataset.name)),
            **judge_proofs(vault, dataset),
        }
        gaps = unsettled_gaps(vault, dataset.name)
    except DrError as error:
        return dict.fromkeys((*own, *proof_keys(dataset)), judge_unreadable(error))
    return judged | ({export_check(dataset, "contiguous"): judge_gaps(gaps)} if gaps else {})


def _judge_rpo(vault: Vault, dataset: TopicsDataset) -> Judgement:
    point = stored_recovery_point(vault, dataset)
    more = {} if point is None else {"topics": point.topics, "partitions": point.partitions, "packs": point.packs}
    return judge_point(dataset, point, vault.clock(), more)


def judge_export(vault: Vault, dataset: TopicsDataset) -> dict[dg.AssetCheckKey, Judgement]:
    """`contiguous` and `groups_restorable`: names of packs, the newest table of positions, what was surveyed.

    No pack but the newest is opened: reading everything back is `verified`. Raises VaultError.
    """
    # It knows Kafka's protocol, which takes a second to import and only runs of this check need.
    from dr_assets.stores.kafka.surveyed import surveyed  # noqa: PLC0415 - see above

    anchor = latest_anchor(vault, dataset.name)
    end = None if anchor is None else find_stored_end(vault, dataset.name, anchor.system_id)
    if anchor is None or end is None:
        nothing = Judgement(passed=False, reason="nothing is stored yet: is `dr-assets capture` running?")
        return {export_check(dataset, name): nothing for name in ("contiguous", "groups_restorable")}
    holes = pack_holes(vault, dataset, anchor.system_id, end.end)
    streams = list(end.rows.values())
    return {
        export_check(dataset, "contiguous"): judge_contiguous(
            unsettled_gaps(vault, dataset.name), holes, streams, end.end
        ),
        export_check(dataset, "groups_restorable"): judge_groups(
            surveyed(vault, dataset.name).groups, newest_rows(end)
        ),
    }


def pack_holes(vault: Vault, dataset: TopicsDataset, system_id: str, end: int) -> list[tuple[int, int]]:
    """Numbers of packs that are missing between the oldest that is there and the end, by their names."""
    covered: int | None = None
    begin = begin_on_record(vault, dataset.name, system_id)  # an expiry that was killed leaves some before
    holes = []
    for obj in vault.objects(dataset.name, PACKS, system_id=system_id, timeline=TIMELINE):
        if covered is not None and obj.key.first > max(covered, begin):
            holes.append((max(covered, begin), obj.key.first))
        covered = max(covered or 0, obj.key.last)
    return [*holes, *([(covered or 0, end)] if (covered or 0) < end else [])]


def newest_rows(end: StoredEnd) -> dict[tuple[str, int], Row]:
    """Where each partition stands, by its topic's name: of the newest topic of that name, its newest whole export."""
    chosen: dict[tuple[str, int], Row] = {}
    for row in sorted(end.rows.values(), key=lambda each: (each.began_at, each.complete, each.generation)):
        name = end.topics.get(row.topic_id)
        before = chosen.get((name, row.partition)) if name is not None else None
        if name is not None and (before is None or row.complete or before.topic_id != row.topic_id):
            chosen[name, row.partition] = row
    return chosen


def standing_of(vault: Vault, dataset: TopicsDataset, now: datetime) -> Standing | None:
    """For `restore_when_stale`."""
    point = stored_recovery_point(vault, dataset)
    if point is None or point.at is None:
        return None
    return Standing(point.at, age_trouble(dataset, point, now), age_text(now, point.at))


def restore_needed(vault: Vault, dataset: TopicsDataset) -> tuple[str, str] | None:
    """The cluster that is captured and that no restore test was of, with the reason; None where there was one."""
    point, newest = stored_recovery_point(vault, dataset), latest_fact(vault, dataset.name, "restore_test")
    if point is None or point.at is None or newest is None:
        return None
    tested = newest.body.get("system_id")
    if tested in {None, point.system_id}:
        return None
    return point.system_id, f"the newest restore test is of cluster {tested}, {point.system_id} is captured"
