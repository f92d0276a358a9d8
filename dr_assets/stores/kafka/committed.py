"""Which records a reader of committed transactions sees: those of transactions that were committed, and all others.

What belongs here: the stretches of a partition that such a reader is spared. What stays out: the records themselves.
"""

from collections.abc import Mapping

from dr_assets.stores.kafka.batches import COMMIT, BatchHeader, marker, split
from dr_assets.stores.kafka.restore_source import RestoreSource, Where

# By the source's producer: stretches of offsets [first, end) whose transaction was aborted or never ended.
Stretches = dict[int, list[tuple[int, int]]]
_UNENDED = 1 << 63


def uncommitted(source: RestoreSource, wanted: Mapping[Where, tuple[int, int]]) -> dict[Where, Stretches]:
    """Which records a reader of committed transactions doesn't see; looks behind each range for how they ended."""
    parts = {
        (topic.topic_id, index): part for topic in source.topics.values() for index, part in topic.partitions.items()
    }
    whole = {
        where: (begin, parts[where].end)
        for where, (begin, _) in wanted.items()
        if parts[where].has_transactions is not False
    }
    open_: dict[Where, dict[int, int]] = {}
    found: dict[Where, Stretches] = {}
    for topic_id, partition, data in source.slices(whole):
        where = (topic_id, partition)
        began, ended = open_.setdefault(where, {}), found.setdefault(where, {})
        for header, batch in split(data, check_crc=False):
            if header.is_control and header.count:
                first = began.pop(header.producer_id, None)
                if first is not None and marker(batch) != COMMIT:
                    ended.setdefault(header.producer_id, []).append((first, header.base_offset))
            elif header.is_transactional:
                began.setdefault(header.producer_id, header.base_offset)
    for where, began in open_.items():
        stable = parts[where].last_stable
        for producer, first in began.items():
            # Below the last stable offset it was committed, and compaction has taken the marker.
            if stable is None or first >= stable:
                found[where].setdefault(producer, []).append((first, _UNENDED))
    return found


def is_spared(header: BatchHeader, stretches: Stretches) -> bool:
    """Whether a batch is one that a reader of committed transactions doesn't see."""
    return header.is_transactional and any(
        first <= header.base_offset < end for first, end in stretches.get(header.producer_id, ())
    )
