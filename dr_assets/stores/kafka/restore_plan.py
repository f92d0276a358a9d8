"""Planning a Kafka restore: what would come where, by which method, at what cost, and what can't be brought back.

What belongs here: all that is decided before the target is touched, refusals too. What stays out: doing it
(restore.py). Planning reads the export's index and the target's metadata, no record.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, Self

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.kafka.produce import can_fill
from dr_assets.stores.kafka.restore_pads import BROKER_S_PER_MILLION
from dr_assets.stores.kafka.restore_source import RestoreSource, SourceGap, SourcePartition, SourceTopic, Where
from dr_assets.stores.kafka.restore_steps import Method
from dr_assets.stores.kafka.restore_write import Goal
from dr_assets.stores.kafka.wire import LATEST, Cluster, Place
from dr_assets.vault.format.canonical import Json

Wish = Literal["auto", "identical", "mapped"]
Ends = Callable[[RestoreSource], Mapping[tuple[str, int], int]]
_PREFIX: Final = "offsets:"


@dataclass(frozen=True, slots=True)
class Limits:
    """How far an offset-identical restore may go before a map is used instead.

    `pad_offsets`: over all partitions, 0.17 s of a broker's core for each million. `holes`: of one partition, each
    filled with a marker: 10,000 a second.
    """

    pad_offsets: int = 2_000_000_000
    holes: int = 200_000


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may choose. `mapping`: which topics, by their new names; empty means all that weren't deleted.

    `append` allows targets that hold records: what is restored follows them. `held`: after the restore topics delete
    nothing yet, whatever their own configuration says.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    wish: Wish = "auto"
    append: bool = False
    limits: Limits = field(default_factory=Limits)
    replication: int | None = None
    groups: tuple[str, ...] | None = None
    held: bool = False

    def target_of(self, topic: str) -> str | None:
        """The topic's name in the target; None when it isn't wanted."""
        if self.mapping:
            return self.mapping.get(topic)
        return self.prefix + topic


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """One partition: offsets [begin, end) of the source, by which method and why, what must be made up for it."""

    partition: int
    begin: int
    end: int
    method: Method
    why: str
    pad_offsets: int
    holes: int | None
    behind: int
    last_stable: int | None
    size_bytes: int

    def to_json(self) -> dict[str, Json]:
        """For people and programs."""
        return {
            "partition": self.partition,
            "begin": self.begin,
            "end": self.end,
            "method": self.method,
            "why": self.why,
            "pad_offsets": self.pad_offsets,
            "holes": self.holes,
            "behind": self.behind,
            "size_bytes": self.size_bytes,
        }


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic of the source, and what it is called in the target."""

    source: SourceTopic
    target: str
    exists: bool
    replication: int
    partitions: tuple[PartitionPlan, ...]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What would be done. `fingerprint` tells two plans apart: a run that goes on must have the same."""

    source: RestoreSource
    options: Options
    target_cluster: str
    topics: tuple[TopicPlan, ...]
    gaps: tuple[SourceGap, ...]
    notes: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """What is to be read of the export, as far as its index tells."""
        return sum(each.size_bytes for topic in self.topics for each in topic.partitions)

    @property
    def offsets(self) -> int:
        """How many offsets of the source are restored."""
        return sum(each.end - each.begin for topic in self.topics for each in topic.partitions)

    @property
    def pad_offsets(self) -> int:
        """How many offsets are padded in front."""
        return sum(each.pad_offsets for topic in self.topics for each in topic.partitions)

    @property
    def pad_s(self) -> float:
        """What the pads will cost the target's brokers, in seconds of one core."""
        return self.pad_offsets / 1e6 * BROKER_S_PER_MILLION

    @property
    def wanted(self) -> dict[Where, tuple[int, int]]:
        """The ranges to read, by topic id and partition."""
        return {
            (topic.source.topic_id, each.partition): (each.begin, each.end)
            for topic in self.topics
            for each in topic.partitions
            if each.end > each.begin
        }

    @property
    def names(self) -> dict[str, str]:
        """Topics of the source by name, with their names in the target."""
        return {topic.source.name: topic.target for topic in self.topics}

    def goals(self, ids: Mapping[str, str]) -> Iterator[tuple[Where, Goal]]:
        """Every partition's goal; `ids` are the target's topic ids by name."""
        for topic in self.topics:
            for each in topic.partitions:
                place: Place = (topic.target, each.partition)
                yield (
                    (topic.source.topic_id, each.partition),
                    Goal(place, ids[topic.target], each.method, each.begin, each.end, each.behind, each.last_stable),
                )

    def to_json(self) -> dict[str, Json]:
        """For `--plan`, the state file and evidence."""
        return {
            "dataset": self.source.dataset,
            "source_cluster": self.source.cluster_id,
            "target_cluster": self.target_cluster,
            "as_of": self.source.as_of.isoformat() if self.source.as_of else None,
            "topics": [
                {
                    "topic": topic.source.name,
                    "topic_id": topic.source.topic_id,
                    "target": topic.target,
                    "exists": topic.exists,
                    "replication_factor": topic.replication,
                    "partitions": [each.to_json() for each in topic.partitions],
                }
                for topic in self.topics
            ],
            "offsets": self.offsets,
            "size_bytes": self.size_bytes,
            "pad_offsets": self.pad_offsets,
            "pad_broker_s": round(self.pad_s),
            "gaps": [[gap.topic, gap.partition, gap.begin, gap.end] for gap in self.gaps],
            "notes": list(self.notes),
        }

    @property
    def fingerprint(self) -> str:
        """What must be the same when a restore goes on after a kill."""
        said = self.to_json()
        rows = [
            [
                topic.source.topic_id,
                topic.target,
                *([e.partition, e.begin, e.end, e.method, e.behind] for e in topic.partitions),
            ]
            for topic in self.topics
        ]
        return json.dumps([said["dataset"], said["target_cluster"], rows])


