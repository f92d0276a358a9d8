"""Restores to a moment that the capture was late for: what was fetched hours later belongs to it all the same."""

from datetime import UTC, datetime, timedelta

from dr_assets.stores.kafka.batches import Record, encode
from dr_assets.stores.kafka.capture_facts import Anchor, record_capture
from dr_assets.stores.kafka.pack import Cutter, Part
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.restore_plan import Cut
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.format.pack import Row
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import ThrowawayRetention, throwaway_vault
from dr_assets.vault.vault import Vault

TOPIC, SYSTEM = "ab" * 16, "5a" * 16
T0 = datetime(2031, 5, 4, 3, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Captured:
    """Packs of one partition, each cut when the test says, in a vault in memory."""

    def __init__(self) -> None:
        self.now = T0
        rules = {"events": (ThrowawayRetention(days=8), timedelta(days=1))}
        clock = lambda: self.now  # noqa: E731 - the store and the vault ask the same
        self.vault: Vault = throwaway_vault(store=MemoryStore(clock), clock=clock, rules=rules)
        self.cutter = Cutter("cluster", 0, 0.25)
        self.next = 0
        self.previous: str | None = None
        record_capture(self.vault, "events", "started", Anchor(SYSTEM, 0, 0, None, None, 1, None))

    def pack(self, at: datetime, *stamps: datetime, point: datetime | None) -> None:
        """A pack cut at `at` with records of these times; `point` is its recovery point."""
        self.now = at
        found = [Record(self.next + n, int(each.timestamp() * 1000), b"k", b"v") for n, each in enumerate(stamps)]
        end = self.next + len(found)
        if found:
            self.cutter.add(
                Part((TOPIC, 0, 0), self.next, end, memoryview(encode(found)), len(found), found[-1].timestamp, 0, end,
                     end, 0, transactional=False),
                0.0, at,
            )  # fmt: skip
        row = Row(TOPIC, 0, 0, 0, end, 0, end, end, 0, T0, complete=True)
        pack = self.cutter.cut({TOPIC: "bets"}, (row,), at, point)
        sealed = self.vault.prepare(
            dataset="events", stream="packs", kind="pack", system_id=SYSTEM, timeline=0, first=pack.begin,
            last=pack.end, begin_at=pack.begin_at, end_at=pack.end_at, plaintext=pack.data.whole(), writer_epoch=1,
            previous=self.previous, extra={} if point is None else {"recovery_point_at": format_time(point)},
        ).seal()  # fmt: skip
        self.vault.put(sealed, self.vault.locks.lock("events", "pack", at))
        self.previous, self.next = sealed.header.digest, end


def test_what_an_outage_of_the_capture_delayed_is_restored_to_its_moment() -> None:
    """Down from 3:00 to 5:00, restored to 3:30: what was produced at 3:10 was fetched at 5:00, and is there."""
    captured = Captured()
    captured.pack(T0, T0, point=T0)
    captured.pack(T0 + 120 * MINUTE, T0 + 10 * MINUTE, T0 + 110 * MINUTE, point=T0 + 20 * MINUTE)
    captured.pack(T0 + 121 * MINUTE, T0 + 25 * MINUTE, T0 + 121 * MINUTE, point=T0 + 121 * MINUTE)
    captured.pack(T0 + 600 * MINUTE, T0 + 600 * MINUTE, point=T0 + 600 * MINUTE)
    source = export_source(captured.vault, "events", Cut(at=T0 + 20 * MINUTE))
    assert (source.ends, source.notes) == ({("bets", 0): 2}, ())
    source = export_source(captured.vault, "events", Cut(at=T0 + 115 * MINUTE))
    assert (source.ends, source.notes) == ({("bets", 0): 4}, ())
    assert source.export.packs == 3, "no later than need be"


def test_a_moment_that_the_capture_never_got_to_is_told() -> None:
    """The newest that is stored is restored, with a note that says how far it is whole."""
    captured = Captured()
    captured.pack(T0, T0, point=T0)
    captured.pack(T0 + MINUTE, T0 + MINUTE, point=None)
    source = export_source(captured.vault, "events", Cut(at=T0 + 30 * MINUTE))
    assert source.ends == {("bets", 0): 2}
    (note,) = source.notes
    assert T0.isoformat() in note
