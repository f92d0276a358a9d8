"""Raw fetches: record batches as the broker holds them, of many partitions of one broker at a time.

What belongs here: the request, and its answer as values of ours. What stays out: what to fetch (capture_loop.py), what
is in a batch (batches.py).
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kafka.protocol.consumer.fetch import FetchRequest

from dr_assets.stores.kafka.line import Line
from dr_assets.stores.kafka.refusals import BrokerError
from dr_assets.stores.kafka.wire import EpochEnd

_NEWEST: Final = 17  # 18 tells a follower's high watermark, which we are none of
_BY_ID: Final = 13
_OLDEST: Final = 12  # the first that tells of diverging epochs
_ANSWER_S: Final = 30.0
_FETCH_SESSION_ERRORS: Final = frozenset({70, 71, 110})


@dataclass(frozen=True, slots=True)
class Want:
    """From where on a partition is wanted. `last_epoch` is the leader epoch of what was fetched last, -1 for none."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    leader_epoch: int = -1
    last_epoch: int = -1
    max_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """A partition's part of an answer. `records` are whole batches, the last may be cut; the first may begin early.

    `errno` is Kafka's error code. `diverging` is told when the leader's log has no record of `last_epoch` up to the
    offset that was asked for: what lies behind its end is not what was fetched before.
    """

    topic_id: str
    partition: int
    errno: int
    high_watermark: int
    last_stable: int
    log_start: int
    diverging: EpochEnd | None
    records: memoryview = field(repr=False)


def fetch(line: Line, wants: Sequence[Want], *, max_wait_ms: int, min_bytes: int, max_bytes: int) -> list[Fetched]:
    """What one broker has of `wants`, once it is `min_bytes` or after `max_wait_ms`. Raises SourceError as Line.call.

    The broker gives at least one batch of the first partition that has any, however large, and cuts the rest at the
    limits: so turn the order of `wants` from call to call.
    """
    by_id = line.version_of(FetchRequest) >= _BY_ID and not line.by_names
    names = {want.topic: want.topic_id for want in wants}
    request = FetchRequest(
        replica_id=-1, max_wait_ms=max_wait_ms, min_bytes=min_bytes, max_bytes=max_bytes, isolation_level=0,
        session_id=0, session_epoch=-1, topics=_topics(wants, by_id=by_id), forgotten_topics_data=[], rack_id="",
        min_version=_OLDEST, max_version=_NEWEST if by_id else _BY_ID - 1,
    )  # fmt: skip
    response = line.call(request, timeout_s=max_wait_ms / 1000 + _ANSWER_S)
    if response.error_code and response.error_code not in _FETCH_SESSION_ERRORS:
        raise BrokerError(response.error_code, f"a fetch at {line.address}")
    if by_id and response.responses and all(topic.topic_id is None for topic in response.responses):
        line.by_names = True  # an emulator that announces ids and does not know them
        return fetch(line, wants, max_wait_ms=max_wait_ms, min_bytes=min_bytes, max_bytes=max_bytes)
    return [
        _fetched(topic.topic_id.hex if by_id else names[topic.topic], each)
        for topic in response.responses
        for each in topic.partitions
        if not by_id or topic.topic_id is not None
    ]


def _topics(wants: Sequence[Want], *, by_id: bool) -> list[Any]:
    """One entry a run of partitions of one topic, so that the order of `wants` is kept."""
    kind = FetchRequest.FetchTopic
    topics: list[Any] = []
    last: str | None = None
    for want in wants:
        if want.topic_id != last:
            name = {} if by_id else {"topic": want.topic}
            topics.append(kind(topic_id=uuid.UUID(want.topic_id) if by_id else None, partitions=[], **name))
            last = want.topic_id
        topics[-1].partitions.append(kind.FetchPartition(
            partition=want.partition, current_leader_epoch=want.leader_epoch, fetch_offset=want.offset,
            last_fetched_epoch=want.last_epoch, log_start_offset=-1, partition_max_bytes=want.max_bytes,
        ))  # fmt: skip
    return topics


def _fetched(topic_id: str, raw: Any) -> Fetched:
    diverging = getattr(raw, "diverging_epoch", None)
    end = None
    if diverging is not None and (diverging.epoch, diverging.end_offset) != (-1, -1):
        end = EpochEnd(diverging.epoch, diverging.end_offset)
    return Fetched(
        topic_id, raw.partition_index, raw.error_code, raw.high_watermark, raw.last_stable_offset,
        raw.log_start_offset, end, memoryview(raw.records or b""),
    )  # fmt: skip
