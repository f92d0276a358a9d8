"""What each restored store says of its own, as Parquet files that orphans are told by.

What belongs here: reading the few relations off a restored database and a restored bucket. What stays out: topics'
(reconciliation/streams does that), comparing (orphans.py).
"""

import re
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from dr_assets.estate.model import BucketDataset
from dr_assets.reconciliation.contract import load_contract
from dr_assets.reconciliation.extract import reading
from dr_assets.stores.bucket.listing import listing
from dr_assets.stores.bucket.source import Place

LEDGER_SIDE: Final = ("transfers", "outbox", "players")
DOCUMENTS: Final = pa.schema([("name", pa.string()), ("player_id", pa.string())])
_SUBJECT: Final = "subject"


def ledger_relations(dsn: str, contract: str, folder: Path) -> dict[str, Path]:
    """Those of LEDGER_SIDE that the contract has, each a file in `folder`. Raises SourceError, PolicyError."""
    queries = load_contract(contract).queries
    found: dict[str, Path] = {}
    with reading(dsn) as read:
        for relation in LEDGER_SIDE:
            if relation not in queries:
                continue
            read.cursor.execute(queries[relation])
            found[relation] = _written(folder / f"{relation}.parquet", read.cursor.fetch_record_batch())
    return found


def _written(path: Path, reader: pa.RecordBatchReader) -> Path:
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
    return path


def documents_relation(place: Place, dataset: BucketDataset, folder: Path) -> Path | None:
    """Each document of a bucket with whose it is by its name; None where names don't tell."""
    if dataset.subject.kind != "key" or dataset.subject.pattern is None:
        return None
    rule, path = re.compile(dataset.subject.pattern), folder / "documents.parquet"
    with pq.ParquetWriter(path, DOCUMENTS, compression="zstd") as writer:
        for rows in listing(place):
            names = sorted({row.name for row in rows if not row.is_marker})
            theirs = [None if (found := rule.search(name)) is None else found[_SUBJECT] for name in names]
            writer.write_batch(
                pa.record_batch([pa.array(names, pa.string()), pa.array(theirs, pa.string())], DOCUMENTS)
            )
    return path
