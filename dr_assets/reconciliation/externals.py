"""What outsiders know, as the caller brings it: one Arrow stream, table or set of Parquet files per relation.

What belongs here: the type, and the comparison of its columns with what the checks need. What stays out: reading
providers' files and topics (providers/, streams/), and loading (engine/).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.relations import EXTERNAL, Kind

# A stream is read once. Paths are Parquet files of one schema, read in place.
Source: TypeAlias = pa.RecordBatchReader | pa.Table | Path | Sequence[Path]
Externals: TypeAlias = Mapping[str, Source]

ARROW_TYPES: Final[dict[Kind, pa.DataType]] = {
    "id": pa.string(),
    "text": pa.string(),
    "minor": pa.int64(),
    "flag": pa.bool_(),
    "bytes": pa.binary(),
}
_TAKEN: Final[dict[Kind, tuple[str, ...]]] = {
    "id": ("int64", "int32", "int16", "string", "large_string"),
    "text": ("string", "large_string", "string_view"),
    "minor": ("int64", "int32", "int16"),
    "flag": ("bool",),
    "bytes": ("binary", "large_binary"),
}


def external_schema(relation: str) -> pa.Schema:
    """The Arrow schema that a reader of outsiders' files gives; an id may be int64 as well."""
    return pa.schema([(column.name, ARROW_TYPES[column.kind]) for column in EXTERNAL[relation]])


def paths_of(source: Source) -> list[Path] | None:
    """The Parquet files of a source, None for a stream or a table."""
    if isinstance(source, Path):
        return [source]
    return None if isinstance(source, pa.RecordBatchReader | pa.Table) else list(source)


def compare_externals(externals: Externals) -> None:
    """Refuse what no check knows, and columns that are missing or of a type that could lose a minor unit.

    Raises PolicyError (`reconciliation.external`).
    """
    for relation, source in externals.items():
        if relation not in EXTERNAL:
            raise _refused(relation, f"there is no such relation (there are {', '.join(EXTERNAL)})")
        for schema in _schemas(relation, source):
            for column in EXTERNAL[relation]:
                if schema.get_field_index(column.name) < 0:
                    raise _refused(relation, f"no column {column.name} (given are {', '.join(schema.names)})")
                found = str(schema.field(column.name).type)
                if found not in _TAKEN[column.kind]:
                    raise _refused(relation, f"{column.name} is {found}, expected {' or '.join(_TAKEN[column.kind])}")


def _schemas(relation: str, source: Any) -> list[pa.Schema]:
    paths = paths_of(source)
    if paths is None:
        return [source.schema]
    if not paths:
        raise _refused(relation, "no file was given")
    return [pq.read_schema(path) for path in paths]


def _refused(relation: str, found: str) -> PolicyError:
    return PolicyError(
        "reconciliation.external",
        f"external relation {relation}: {found}",
        "docs/reconciliation.md lists the columns of each relation",
    )
