"""Months of packs in a vault in memory, as a capture would put them, without brokers.

What belongs here: making packs, anchors, surveys and catalogues. What stays out: what is promised of them (tests).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.batches import Record, encode
from dr_assets.stores.kafka.capture_facts import Anchor, record_capture
from dr_assets.stores.kafka.catalogue import Cataloguer
from dr_assets.stores.kafka.pack import Cutter, Pack, Part
from dr_assets.stores.kafka.survey import TOPICS
from dr_assets.stores.sealing.putters import Stored
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.format.pack import Break, Row, Stream
from dr_assets.vault.storage import Blob
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets.vault.vault import Vault

BETS, PLAYERS = "ab" * 16, "cd" * 16
NAMES = {BETS: "bets", PLAYERS: "players"}
SYSTEM = "5a" * 16
T0 = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WINDOW = 8


@dataclass
class Clock:
    """Time that only tests move."""

    now: datetime = T0

    def __call__(self) -> datetime:
        """As a vault asks."""
        return self.now


class CountingStore(MemoryStore):
    """Tells which packs were asked for whole; an expirer can be killed in it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.read: set[str] = set()
        self.kill_after: int | None = None
        self.spared: set[str] = set()

    def get(self, key: str, version_id: str | None = None, *, limit_bytes: int | None = None) -> Blob:
        """As the memory store."""
        self.read.add(key)
        return super().get(key, version_id, limit_bytes=limit_bytes)

    def get_range(self, key: str, version_id: str, begin: int, end: int) -> bytes:
        """As the memory store."""
        return super().get(key, version_id).data[begin:end]

    def delete_version(self, key: str, version_id: str) -> None:
        """As the memory store, until the expirer is killed; what is `spared` was never its turn."""
        if self.kill_after is not None:
            if key in self.spared or not self.kill_after:
                raise VaultError("vault.unreachable", "killed here", "run it again")
            self.kill_after -= 1
        super().delete_version(key, version_id)

    def packs_read(self) -> int:
        """How many different ones since the last time."""
        packs = sum("/packs/" in name for name in self.read)
        self.read = set()
        return packs


@dataclass
class Topics:
    """A dataset `events` of two topics of one partition: `bets`, and `players`, which is compacted."""

    clock: Clock = field(default_factory=Clock)
    system_id: str = SYSTEM
    every: int = 4
    begin: int = 0
    seals: bool = True
    bet: bytes = b"v" * 20
    rows: dict[Stream, Row] = field(default_factory=dict)
    previous: str | None = None
    segment: str | None = None
    log_starts: dict[Stream, int] = field(default_factory=dict)
    vault: Vault = field(init=False)
    store: CountingStore = field(init=False)
    cutter: Cutter = field(init=False)
    catalogue: Cataloguer = field(init=False)

    def __post_init__(self) -> None:
        self.store = CountingStore(self.clock)
        rules = {"events": (ThrowawayRetention(days=WINDOW), DAY)}
        self.vault = throwaway_vault(store=self.store, clock=self.clock, rules=rules)
        self.start()

    def start(self) -> None:
        """A run of a capture of this cluster, from its chain's end on."""
        self.cutter = Cutter("cluster", self.begin, 0.25)
        self.catalogue = Cataloguer(self.vault, "events", self.every)

    def survey(self, players: str = "compact") -> None:
        """What the topics are."""
        topics: dict[str, Json] = {
            name: {
                "topic_id": topic_id, "partitions": 1, "replication_factor": 1, "configs": {},
                "cleanup_policy": players if name == "players" else "delete",
            }
            for topic_id, name in NAMES.items()
        }  # fmt: skip
        record_fact(self.vault, "events", TOPICS, {"topics": topics})

    def put(self, *parts: tuple[Stream, int], table: bool = False, broken: Break | None = None,
            reached: bool = True) -> Pack:  # fmt: skip
        """A pack that brings each stream so many records further; the capture keeps its catalogue."""
        for stream, count in parts:
            self._add(stream, count, broken, reached=reached)
        rows = tuple(self.rows[stream] for stream in sorted(self.rows)) if table else None
        now = self.clock.now
        pack = self.cutter.cut(NAMES, rows, now, now)
        prepared = self.vault.prepare(
            dataset="events", stream="packs", kind="pack", system_id=self.system_id, timeline=0, first=pack.begin,
            last=pack.end, begin_at=pack.begin_at, end_at=pack.end_at, plaintext=pack.data.whole(), writer_epoch=1,
            previous=self.previous, extra={"recovery_point_at": format_time(now)},
        )  # fmt: skip
        sealed = prepared.seal()
        receipt = self.vault.put(sealed, self.vault.locks.lock("events", "pack", now))
        self.catalogue.take(Stored(pack, sealed.header.digest, receipt, 0.0, 0.0), self.previous, 1)
        self.previous, self.segment = sealed.header.digest, str(receipt.key)
        if self.seals and self.catalogue.is_due:
            self.catalogue.seal(self.catalogue.cut())
        return pack

    def _add(self, stream: Stream, count: int, broken: Break | None, *, reached: bool) -> None:
        row = self.rows.get(stream) or Row(*stream, 0, 0, 0, 0, 0, 0, self.clock.now, complete=False)
        first = row.next if broken is None else broken.was + 5
        at_ms = int(self.clock.now.timestamp() * 1000)
        value = self.bet if stream[0] == BETS else b"v" * 20
        body = encode([Record(first + at, at_ms, b"k", value) for at in range(count)])
        end, log_start = first + count, self.log_starts.get(stream, 0)
        mark = end if reached else end + 100
        self.cutter.add(
            Part(stream, first, end, memoryview(body), count, at_ms, 0, mark, mark, log_start, transactional=False,
                 broken=broken),
            0.0, self.clock.now,
        )  # fmt: skip
        self.rows[stream] = Row(
            *stream, row.begin, end, 0, mark, mark, log_start, row.began_at, complete=row.complete or reached
        )  # fmt: skip

    def tell(self) -> None:
        """An anchor at the chain's end."""
        anchor = Anchor(
            self.system_id, 0, self.cutter.number, self.previous, self.segment, 1, self.clock.now
        )  # fmt: skip
        record_capture(self.vault, "events", "position", anchor)

    def names(self, stream: str) -> list[str]:
        """Of all objects there."""
        return [str(obj.key) for obj in self.vault.objects("events", stream)]
