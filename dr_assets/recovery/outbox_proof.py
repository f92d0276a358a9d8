"""The proof of a replay: topics and groups read back, each event once, where and as it belongs, ahead of its consumers.

What belongs here: reading back, judging, and the fact that is sealed. What stays out: sending (outbox_replay.py).
"""

import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from dr_assets.reconciliation.engine.duckdb import DuckDb, duckdb_engine
from dr_assets.reconciliation.streams.gather import cluster_source, gather
from dr_assets.recovery.outbox import require_cluster, require_decided
from dr_assets.recovery.outbox_plan import OutboxPlan, Place
from dr_assets.recovery.outbox_replay import Replayed, planned_table
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.vault import Receipt, Vault

FACT: Final = "outbox_replay"
Standing = Literal["to_read", "reading", "read"]
_TOLD: Final = 20

_JUDGED: Final = """
    WITH own AS (
        SELECT p.number, p.topic, p.partition, p.idempotency_key, count(r.topic) AS records,
               sum(CASE WHEN r.payload_sha256 = p.payload_sha256
                         AND coalesce(r.message_key, '') = coalesce(p.message_key, '') THEN 1 ELSE 0 END) AS equal,
               sum(CASE WHEN r.partition = p.partition THEN 1 ELSE 0 END) AS in_place,
               min(r.record_offset) AS record_offset
        FROM planned p LEFT JOIN records r ON r.topic = p.topic AND r.idempotency_key = p.idempotency_key
        GROUP BY p.number, p.topic, p.partition, p.idempotency_key
    ), ordered AS (
        SELECT *, lag(record_offset) OVER (PARTITION BY topic, partition ORDER BY number) AS previous_offset FROM own
    )
    SELECT topic, partition, idempotency_key, record_offset,
           CASE WHEN records = 0 THEN 'missing' WHEN records > 1 THEN 'repeated' WHEN in_place = 0 THEN 'elsewhere'
                WHEN equal = 0 THEN 'differs' WHEN record_offset < previous_offset THEN 'out_of_order' END AS fault
    FROM ordered
"""


@dataclass(frozen=True, slots=True)
class Reached:
    """A group beside one partition's replayed events, which lie at offsets [first, last].

    `covered`: its next offset when the plan was made lies at or before the first of them, so it passes over none.
    """

    group: str
    topic: str
    partition: int
    first: int
    last: int
    committed: int
    covered: bool

    @property
    def standing(self) -> Standing:
        """How far it is now."""
        if self.committed <= self.first:
            return "to_read"
        return "read" if self.committed > self.last else "reading"


@dataclass(frozen=True)
class Proof:
    """What a plan's topics hold now. `faults` counts by kind what is not as it should be, `examples` the first of them.

    `once` is how many events are there once and as planned. `spared` are records of transactions that were aborted, by
    a replay that was killed or by others: who reads uncommitted records has seen them.
    """

    digest: str
    planned: int
    once: int
    faults: dict[str, int]
    examples: tuple[str, ...]
    places: dict[Place, tuple[int, int, int]] = field(repr=False)
    groups: tuple[Reached, ...]
    spared: int
    at: datetime

    @property
    def ok(self) -> bool:
        """Each event once, and no group passes over any."""
        return self.once == self.planned and not self.faults and all(one.covered for one in self.groups)

    def to_json(self) -> dict[str, Any]:
        """For machines, and for the fact."""
        return {
            "digest": self.digest,
            "ok": self.ok,
            "planned": self.planned,
            "once": self.once,
            "faults": self.faults,
            "examples": list(self.examples),
            "aborted_records": self.spared,
            "at": self.at.isoformat(),
            "partitions": [
                {"topic": topic, "partition": partition, "events": count, "first": first, "last": last}
                for (topic, partition), (count, first, last) in sorted(self.places.items())
            ],
            "groups": [
                {
                    "group": one.group, "topic": one.topic, "partition": one.partition, "committed": one.committed,
                    "covered": one.covered, "standing": one.standing,
                }
                for one in self.groups
            ],
        }  # fmt: skip


