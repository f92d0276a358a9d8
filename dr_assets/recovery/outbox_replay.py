"""The replay: what topics lack of an outbox is sent, each event once, however often the replay is killed and begun.

What belongs here: the order of things, and holding the ledger and the topics to the plan. What stays out: one
transaction (outbox_write.py), the proof afterwards (outbox_proof.py).

There is no memory of what was sent but the topics themselves. A replay first ends what a former one had open, then
reads the topics, and sends what they lack of the plan: a kill between any two steps costs a reading, and nothing else.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.recovery.outbox import Events, Missing, loaded_outbox, missing_events, require_cluster, require_decided
from dr_assets.recovery.outbox_plan import Entry, OutboxPlan
from dr_assets.recovery.outbox_write import Event, OutboxProducer, wait_until_decided
from dr_assets.stores.kafka.batches import Headers
from dr_assets.stores.kafka.refusals import BrokerError
from dr_assets.stores.kafka.wire import Cluster

STEP_EVENTS: Final = 500
STEP_BYTES: Final = 512 << 10  # brokers take batches of about 1 MB as they come
_READ_ROWS: Final = 50_000
_TRIES: Final = 5
_PAUSE_S: Final = 1.0
_AWAY: Final = frozenset({"kafka.unreachable", "kafka.timeout"})
_PLANNED: Final = pa.schema(
    [
        ("number", pa.int64()),
        ("topic", pa.string()),
        ("partition", pa.int64()),
        ("idempotency_key", pa.string()),
        ("message_key", pa.string()),
        ("payload_sha256", pa.string()),
    ]
)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was done: `present` were in their topics when this replay began, `sent` came by it, in `steps`."""

    planned: int
    present: int
    sent: int
    steps: int
    begin_at: datetime
    end_at: datetime
    duration_s: float


def replay_outbox(
    plan: OutboxPlan,
    dsn: str,
    cluster: Cluster,
    *,
    workdir: Path | None = None,
    progress: Progress | None = None,
    step_events: int = STEP_EVENTS,
) -> Replayed:
    """Send what `plan` lists and its topics lack. Run again after a kill, it goes on.

    A broker that is away is waited for. `progress` is told how many of the plan are there, and of how many. Raises
    PolicyError (`outbox.other_cluster`, `outbox.plan_changed`, `outbox.group_beyond_end`, and as `plan_outbox`),
    SourceError.
    """
    begin_at, begin_s = datetime.now(UTC), time.monotonic()
    require_cluster(plan.cluster_id, cluster)
    told = _Told(plan, progress)
    for again in range(_TRIES):
        try:
            _passed(plan, dsn, cluster, told, workdir, step_events)
            break
        except SourceError as error:
            passes = error.code in _AWAY or (isinstance(error, BrokerError) and error.is_transient)
            if not passes or again == _TRIES - 1:
                raise
            time.sleep(_PAUSE_S * 2**again)
    return Replayed(
        planned=len(plan.entries),
        present=told.present or 0,
        sent=len(plan.entries) - (told.present or 0),
        steps=told.steps,
        begin_at=begin_at,
        end_at=datetime.now(UTC),
        duration_s=round(time.monotonic() - begin_s, 3),
    )


@dataclass(slots=True)
class _Told:
    """How far a replay is, over all its tries."""

    plan: OutboxPlan
    progress: Progress | None
    present: int | None = None
    there: int = 0
    steps: int = 0

    def begun(self, lacking: int) -> None:
        """A reading of the topics."""
        self.there = len(self.plan.entries) - lacking
        if self.present is None:
            self.present = self.there
        self._tell()

    def stepped(self, count: int) -> None:
        """A step that was committed."""
        self.there += count
        self.steps += 1
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.there, len(self.plan.entries))


def _passed(plan: OutboxPlan, dsn: str, cluster: Cluster, told: _Told, workdir: Path | None, step_events: int) -> None:
    """One pass, from reading to the last step. The producer comes first: from then on no former one's work appears."""
    cluster.metadata()
    producer = OutboxProducer(cluster, plan.transactional_id)
    wait_until_decided(cluster, sorted(plan.begins))
    with loaded_outbox(dsn, plan.contract, workdir) as events:
        found = missing_events(events, cluster, plan.rules, plan.partitioner, plan.since, workdir)
        require_decided(found.source)
        _require_same(plan, found, events)
        _require_groups_within(found)
        told.begun(len(found.entries))
        for step in _steps(_events(events, found.entries, plan.rules.header), step_events):
            producer.write(step)
            told.stepped(len(step))
    wait_until_decided(cluster, sorted(plan.places))


