"""Legal holds: what they cover stays though its lock is over, and expiry says so."""

from datetime import timedelta

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres.expire import expire, plan_expiry
from dr_assets.stores.postgres.held import needed_from, needed_until
from dr_assets.stores.postgres.recovery_window import BaseBackup
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.retention.holds import (
    LEGAL_HOLD,
    all_holds,
    holds_in_force,
    keep_holds,
    place_hold,
    release_hold,
)
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.store.faulty_store import Call, FaultyStore, KilledError
from dr_assets_tests.unit.test_expire import WINDOW, Life

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def grown() -> Life:
    """Two weeks of daily base backups; take a twin."""
    life = Life()
    for _ in range(14):
        life.a_day()
    return life


def live_on(life: Life, days: int) -> None:
    """Further days, with base backups."""
    for _ in range(days):
        life.a_day()


def held(life: Life) -> set[str]:
    """Names that the store itself holds."""
    return {name for name, rows in life.store.rows.items() if rows[0].held}


def hold_time(life: Life, backup: int) -> str:
    """Hold the day behind a base backup."""
    begin = life.bases[backup].end_at + timedelta(hours=6)
    end = begin + timedelta(hours=6)
    hold, _ = place_hold(
        life.vault, "ledger", reason="case 17", placed_by="ann", begin=begin, end=end,
        stored_from=needed_from(life.vault, "ledger", begin), until=needed_until(end),
    )  # fmt: skip
    return hold.hold_id


def usable_at(life: Life, index: int) -> BaseBackup | None:
    """That base backup, if all of it and its WAL are there."""
    found = [one for one in life.usable() if one.manifest and one.manifest.snapshot_id == life.bases[index].snapshot_id]
    return found[0] if found else None


def test_a_held_stretch_can_be_restored_when_all_around_it_is_gone(grown: Life) -> None:
    """Base backup, WAL and keys of the held day stay for good; without the hold they go."""
    life, free = grown.twin(), grown.twin()
    hold_time(life, 2)
    for one in (life, free):
        live_on(one, 20)
        one.expire()
    assert usable_at(life, 2) is not None
    assert usable_at(free, 2) is None
    life.require_sound()


def test_the_store_keeps_what_is_flagged_even_from_an_expirer_that_does_not_ask(grown: Life) -> None:
    """The flag is the store's own: a delete by hand is refused when every lock is over."""
    life = grown.twin()
    hold_time(life, 2)
    flagged = held(life)
    assert {part.key for part in life.bases[2].parts} <= flagged
    assert any("/keys/" in name for name in flagged)
    assert not {part.key for part in life.bases[8].parts} & flagged
    life.clock.now += 400 * DAY
    for name in sorted(flagged):
        with pytest.raises(VaultError, match="legal hold"):
            life.vault.store.delete_version(name, life.store.rows[name][0].version_id)


def test_expiry_says_what_it_leaves_for_a_hold(grown: Life) -> None:
    """The plan names the hold, its reason, and how many objects it keeps."""
    life = grown.twin()
    part = life.bases[0].parts[0].key
    hold, flagged = place_hold(life.vault, "ledger", reason="case 18", placed_by="ann", objects=[part])
    assert flagged == 2  # the part, and the data key without which nobody can read it
    live_on(life, 20)
    plan = plan_expiry(life.vault, "ledger")
    assert plan.held == 1
    assert any(hold.hold_id in told and "case 18" in told for told in plan.troubles)
    life.expire()
    assert part in life.store.rows


def test_a_hold_on_everything_covers_what_is_sealed_after_it(grown: Life) -> None:
    """Nothing goes any more, flagged or not; keeping the hold up flags what is new."""
    life = grown.twin()
    place_hold(life.vault, "ledger", reason="order of the court", placed_by="ann")
    live_on(life, 20)
    before = set(life.store.rows)
    assert life.expire().removed == 0
    assert before <= set(life.store.rows)
    assert keep_holds(life.vault, "ledger") > 0
    assert keep_holds(life.vault, "ledger") == 0
    life.require_sound()


