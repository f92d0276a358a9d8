"""The vault's export as the source of a restore: one name for each topic, ends as of a time.

What belongs here: which of an export's topics and offsets a restore brings back. What stays out: reading packs
(export.py), what happens with them.

A restore brings a topic back as it was: from the first offset that its source still had. What the vault holds from
before is brought back when it is asked for, as after a retention that was set too short.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from dr_assets.stores.kafka.erase import TopicEraser
from dr_assets.stores.kafka.export import Export, ExportPartition, ExportTopic, open_export
from dr_assets.stores.kafka.restore_plan import Cut
from dr_assets.stores.kafka.restore_source import Commit, Pinned, SourceGap, SourcePartition, SourceTopic, Where
from dr_assets.stores.kafka.surveyed import surveyed
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.vault import Vault

# Packs that were cut so much later may hold records of a moment: broker and capture were behind, or apart, by as much.
# Further ones are looked into where the capture had not everything of that moment yet.
_LATER: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class ExportSource:
    """An export as of one moment; `ends` are where its partitions are to end. Made by `export_source`.

    What erased people's records said is gone from its batches where there is an `eraser`.
    """

    export: Export
    topics: Mapping[str, SourceTopic]
    groups: Mapping[str, Mapping[tuple[str, int], Commit]]
    gaps: tuple[SourceGap, ...]
    acls: tuple[Mapping[str, Json], ...]
    subjects: tuple[Mapping[str, Json], ...]
    as_of: datetime | None
    ends: Mapping[tuple[str, int], int]
    notes: tuple[str, ...] = ()
    eraser: TopicEraser | None = None

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.export.dataset

    @property
    def pinned(self) -> Pinned:
        """What of the vault it is made of."""
        return Pinned(self.export.system_id, self.export.end, self.export.surveyed.at)

    @property
    def cluster_id(self) -> str:
        """The source cluster's own id."""
        return self.export.cluster_id

    def slices(self, wanted: Mapping[Where, tuple[int, int]]) -> Iterator[tuple[str, int, memoryview]]:
        """Whole batches of every wanted range, pack by pack."""
        for part in self.export.slices(wanted):
            if len(part.batches):
                batches = part.batches if self.eraser is None else self.eraser.blank(part.batches)
                yield part.topic_id, part.partition, batches


def export_source(
    vault: Vault,
    dataset: str,
    cut: Cut | None = None,
    *,
    as_of: datetime | None = None,
    all_stored: bool = False,
    eraser: TopicEraser | None = None,
    pinned: Pinned | None = None,
) -> ExportSource:
    """What a restore of `dataset` reads, and where it ends.

    With a cut at a time, groups, settings and access rules are those of that time. `as_of` is how the vault was then;
    `all_stored` begins with the first offset that is stored, not the source's own. `eraser` takes out what erased
    people's records say (erase.py). `pinned` is of a restore that goes on (RestoreState). Raises VaultError.
    """
    cut = cut or Cut()
    if cut.at is None or pinned is not None:
        export = open_export(vault, dataset, as_of=as_of, pinned=pinned)
    else:
        export = _opened_for(vault, dataset, cut.at, as_of)
    seen = export.surveyed if cut.at is None else surveyed(vault, dataset, at=cut.at)
    topics, notes = {}, _lacking(export, cut.at)
    for topic_id in export.topics:
        topic = export.topic(export.topics[topic_id].name)
        if topic.topic_id != topic_id:
            notes.append(f"topic {topic.name}: an earlier one of this name, {topic_id}, is stored as well")
            continue
        then = seen.topics.get(topic_id)
        found = _topic(topic, all_stored=all_stored, notes=notes)
        topics[topic.name] = found if then is None else replace(found, configs=dict(then.configs))
    return ExportSource(
        export=export,
        topics=topics,
        groups={
            group: {place: Commit(each.offset, each.metadata) for place, each in positions.items()}
            for group, positions in seen.groups.items()
        },
        gaps=tuple(
            SourceGap(export.topics[gap.topic_id].name, gap.partition, gap.was, gap.first)
            for gap in export.gaps
            if gap.why == "gap" and gap.topic_id in export.topics
        ),
        acls=seen.acls,
        subjects=seen.subjects,
        as_of=cut.at or as_of,
        ends=_ends(export, topics, cut),
        notes=tuple(notes),
        eraser=eraser,
    )


def _opened_for(vault: Vault, dataset: str, at: datetime, as_of: datetime | None) -> Export:
    """The export as it was when all of `at` had come into it: after an outage of the capture that is hours later.

    No later than need be: a newer generation of a compacted partition lacks what was there at `at`.
    """
    later, whole = _LATER, None
    while True:
        until = at + later if as_of is None else min(at + later, as_of)
        export = open_export(vault, dataset, as_of=until)
        if _has_all_of(export, at) or until == as_of:
            return export
        whole = whole or open_export(vault, dataset, as_of=as_of)
        if export.packs == whole.packs:
            return export
        later *= 2


def _has_all_of(export: Export, at: datetime) -> bool:
    return export.recovery_point_at is not None and export.recovery_point_at >= at


def _lacking(export: Export, at: datetime | None) -> list[str]:
    """What a person must know of a moment that the capture never got to."""
    if at is None or _has_all_of(export, at):
        return []
    point = export.recovery_point_at
    known = "nothing is sure to be whole" if point is None else f"all of {point.isoformat()} and before is stored"
    return [f"of {at.isoformat()} itself records may be missing: {known}"]


def _ends(export: Export, topics: Mapping[str, SourceTopic], cut: Cut) -> dict[tuple[str, int], int]:
    """Where partitions are cut; those that are not named end at what is stored."""
    if cut.offsets is not None:
        return dict(cut.offsets)
    if cut.at is None:
        return {}
    names = {topic.topic_id: topic.name for topic in topics.values()}
    return {
        (names[topic_id], partition): offset
        for (topic_id, partition), offset in export.positions_at(cut.at).items()
        if topic_id in names
    }


def _topic(topic: ExportTopic, *, all_stored: bool, notes: list[str]) -> SourceTopic:
    partitions = {}
    for index in range(topic.partition_count):
        part = topic.partitions.get(index)
        if part is None:
            notes.append(f"topic {topic.name}: nothing was stored of partition {index}")
            partitions[index] = SourcePartition(0, 0, 0)
            continue
        begin = part.begin if all_stored else min(max(part.begin, part.log_start), part.next)
        if begin > part.begin:
            notes.append(
                f"{topic.name}/{index}: offsets from {part.begin} are stored as well, the source had let go of those "
                f"before {begin}; --all-stored brings them back"
            )
        if topic.compacted and not part.complete:
            notes.append(f"{topic.name}/{index}: the export had not reached its end: keys may be missing")
        partitions[index] = _partition(part, begin)
    return SourceTopic(
        topic.name, topic.topic_id, partitions, topic.replication_factor, dict(topic.configs), is_gone=topic.is_gone
    )


def _partition(part: ExportPartition, begin: int) -> SourcePartition:
    return SourcePartition(
        begin=begin,
        end=part.next,
        # Of offsets before `begin` nobody counted how many hold something; a log that lost its head has no holes there.
        records=None if part.count is None else max(0, part.count - (begin - part.begin)),
        last_stable=part.last_stable if part.last_stable >= 0 else None,
        has_transactions=part.transactional,
        size_bytes=part.size_bytes,
    )