def _require_same(plan: OutboxPlan, found: Missing, events: Events) -> None:
    """The plan is what a person saw: nothing is sent beyond it, and nothing of it may have become something else."""
    beyond = set(found.entries) - set(plan.entries)
    if beyond:
        one = min(beyond)
        raise _changed(f"{len(beyond)} event(s) are missing that it does not list, the first {one.idempotency_key}")
    events.engine.load("planned", planned_table(plan.entries))
    gone = events.engine.rows(
        """SELECT p.idempotency_key FROM planned p LEFT JOIN outbox o
           ON o.topic = p.topic AND o.idempotency_key = p.idempotency_key AND sha256(o.payload) = p.payload_sha256
           AND coalesce(o.message_key, '') = coalesce(p.message_key, '')
           WHERE o.topic IS NULL ORDER BY p.number"""
    )
    if gone.num_rows:
        first = gone["idempotency_key"][0].as_py()
        raise _changed(f"{gone.num_rows} of its events are not so in the ledger any more, the first {first}")


def _changed(found: str) -> PolicyError:
    return PolicyError(
        "outbox.plan_changed",
        f"the plan is not what would be done now: {found}",
        "stop what still writes to the ledger or its topics, and make the plan anew",
    )


def _require_groups_within(found: Missing) -> None:
    """Whoever stands behind the end of a partition would pass over what is written there next."""
    beyond = [one for one in found.groups if one.committed > found.ends[one.topic, one.partition]]
    if beyond:
        one = beyond[0]
        raise PolicyError(
            "outbox.group_beyond_end",
            f"group {one.group} wants {one.committed} of {one.topic}/{one.partition} next, which ends at "
            f"{found.ends[one.topic, one.partition]}: it would pass over what is replayed",
            "set the group's offsets to where it was at the recovery point: a restore of the topics does that",
        )


def planned_table(entries: Sequence[Entry]) -> pa.Table:
    """Entries as a relation, numbered in the order of replay."""
    columns: list[Sequence[Any]] = [
        range(len(entries)),
        *([getattr(entry, name) for entry in entries] for name in _PLANNED.names[1:]),
    ]
    arrays = [pa.array(column, each.type) for column, each in zip(columns, _PLANNED, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_PLANNED)


def _events(events: Events, entries: Sequence[Entry], header: str | None) -> Iterator[Event]:
    """What is to be sent, in order, with what the ledger says; some thousands at a time."""
    if not entries:
        return
    events.engine.load("lacking", planned_table(entries))
    carried = "o.headers" if "headers" in events.columns else "NULL"
    for first in range(0, len(entries), _READ_ROWS):
        rows = events.engine.rows(
            f"""SELECT l.topic, l.partition, l.idempotency_key, o.message_key, o.payload, {carried} AS headers
                FROM lacking l JOIN outbox o ON o.topic = l.topic AND o.idempotency_key = l.idempotency_key
                WHERE l.number >= {first:d} AND l.number < {first + _READ_ROWS:d} ORDER BY l.number"""  # noqa: S608 - numbers
        )
        for row in rows.to_pylist():
            yield Event(
                (row["topic"], row["partition"]),
                None if row["message_key"] is None else row["message_key"].encode(),
                row["payload"].encode(),
                _headers(row, header),
            )


def _headers(row: dict[str, Any], header: str | None) -> Headers:
    """The idempotency key's, then those that the contract's outbox names in a column `headers` (a JSON object)."""
    own = () if header is None else ((header.encode(), row["idempotency_key"].encode()),)
    told = json.loads(row["headers"]) if row["headers"] else {}
    if not isinstance(told, dict):
        raise PolicyError(
            "outbox.headers",
            f"the headers of {row['idempotency_key']} are no JSON object",
            "correct the column `headers` of the contract's outbox relation",
        )
    return (*own, *((name.encode(), str(value).encode()) for name, value in told.items() if name != header))


def _steps(events: Iterator[Event], step_events: int) -> Iterator[list[Event]]:
    """So many events as a transaction takes, in order."""
    step: list[Event] = []
    size_bytes = 0
    for event in events:
        if step and (len(step) >= step_events or size_bytes + event.size_bytes > STEP_BYTES):
            yield step
            step, size_bytes = [], 0
        step.append(event)
        size_bytes += event.size_bytes
    if step:
        yield step
