"""What a cluster says of itself beside its records: topics' configuration, groups' offsets, ACLs.

What belongs here: asking, and answers as values of ours. What stays out: changing any of it (restore_topics.py,
groups.py), when to ask and keeping it (survey.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from kafka.protocol.admin import DescribeAclsRequest, DescribeConfigsRequest, ListGroupsRequest
from kafka.protocol.consumer.group import OffsetFetchRequest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.refusals import SECURITY_DISABLED, UNKNOWN_TOPIC, BrokerError
from dr_assets.stores.kafka.wire import Cluster

_TOPIC: Final = 2
_ANY: Final = 1
_DYNAMIC_TOPIC: Final = 1
_BY_GROUPS: Final = 8
_AT_A_TIME: Final = 200


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """One access rule, numbers as Kafka's protocol has them."""

    resource_type: int
    resource_name: str
    pattern_type: int
    principal: str
    host: str
    operation: int
    permission: int


@dataclass(frozen=True, slots=True)
class GroupOffset:
    """What a group has committed for a partition: the offset it wants next."""

    offset: int
    metadata: str
    leader_epoch: int


Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class TopicConfigs:
    """`own` is what was set for the topic, `policy` its cleanup policy, set or not."""

    own: Mapping[str, str]
    policy: str

    @property
    def is_compacted(self) -> bool:
        """Whether compaction takes records away."""
        return "compact" in self.policy


def topic_configs(cluster: Cluster, names: Iterable[str]) -> dict[str, TopicConfigs]:
    """The configuration of each topic that is there. Raises SourceError."""
    found: dict[str, TopicConfigs] = {}
    names = sorted(names)
    for begin in range(0, len(names), _AT_A_TIME):
        resources = [
            DescribeConfigsRequest.DescribeConfigsResource(
                resource_type=_TOPIC, resource_name=name, configuration_keys=None
            )
            for name in names[begin : begin + _AT_A_TIME]
        ]
        response = cluster.ask(
            lambda resources=resources: DescribeConfigsRequest(  # type: ignore[misc]
                resources=resources, include_synonyms=False, include_documentation=False
            )
        )
        for result in response.results:
            if result.error_code == UNKNOWN_TOPIC:
                continue
            if result.error_code:
                raise BrokerError(result.error_code, f"the configuration of topic {result.resource_name}")
            own = {
                each.name: each.value
                for each in result.configs
                if each.config_source == _DYNAMIC_TOPIC and each.value is not None and not each.is_sensitive
            }
            policy = next((each.value for each in result.configs if each.name == "cleanup.policy"), "") or ""
            found[result.resource_name] = TopicConfigs(own, policy)
    return found


def group_names(cluster: Cluster) -> list[str]:
    """All groups that commit offsets. Raises SourceError."""
    names: set[str] = set()
    for node in cluster.metadata(()).brokers:
        response = cluster.ask(lambda: ListGroupsRequest(states_filter=[], types_filter=[]), node)
        if response.error_code:
            raise BrokerError(response.error_code, "the list of groups")
        names |= {each.group_id for each in response.groups}
    return sorted(names)


def group_offsets(cluster: Cluster, groups: Iterable[str]) -> dict[str, dict[Place, GroupOffset]]:
    """What each group has committed, of all topics. Raises SourceError."""
    found: dict[str, dict[Place, GroupOffset]] = {}
    for group in groups:
        make = partial(_offsets_request, group)
        response = cluster.ask_coordinator("group", group, make, lambda told: [_group_of(told).error_code])
        answer = _group_of(response)
        if answer.error_code:
            raise BrokerError(answer.error_code, f"the offsets of group {group}")
        found[group] = {
            (topic.name, each.partition_index): GroupOffset(
                each.committed_offset, each.metadata or "", each.committed_leader_epoch
            )
            for topic in answer.topics
            for each in topic.partitions
            if not each.error_code and each.committed_offset >= 0
        }
    return found


def _offsets_request(group: str) -> OffsetFetchRequest:
    kind = OffsetFetchRequest.OffsetFetchRequestGroup
    return OffsetFetchRequest(
        group_id=group, topics=None, groups=[kind(group_id=group, member_id=None, member_epoch=-1, topics=None)],
        require_stable=False, min_version=5, max_version=9,
    )  # fmt: skip


def _group_of(response: Any) -> Any:
    """The part of an answer that speaks of the one group that was asked for."""
    return response.groups[0] if response.API_VERSION >= _BY_GROUPS else response


def acls(cluster: Cluster) -> tuple[Acl, ...] | None:
    """Every access rule; None where the cluster has no authorizer, or does not know of such. Raises SourceError."""
    try:
        response = cluster.ask(
            lambda: DescribeAclsRequest(
                resource_type_filter=_ANY, resource_name_filter=None, pattern_type_filter=_ANY,
                principal_filter=None, host_filter=None, operation=_ANY, permission_type=_ANY,
            )
        )  # fmt: skip
    except SourceError as error:
        if error.code == "kafka.unsupported":
            return None
        raise
    if response.error_code == SECURITY_DISABLED:
        return None
    if response.error_code:
        raise BrokerError(response.error_code, "the access rules")
    return tuple(
        sorted(
            Acl(
                resource.resource_type, resource.resource_name, resource.pattern_type, each.principal, each.host,
                each.operation, each.permission_type,
            )
            for resource in response.resources
            for each in resource.acls
        )
    )  # fmt: skip
