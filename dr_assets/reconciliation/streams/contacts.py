"""The CRM's contacts out of a file: CSV or Parquet, as the relation `contacts`.

What belongs here: columns, their types, what is refused. What stays out: a CRM in the ledger's own database (the
contract's query), and judging consent (checks/crm).

Columns: player_id, email_consent, sms_consent, synced_us (microseconds since the epoch) or synced_at (ISO 8601 with a
zone). A CSV has a line of names; consents are true or false. Other columns, names and addresses, are never read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from dr_assets.estate.errors import SourceError

CONTACTS: Final = pa.schema(
    [
        ("player_id", pa.string()),
        ("email_consent", pa.bool_()),
        ("sms_consent", pa.bool_()),
        ("synced_us", pa.int64()),
    ]
)
_PLAIN: Final = ("player_id", "email_consent", "sms_consent")
_WHEN: Final = ("synced_us", "synced_at")
_TYPES: Final = {
    "player_id": pa.string(),
    "email_consent": pa.bool_(),
    "sms_consent": pa.bool_(),
    "synced_us": pa.int64(),
    "synced_at": pa.timestamp("us", tz="UTC"),
}
_BLOCK_BYTES: Final = 4 << 20


def contact_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The contacts of one file, batch by batch. Raises SourceError (`crm.file`), also while it is read."""
    try:
        for batch in _parquet(path) if path.suffix == ".parquet" else _csv(path):
            yield _shaped(path, batch)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowKeyError, OSError) as error:
        raise _refused(path, " ".join(str(error).split())[:200]) from None


def _csv(path: Path) -> Iterator[pa.RecordBatch]:
    with pv.open_csv(
        path,
        read_options=pv.ReadOptions(block_size=_BLOCK_BYTES),
        convert_options=pv.ConvertOptions(
            column_types=_TYPES,
            include_columns=[*_PLAIN, *_WHEN],
            include_missing_columns=True,
            true_values=["true", "True", "t", "1", "yes"],
            false_values=["false", "False", "f", "0", "no"],
        ),
    ) as reader:
        yield from reader


def _parquet(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        names = [name for name in (*_PLAIN, *_WHEN) if name in file.schema_arrow.names]
        yield from file.iter_batches(columns=names)


def _shaped(path: Path, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The relation's columns and types; whoever has no moment of its synchronisation cannot be judged by it."""
    columns = []
    for name in _PLAIN:
        if name not in batch.schema.names:
            raise _refused(path, f"it has no column {name}")
        columns.append(batch[name].cast(_TYPES[name]))
    columns.append(_moment(path, batch))
    for name, column in zip(CONTACTS.names, columns, strict=True):
        if column.null_count:
            raise _refused(path, f"{column.null_count} row(s) without {name}")
    return pa.RecordBatch.from_arrays(columns, schema=CONTACTS)


def _moment(path: Path, batch: pa.RecordBatch) -> pa.Array:
    if "synced_us" in batch.schema.names and batch["synced_us"].null_count < len(batch):
        return batch["synced_us"].cast(pa.int64())
    if "synced_at" not in batch.schema.names:
        raise _refused(path, "it has neither synced_us nor synced_at")
    found = batch["synced_at"]
    if not pa.types.is_timestamp(found.type) or found.type.tz is None:
        raise _refused(path, "synced_at is no time with a zone")
    return pc.cast(found.cast(pa.timestamp("us", tz="UTC")), pa.int64())


def _refused(path: Path, found: str) -> SourceError:
    return SourceError(
        "crm.file",
        f"{path.name}: {found}",
        "give a CSV or Parquet file with player_id, email_consent, sms_consent and synced_us or synced_at",
    )
