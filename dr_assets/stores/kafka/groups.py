"""Consumer groups' positions in the target: translated where offsets moved, committed after the data.

What belongs here: which positions a group gets, committing and reading them. What stays out: the maps
(offset_map.py), capturing groups (survey.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kafka.protocol.consumer import OffsetCommitRequest

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.kafka.admin import group_offsets
from dr_assets.stores.kafka.offset_map import OffsetMap
from dr_assets.stores.kafka.refusals import ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, BrokerError
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.wire import Cluster, Place, by_topic

_COMMIT_VERSION: Final = 9  # the next one names topics by id
_IN_USE: Final = frozenset({UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, 27, 68})

Positions = dict[Place, Commit]


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One group's positions in the target. `left_out` are those of topics that aren't restored."""

    group: str
    positions: Mapping[Place, Commit]
    left_out: tuple[tuple[str, int], ...]


def translated(
    group: str,
    commits: Mapping[tuple[str, int], Commit],
    names: Mapping[str, str],
    maps: Mapping[Place, OffsetMap],
) -> GroupPlan:
    """A group's positions under the topics' new names, each where that partition's map says."""
    positions: Positions = {}
    left_out = []
    for (topic, partition), commit in sorted(commits.items()):
        found = maps.get((names.get(topic, ""), partition))
        if found is None:
            left_out.append((topic, partition))
            continue
        positions[(names[topic], partition)] = Commit(found.position(commit.offset), commit.metadata)
    return GroupPlan(group, positions, tuple(left_out))


def commit_positions(cluster: Cluster, group: str, positions: Mapping[Place, Commit]) -> None:
    """Commit them for a group that nobody is a member of. Raises PolicyError (`kafka.group_in_use`), BrokerError."""
    kind = OffsetCommitRequest.OffsetCommitRequestTopic

    def make() -> Any:
        return OffsetCommitRequest(
            group_id=group,
            generation_id_or_member_epoch=-1,
            member_id="",
            group_instance_id=None,
            retention_time_ms=-1,
            topics=[
                kind(
                    name=topic,
                    partitions=[
                        kind.OffsetCommitRequestPartition(
                            partition_index=index,
                            committed_offset=positions[(topic, index)].offset,
                            # Leader epochs are the source's: in the target they would name other leaders.
                            committed_leader_epoch=-1,
                            committed_metadata=positions[(topic, index)].metadata,
                        )
                        for index in indices
                    ],
                )
                for topic, indices in by_topic(positions).items()
            ],
            max_version=_COMMIT_VERSION,
        )

    response = cluster.ask_coordinator("group", group, make, _errors)
    for errno in set(_errors(response)) - {0}:
        if errno in _IN_USE:
            raise PolicyError(
                "kafka.group_in_use",
                f"group {group} has members in the target: its positions can't be set beneath them",
                "stop its consumers, then run the same restore again",
            )
        raise BrokerError(errno, f"the positions of group {group}")


def read_positions(cluster: Cluster, group: str, places: Iterable[Place]) -> Positions:
    """What the target holds for a group, of these partitions; those without a position are left out."""
    found = group_offsets(cluster, [group]).get(group, {})
    return {place: Commit(found[place].offset, found[place].metadata) for place in places if place in found}


def _errors(response: Any) -> list[int]:
    return [each.error_code for topic in response.topics for each in topic.partitions]
