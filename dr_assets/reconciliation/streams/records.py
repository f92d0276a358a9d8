"""Records of topics as Arrow, a batch at a time: what a reader of committed transactions sees, and nothing of values.

What belongs here: the relations `records` and `partitions`, from whatever tells batches (a cluster that runs or was
restored, or the vault's export as of a time or offsets). What stays out: keys and names (rules.py), groups (groups.py).

Memory is bounded by a batch of rows. Of a value only its SHA-256 is kept: payloads are compared, and never shown.
A partition that has transactions is read twice: how one ended stands behind its records.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from dr_assets.reconciliation.streams.rules import StreamRules, text_of
from dr_assets.stores.kafka.batches import records, split
from dr_assets.stores.kafka.committed import Stretches, is_spared, uncommitted
from dr_assets.stores.kafka.restore_source import RestoreSource, Where

Ranges = Mapping[tuple[str, int], tuple[int, int]]

RECORDS: Final = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int64()),
        ("record_offset", pa.int64()),
        ("idempotency_key", pa.string()),
        ("timestamp_us", pa.int64()),
        ("message_key", pa.string()),
        ("payload_sha256", pa.string()),  # NULL: the record says nothing, it is a tombstone or was blanked
        ("dead_letter", pa.bool_()),
    ]
)
PAYLOAD: Final = pa.field("payload", pa.string())
PARTITIONS: Final = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int64()),
        ("begin_offset", pa.int64()),
        ("end_offset", pa.int64()),
        ("complete_from_us", pa.int64()),
    ]
)
_ROWS: Final = 65_536
_US_PER_MS: Final = 1000


def whole_ranges(
    source: RestoreSource, topics: tuple[str, ...] = (), ends: Mapping[tuple[str, int], int] | None = None
) -> dict[tuple[str, int], tuple[int, int]]:
    """Everything that a source has of these topics (all, if none is named), cut at `ends`."""
    ends = ends or {}
    return {
        (name, index): (part.begin, max(part.begin, min(ends.get((name, index), part.end), part.end)))
        for name, topic in sorted(source.topics.items())
        if not topics or name in topics
        for index, part in topic.partitions.items()
    }


@dataclass(slots=True)
class Seen:
    """What reading `records` came upon on its way; whole only when all of them were read.

    `first_us` is the timestamp of the first record of each partition, `spared` how many records belong to transactions
    that were aborted or have not ended.
    """

    first_us: dict[tuple[str, int], int] = field(default_factory=dict)
    count: int = 0
    spared: int = 0


def record_reader(
    source: RestoreSource, ranges: Ranges, rules: StreamRules, seen: Seen | None = None
) -> pa.RecordBatchReader:
    """The relation `records` of offsets [begin, end) by topic name and partition.

    Raises SourceError and VaultError while it is read.
    """
    schema = RECORDS.append(PAYLOAD) if rules.with_payload else RECORDS
    return pa.RecordBatchReader.from_batches(schema, _batches(source, ranges, rules, seen or Seen(), schema))


def partition_table(
    ranges: Ranges, seen: Seen, complete_from_us: Mapping[tuple[str, int], int] | None = None
) -> pa.Table:
    """The relation `partitions`: what was read, and from when on nothing of a partition is missing.

    Of a partition whose head is gone that is its first record's time, unless `complete_from_us` knows better (it was
    read from the place of a moment on). To be made when `records` was read.
    """
    known = complete_from_us or {}
    rows = sorted(ranges.items())
    return pa.table(
        {
            "topic": [topic for (topic, _), _ in rows],
            "partition": [partition for (_, partition), _ in rows],
            "begin_offset": [begin for _, (begin, _) in rows],
            "end_offset": [end for _, (_, end) in rows],
            "complete_from_us": [
                known.get(place, 0 if begin == 0 else seen.first_us.get(place, _NEVER)) for place, (begin, _) in rows
            ],
        },
        schema=PARTITIONS,
    )


_NEVER: Final = (1 << 63) - 1  # nothing is left of it, so nothing can be missed in it


def _batches(
    source: RestoreSource, ranges: Ranges, rules: StreamRules, seen: Seen, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    names = {topic.topic_id: topic.name for topic in source.topics.values()}
    wanted: dict[Where, tuple[int, int]] = {
        (source.topics[topic].topic_id, partition): (begin, end)
        for (topic, partition), (begin, end) in ranges.items()
        if end > begin
    }
    hidden = uncommitted(source, wanted)
    rows = _Rows(rules, schema)
    for topic_id, partition, data in source.slices(wanted):
        where = (topic_id, partition)
        place = (names[topic_id], partition)
        for batch in _seen_batches(data, wanted[where], hidden.get(where, {}), seen):
            rows.take(place, batch, wanted[where], seen)
            if len(rows.columns[0]) >= _ROWS:
                yield rows.flush()
    yield rows.flush()


def _seen_batches(data: memoryview, wanted: tuple[int, int], hidden: Stretches, seen: Seen) -> Iterator[memoryview]:
    for header, batch in split(data):
        if header.is_control or header.next_offset <= wanted[0] or header.base_offset >= wanted[1]:
            continue
        if is_spared(header, hidden):
            seen.spared += header.count
            continue
        yield batch


class _Rows:
    """Rows on their way into an Arrow batch, column by column."""

    def __init__(self, rules: StreamRules, schema: pa.Schema) -> None:
        self._rules = rules
        self._schema = schema
        self.columns: list[list[Any]] = [[] for _ in schema]

    def take(self, place: tuple[str, int], batch: memoryview, wanted: tuple[int, int], seen: Seen) -> None:
        """The records of a batch that are wanted."""
        own = [record for record in records(batch) if wanted[0] <= record.offset < wanted[1]]
        if not own:
            return
        seen.first_us.setdefault(place, own[0].timestamp * _US_PER_MS)
        seen.count += len(own)
        rules, (topic, partition), columns = self._rules, place, self.columns
        columns[0] += [topic] * len(own)
        columns[1] += [partition] * len(own)
        columns[2] += [record.offset for record in own]
        columns[3] += [rules.key_of(record) for record in own]
        columns[4] += [record.timestamp * _US_PER_MS for record in own]
        columns[5] += [text_of(record.key) for record in own]
        columns[6] += [None if one.value is None else hashlib.sha256(one.value).hexdigest() for one in own]
        columns[7] += [rules.is_dead_letter(topic)] * len(own)
        if rules.with_payload:
            columns[8] += [text_of(record.value) for record in own]

    def flush(self) -> pa.RecordBatch:
        """What is gathered, as Arrow."""
        arrays = [pa.array(column, each.type) for column, each in zip(self.columns, self._schema, strict=True)]
        self.columns = [[] for _ in self._schema]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)
