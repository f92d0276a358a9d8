"""Comparing two clusters, topic by topic, without anything of ours in between.

What belongs here: what confluent-kafka reads, what lies in the brokers' own segment files, and every difference between
two such readings. What stays out: judging (tests assert that nothing is listed, or exactly what they expect).

Two independent views: a consumer's (decoded records, both isolation levels, ends of partitions) and the bytes on the
brokers' disks (batch headers and payloads), which a fetch hands out as they are.
"""

import hashlib
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.admin import ResourcePatternType as Pattern

from dr_assets.engines.kafka.server import KafkaServer

ANSWER_S = 180.0
_HEADER = struct.Struct(">qiibIhiqqqhii")
_PREFIX_BYTES = 12  # base offset and length: what the length does not count
_CONTROL, _TRANSACTIONAL, _LOG_APPEND = 0x20, 0x10, 0x08
# The one record of a control batch: length, attributes, time delta, offset delta, key length, each one byte; then the
# key: version and kind, two bytes each.
_MARKER_KIND = 8
_MARKERS = {0: "abort", 1: "commit"}
_SHOWN = 20


class Seen(NamedTuple):
    """One record as a consumer sees it."""

    offset: int
    timestamp_type: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Batch(NamedTuple):
    """One batch as it lies on disk: what must stay, and apart from it what a restore may have to change."""

    base_offset: int
    last_offset: int
    attributes: int
    base_timestamp: int
    max_timestamp: int
    count: int
    payload: str  # a digest of everything behind the header, the records compressed as they were; of a marker its kind
    producer: tuple[int, int, int]

    @property
    def is_control(self) -> bool:
        """Whether it is a transaction's marker."""
        return bool(self.attributes & _CONTROL)


@dataclass
class Partition:
    """One partition: its ends, its records at both isolation levels."""

    begin: int
    end: int
    uncommitted: list[Seen] = field(default_factory=list)
    committed: list[Seen] = field(default_factory=list)


def consumed(server: KafkaServer, topics: Iterable[str]) -> dict[tuple[str, int], Partition]:
    """Everything that a consumer can read of these topics, by topic and partition."""
    admin = AdminClient(server.client_config())
    known = admin.list_topics(timeout=ANSWER_S).topics
    found: dict[tuple[str, int], Partition] = {}
    reader = _reader(server, "read_uncommitted")
    for topic in topics:
        for index in sorted(known[topic].partitions):
            begin, end = reader.get_watermark_offsets(TopicPartition(topic, index), timeout=ANSWER_S)
            found[topic, index] = Partition(begin, end)
    reader.close()
    for level in ("read_uncommitted", "read_committed"):
        for (topic, index), record in _records(server, level, {place: one.begin for place, one in found.items()}):
            partition = found[topic, index]
            (partition.uncommitted if level == "read_uncommitted" else partition.committed).append(record)
    return found


def _reader(server: KafkaServer, level: str) -> Consumer:
    return Consumer(
        {
            **server.client_config(),
            "group.id": "comparing",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": level,
            "auto.offset.reset": "error",
            "check.crcs": True,
        }
    )


def _records(
    server: KafkaServer, level: str, begins: Mapping[tuple[str, int], int]
) -> Iterator[tuple[tuple[str, int], Seen]]:
    """Every record of these partitions up to their present ends."""
    reader = _reader(server, level)
    reader.assign([TopicPartition(topic, index, begin) for (topic, index), begin in begins.items()])
    open_places = set(begins)
    quiet_from_s = time.monotonic()
    while open_places:
        messages = reader.consume(1000, timeout=0.2)  # it waits for a thousand as long as that
        quiet_from_s = time.monotonic() if messages else quiet_from_s
        assert time.monotonic() < quiet_from_s + ANSWER_S, f"no end of {sorted(open_places)}"
        for message in messages:
            place = (message.topic(), message.partition())
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                open_places.discard(place)
                continue
            kind, timestamp = message.timestamp()
            headers = tuple(message.headers() or ())
            yield place, Seen(message.offset(), kind, timestamp, message.key(), message.value(), headers)
    reader.close()


def on_disk(server: KafkaServer, topic: str, partition: int, begin: int = 0) -> list[Batch]:
    """The batches in the broker's segment files whose last offset is `begin` or later."""
    return [_batch(raw) for raw in raw_batches(server, topic, partition, begin)]


def raw_batches(server: KafkaServer, topic: str, partition: int, begin: int = 0) -> Iterator[bytes]:
    """The same batches as their bytes."""
    folder = server.data_dir / f"{topic}-{partition}"
    for segment in sorted(folder.glob("*.log")):
        yield from (raw for raw in _split(segment) if _batch(raw).last_offset >= begin)


