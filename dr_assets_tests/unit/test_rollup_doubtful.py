"""Roll-up among pieces that nobody acknowledged and words that nobody should believe."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from dr_assets.stores.postgres import backlog
from dr_assets.stores.postgres.backlog import backlogs, in_chunks
from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.full_segments import stored_wal
from dr_assets.stores.postgres.rollup import roll_streams
from dr_assets.stores.postgres.rollup_run import ROLL_UP, roll_up
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import format_time
from dr_assets.vault.full_segment import FULL, extra_of
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.unit import test_rollup
from dr_assets_tests.unit.test_rollup import SMALL, Clock, Wal, content, roll, vault_of

DAY = timedelta(days=1)


def test_a_lost_fork_that_reaches_farther_is_not_rolled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead writer's pieces in flight landed; the next writer went on from before them and is not yet as far."""
    limits = Limits(size_bytes=1160, span=timedelta(hours=1), micros=1000)
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(10)
    wal.tell()
    dead = Wal(vault, position=wal.position, previous=wal.previous, epoch=1)
    dead.put(8, stored=False)
    monkeypatch.setattr(test_rollup, "SIZE", 120)
    live = Wal(vault, position=wal.position, previous=wal.previous, epoch=2)
    live.put(3)
    live.tell()
    assert live.position < dead.position
    assert roll(vault, limits).rolled_to == 6120
    live.put(20)
    live.tell()
    roll(vault, limits)
    chain = stored_wal(vault, "ledger", "7", 1, 5000)
    assert content(vault, chain) == wal.expected(5000, 6000) + live.expected(6000, live.position)
    assert verify(vault).errors == ()


def forge_far_ahead(vault: Vault) -> StoredObject:
    """A full where no WAL ever was, signed by one of ours."""
    last = vault.header(list(vault.objects("ledger", "wal"))[-1])
    far = replace(last, first=1 << 60, last=(1 << 60) + 100)
    prepared = vault.prepare(
        dataset="ledger", stream=FULL, kind="wal", system_id="7", timeline=1, first=far.first, last=far.last,
        begin_at=far.begin_at, end_at=far.end_at, plaintext=b"x" * 100, writer_epoch=9,
        extra=extra_of(far, far, "ab" * 32, 1),
    )  # fmt: skip
    return vault.find(vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock())).key)


def test_a_full_beyond_all_that_was_stored_stops_nothing_and_is_told() -> None:
    """Roll-up goes on behind the newest true one, and what waits is counted and kept locked."""
    clock = Clock()
    vault = vault_of(clock)
    wal = Wal(vault)
    wal.put(25)
    wal.tell()
    roll(vault)
    forged = forge_far_ahead(vault)
    wal.put(20)
    wal.tell()
    (done,) = roll_streams(vault, "ledger", limits=SMALL)
    assert done.rolled_to == 9000
    assert str(forged.key) in str(done.trouble)
    (waiting,) = backlogs(vault, "ledger")
    assert (waiting.rolled_to, waiting.micros) == (9000, 5)


def test_a_full_behind_the_newest_fact_is_believed_when_a_later_piece_says_so() -> None:
    """Captures say more often in their pieces than in facts how far all is stored."""
    vault = vault_of(Clock())
    wal = Wal(vault)
    wal.put(3)
    wal.tell()
    wal.put(22)
    assert roll(vault).rolled_to == 7000
    again = roll(vault)
    assert (again.rolled_to, again.fulls) == (7000, 0)
    (waiting,) = backlogs(vault, "ledger")
    assert (waiting.rolled_to, waiting.micros) == (7000, 5)


def test_a_look_at_the_locks_in_the_future_is_none() -> None:
    """A fact that says so keeps no later run from extending what waits."""
    clock = Clock()
    vault = vault_of(clock)
    wal = Wal(vault)
    wal.put(3)
    wal.tell()
    record_fact(vault, "ledger", ROLL_UP, {"locks_at": format_time(clock.now + 3650 * DAY), "troubles": []})
    clock.now += 8 * DAY
    assert roll_up(vault, "ledger", limits=SMALL).extended == 3


def test_locks_are_extended_a_chunk_of_the_listing_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of it is in memory than that, however much waits."""
    monkeypatch.setattr(backlog, "_CHUNK", 5)
    vault = vault_of(Clock())
    Wal(vault).put(1)
    (obj,) = vault.objects("ledger", "wal")
    listed, extended = [0], [0]

    def listing() -> Iterator[StoredObject]:
        for _ in range(23):
            assert listed[0] - extended[0] <= 5
            listed[0] += 1
            yield obj

    def extend(_: StoredObject) -> bool:
        extended[0] += 1
        return True

    assert in_chunks(extend, listing()) == 23
