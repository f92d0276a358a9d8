"""A stream of rows as a Parquet file in the working folder, which engines read in place, column by column.

What belongs here: what may lie in such a file, writing it. What stays out: reading it (an engine does), and when it
goes (with its folder).
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from dr_assets.estate.errors import PolicyError

_GROUP_ROWS: Final = 122_880  # what DuckDB gives to a thread at once
_GROUP_BYTES: Final = 64 << 20
# Texts of few values: dictionaries of them are short, and cheap to compare. Of others they'd be built and thrown away.
_FEW: Final = frozenset(
    {
        *("currency", "direction", "state", "kind", "provider", "file", "batch", "settled_us", "original_reference"),
        *("account", "statement", "topic", "partition", "model", "resolution", "period"),
    }
)


def can_spool(schema: pa.Schema) -> bool:
    """Whether an engine finds in a file what the stream had: not so for a type that only one of them knows."""
    return all(
        pa.types.is_integer(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_date(kind)
        or (pa.types.is_timestamp(kind) and kind.unit == "us")
        for kind in schema.types
    )


def begun(reader: pa.RecordBatchReader, small_bytes: int) -> tuple[pa.Table | None, Iterator[pa.RecordBatch]]:
    """A stream that ends within so many bytes as a table, or else None and all its batches."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in reader:
        held.append(batch)
        size += batch.nbytes
        if size > small_bytes:
            return None, chain(held, reader)
    return pa.Table.from_batches(held, reader.schema), iter(())


def spool(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    path: Path,
    compression: str = "none",
    *,
    with_more: Callable[[pa.Table], pa.Table] = lambda group: group,
) -> int:
    """Write a file; its rows. Raises PolicyError (`reconciliation.memory`) where the folder has no room for it.

    Uncompressed by default: it is read a second later, and by nobody else. `with_more` may give a group of rows further
    columns, the same to each.
    """
    few = [name for name in schema.names if name in _FEW]
    rows = 0
    written = with_more(schema.empty_table()).schema
    with pq.ParquetWriter(path, written, compression=compression, use_dictionary=few) as writer:
        for group in map(with_more, _groups(batches)):
            try:
                writer.write_table(group, row_group_size=group.num_rows)
            except OSError as error:
                raise PolicyError(
                    "reconciliation.memory",
                    f"the working folder does not take the rows of {path.stem}: {error.strerror or error}",
                    "name a workdir with more room",
                ) from None
            rows += group.num_rows
    return rows


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches together, as many as make a group of rows."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)