def _split(segment: Path) -> Iterator[bytes]:
    data = segment.read_bytes()
    at = 0
    while at + _HEADER.size <= len(data):
        length = _PREFIX_BYTES + _HEADER.unpack_from(data, at)[1]
        assert at + length <= len(data), f"{segment} ends within a batch"
        yield data[at : at + length]
        at += length


def _batch(raw: bytes) -> Batch:
    base, _, _, magic, _, attributes, delta, first, newest, pid, epoch, sequence, count = _HEADER.unpack_from(raw)
    assert magic == 2
    payload = hashlib.sha256(raw[_HEADER.size :]).hexdigest()
    if attributes & _CONTROL:
        # When a marker was written and by which coordinator's epoch is not the transaction's; how it ended is.
        first = newest = 0
        payload = _MARKERS[raw[_HEADER.size :][_MARKER_KIND]]
    return Batch(base, base + delta, attributes, first, newest, count, payload, (pid, epoch, sequence))


def record_differences(
    source: Mapping[tuple[str, int], Partition],
    target: Mapping[tuple[str, int], Partition],
    *,
    offset_of: Callable[[str, int, int], int] | None = None,
    any_time: Iterable[str] = (),
) -> list[str]:
    """What differs between two readings: partitions, ends, and each record's offset, time, key, value and headers.

    `offset_of(topic, partition, offset)` says at which offset of the target a source's one is to be (the same one
    unless given; then ends aren't compared). In the topics of `any_time` the kind of timestamp may differ, never the
    time itself.
    """
    found = [f"{place}: only in one of the two" for place in sorted(source.keys() ^ target.keys())]
    for place in sorted(source.keys() & target.keys()):
        ours, theirs = source[place], target[place]
        if offset_of is None and (ours.begin, ours.end) != (theirs.begin, theirs.end):
            found.append(f"{place}: offsets {ours.begin}..{ours.end} became {theirs.begin}..{theirs.end}")
        for level in ("uncommitted", "committed"):
            wanted = [_expected(one, place, offset_of, any_time) for one in getattr(ours, level)]
            got = [_expected(one, place, None, any_time) for one in getattr(theirs, level)]
            found += [f"{place} {level}: {text}" for text in _first_differences(wanted, got)]
    return found


def _expected(
    one: Seen, place: tuple[str, int], offset_of: Callable[[str, int, int], int] | None, any_time: Iterable[str]
) -> Seen:
    offset = offset_of(*place, one.offset) if offset_of else one.offset
    return one._replace(offset=offset, timestamp_type=0 if place[0] in any_time else one.timestamp_type)


def _first_differences(wanted: list[Any], got: list[Any]) -> list[str]:
    pairs = [
        f"{ours!r:.300} became {theirs!r:.300}" for ours, theirs in zip(wanted, got, strict=False) if ours != theirs
    ]
    if len(wanted) != len(got):
        pairs.append(f"{len(wanted)} became {len(got)}")
    return pairs[:_SHOWN]


def batch_differences(source: list[Batch], target: list[Batch], *, re_encoded: bool = False) -> list[str]:
    """What differs between two partitions' batches beyond what a restore may change.

    It may change producer id, epoch and sequence, and with them the CRC; it may add batches of its own in places where
    the source has none. Outside transactions no producer must be left. With `re_encoded` payloads aren't compared.
    """
    taken = {one.base_offset: one for one in target}
    found = []
    for ours in source:
        theirs = taken.pop(ours.base_offset, None)
        if theirs is None:
            found.append(f"batch at {ours.base_offset}: not restored")
            continue
        if not re_encoded and ours._replace(producer=theirs.producer) != theirs:
            found.append(f"{ours} became {theirs}")
        if not theirs.attributes & _TRANSACTIONAL and theirs.producer != (-1, -1, -1):
            found.append(f"batch at {ours.base_offset}: outside a transaction, yet of producer {theirs.producer}")
    places = {offset for one in source for offset in (one.base_offset, one.last_offset)}
    found += [
        f"{extra} lies where the source has records"
        for extra in taken.values()
        if any(extra.base_offset <= place <= extra.last_offset for place in places)
    ]
    return found[:_SHOWN]


def configs(server: KafkaServer, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    """Each topic's own settings: those that somebody set on it."""
    admin = AdminClient(server.client_config())
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    return {
        resource.name: {
            entry.name: entry.value
            for entry in future.result(ANSWER_S).values()
            if entry.source == 1  # DYNAMIC_TOPIC_CONFIG
        }
        for resource, future in admin.describe_configs(resources).items()
    }


def acls(server: KafkaServer, principal: str) -> list[str]:
    """The rules of one principal."""
    wanted = AclBindingFilter(
        *(ResourceType.ANY, None, Pattern.ANY, principal, None, AclOperation.ANY, AclPermissionType.ANY)
    )
    found = AdminClient(server.client_config()).describe_acls(wanted).result(ANSWER_S)
    return sorted(str(one) for one in found)
