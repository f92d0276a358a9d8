"""The outbox against its topics: which events are missing there, in which order, and into which partition each goes.

What belongs here: reading both sides, one SQL over them, and everything that makes a plan impossible. What stays out:
the plan's shape (outbox_plan.py), sending (outbox_replay.py), proving (outbox_proof.py). Nothing here writes.

The topics decide what is missing, not the ledger's mark: a ledger that was restored to a moment knows less than the
topics, topics that were restored know less than the ledger, and neither matters to what is there.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.contract import load_contract
from dr_assets.reconciliation.engine.duckdb import DuckDb, duckdb_engine
from dr_assets.reconciliation.extract import Snapshot, compare_with_source, reading
from dr_assets.reconciliation.streams.gather import cluster_source, gather
from dr_assets.reconciliation.streams.rules import StreamRules
from dr_assets.recovery.outbox_plan import Entry, GroupPlace, OutboxPlan, Place
from dr_assets.stores.kafka.partitioner import PARTITIONERS
from dr_assets.stores.kafka.restore_read import LiveSource
from dr_assets.stores.kafka.restore_source import SourcePartition
from dr_assets.stores.kafka.wire import EARLIEST, Cluster

# How far a producer's clock may be before the ledger's: topics are read from so much earlier than they need be.
SKEW: Final = timedelta(minutes=10)
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN: Final = 3
_GOES: Final = pa.schema([("topic", pa.string()), ("by_key", pa.string()), ("partition", pa.int64())])

# What the topics hold, for as long as the outbox is loaded; the records themselves are read from a file that goes.
_HELD: Final = "SELECT DISTINCT topic, idempotency_key FROM records WHERE idempotency_key IS NOT NULL"
_MISSING: Final = """
    WITH blanked AS (
        SELECT DISTINCT topic, message_key FROM records WHERE idempotency_key IS NULL AND payload_sha256 IS NULL
    )
    SELECT o.position, CAST(o.transfer_id AS VARCHAR) AS transfer, o.topic, g.partition, o.idempotency_key,
           o.message_key, sha256(o.payload) AS payload_sha256
    FROM outbox o JOIN goes g ON g.topic = o.topic AND g.by_key = coalesce(o.message_key, o.idempotency_key)
    JOIN partitions p ON p.topic = o.topic AND p.partition = g.partition
    ANTI JOIN held k ON k.topic = o.topic AND k.idempotency_key = o.idempotency_key
    LEFT JOIN blanked b ON b.topic = o.topic AND b.message_key = o.message_key
    WHERE NOT o.published OR (o.created_us >= p.complete_from_us AND b.topic IS NULL)
    ORDER BY o.position, o.idempotency_key
"""


@dataclass(frozen=True)
class Events:
    """The ledger's outbox, loaded as a relation `outbox` with these columns, and when it was read."""

    engine: DuckDb
    snapshot: Snapshot
    rows: int
    columns: frozenset[str]

    def topics(self, since: datetime | None) -> tuple[str, ...]:
        """The topics of rows that are not marked, or younger than `since`: an old row's topic may be gone for good."""
        from_us = 0 if since is None else (since - _EPOCH) // _MICROSECOND
        found = self.engine.rows(
            f"SELECT DISTINCT topic FROM outbox WHERE NOT published OR created_us >= {from_us:d} ORDER BY topic"  # noqa: S608 - a number
        )
        return tuple(found["topic"].to_pylist())


@contextmanager
def loaded_outbox(dsn: str, contract: str, workdir: Path | None = None) -> Iterator[Events]:
    """The outbox of one snapshot of a ledger, for as long as the block lasts.

    Raises PolicyError (`outbox.no_relation`, `outbox.not_unique`, and as `load_contract`), SourceError.
    """
    agreed = load_contract(contract)
    query = agreed.queries.get("outbox")
    if query is None:
        raise PolicyError(
            "outbox.no_relation", f"contract {contract} gives no outbox", "add the relation to its contract.yaml"
        )
    with duckdb_engine(workdir, "512MB", 2) as engine:
        with reading(dsn) as source:
            compare_with_source(source.cursor, agreed)
            source.cursor.execute(query)
            arriving = source.cursor.fetch_record_batch()
            columns = frozenset(arriving.schema.names)
            rows = engine.load("outbox", arriving)
        _require_unique(engine)
        yield Events(engine, source.snapshot, rows, columns)


