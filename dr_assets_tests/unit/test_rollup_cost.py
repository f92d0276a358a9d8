"""What a restore asks of the store is bound by bytes, not by how many micro-segments there were."""

from collections import Counter
from datetime import timedelta
from typing import Any

from dr_assets.stores.postgres.fetch import opened_wal
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.vault import Vault
from dr_assets_tests.unit.test_rollup import Clock, Wal, vault_of

DAY = timedelta(days=1)


class CountingStore(MemoryStore):
    """Counts what is read, by method."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.calls: Counter[str] = Counter()

    def get(self, *arguments: Any, **named: Any) -> Any:
        """As the port says."""
        self.calls["get"] += 1
        return super().get(*arguments, **named)


def a_day(pieces: int) -> tuple[Vault, Wal, CountingStore]:
    """A day of so many pieces, and one behind it, rolled up."""
    vault = vault_of(Clock())
    store = CountingStore(Clock())
    vault.store = store
    wal = Wal(vault)
    wal.put(pieces + 1, every=DAY / pieces)
    wal.tell()
    assert roll_up(vault, "ledger").fulls == 24
    return vault, wal, store


def test_a_day_is_read_in_as_many_objects_whatever_it_was_cut_into() -> None:
    """A day in 96 or in 480 micro-segments costs the same number of reads: 24 fulls, and what is behind them."""
    reads = []
    for pieces in (96, 480):
        vault, wal, store = a_day(pieces)
        store.calls.clear()
        chain = stored_wal(vault, "ledger", "7", 1, 5000)
        assert [obj.key.stream for obj in chain.segments] == [FULL] * 24 + ["wal"]
        data = b"".join(piece.plaintext for piece in opened_wal(vault, chain.segments))
        assert data == wal.expected(5000, wal.position)
        reads.append(store.calls["get"])
    assert reads[0] == reads[1] <= 3 * 25
