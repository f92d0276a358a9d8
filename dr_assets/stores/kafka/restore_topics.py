"""The topics that a restore writes to: made for loading, given their real configuration last.

What belongs here: which settings loading needs, and the calls that make, change and delete a topic. What stays out:
which topics (restore_plan.py) and what goes in.

While it is loaded, a topic deletes nothing, compacts nothing and takes every record's own time: old records in a topic
with a week's retention would be gone before the restore ends.
"""

from collections.abc import Mapping
from typing import Any, Final

from kafka.protocol.admin import CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.refusals import UNKNOWN_TOPIC, BrokerError
from dr_assets.stores.kafka.wire import Cluster

# A broker's own limit for a request, as it comes: no batch can be larger.
MAX_BATCH_BYTES: Final = 104_857_600
FOREVER: Final = str((1 << 63) - 1)
LOADING: Final[Mapping[str, str]] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "CreateTime",
    "compression.type": "producer",
    "max.message.bytes": str(MAX_BATCH_BYTES),
}
# Brokers since 3.6 refuse records from the future, an hour ahead of their clock; older ones don't know these.
LOADING_NEWER: Final[Mapping[str, str]] = {
    "message.timestamp.after.max.ms": FOREVER,
    "message.timestamp.before.max.ms": FOREVER,
}
# What holds records back from being deleted, once the rest of the real configuration is there.
HELD: Final = ("cleanup.policy", "retention.ms", "retention.bytes")
_IN_SYNC: Final = "min.insync.replicas"
_SEGMENT: Final = "segment.bytes"
_SEGMENT_MIN_BYTES: Final = 64 << 20
# These name brokers of the source's.
_NOT_OURS: Final = frozenset({"leader.replication.throttled.replicas", "follower.replication.throttled.replicas"})
_TOPIC_RESOURCE: Final = 2
_SET, _DELETE = 0, 1
_TIMEOUT_MS: Final = 30_000
_INVALID_CONFIG: Final = 40
_TOPIC_EXISTS: Final = 36


def make_for_loading(cluster: Cluster, name: str, partitions: int, replication: int, configs: Mapping[str, str]) -> str:
    """A new topic, ready to be loaded; its id. What exists already is given the settings for loading.

    `configs` is the real configuration; what of it bears on durability holds from the start. Raises BrokerError.
    """
    # More in-sync replicas than there are would refuse every write, here and later.
    durable = {_IN_SYNC: str(min(int(configs[_IN_SYNC]), replication))} if _IN_SYNC in configs else {}
    # A segment must hold the largest batch, pads too; smaller ones come with the rest of the configuration.
    if int(configs.get(_SEGMENT, 0)) >= _SEGMENT_MIN_BYTES:
        durable[_SEGMENT] = configs[_SEGMENT]
    errno = _create(cluster, name, partitions, replication, {**durable, **LOADING, **LOADING_NEWER})
    if errno == _INVALID_CONFIG:
        errno = _create(cluster, name, partitions, replication, {**durable, **LOADING})
    if errno == _TOPIC_EXISTS:
        set_for_loading(cluster, name)
    elif errno:
        raise BrokerError(errno, f"making topic {name} with {partitions} partitions on {replication} brokers each")
    return topic_id(cluster, name)


def set_for_loading(cluster: Cluster, name: str) -> None:
    """Give a topic that is there the settings for loading."""
    try:
        change_configs(cluster, name, {**LOADING, **LOADING_NEWER})
    except BrokerError as error:
        if error.errno != _INVALID_CONFIG:
            raise
        change_configs(cluster, name, LOADING)


def topic_id(cluster: Cluster, name: str) -> str:
    """The id of a topic that was just made, once every partition of it has a leader."""
    found: list[str] = []

    def ask(_node: int, own: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        # Any broker may answer: one that has not heard of it yet, or not of all its leaders, is asked again.
        topic = cluster.metadata([name]).topics.get(name)
        if topic is None or any(each.leader < 0 for each in topic.partitions):
            return dict.fromkeys(own, UNKNOWN_TOPIC)
        found[:] = [topic.topic_id]
        return dict.fromkeys(own, 0)

    cluster.by_leader([(name, 0)], ask, "the leaders")
    return found[0]


def set_real_configs(cluster: Cluster, name: str, configs: Mapping[str, str], *, held: bool) -> tuple[str, ...]:
    """The topic's own configuration in place of the one for loading; `held`: but still nothing is deleted.

    Settings that the target does not know (it may be of another version) are left out, and returned. Raises
    BrokerError.
    """
    changes: dict[str, str | None] = dict.fromkeys((*LOADING, *LOADING_NEWER), None)
    changes |= {key: value for key, value in configs.items() if key not in _NOT_OURS}
    if held:
        changes |= {key: LOADING[key] for key in HELD}
    try:
        change_configs(cluster, name, changes)
    except BrokerError as error:
        if error.errno != _INVALID_CONFIG:
            raise
    else:
        return ()
    refused = []
    for key, value in changes.items():
        try:
            change_configs(cluster, name, {key: value})
        except BrokerError as error:
            if error.errno != _INVALID_CONFIG:
                raise
            if value is not None:
                refused.append(key)
    return tuple(sorted(refused))


def change_configs(cluster: Cluster, name: str, changes: Mapping[str, str | None]) -> None:
    """Set a topic's settings; None takes one back to the broker's own. Raises BrokerError."""
    resource = IncrementalAlterConfigsRequest.AlterConfigsResource
    configs = [
        resource.AlterableConfig(name=key, config_operation=_DELETE if value is None else _SET, value=value)
        for key, value in sorted(changes.items())
    ]

    def make() -> Any:
        return IncrementalAlterConfigsRequest(
            resources=[resource(resource_type=_TOPIC_RESOURCE, resource_name=name, configs=configs)],
            validate_only=False,
        )

    for each in cluster.ask(make).responses:
        if each.error_code:
            raise BrokerError(each.error_code, f"the configuration of topic {name}: {each.error_message or ''}")


def delete_topic(cluster: Cluster, name: str) -> None:
    """Delete a topic; one that isn't there is deleted already."""
    kind = DeleteTopicsRequest.DeleteTopicState
    response = cluster.ask(
        lambda: DeleteTopicsRequest(topics=[kind(name=name, topic_id=None)], topic_names=[name], timeout_ms=_TIMEOUT_MS)
    )
    for each in response.responses:
        if each.error_code not in {0, UNKNOWN_TOPIC}:
            raise BrokerError(each.error_code, f"deleting topic {name}")


def _create(cluster: Cluster, name: str, partitions: int, replication: int, configs: Mapping[str, str]) -> int:
    kind = CreateTopicsRequest.CreatableTopic
    topic = kind(
        name=name,
        num_partitions=partitions,
        replication_factor=replication,
        assignments=[],
        configs=[kind.CreatableTopicConfig(name=key, value=value) for key, value in sorted(configs.items())],
    )
    response = cluster.ask(lambda: CreateTopicsRequest(topics=[topic], timeout_ms=_TIMEOUT_MS, validate_only=False))
    found = [each.error_code for each in response.topics]
    if len(found) != 1:
        raise SourceError("kafka.protocol", f"asked for topic {name}, the broker made {len(found)}", "try again")
    return int(found[0])