def _require_unique(engine: DuckDb) -> None:
    """What is there twice can't be sent once, what has no key can't be recognised, nor what has no value be placed."""
    found = engine.rows(
        """SELECT topic, idempotency_key, count(*) AS rows FROM outbox GROUP BY topic, idempotency_key
           HAVING count(*) > 1 OR topic IS NULL OR idempotency_key IS NULL OR count(payload) = 0
                  OR count(position) = 0 OR count(published) = 0 OR count(created_us) = 0
           ORDER BY topic, idempotency_key LIMIT 3"""
    ).to_pylist()
    if found:
        shown = "; ".join(f"{row['idempotency_key']} in {row['topic']}: {row['rows']}" for row in found)
        raise PolicyError(
            "outbox.not_unique",
            f"the outbox holds rows without a key or a value of their own: {shown}",
            "make the contract's outbox relation give one row per event, each with its idempotency key",
        )


@dataclass(frozen=True)
class Missing:
    """What topics lack of an outbox, and between which offsets that was looked for. `source` is how they were then."""

    entries: tuple[Entry, ...]
    begins: dict[Place, int]
    ends: dict[Place, int]
    source: LiveSource

    @property
    def groups(self) -> tuple[GroupPlace, ...]:
        """Where groups were, in the partitions that lack something."""
        places = {(entry.topic, entry.partition) for entry in self.entries}
        return tuple(
            GroupPlace(group, *place, commits[place].offset)
            for group, commits in sorted(self.source.groups.items())
            for place in sorted(set(commits) & places)
        )


def plan_outbox(
    dsn: str,
    contract: str,
    cluster: Cluster,
    *,
    dataset: str,
    rules: StreamRules | None = None,
    partitioner: str = "murmur2",
    since: datetime | None = None,
    workdir: Path | None = None,
) -> OutboxPlan:
    """What the topics of `cluster` lack of the outbox at `dsn`. Reads, and writes nowhere.

    With `since`, rows that are marked as published and were made before it are believed to be in their topics, which
    are read from then on only. Raises PolicyError (`outbox.no_topic`, `outbox.undecided`, `outbox.partitioner` …).
    """
    rules = rules or StreamRules()
    with loaded_outbox(dsn, contract, workdir) as events:
        found = missing_events(events, cluster, rules, partitioner, since, workdir)
        return OutboxPlan(
            dataset=dataset,
            contract=contract,
            cluster_id=cluster.cluster_id,
            partitioner=partitioner,
            rules=rules,
            made_at=datetime.now(UTC),
            snapshot_at=events.snapshot.at,
            snapshot_lsn=events.snapshot.lsn,
            since=since,
            rows=events.rows,
            begins=found.begins,
            ends=found.ends,
            groups=found.groups,
            entries=found.entries,
        )


def missing_events(
    events: Events,
    cluster: Cluster,
    rules: StreamRules,
    partitioner: str,
    since: datetime | None,
    workdir: Path | None = None,
) -> Missing:
    """Read the topics and compare; once for each loaded outbox, which has a relation `held` then.

    Raises as `plan_outbox`.
    """
    topics = events.topics(since)
    source = cluster_source(cluster, _topics_there(cluster, topics)) if topics else LiveSource(cluster, {})
    require_decided(source)
    begins, complete = _begins(cluster, source, _oldest(events.engine, since))
    ends = {place: part.end for place, part in _parts(source).items()}
    ranges = {place: (begin, ends[place]) for place, begin in begins.items()}
    with tempfile.TemporaryDirectory(prefix="outbox-", dir=workdir) as folder:
        held = gather(source, Path(folder), rules, ranges=ranges, complete_from_us=complete)
        events.engine.load("records", held.records)
        events.engine.load("partitions", held.partitions)
        events.engine.keep("held", _HELD)
        _load_destinations(events.engine, source, partitioner)
        _require_partitioner(events.engine, partitioner)
        missing = events.engine.rows(_MISSING)
    entries = tuple(Entry(*row) for row in zip(*(missing[name].to_pylist() for name in Entry._fields), strict=True))
    if rules.is_key:
        _require_key_is_key(entries)
    return Missing(entries, begins, ends, source)


def require_cluster(cluster_id: str, cluster: Cluster) -> None:
    """Refuse a cluster that the plan is not for: what it holds says nothing. Raises PolicyError."""
    if cluster.cluster_id != cluster_id:
        raise PolicyError(
            "outbox.other_cluster",
            f"the plan is for cluster {cluster_id}, this is {cluster.cluster_id}",
            "make a plan for this cluster",
        )


def _topics_there(cluster: Cluster, wanted: Sequence[str]) -> tuple[str, ...]:
    lacking = sorted(set(wanted) - set(cluster.metadata(tuple(wanted)).topics))
    if lacking:
        raise PolicyError(
            "outbox.no_topic",
            f"the cluster has no topic {', '.join(lacking[:_SHOWN])}",
            "restore the topics first (dr-assets kafka restore), or create them as the application would",
        )
    return tuple(wanted)


