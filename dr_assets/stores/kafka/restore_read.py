"""Partitions read off a cluster from one offset to another, batch by batch; and a cluster as the source of a restore.

What belongs here: reading what a target holds, to compare it, and topics of a cluster as if they were an export: what
two clusters have in common is then told by the same code. What stays out: capturing (the fetcher does that).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.admin import topic_configs
from dr_assets.stores.kafka.batches import BatchHeader, split
from dr_assets.stores.kafka.fetching import Want, fetch
from dr_assets.stores.kafka.refusals import BrokerError
from dr_assets.stores.kafka.restore_source import Commit, SourceGap, SourcePartition, SourceTopic, Where
from dr_assets.stores.kafka.wire import EARLIEST, LATEST, Cluster, Place
from dr_assets.vault.format.canonical import Json

_FETCH_BYTES: Final = 8 << 20
_WAIT_MS: Final = 500
_PATIENCE_S: Final = 120.0
_PAUSE_S: Final = 0.3
_AWAY: Final = frozenset({"kafka.unreachable", "kafka.timeout"})


def partition_slices(cluster: Cluster, place: Place, topic_id: str, begin: int, end: int) -> Iterator[memoryview]:
    """Whole batches that hold offsets of [begin, end), some MiB at a time; the first may begin earlier.

    A broker that is away, or not the leader any more, is waited for. Raises SourceError when it stays away, and
    `kafka.restore_short` when the partition ends before `end`.
    """
    at = begin
    deadline_s = time.monotonic() + _PATIENCE_S
    while at < end:
        try:
            cluster.metadata([place[0]])
            line = cluster.own_line(cluster.leader_of(*place))
        except SourceError as error:
            _wait(error, deadline_s)
            continue
        try:
            while at < end:
                want = Want(place[0], topic_id, place[1], at, max_bytes=_FETCH_BYTES)
                answer = fetch(line, [want], max_wait_ms=_WAIT_MS, min_bytes=1, max_bytes=_FETCH_BYTES)
                if not answer and time.monotonic() > deadline_s:
                    raise _short(place, at, end)
                if not answer:
                    continue  # an emulator leaves out what it has nothing of yet
                found = answer[0]
                if found.errno:
                    raise BrokerError(found.errno, f"reading {place[0]}/{place[1]} from offset {at}")
                headers = [header for header, _ in split(found.records, check_crc=False)]
                if not headers and found.high_watermark < end:
                    raise _short(place, found.high_watermark, end)
                if headers:
                    deadline_s = time.monotonic() + _PATIENCE_S
                    yield found.records[: sum(header.size_bytes for header in headers)]
                    at = headers[-1].next_offset
        except SourceError as error:
            _wait(error, deadline_s)
        finally:
            line.close()


def batch_at(cluster: Cluster, place: Place, topic_id: str, offset: int) -> memoryview | None:
    """The batch that begins at this very offset, of a partition that is known to hold it; None if none does."""
    for header, batch in partition_batches(cluster, place, topic_id, offset, offset + 1):
        if header.base_offset == offset:
            return batch
    return None


def partition_batches(
    cluster: Cluster, place: Place, topic_id: str, begin: int, end: int
) -> Iterator[tuple[BatchHeader, memoryview]]:
    """The same, batch by batch; those that end before `begin` or begin behind `end` are left out."""
    for data in partition_slices(cluster, place, topic_id, begin, end):
        for header, batch in split(data):
            if header.next_offset > begin and header.base_offset < end:
                yield header, batch


@dataclass(frozen=True, slots=True)
class LiveSource:
    """Topics of a cluster, as they are when this is made, as the source of a restore or a comparison."""

    cluster: Cluster
    topics: Mapping[str, SourceTopic]
    groups: Mapping[str, Mapping[tuple[str, int], Commit]] = field(default_factory=dict)
    gaps: tuple[SourceGap, ...] = ()
    acls: tuple[Mapping[str, Json], ...] = ()
    subjects: tuple[Mapping[str, Json], ...] = ()
    notes: tuple[str, ...] = ()
    as_of: datetime | None = None
    dataset: str = "live"
    pinned: None = None

    @property
    def cluster_id(self) -> str:
        """The cluster's own id."""
        return self.cluster.cluster_id

    def slices(self, wanted: Mapping[Where, tuple[int, int]]) -> Iterator[tuple[str, int, memoryview]]:
        """Every wanted range, one partition after the other."""
        names = {topic.topic_id: topic.name for topic in self.topics.values()}
        for (topic_id, partition), (begin, end) in sorted(wanted.items()):
            place = (names[topic_id], partition)
            for data in partition_slices(self.cluster, place, topic_id, begin, end):
                yield topic_id, partition, data


def live_source(
    cluster: Cluster,
    topics: Sequence[str],
    groups: Mapping[str, Mapping[tuple[str, int], Commit]] | None = None,
    *,
    counted: bool = True,
) -> LiveSource:
    """These topics as they are now; `counted` reads every batch's header, so that holes are known."""
    metadata = cluster.metadata(topics)
    configs = topic_configs(cluster, topics)
    found = {}
    for name in topics:
        topic = metadata.topics[name]
        places = [(name, each.index) for each in topic.partitions]
        # In this order: the end of whatever is stable lies before an end that was asked for later.
        stable = cluster.list_offsets(places, LATEST, committed=True)
        begins, ends = cluster.list_offsets(places, EARLIEST), cluster.list_offsets(places, LATEST)
        partitions = {
            place[1]: _partition(cluster, place, topic.topic_id, (begins[place], ends[place], stable[place]), counted)
            for place in places
        }
        found[name] = SourceTopic(name, topic.topic_id, partitions, topic.replication_factor, configs[name].own)
    return LiveSource(cluster, found, groups or {})


def _partition(
    cluster: Cluster,
    place: Place,
    topic_id: str,
    offsets: tuple[int, int, int],
    counted: bool,  # noqa: FBT001 - passed on
) -> SourcePartition:
    begin, end, stable = offsets
    if not counted:
        return SourcePartition(begin, end, None, stable)
    count = size = 0
    for header, _ in partition_batches(cluster, place, topic_id, begin, end):
        # Of a batch that begins before the partition does, those offsets are deleted.
        count += header.count - max(0, begin - header.base_offset)
        size += header.size_bytes
    return SourcePartition(begin, end, count, stable, None, size)


def _wait(error: SourceError, deadline_s: float) -> None:
    passes = error.code in _AWAY or (isinstance(error, BrokerError) and error.is_transient)
    if not passes or time.monotonic() > deadline_s:
        raise error
    time.sleep(_PAUSE_S)


def _short(place: Place, found: int, end: int) -> SourceError:
    return SourceError(
        "kafka.restore_short",
        f"{place[0]}/{place[1]} ends at {found}, records up to {end} were expected",
        "records were lost since they were written: look at the cluster's replicas",
    )
