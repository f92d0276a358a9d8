"""Statistics of a restored database: what its relations look like, in numbers that name nobody.

What belongs here: gathering, set-based, from a running sandbox, and the numbers' JSON. What stays out: whether a number
is strange (observability/anomalies/), when it is gathered (proving/).

Everything is read by the sandbox's reader. Of values only lengths, quantiles and entropies leave this module. Relations
up to `EXACT_BYTES` are counted whole; larger ones, and the values of all, by a sample whose seed never changes.
"""

import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql

from dr_assets.stores.postgres.measured import measured
from dr_assets.vault.format.canonical import Json, format_time, parse_time

EXACT_BYTES: Final = 2 << 30
SAMPLE_ROWS: Final = 2_000
SAMPLE_PAGES: Final = 64
VALUE_CHARS: Final = 1_024
_PAGE_BYTES: Final = 8_192
_XIDS: Final = 1 << 32
_DIGITS: Final = 6
_TEXTS: Final = frozenset({"text", "varchar", "bpchar", "json", "jsonb", "bytea", "xml", "name"})
_NUMBERS: Final = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8"})
_KEYS: Final = frozenset({"int2", "int4", "int8"})
_QUANTILES: Final = {"q01": 0.01, "q50": 0.5, "q99": 0.99}
_CATALOG: Final = """
SELECT n.nspname || '.' || c.relname, n.nspname, c.relname, pg_catalog.pg_table_size(c.oid),
       pg_catalog.pg_relation_filepath(c.oid),
       pg_catalog.array_agg(a.attname::text ORDER BY a.attnum), pg_catalog.array_agg(t.typname::text ORDER BY a.attnum),
       pg_catalog.array_agg(a.attnotnull ORDER BY a.attnum),
       (SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
        ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND i.indisprimary AND i.indnatts = 1)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
GROUP BY c.oid, n.nspname, c.relname ORDER BY 1
"""
Session = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class RelationStatistics:
    """One relation. `values` are its own features, `columns` those of each column, by name.

    `schema` is a digest over names and types of its columns; `key_max` is the highest key where that is one number.
    """

    schema: str
    values: Mapping[str, float]
    columns: Mapping[str, Mapping[str, float]]
    key_max: int | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """A database as of `at` (the source's clock); `next_xid` has 64 bits."""

    at: datetime
    next_xid: int
    relations: Mapping[str, RelationStatistics] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """For a fact."""
        return {
            "at": format_time(self.at),
            "next_xid": str(self.next_xid),
            "relations": {name: _relation_json(one) for name, one in self.relations.items()},
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Statistics":
        """What `to_json` made."""
        found = {
            name: RelationStatistics(
                str(one["schema"]),
                one["values"],
                one["columns"],
                None if one["key_max"] is None else int(one["key_max"]),
            )
            for name, one in said["relations"].items()
        }
        return cls(parse_time(said["at"], "statistics: at"), int(said["next_xid"]), found)


@dataclass(frozen=True, slots=True)
class _Relation:
    name: str
    schema: str
    table: str
    size_bytes: int
    path: str | None
    columns: tuple[tuple[str, str, bool], ...]
    key: str | None

    @property
    def identifier(self) -> sql.Composed:
        return sql.SQL("{}.{}").format(sql.Identifier(self.schema), sql.Identifier(self.table))

    def of_types(self, types: frozenset[str]) -> list[str]:
        return [name for name, kind, _ in self.columns if kind in types]


def gather_statistics(
    dsn: str, at: datetime, data_dir: Path | None = None, since: Statistics | None = None
) -> Statistics:
    """Look at every relation once, and at a sample of its values and pages.

    `data_dir` lets pages be looked at as files, in which they lie after a checkpoint. `since` are the statistics
    before: what was written after them is counted. Raises psycopg.Error.
    """
    with psycopg.connect(dsn) as session:
        session.read_only = True
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        found = session.execute("SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text").fetchone()
        next_xid = int(found[0]) if found else 0
        xids = None if since is None else next_xid - since.next_xid
        relations = {one.name: _gather(session, one, data_dir, xids) for one in _catalog(session)}
    return Statistics(at, next_xid, relations)


def _catalog(session: Session) -> Iterator[_Relation]:
    for name, schema, table, size_bytes, path, columns, types, not_null, key in session.execute(_CATALOG).fetchall():
        shape = tuple(zip(columns, types, not_null, strict=True))
        is_number = key is not None and dict(zip(columns, types, strict=True))[key] in _KEYS
        yield _Relation(name, schema, table, int(size_bytes), path, shape, key if is_number else None)


def _gather(session: Session, one: _Relation, data_dir: Path | None, xids: int | None) -> RelationStatistics:
    share = 1.0 if one.size_bytes <= EXACT_BYTES else EXACT_BYTES / one.size_bytes
    counted = _counted(session, one, share, xids)
    rows = counted["rows"]
    values: dict[str, float] = {"rows": rows, "size_bytes": one.size_bytes}
    if rows:
        values["row_bytes"] = one.size_bytes / rows
    if "written" in counted:
        values["written"] = counted["written"]
    key_max = counted.get("key_max")
    if key_max is not None and rows:
        span = key_max - counted["key_min"] + 1
        values["gap_share"] = max(0.0, 1 - rows / span)
    columns: dict[str, dict[str, float]] = {name: {} for name, _, _ in one.columns}
    for number, (name, _, not_null) in enumerate(one.columns):
        if not not_null and rows:
            columns[name]["null_share"] = 1 - counted[f"c{number}"] / rows
    for name, features in _sampled(session, one, rows):
        columns[name] |= features
    if data_dir is not None and one.path is not None:
        values |= _pages(data_dir / one.path)
    shape = "|".join(f"{name} {kind}{'' if not_null else ' null'}" for name, kind, not_null in one.columns)
    digest = hashlib.sha256(shape.encode()).hexdigest()[:16]
    return RelationStatistics(digest, values, columns, None if key_max is None else int(key_max))


def _counted(session: Session, one: _Relation, share: float, xids: int | None) -> dict[str, Any]:
    """Rows, values that are not NULL, the key's range, rows written since: one scan; scaled up where it is a sample."""
    wanted: list[sql.Composable] = [sql.SQL("count(*) AS rows")]
    wanted += [
        sql.SQL("count({}) AS {}").format(sql.Identifier(name), sql.Identifier(f"c{number}"))
        for number, (name, _, not_null) in enumerate(one.columns)
        if not not_null
    ]
    if xids is not None and 0 <= xids < _XIDS // 2:
        written = sql.SQL("count(*) FILTER (WHERE pg_catalog.age(xmin) <= {}) AS written")
        wanted.append(written.format(sql.Literal(xids)))
    cursor = session.execute(
        sql.SQL("SELECT {} FROM {} {}").format(sql.SQL(", ").join(wanted), one.identifier, _sample("SYSTEM", share))
    )
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - an aggregate has a row
    counted = {column.name: value / share for column, value in zip(cursor.description or (), row, strict=True)}
    if one.key is not None:
        ends = sql.SQL("SELECT min({key}), max({key}) FROM {relation}")
        found = session.execute(ends.format(key=sql.Identifier(one.key), relation=one.identifier)).fetchone()
        if found is not None and found[0] is not None:
            counted |= {"key_min": found[0], "key_max": found[1]}
    return counted


def _sampled(session: Session, one: _Relation, rows: float) -> Iterator[tuple[str, dict[str, float]]]:
    """Features of the values of a sample, column by column."""
    texts, numbers, flags = one.of_types(_TEXTS), one.of_types(_NUMBERS), one.of_types(frozenset({"bool"}))
    if not rows or not (texts or numbers or flags):
        return
    kinds = {name: kind for name, kind, _ in one.columns}
    wanted = [_beginning(name, kinds[name]) for name in texts]
    wanted += [sql.SQL("{}::float8").format(sql.Identifier(name)) for name in numbers]
    wanted += [sql.SQL("{}::int::float8").format(sql.Identifier(name)) for name in flags]
    way = "BERNOULLI" if one.size_bytes <= EXACT_BYTES else "SYSTEM"
    # A little more than wanted, so that the limit rarely cuts the end of the relation off.
    share = min(1.0, SAMPLE_ROWS / rows)
    query = sql.SQL("SELECT {} FROM {} {} LIMIT {}").format(
        sql.SQL(", ").join(wanted), one.identifier, _sample(way, share), sql.Literal(2 * SAMPLE_ROWS)
    )
    found = session.execute(query).fetchall()
    for number, name in enumerate((*texts, *numbers, *flags)):
        values = [row[number] for row in found if row[number] is not None]
        if not values:
            continue
        if name in texts:
            yield name, _of_texts(values)
        elif name in flags:
            yield name, {"true_share": float(np.mean(values))}
        else:
            quantiles = np.quantile(np.asarray(values, dtype=float), list(_QUANTILES.values()))
            yield name, dict(zip(_QUANTILES, map(float, quantiles), strict=True))


def _beginning(name: str, kind: str) -> sql.Composed:
    column, chars = sql.Identifier(name), sql.Literal(VALUE_CHARS)
    if kind == "bytea":
        return sql.SQL("pg_catalog.substring({}, 1, {})").format(column, chars)
    return sql.SQL('pg_catalog."left"({}::text, {})').format(column, chars)


def _sample(way: str, share: float) -> sql.Composable:
    if share >= 1:
        return sql.SQL("")
    return sql.SQL("TABLESAMPLE " + way + " ({}) REPEATABLE (0)").format(sql.Literal(100 * share))


def _of_texts(values: Sequence[str | bytes]) -> dict[str, float]:
    parts = [value.encode("utf-8", "replace") if isinstance(value, str) else bytes(value) for value in values]
    data = b"".join(parts)
    features = {"length": len(data) / len(parts)}
    if data:
        features |= byte_features(data)
    return features


def byte_features(data: bytes) -> dict[str, float]:
    """Entropy in bits a byte, share of bytes that no plain text has, size over packed size."""
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    shares = counts[counts > 0] / len(data)
    odd = int(counts[:9].sum() + counts[14:32].sum() + counts[127:].sum())
    return {
        "entropy": float(-(shares * np.log2(shares)).sum()),
        "odd_share": odd / len(data),
        "packed": len(data) / len(zlib.compress(data, 1)),
    }


def _pages(path: Path) -> dict[str, float]:
    """How pages look from outside, evenly over the file; nothing where it can't be read or is empty."""
    try:
        pages = path.stat().st_size // _PAGE_BYTES
        with path.open("rb") as file:
            found = []
            for number in range(min(pages, SAMPLE_PAGES)):
                file.seek(number * pages // min(pages, SAMPLE_PAGES) * _PAGE_BYTES)
                found.append(file.read(_PAGE_BYTES))
    except OSError:
        return {}
    if not found:
        return {}
    features = byte_features(b"".join(found))
    zero = sum(1 for page in found if not any(page)) / len(found)
    return {"page_entropy": features["entropy"], "page_packed": features["packed"], "zero_pages": zero}


def _relation_json(one: RelationStatistics) -> dict[str, Json]:
    return {
        "schema": one.schema,
        "key_max": None if one.key_max is None else str(one.key_max),
        "values": _rounded(one.values),
        "columns": {name: _rounded(values) for name, values in one.columns.items()},
    }


def _rounded(values: Mapping[str, float]) -> dict[str, Json]:
    return {name: measured(float(value), _DIGITS) for name, value in values.items() if math.isfinite(value)}
