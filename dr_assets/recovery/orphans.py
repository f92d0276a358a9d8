"""Whom one store tells of and another doesn't know: counted and listed, as sets, over what was restored.

What belongs here: the kinds of orphans as SQL over relations, and what the same rows prove of clocks. What stays out:
where relations come from (sides.py, reconciliation/streams), and what to do about an orphan (outbox, worklist).

A kind whose relations nobody brought is skipped, with what is missing: no count of zero that nobody counted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import duckdb
import pyarrow as pa

from dr_assets.vault.format.canonical import Json

Relation: TypeAlias = pa.Table | Path | list[Path]  # several: each dataset's of a kind
ROWS: Final = pa.schema(
    [("kind", pa.string()), ("reference", pa.string()), ("place", pa.string()), ("at_us", pa.int64())]
)
_LISTED: Final = 10_000
_SETTINGS: Final[dict[str, str | bool | int | float | list[str]]] = {"memory_limit": "512MB", "threads": 2}

# Records of erased people say nothing any more, not even their key: nobody can tell which of a person's they were.
_ERASED: Final = """
    SELECT DISTINCT message_key FROM records
    WHERE idempotency_key IS NULL AND payload_sha256 IS NULL AND message_key IS NOT NULL"""
# What a topic's own retention took is no orphan: the event was there, and it is not to come back.
_EXPECTED: Final = f"""
    SELECT o.* FROM outbox AS o
    LEFT JOIN (SELECT topic, max(complete_from_us) AS from_us FROM partitions GROUP BY topic) AS t ON t.topic = o.topic
    WHERE o.created_us >= coalesce(t.from_us, 0) AND coalesce(o.message_key NOT IN ({_ERASED}), true)"""  # noqa: S608 - our own text


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of orphan: which relations it reads, and the query that gives reference, place and at_us."""

    reads: tuple[str, ...]
    query: str


KINDS: Final[dict[str, Kind]] = {
    "event_without_posting": Kind(
        ("records", "transfers", "outbox"),
        """SELECT r.idempotency_key, r.topic || '/' || r.partition || '@' || r.record_offset, r.timestamp_us
           FROM records AS r ANTI JOIN transfers AS t ON t.idempotency_key = r.idempotency_key
           WHERE r.idempotency_key IS NOT NULL AND NOT r.dead_letter
             AND r.topic IN (SELECT DISTINCT topic FROM outbox)""",
    ),
    "posting_without_event": Kind(
        ("records", "partitions", "transfers", "outbox"),
        f"""SELECT o.idempotency_key, o.topic, o.created_us FROM ({_EXPECTED}) AS o
            ANTI JOIN records AS r ON r.idempotency_key = o.idempotency_key WHERE o.published
            UNION ALL
            SELECT t.idempotency_key, 'no outbox row', NULL FROM transfers AS t
            ANTI JOIN outbox AS o ON o.idempotency_key = t.idempotency_key
            ANTI JOIN records AS r ON r.idempotency_key = t.idempotency_key""",  # noqa: S608 - our own text
    ),
    "outbox_without_event": Kind(
        ("records", "partitions", "outbox"),
        f"""SELECT o.idempotency_key, o.topic, o.created_us FROM ({_EXPECTED}) AS o
            ANTI JOIN records AS r ON r.idempotency_key = o.idempotency_key WHERE NOT o.published""",  # noqa: S608 - as above
    ),
    "document_without_player": Kind(
        ("documents", "players"),
        """SELECT d.player_id, d.name, NULL FROM documents AS d
           ANTI JOIN players AS p ON p.player_id::VARCHAR = d.player_id WHERE d.player_id IS NOT NULL""",
    ),
    "group_beyond_end": Kind(
        ("group_offsets",),
        """SELECT group_name, topic || '/' || partition || '@' || committed || ' ends at ' || end_offset, NULL
           FROM group_offsets WHERE committed > end_offset""",
    ),
}
# An event is younger than its row. Where it seems older, the broker's (or its producer's) clock is behind Postgres'.
_CLOCK: Final = """SELECT min(r.timestamp_us - o.created_us), count(*) FROM records AS r
                   JOIN outbox AS o ON o.idempotency_key = r.idempotency_key"""


@dataclass(frozen=True, slots=True)
class Orphans:
    """How many of each kind, and which (`rows`, the first 10,000 of a kind); `skipped` names what was missing.

    `topics_clock_behind_ms` is by how much the records' clock is proven to be behind the database's; None where nothing
    could be compared.
    """

    counts: Mapping[str, int]
    rows: pa.Table = field(repr=False)
    skipped: Mapping[str, str] = field(default_factory=dict)
    topics_clock_behind_ms: int | None = None

    @property
    def total(self) -> int:
        """All kinds together."""
        return sum(self.counts.values())

    def to_json(self) -> dict[str, Json]:
        """Counts alone: references are people's affairs, and a sealed fact is kept for years."""
        return {
            "total": self.total,
            "counts": dict(self.counts),
            "skipped": dict(self.skipped),
            "topics_clock_behind_ms": self.topics_clock_behind_ms,
        }


def find_orphans(relations: Mapping[str, Relation]) -> Orphans:
    """Every kind whose relations are here."""
    counts: dict[str, int] = {}
    skipped: dict[str, str] = {}
    found: list[pa.Table] = []
    with _database(relations) as database:
        for name, kind in KINDS.items():
            missing = [relation for relation in kind.reads if relation not in relations]
            if missing:
                skipped[name] = f"nobody brought {', '.join(missing)}"
                continue
            database.execute(f"CREATE TABLE {name} AS SELECT * FROM ({kind.query}) AS q (reference, place, at_us)")  # noqa: S608 - our own text
            counts[name] = _number(database, f"SELECT count(*) FROM {name}")  # noqa: S608 - as above
            rows: pa.Table = database.sql(
                f"SELECT '{name}', reference::VARCHAR, place::VARCHAR, at_us::BIGINT FROM {name} "  # noqa: S608 - as above
                f"ORDER BY at_us, reference, place LIMIT {_LISTED}"
            ).to_arrow_table()
            found.append(rows.rename_columns(ROWS.names).cast(ROWS))
        behind = _clock_behind_ms(database) if {"records", "outbox"} <= set(relations) else None
    return Orphans(counts, pa.concat_tables([ROWS.empty_table(), *found]), skipped, behind)


def _clock_behind_ms(database: duckdb.DuckDBPyConnection) -> int | None:
    least_us, compared = database.execute(_CLOCK).fetchall()[0]
    return None if not compared else max(0, -int(least_us) // 1000)


def _number(database: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(database.execute(query).fetchall()[0][0])


@contextmanager
def _database(relations: Mapping[str, Relation]) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config=dict(_SETTINGS)) as database:
        for name, relation in relations.items():
            if isinstance(relation, Path | list):
                paths = [str(path) for path in (relation if isinstance(relation, list) else [relation])]
                database.from_parquet(paths, union_by_name=True).create_view(name)
            else:
                database.register(name, relation)
        yield database
