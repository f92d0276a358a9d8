"""A casino that has lived, as reconciliation sees it: its relations, and what outsiders say of the same moment.

What belongs here: running the workload on a real server, taking everything as of one moment. What stays out: judging
it (books.py), what is planted (cases.py). Providers' and banks' words come from files written from their own record,
records of topics from what the relay published.
"""

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import yaml
from adbc_driver_postgresql import dbapi

from dr_assets.casino import schema
from dr_assets.casino.events import GROUP, TOPICS, Event, Published
from dr_assets.casino.provider_files import write_provider_files
from dr_assets.casino.workload import Workload
from dr_assets.reconciliation.contract import load_contract
from dr_assets.reconciliation.externals import external_schema
from dr_assets.reconciliation.providers.open import Feed, FeedFormat, bank_lines, provider_lines
from dr_assets.reconciliation.tolerances import Tolerances

Relations = dict[str, pa.Table]

# The casino's own contract, in a time in which a day takes seconds: what is older must be explained.
SOON = timedelta(seconds=8)
TOLERANCES = Tolerances(
    in_flight=SOON,
    aged_after=timedelta(hours=1),
    date_window=timedelta(minutes=30),
    payout_within=timedelta(minutes=10),
    projection_lag=SOON,
    crm_lag=SOON,
)
MAPPINGS: Mapping[str, dict[str, object]] = {
    "stripe": {"payouts": ["transfer"]},
    "csv": {
        "columns": {
            "reference": "reference",
            "kind": "type",
            "gross": "gross",
            "fee": "fee",
            "net": "net",
            "currency": "currency",
            "booked": "booked_at",
            "settled": "settled_at",
            "batch": "batch",
            "original_reference": "original_reference",
        },
        "kinds": {kind: kind for kind in ("payment", "refund", "chargeback", "payout", "reversal", "batch")},
    },
}
BATCH_EVERY = timedelta(seconds=1)
GROUP_IS_BEHIND = 3


@dataclass
class MemoryTopics:
    """Topics in memory in a publisher's place: what was published, where, when. Written to by the relay's thread."""

    records: list[dict[str, object]] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(
        default_factory=lambda: {(topic, part): 0 for topic, parts in TOPICS.items() for part in range(parts)}
    )

    def publish(self, events: Sequence[Event]) -> list[Published]:
        """One player in one partition, as a broker's default would have it."""
        return [self._put(event) for event in events]

    def _put(self, event: Event) -> Published:
        place = event.topic, (event.player_id or 0) % TOPICS[event.topic]
        offset, self.ends[place] = self.ends[place], self.ends[place] + 1
        self.records.append(
            {
                "topic": place[0],
                "partition": place[1],
                "record_offset": offset,
                "idempotency_key": event.idempotency_key,
                "timestamp_us": time.time_ns() // 1000,
                "message_key": None if event.player_id is None else str(event.player_id),
                "dead_letter": False,
                "payload_sha256": hashlib.sha256(event.payload.encode()).hexdigest(),
            }
        )
        return Published(*place, offset, event.idempotency_key)

    def close(self) -> None:
        """Nothing is open."""


class RecordedWorkload(Workload):
    """The casino's workload with topics in memory."""

    topics: MemoryTopics

    def _new_publisher(self) -> MemoryTopics:  # type: ignore[override]
        self.topics = MemoryTopics()
        return self.topics


@dataclass(frozen=True)
class Lived:
    """Every relation at `as_of`."""

    relations: Relations
    as_of: datetime


def live(
    dsn: str,
    acks: Path,
    seed: int,
    format_: FeedFormat,
    *,
    rate_per_s: float,
    until: Callable[[float, int], bool],
    topics_first: bool = False,
) -> Lived:
    """Create a casino, let it live until `until(seconds, acknowledged)`, look at it under load, stop it.

    Nobody looks at ledger and topics at once: `topics_first` says which of them is older.
    """
    schema.create(dsn, players=40)
    workload = RecordedWorkload(dsn, acks, rate_per_s=rate_per_s, workers=3, seed=seed)
    workload.start()
    try:
        begin_s = time.monotonic()
        while not until(time.monotonic() - begin_s, workload.stats().acknowledged):
            threading.Event().wait(0.05)
        return look(dsn, acks, workload.topics, format_, topics_first=topics_first)
    finally:
        workload.stop()


def look(dsn: str, acks: Path, topics: MemoryTopics, format_: FeedFormat, *, topics_first: bool) -> Lived:
    """The ledger in one snapshot, topics before or after it, and what outsiders knew at that moment."""
    contract = load_contract("casino_ledger")
    relations: Relations = _topics(topics) if topics_first else {}
    with dbapi.connect(dsn, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        (at_us,) = cursor.fetchall()[0]
        at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at_us)
        for relation, query in contract.queries.items():
            cursor.execute(query)
            relations[relation] = cursor.fetch_arrow_table()
    relations |= {} if topics_first else _topics(topics)
    del relations["player_accounts"]
    with tempfile.TemporaryDirectory() as folder:
        relations |= _outsiders(acks, Path(folder), format_, at)
    return Lived(relations, at)


def _topics(topics: MemoryTopics) -> Relations:
    records, ends = list(topics.records), dict(topics.ends)
    places = [{"topic": topic, "partition": part} for topic, part in ends]
    spans = [{"begin_offset": 0, "end_offset": end} for end in ends.values()]
    return {
        "records": pa.Table.from_pylist(records, schema=external_schema("records")),
        "partitions": pa.Table.from_pylist(
            [{**place, **span, "complete_from_us": 0} for place, span in zip(places, spans, strict=True)]
        ),
        "group_offsets": pa.Table.from_pylist(
            [
                {"group_name": GROUP, **place, "committed": max(0, span["end_offset"] - GROUP_IS_BEHIND), **span}
                for place, span in zip(places, spans, strict=True)
            ]
        ),
    }


def _outsiders(acks: Path, folder: Path, format_: FeedFormat, at: datetime) -> Relations:
    """Through files and the readers that everybody's files go through."""
    files = write_provider_files(acks, folder / "provider", format_, until=at, batch_every=BATCH_EVERY)
    bank = write_provider_files(acks, folder / "bank", "camt053", until=at, batch_every=BATCH_EVERY)
    given = [Feed("cards", format_, files[0], _mapping(folder, format_)), Feed("bank", "camt053", bank[0].parent)]
    with provider_lines(given) as lines, bank_lines(given) as entries:
        return {"provider_lines": lines.read_all(), "bank_lines": entries.read_all()}


def _mapping(folder: Path, format_: str) -> Path | None:
    """What the casino says of its providers' files."""
    said = MAPPINGS.get(format_)
    if said is None:
        return None
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(said))
    return path