def test_a_release_frees_what_no_other_hold_covers(grown: Life) -> None:
    """Both facts stay on record, with who and why; what two holds cover stays until both are released."""
    life = grown.twin()
    first, second = hold_time(life, 2), hold_time(life, 2)
    flagged = held(life)
    assert release_hold(life.vault, "ledger", first, reason="closed", released_by="bob") == 0
    assert held(life) == flagged
    assert release_hold(life.vault, "ledger", second, reason="closed", released_by="bob") == len(flagged)
    assert held(life) == set()
    assert holds_in_force(life.vault, "ledger") == []
    assert [(hold.placed_by, is_over) for hold, is_over in all_holds(life.vault, "ledger")] == [("ann", True)] * 2
    live_on(life, 20)
    life.expire()
    assert usable_at(life, 2) is None
    assert life.count(f"facts-{LEGAL_HOLD}") == 4


def test_a_hold_that_was_killed_is_kept_up_and_a_release_is_finished(grown: Life) -> None:
    """The fact stands before the first flag; whatever call dies, one more run completes it."""
    life = grown.twin()
    store = life.store
    life.vault.store = FaultyStore(store, Call("set_hold", "base-*", 2), "killed_before")
    with pytest.raises(KilledError):
        hold_time(life, 2)
    life.vault.store = store
    (hold,) = holds_in_force(life.vault, "ledger")
    assert keep_holds(life.vault, "ledger") > 0
    assert {part.key for part in life.bases[2].parts} <= held(life)
    life.vault.store = FaultyStore(store, Call("set_hold", "base-*", 2), "killed_before")
    with pytest.raises(KilledError):
        release_hold(life.vault, "ledger", hold.hold_id, reason="closed", released_by="bob")
    life.vault.store = store
    assert held(life)
    assert release_hold(life.vault, "ledger", hold.hold_id, reason="closed", released_by="bob") > 0
    assert held(life) == set()


def test_what_can_not_be_a_hold_is_refused(grown: Life) -> None:
    """No reason, no object of the dataset, an object that is gone, a hold that never was: nothing is recorded."""
    life = grown.twin()
    part = life.bases[0].parts[0].key
    for objects, reason, code in (
        ([part], " ", "hold.reason_missing"),
        (["casino/other/base/7/00000001/x"], "case", "hold.not_an_object"),
        ([part] * 1001, "case", "hold.too_many"),
        ([part[:-4] + "0000"], "case", "vault.missing"),
    ):
        with pytest.raises((PolicyError, VaultError)) as caught:
            place_hold(life.vault, "ledger", reason=reason, placed_by="ann", objects=objects)
        assert caught.value.code == code
    with pytest.raises(PolicyError, match="no hold"):
        release_hold(life.vault, "ledger", "00", reason="x", released_by="bob")
    assert life.count(f"facts-{LEGAL_HOLD}") == 0


def test_without_a_base_backup_before_it_everything_has_to_stay(grown: Life) -> None:
    """Nobody knows what an earlier instant needs; a later one begins at its base backup's WAL."""
    vault = grown.twin().vault
    assert needed_from(vault, "ledger", grown.bases[0].end_at - DAY) is None
    begin = needed_from(vault, "ledger", grown.bases[5].end_at + timedelta(hours=1))
    assert begin is not None
    assert grown.bases[5].begin_at - WINDOW * DAY < begin < grown.bases[5].begin_at


def test_a_hold_that_is_placed_while_a_list_is_worked_off_stops_it(grown: Life) -> None:
    """What goes after a hold is on record is destroyed evidence, though its flag was not set yet."""
    life = grown.twin()
    live_on(life, 20)
    gone: list[str] = []

    def hold_at_once(stage: str, _done: int, _total: int) -> None:
        if not gone:
            body: dict[str, Json] = {"event": "placed", "hold": "ab", "reason": "case 19", "by": "ann", "objects": []}
            record_fact(life.vault, "ledger", LEGAL_HOLD, body)
        gone.append(stage)

    planned = plan_expiry(life.vault, "ledger")
    first = planned.rows[0].stage
    done = expire(life.vault, "ledger", listener=hold_at_once)
    assert 0 < done.removed == sum(row.stage == first for row in planned.rows) < len(planned.rows)
    assert len(done.refused) == len(planned.rows) - done.removed
    assert all("legal hold ab was placed meanwhile" in told for told in done.refused)
    assert all(str(row.key) in life.store.rows for row in planned.rows if row.stage != first)
    assert not verify(life.vault).errors
