"""The recovery window: what can be restored to, and from when on a stream's WAL is needed."""

from datetime import timedelta

from dr_assets.stores.postgres.recovery_window import WalNeeds, base_backups, kept_backups, recovery_windows
from dr_assets_tests.unit.test_expire import EVERY, Life


def test_a_window_reaches_from_the_oldest_base_backup_to_the_newest_beat() -> None:
    """Two base backups and the WAL behind them are one window; its end is the microsecond before the last beat."""
    life = Life()
    life.a_day()
    life.a_day()
    (window,) = recovery_windows(life.vault, "ledger", base_backups(life.vault, "ledger"))
    assert (window.base_backups, window.end_lsn) == (2, life.wal.position)
    assert window.oldest_at == life.bases[0].end_at
    assert window.newest_at == life.clock.now - EVERY - timedelta(microseconds=1)
    assert (window.first, window.last) == (life.bases[0].snapshot_id, life.bases[1].snapshot_id)


def test_a_hole_ends_one_window_and_the_next_base_backup_begins_another() -> None:
    """What lies between can't be restored to; nor from a base backup whose own WAL is gone."""
    life = Life()
    for _ in range(3):
        life.a_day()
    lost = life.bases[1]
    for name in [name for name in life.store.rows if "/wal/" in name or "/full/" in name]:
        first, last = (int(text, 16) for text in name.rpartition("/")[2].split("-")[:2])
        if first < lost.stop_lsn and last > lost.start_lsn:
            del life.store.rows[name]
    windows = recovery_windows(life.vault, "ledger", base_backups(life.vault, "ledger"))
    assert [(window.first, window.base_backups) for window in windows] == [
        (life.bases[0].snapshot_id, 1),
        (life.bases[2].snapshot_id, 1),
    ]
    assert windows[0].end_lsn <= lost.start_lsn


def test_a_base_backup_that_lacks_a_part_opens_no_window() -> None:
    """Nor does an incremental on it: nothing can be restored from either."""
    life = Life()
    life.a_day()
    life.a_day()
    life.a_day(parent=life.bases[1])
    del life.store.rows[life.bases[1].parts[0].key]
    (window,) = recovery_windows(life.vault, "ledger", base_backups(life.vault, "ledger"))
    assert (window.base_backups, window.first, window.last) == (1, life.bases[0].snapshot_id, life.bases[0].snapshot_id)


def test_an_unreadable_base_backup_is_kept_and_carries_nothing() -> None:
    """Nobody knows what it holds, so it stays, and so does the one before it."""
    life = Life()
    for _ in range(3):
        life.a_day()
    row = next(rows[0] for name, rows in sorted(life.store.rows.items()) if "/base/" in name)
    row.data = (row.data or b"")[:-1]
    found = base_backups(life.vault, "ledger")
    assert [one.trouble is not None for one in found].count(True) == 1
    kept = kept_backups(found, life.clock.now + timedelta(days=1), lambda one: one.manifest is not None)
    assert {one.key for one in kept} == {found[-1].key} | {one.key for one in found if one.trouble}


def test_without_a_usable_base_backup_before_the_window_all_are_kept() -> None:
    """Expiring the better of two bad ones would be a guess."""
    life = Life()
    for _ in range(3):
        life.a_day()
    found = base_backups(life.vault, "ledger")
    assert kept_backups(found, life.clock.now, lambda _: False) == found
    assert kept_backups(found, life.clock.now, lambda _: True) == found[-1:]


def test_wal_is_needed_from_the_oldest_kept_base_backup_on_and_on_later_timelines_whole() -> None:
    """A base backup leads into every later timeline; what is captured now is needed before it has a base backup."""
    life = Life()
    life.a_day()
    needs = WalNeeds(tuple(base_backups(life.vault, "ledger")), "9")
    floor = needs.floor("7", 1)
    assert floor is not None
    assert life.bases[0].start_lsn - 400 < floor <= life.bases[0].start_lsn
    assert needs.floor("7", 2) == 0
    assert needs.floor("7", 0) is None
    assert needs.floor("9", 1) == 0
    assert needs.floor("8", 1) is None
