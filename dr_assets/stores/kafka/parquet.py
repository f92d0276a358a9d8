"""A range of topics as Parquet, for analysts and for reconciliation with DuckDB: one row a record.

What belongs here: rows, columns, which records a reader of committed transactions sees. What stays out: where the
batches come from, and asking anything of the rows.

Memory is bounded by a row group, whatever the range is. With `read_committed` a partition that has transactions is read
twice: how one ended stands behind its records.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.kafka.batches import BatchHeader, records, split
from dr_assets.stores.kafka.committed import Stretches, is_spared, uncommitted
from dr_assets.stores.kafka.restore_source import RestoreSource

SCHEMA: Final = pa.schema(
    [
        ("topic", pa.dictionary(pa.int32(), pa.string())),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("timestamp_type", pa.dictionary(pa.int32(), pa.string())),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
    ]
)
_GROUP_ROWS: Final = 100_000
_GROUP_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """What a file holds. `left_out` are records of aborted and unfinished transactions."""

    path: Path
    records: int
    left_out: int
    size_bytes: int


def to_parquet(
    source: RestoreSource,
    path: Path,
    ranges: Mapping[tuple[str, int], tuple[int, int]],
    *,
    read_committed: bool = True,
    times: tuple[int | None, int | None] = (None, None),
) -> Written:
    """Write the records of `ranges` (offsets [begin, end) by topic name and partition) to a new file at `path`.

    `times` narrows to timestamps [begin, end) in ms. The file appears whole, or not at all. Raises PolicyError
    (`kafka.parquet_exists`), VaultError and SourceError for what can't be read.
    """
    if path.exists():
        raise PolicyError("kafka.parquet_exists", f"{path} exists", "name another file")
    ids = {topic.topic_id: topic.name for topic in source.topics.values()}
    wanted = {
        (source.topics[topic].topic_id, partition): (begin, end)
        for (topic, partition), (begin, end) in ranges.items()
        if end > begin
    }
    aborted = uncommitted(source, wanted) if read_committed else {}
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        rows = _Rows(Path(draft), times)
        with rows.writer:
            for topic_id, partition, data in source.slices(wanted):
                where = (topic_id, partition)
                rows.take(ids[topic_id], partition, data, wanted[where], aborted.get(where, {}))
            rows.flush()
        os.link(draft, path)  # never over a file that came meanwhile
    finally:
        with suppress(FileNotFoundError):
            Path(draft).unlink()
    return Written(path, rows.count, rows.left_out, path.stat().st_size)


@dataclass
class _Rows:
    """Rows on their way into a file, a row group at a time."""

    path: Path
    times: tuple[int | None, int | None]
    count: int = 0
    left_out: int = 0
    _columns: list[list[Any]] = field(default_factory=lambda: [[] for _ in SCHEMA])
    _bytes: int = 0

    def __post_init__(self) -> None:
        self.writer = pq.ParquetWriter(self.path, SCHEMA, compression="zstd")

    def take(self, topic: str, partition: int, data: memoryview, wanted: tuple[int, int], aborted: Stretches) -> None:
        """The records of whole batches that are wanted."""
        for header, batch in split(data):
            if header.is_control or header.next_offset <= wanted[0] or header.base_offset >= wanted[1]:
                continue
            if is_spared(header, aborted):
                self.left_out += header.count
                continue
            self._records(topic, partition, header, batch, wanted)
            if len(self._columns[0]) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what is gathered as a row group."""
        if self._columns[0]:
            arrays = [pa.array(column, each.type) for column, each in zip(self._columns, SCHEMA, strict=True)]
            self.writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
            self.count += len(self._columns[0])
        self._columns = [[] for _ in SCHEMA]
        self._bytes = 0

    def _records(
        self, topic: str, partition: int, header: BatchHeader, batch: memoryview, wanted: tuple[int, int]
    ) -> None:
        topics, partitions, offsets, stamps, types, keys, values, headers = self._columns
        kind = "LogAppendTime" if header.is_log_append_time else "CreateTime"
        begin_ms, end_ms = self.times
        for record in records(batch):
            if not wanted[0] <= record.offset < wanted[1]:
                continue
            if (begin_ms is not None and record.timestamp < begin_ms) or (
                end_ms is not None and record.timestamp >= end_ms
            ):
                continue
            topics.append(topic)
            partitions.append(partition)
            offsets.append(record.offset)
            stamps.append(record.timestamp)
            types.append(kind)
            keys.append(record.key)
            values.append(record.value)
            # Kafka's names are UTF-8; a producer that wrote other bytes is shown with replacements, its values as is.
            headers.append([{"key": name.decode(errors="replace"), "value": value} for name, value in record.headers])
        self._bytes += header.size_bytes


def offset_ranges(
    source: RestoreSource, topics: tuple[str, ...] = (), ends: Mapping[tuple[str, int], int] | None = None
) -> Iterator[tuple[tuple[str, int], tuple[int, int]]]:
    """Everything that is stored of these topics (all, if none is named), cut at `ends`."""
    for name in topics or tuple(sorted(source.topics)):
        if name not in source.topics:
            raise PolicyError(
                "kafka.restore_unknown_topic",
                f"the export of {source.dataset} holds no topic {name}",
                f"it holds {', '.join(sorted(source.topics)) or 'none'}",
            )
        for index, part in source.topics[name].partitions.items():
            yield (name, index), (part.begin, min((ends or {}).get((name, index), part.end), part.end))