@dataclass(frozen=True, slots=True)
class Cut:
    """Where each partition is to end: at the newest that is stored, at a time, or at offsets.

    A time is the broker's or the producers', as the topic's records carry it: a partition ends before the first record
    that is younger. For the recovery point of another dataset give its time, or offsets, here.
    """

    at: datetime | None = None
    offsets: Mapping[tuple[str, int], int] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `latest`, a time with its zone, or `offsets:bets/0=120,bets/1=98`.

        Raises PolicyError (`target.unreadable`).
        """
        text = text.strip()
        if text == "latest":
            return cls()
        if text.startswith(_PREFIX):
            return cls(offsets=dict(_offset(each) for each in text[len(_PREFIX) :].split(",")))
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise _unreadable(text, "it is neither latest nor a time nor offsets:…") from None
        if at.tzinfo is None:
            raise _unreadable(text, "the time has no zone")
        return cls(at=at.astimezone(UTC))


def plan_restore(
    source: RestoreSource,
    cluster: Cluster,
    options: Options,
    *,
    ends: Mapping[tuple[str, int], int] | None = None,
    ours: Mapping[str, Mapping[int, int]] | None = None,
) -> RestorePlan:
    """What restoring `source` into `cluster` would do; nothing is touched.

    `ends` cuts partitions off (by topic name and partition; those that are not named end at what is stored), `ours`
    are topics of the target that a run before has begun, with where each partition ended before that. Raises
    PolicyError `kafka.restore_unknown_topic`, `kafka.restore_not_empty`, `kafka.restore_partitions`,
    `kafka.restore_end`, `kafka.restore_not_identical`.
    """
    chosen = _chosen(source, options)
    there = cluster.metadata(sorted(chosen.values()))
    gone = sorted(name for name, topic in source.topics.items() if topic.is_gone and name not in chosen)
    work = _Planning(source, cluster, options, ends or {}, ours or {})
    room = max(1, len(there.brokers))
    topics = tuple(
        work.topic(source.topics[name], target, there.topics.get(target), room)
        for name, target in sorted(chosen.items())
    )
    if gone:
        work.notes.append(f"deleted in the source, brought back when named: {', '.join(gone)}")
    gaps = tuple(gap for gap in source.gaps if gap.topic in chosen)
    plan = RestorePlan(source, options, there.cluster_id, topics, gaps, tuple(work.notes))
    if options.wish == "identical":
        _require_identical(plan)
    return plan


class _Planning:
    """One planning under way."""

    def __init__(
        self,
        source: RestoreSource,
        cluster: Cluster,
        options: Options,
        ends: Mapping[tuple[str, int], int],
        ours: Mapping[str, Mapping[int, int]],
    ) -> None:
        self._source = source
        self._cluster = cluster
        self._options = options
        self._ends = ends
        self._ours = ours
        self._padded = 0
        self._fills: bool | None = None
        self.notes: list[str] = list(source.notes)

    def topic(self, topic: SourceTopic, target: str, there: object, brokers: int) -> TopicPlan:
        count = max(topic.partitions, default=-1) + 1
        existing = getattr(there, "partitions", None)
        if existing is not None and len(existing) != count:
            raise PolicyError(
                "kafka.restore_partitions",
                f"topic {target} exists in the target with {len(existing)} partitions, the export has {count}",
                "records would lose the order of their keys: restore under another name, or delete that topic",
            )
        behind = self._behind(target, count) if existing is not None else {}
        replication = self._options.replication or topic.replication_factor
        if replication > brokers:
            self.notes.append(f"topic {target}: {replication} replicas were wanted, the target has {brokers} brokers")
            replication = brokers
        plans = tuple(
            self._partition(topic, index, part, behind.get(index, 0))
            for index, part in sorted(topic.partitions.items())
        )
        return TopicPlan(topic, target, existing is not None, replication, plans)

    def _behind(self, target: str, count: int) -> Mapping[int, int]:
        """Where each partition of an existing topic ends; refuses one that holds records, unless told."""
        if target in self._ours:
            return dict(self._ours[target])
        places = [(target, index) for index in range(count)]
        ends = self._cluster.list_offsets(places, LATEST)
        filled = {index: ends[(target, index)] for index in range(count) if ends[(target, index)]}
        if not filled or self._options.append:
            return filled
        raise PolicyError(
            "kafka.restore_not_empty",
            f"topic {target} exists in the target and holds records (partition {min(filled)} ends at "
            f"{filled[min(filled)]})",
            "restore under another name, delete that topic, or say --append to write behind its records",
        )

    def _partition(self, topic: SourceTopic, index: int, part: SourcePartition, behind: int) -> PartitionPlan:
        end = self._end(topic.name, index, part)
        holes = part.holes if end == part.end else None
        gaps = sum(
            gap.end - gap.begin for gap in self._source.gaps if self._cuts(gap, topic.name, index, part.begin, end)
        )
        method, why = self._method(topic, part, holes, gaps, behind)
        pad = part.begin if method == "identical" else 0
        self._padded += pad
        size = (
            part.size_bytes
            if end == part.end
            else part.size_bytes * (end - part.begin) // max(1, part.end - part.begin)
        )
        return PartitionPlan(
            index, part.begin, end, method, why, pad, holes, behind,
            part.last_stable if end == part.end else None, size,
        )  # fmt: skip

    def _end(self, topic: str, index: int, part: SourcePartition) -> int:
        wanted = self._ends.get((topic, index))
        if wanted is None:
            return part.end
        if wanted > part.end:
            raise PolicyError(
                "kafka.restore_end",
                f"{topic}/{index} is to be restored up to offset {wanted}, the export ends at {part.end}",
                f"choose an offset up to {part.end}, or `latest`",
            )
        return max(wanted, part.begin)

    @staticmethod
    def _cuts(gap: SourceGap, topic: str, index: int, begin: int, end: int) -> bool:
        return (gap.topic, gap.partition) == (topic, index) and gap.begin < end and gap.end > begin

    def _can_fill(self) -> bool:
        if self._fills is None:
            self._fills = all(can_fill(self._cluster, node) for node in self._cluster.metadata(()).brokers)
        return self._fills

    def _method(
        self, topic: SourceTopic, part: SourcePartition, holes: int | None, gaps: int, behind: int
    ) -> tuple[Method, str]:
        limits = self._options.limits
        if self._options.wish == "mapped":
            return "mapped", "asked for"
        if behind:
            return "mapped", f"the target holds records up to {behind}"
        if self._padded + part.begin > limits.pad_offsets:
            return (
                "mapped",
                f"its first offset {part.begin} lies beyond the limit of {limits.pad_offsets} padded offsets",
            )
        expected = holes if holes is not None else gaps
        if expected > limits.holes:
            return "mapped", f"{expected} offsets hold nothing, more than the limit of {limits.holes}"
        uncounted = holes is None and topic.is_compacted
        if uncounted or (expected and not self._can_fill()):
            return "mapped", "nobody counted its holes" if uncounted else "the target takes no markers for its holes"
        return "identical", f"{expected} holes filled" if expected else ""


def _chosen(source: RestoreSource, options: Options) -> dict[str, str]:
    unknown = sorted(set(options.mapping) - set(source.topics))
    if unknown:
        raise PolicyError(
            "kafka.restore_unknown_topic",
            f"the export of {source.dataset} holds no topic {', '.join(unknown)}; it holds "
            f"{', '.join(sorted(source.topics)) or 'none'}",
            "name topics as the source called them",
        )
    wanted = [name for name, topic in source.topics.items() if options.mapping or not topic.is_gone]
    chosen = {name: target for name in wanted if (target := options.target_of(name))}
    twice = {target for target in chosen.values() if list(chosen.values()).count(target) > 1}
    if twice:
        raise PolicyError(
            "kafka.restore_unknown_topic", f"two topics would be restored as {', '.join(sorted(twice))}",
            "give each a name of its own",
        )  # fmt: skip
    return chosen


def _require_identical(plan: RestorePlan) -> None:
    for topic in plan.topics:
        for each in topic.partitions:
            if each.method != "identical":
                raise PolicyError(
                    "kafka.restore_not_identical",
                    f"{topic.source.name}/{each.partition} can't be restored with the same offsets: {each.why}",
                    "raise the limit (--pad-limit, --hole-limit), or allow a map",
                )


def _offset(text: str) -> tuple[tuple[str, int], int]:
    where, _, offset = text.strip().partition("=")
    topic, _, partition = where.rpartition("/")
    if not topic or not partition.isdecimal() or not offset.isdecimal():
        raise _unreadable(text, "an offset is written topic/partition=offset")
    return (topic, int(partition)), int(offset)


def _unreadable(given: str, found: str) -> PolicyError:
    return PolicyError(
        "target.unreadable",
        f"recovery target {given[:80]!r}: {found}",
        "use latest, 2026-01-31T12:00:00Z, or offsets:bets/0=120,bets/1=98",
    )