def prove_outbox(plan: OutboxPlan, cluster: Cluster, *, workdir: Path | None = None) -> Proof:
    """Read the plan's topics and groups back and hold them to it.

    Raises PolicyError (`outbox.other_cluster`, `outbox.undecided`), SourceError.
    """
    require_cluster(plan.cluster_id, cluster)
    topics = tuple(sorted({topic for topic, _ in plan.begins}))
    source = cluster_source(cluster, topics) if topics else None
    with duckdb_engine(workdir, "512MB", 2) as engine, tempfile.TemporaryDirectory(dir=workdir) as folder:
        spared = 0
        if source is not None:
            require_decided(source)
            ranges = {
                (topic, partition): (max(part.begin, plan.begins.get((topic, partition), 0)), part.end)
                for topic, each in source.topics.items()
                for partition, part in each.partitions.items()
            }
            held = gather(source, Path(folder), plan.rules, ranges=ranges)
            engine.load("records", held.records)
            spared = held.spared
        engine.load("planned", planned_table(plan.entries))
        return _judged(plan, engine, spared, {} if source is None else source.groups, empty=source is None)


def _judged(plan: OutboxPlan, engine: DuckDb, spared: int, groups: Any, *, empty: bool) -> Proof:
    if empty:
        return Proof(plan.digest, 0, 0, {}, (), {}, (), 0, datetime.now(UTC))
    engine.keep("judged", _JUDGED)
    faults = engine.rows(
        "SELECT fault, count(*) AS count FROM judged WHERE fault IS NOT NULL GROUP BY fault ORDER BY fault"
    )
    examples = engine.rows(
        f"""SELECT fault || ': ' || idempotency_key || ' of ' || topic || '/' || partition AS said FROM judged
            WHERE fault IS NOT NULL ORDER BY said LIMIT {_TOLD}"""  # noqa: S608 - a number
    )
    once = engine.rows(
        """SELECT topic, partition, count(*) AS events, min(record_offset) AS first, max(record_offset) AS last
           FROM judged WHERE fault IS NULL GROUP BY topic, partition"""
    )
    places = {(row["topic"], row["partition"]): (row["events"], row["first"], row["last"]) for row in once.to_pylist()}
    return Proof(
        digest=plan.digest,
        planned=len(plan.entries),
        once=sum(events for events, _, _ in places.values()),
        faults={row["fault"]: row["count"] for row in faults.to_pylist()},
        examples=tuple(_texts(examples)),
        places=places,
        groups=tuple(_reached(plan, places, groups)),
        spared=spared,
        at=datetime.now(UTC),
    )


def _texts(table: pa.Table) -> list[str]:
    return [str(text) for text in table.column(0).to_pylist()]


def _reached(plan: OutboxPlan, places: dict[Place, tuple[int, int, int]], groups: Any) -> list[Reached]:
    then = {(one.group, one.topic, one.partition): one.committed for one in plan.groups}
    found = []
    for group, commits in sorted(groups.items()):
        for (topic, partition), commit in sorted(commits.items()):
            if (topic, partition) not in places:
                continue
            _, first, last = places[topic, partition]
            covered = then.get((group, topic, partition), 0) <= first
            found.append(Reached(group, topic, partition, first, last, commit.offset, covered))
    return found


def record_replay(vault: Vault, plan: OutboxPlan, proof: Proof, replayed: Replayed | None = None) -> Receipt:
    """Seal what was planned, done and proven as the ledger's fact `outbox_replay`. Raises what `record_fact` raises."""
    done: dict[str, Json] | None = None
    if replayed is not None:
        done = {
            "present": replayed.present,
            "sent": replayed.sent,
            "steps": replayed.steps,
            "begin_at": replayed.begin_at.isoformat(),
            "end_at": replayed.end_at.isoformat(),
            "duration_ms": round(replayed.duration_s * 1000),
        }
    return record_fact(
        vault,
        plan.dataset,
        FACT,
        {
            "plan": {
                "digest": plan.digest,
                "contract": plan.contract,
                "cluster_id": plan.cluster_id,
                "made_at": plan.made_at.isoformat(),
                "snapshot_at": plan.snapshot_at.isoformat(),
                "snapshot_lsn": plan.snapshot_lsn,
                "counts": dict(plan.counts),
            },
            "replay": done,
            "proof": proof.to_json(),
        },
    )