def require_decided(source: LiveSource) -> None:
    """Refuse topics in which a transaction is open: what it wrote is neither there nor not there.

    Raises PolicyError (`outbox.undecided`).
    """
    open_ = [
        f"{name}/{index}"
        for (name, index), part in sorted(_parts(source).items())
        if part.last_stable is not None and part.last_stable < part.end
    ]
    if open_:
        raise PolicyError(
            "outbox.undecided",
            f"a transaction is open in {', '.join(open_[:_SHOWN])}",
            "stop what writes there; a producer that is gone loses its transaction within its timeout: then try again",
        )


def _parts(source: LiveSource) -> dict[Place, SourcePartition]:
    return {(name, index): part for name, topic in source.topics.items() for index, part in topic.partitions.items()}


def _oldest(engine: DuckDb, since: datetime | None) -> int | None:
    """From when on topics have to be read, in microseconds; None for all of them."""
    if since is None:
        return None
    first = engine.rows("SELECT min(created_us) AS first FROM outbox WHERE NOT published")["first"][0].as_py()
    moment = (since - _EPOCH) // _MICROSECOND
    return min(moment, moment if first is None else int(first))


def _begins(cluster: Cluster, source: LiveSource, oldest_us: int | None) -> tuple[dict[Place, int], dict[Place, int]]:
    """Where each partition is read from, and from when on nothing of it is missing, where that is known."""
    parts = _parts(source)
    if oldest_us is None or not parts:
        return {place: part.begin for place, part in parts.items()}, {}
    from_us = oldest_us - SKEW // _MICROSECOND
    starts, logs = cluster.list_offsets(parts, max(0, from_us // 1000)), cluster.list_offsets(parts, EARLIEST)
    # -1: no record is that young, so nothing has to be read.
    begins = {
        place: min(parts[place].end, start) if start >= 0 else parts[place].end for place, start in starts.items()
    }
    return begins, {place: from_us for place, begin in begins.items() if begin > logs[place] or logs[place] == 0}


def _load_destinations(engine: DuckDb, source: LiveSource, partitioner: str) -> None:
    """A relation `goes`: the partition of each key that the outbox names; an event without one goes by its own key."""
    chosen = PARTITIONERS.get(partitioner)
    if chosen is None:
        raise PolicyError(
            "outbox.partitioner", f"there is no partitioner {partitioner}", f"there are {', '.join(PARTITIONERS)}"
        )
    counts = {name: len(topic.partitions) for name, topic in source.topics.items()}
    keys = engine.rows("SELECT DISTINCT topic, coalesce(message_key, idempotency_key) AS by_key FROM outbox")
    named = zip(keys["topic"].to_pylist(), keys["by_key"].to_pylist(), strict=True)
    goes = [(topic, key, chosen(key.encode(), counts[topic])) for topic, key in named if topic in counts]
    columns = zip(*goes, strict=True) if goes else ((),) * len(_GOES)
    arrays = [pa.array(list(column), each.type) for column, each in zip(columns, _GOES, strict=True)]
    engine.load("goes", pa.Table.from_arrays(arrays, schema=_GOES))


def _require_partitioner(engine: DuckDb, partitioner: str) -> None:
    """Refuse to scatter keys: where records lie tells how the application spreads them."""
    found = engine.rows(
        """SELECT r.topic, r.message_key, min(r.partition) AS lies, min(g.partition) AS goes
           FROM records r JOIN goes g ON g.topic = r.topic AND g.by_key = r.message_key
           WHERE r.partition <> g.partition GROUP BY r.topic, r.message_key ORDER BY r.topic, r.message_key LIMIT 3"""
    ).to_pylist()
    if found:
        shown = "; ".join(
            f"{row['message_key']} of {row['topic']} lies in {row['lies']}, not {row['goes']}" for row in found
        )
        raise PolicyError(
            "outbox.partitioner",
            f"keys don't lie where {partitioner} puts them: {shown}",
            f"name the application's own partitioner: {', '.join(PARTITIONERS)}",
        )


def _require_key_is_key(entries: Iterable[Entry]) -> None:
    differing = [one.idempotency_key for one in entries if one.message_key != one.idempotency_key][:_SHOWN]
    if differing:
        raise PolicyError(
            "outbox.key_rule",
            f"the record's key is to be the idempotency key, and these have another: {', '.join(differing)}",
            "declare where the idempotency key is, or correct the contract's outbox relation",
        )
