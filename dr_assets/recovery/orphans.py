"""Whom one store tells of and another doesn't know: counted and listed, as sets, over what was restored.

What belongs here: the kinds of orphans as SQL over relations, and what the same rows prove of clocks. What stays out:
where relations come from (sides.py, reconciliation/streams), and what to do about an orphan (outbox, worklist).

A kind whose relations nobody brought is skipped, with what is missing: no count of zero that nobody counted. Of several
ledgers each is judged by what it brings itself: one without an outbox publishes nothing, so its transfers lack no row.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import duckdb
import pyarrow as pa

from dr_assets.vault.format.canonical import Json

Relation: TypeAlias = pa.Table | Path | Mapping[str, Path]  # several: each dataset's of a kind, by its name
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
    WHERE o.dataset IN (FROM judged) AND o.created_us >= coalesce(t.from_us, 0)
      AND coalesce(o.message_key NOT IN ({_ERASED}), true)"""  # noqa: S608 - our own text


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of orphan: which relations it reads, and the query that gives reference, place and at_us.

    `own`: those that a ledger must bring itself to be among the `judged`. A row's `dataset` is whose it is.
    """

    reads: tuple[str, ...]
    query: str
    own: tuple[str, ...] = ()


KINDS: Final[dict[str, Kind]] = {
    "event_without_posting": Kind(
        ("records", "transfers", "outbox"),
        """SELECT r.idempotency_key, r.topic || '/' || r.partition || '@' || r.record_offset, r.timestamp_us
           FROM records AS r ANTI JOIN transfers AS t ON t.idempotency_key = r.idempotency_key
           WHERE r.idempotency_key IS NOT NULL AND NOT r.dead_letter
             AND r.topic IN (SELECT topic FROM outbox WHERE dataset IN (FROM judged))
             AND r.topic NOT IN (SELECT topic FROM outbox WHERE dataset NOT IN (FROM judged))""",
        ("transfers", "outbox"),
    ),
    "posting_without_event": Kind(
        ("records", "partitions", "transfers", "outbox"),
        f"""SELECT o.idempotency_key, o.topic, o.created_us FROM ({_EXPECTED}) AS o
            ANTI JOIN records AS r ON r.idempotency_key = o.idempotency_key WHERE o.published
            UNION ALL
            SELECT t.idempotency_key, 'no outbox row', NULL FROM transfers AS t
            ANTI JOIN outbox AS o ON o.idempotency_key = t.idempotency_key AND o.dataset = t.dataset
            ANTI JOIN records AS r ON r.idempotency_key = t.idempotency_key
            WHERE t.dataset IN (FROM judged)""",  # noqa: S608 - our own text
        ("transfers", "outbox"),
    ),
    "outbox_without_event": Kind(
        ("records", "partitions", "outbox"),
        f"""SELECT o.idempotency_key, o.topic, o.created_us FROM ({_EXPECTED}) AS o
            ANTI JOIN records AS r ON r.idempotency_key = o.idempotency_key WHERE NOT o.published""",  # noqa: S608 - as above
        ("outbox",),
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

    A kind may be counted and have a word in `skipped`: of which ledgers it was not judged.

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


def find_orphans(relations: Mapping[str, Relation], ledgers: Iterable[str] = ()) -> Orphans:
    """Every kind whose relations are here. `ledgers` are those of the estate, also what brought nothing."""
    counts: dict[str, int] = {}
    skipped: dict[str, str] = {}
    found: list[pa.Table] = []
    brought = {name: _by_dataset(relation) for name, relation in relations.items()}
    known = {*ledgers, *(one for name in ("transfers", "outbox") for one in brought.get(name, ()))}
    with _database(brought) as database:
        for name, kind in KINDS.items():
            missing = [relation for relation in kind.reads if relation not in relations]
            lacks = {one: [own for own in kind.own if one not in brought.get(own, ())] for one in sorted(known)}
            judged = [one for one in known if not lacks[one]]
            if missing or (kind.own and not judged):
                skipped[name] = f"nobody brought {', '.join(missing or kind.own)}"
                continue
            said = [f"{one} brings no {' and no '.join(lack)}" for one, lack in lacks.items() if lack]
            if said:
                skipped[name] = f"not judged of every ledger: {'; '.join(said)}"
            database.execute("CREATE OR REPLACE TEMP TABLE judged AS SELECT unnest(?::VARCHAR[])", [judged])
            database.execute(f"CREATE TABLE {name} AS SELECT * FROM ({kind.query}) AS q (reference, place, at_us)")  # noqa: S608 - our own text
            counts[name] = _number(database, f"SELECT count(*) FROM {name}")  # noqa: S608 - as above
            rows: pa.Table = database.sql(
                f"SELECT '{name}', reference::VARCHAR, place::VARCHAR, at_us::BIGINT FROM {name} "  # noqa: S608 - as above
                f"ORDER BY at_us, reference, place LIMIT {_LISTED}"
            ).to_arrow_table()
            found.append(rows.rename_columns(ROWS.names).cast(ROWS))
        behind = _clock_behind_ms(database) if {"records", "outbox"} <= set(relations) else None
    return Orphans(counts, pa.concat_tables([ROWS.empty_table(), *found]), skipped, behind)


def _by_dataset(relation: Relation) -> Mapping[str, pa.Table | Path]:
    return relation if isinstance(relation, Mapping) else {"": relation}


def _clock_behind_ms(database: duckdb.DuckDBPyConnection) -> int | None:
    least_us, compared = database.execute(_CLOCK).fetchall()[0]
    return None if not compared else max(0, -int(least_us) // 1000)


def _number(database: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(database.execute(query).fetchall()[0][0])


@contextmanager
def _database(brought: Mapping[str, Mapping[str, pa.Table | Path]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Each relation as one view over all who brought it, with the `dataset` whose a row is."""
    with duckdb.connect(config=dict(_SETTINGS)) as database:
        for relation, several in brought.items():
            parts = []
            for number, (dataset, rows) in enumerate(several.items()):
                part = f"{relation}_{number}"
                table = database.from_parquet(str(rows)) if isinstance(rows, Path) else database.from_arrow(rows)
                whose = duckdb.ConstantExpression(dataset).alias("dataset")
                table.select(duckdb.StarExpression(), whose).create_view(part)
                parts.append(f"SELECT * FROM {part}")  # noqa: S608 - a name of ours
            database.execute(f"CREATE VIEW {relation} AS {' UNION ALL BY NAME '.join(parts)}")
        yield database
