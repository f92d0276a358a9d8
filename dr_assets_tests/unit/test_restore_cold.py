"""Restores from cold classes: told with numbers, asked for by hand, and never waited for inside a command."""

from datetime import timedelta
from pathlib import Path

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.plan import RestorePlan, cold_material, plan_restore
from dr_assets.stores.postgres.restore import restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.retention.lock_check import check_locks
from dr_assets.vault.retention.thawing import ask_thaw, cold_among, require_thawed
from dr_assets.vault.storage import Thaw
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.test_expire import Life

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def grown() -> Life:
    """Two days with a base backup each; take a twin."""
    life = Life()
    life.a_day()
    life.a_day()
    return life


def freeze(life: Life, part_of_name: str, storage_class: str = "DEEP_ARCHIVE") -> list[str]:
    """Move what has this in its name into a cold class, as a lifecycle rule does."""
    names = [name for name in life.store.rows if part_of_name in name]
    for name in names:
        life.store.rows[name][0].storage_class = storage_class
    return names


def planned(life: Life) -> RestorePlan:
    """To the end."""
    return plan_restore(life.vault, "ledger", Target("latest"))


def test_a_plan_counts_what_has_to_be_thawed_and_a_restore_refuses_before_it_begins(
    grown: Life, tmp_path: Path
) -> None:
    """How many, how large, from which class and how long; nothing is laid and nobody waits."""
    life = grown.twin()
    assert planned(life).cold.is_empty
    names = freeze(life, "/base-")
    plan = planned(life)
    assert {str(obj.key) for obj in plan.cold.frozen} == set(names) & {str(obj.key) for obj in plan.parts}
    assert plan.cold.takes() == 12 * HOUR
    assert plan.to_json()["cold"] == {
        "frozen": 2, "thawing": 0, "size_bytes": plan.cold.size_bytes, "thaw_s": 12 * 3600,
    }  # fmt: skip
    with pytest.raises(VaultError) as caught, restore(plan, life.vault, tmp_path / "into"):
        pass
    assert caught.value.code == "restore.cold"
    assert "2 objects" in caught.value.found
    assert "up to 12 h" in caught.value.found
    assert "--thaw" in caught.value.hint
    assert not (tmp_path / "into").exists()


def test_what_was_asked_for_is_not_asked_for_again_and_what_is_thawed_is_read(grown: Life) -> None:
    """Frozen, then thawing, then readable; the message tells them apart."""
    life = grown.twin()
    freeze(life, "/base-", "GLACIER")
    cold = planned(life).cold
    assert cold.takes("Expedited") < HOUR < cold.takes("Bulk")
    assert ask_thaw(life.vault, cold, "Bulk") == 2
    again = planned(life).cold
    assert (again.frozen, len(again.thawing)) == ((), 2)
    with pytest.raises(VaultError, match="2 are being thawed") as caught:
        require_thawed(again)
    assert "when they are there" in caught.value.hint
    for obj in again.thawing:
        life.store.rows[str(obj.key)][0].thaw = Thaw(life.clock.now + 48 * HOUR)
    assert planned(life).cold.is_empty
    assert life.vault.open(again.thawing[0]).plaintext


def test_a_thaw_that_came_while_we_asked_is_no_error(grown: Life) -> None:
    """The store says that there is nothing to thaw: so much the better."""
    life = grown.twin()
    names = freeze(life, "/base-")
    cold = planned(life).cold
    for name in names:
        life.store.rows[name][0].storage_class = "STANDARD"
    assert ask_thaw(life.vault, cold, "Standard") == 2
    assert cold_among(life.vault, cold.frozen).is_empty is True


def test_cold_wal_that_a_plan_has_to_look_into_is_told_at_once(grown: Life) -> None:
    """Nobody declares that, but a rule of the bucket's may do it: an error that says so, not a hole and no wait."""
    life = grown.twin()
    freeze(life, "/full/")
    freeze(life, "/wal/")
    with pytest.raises(VaultError) as caught:
        planned(life)
    assert caught.value.code == "restore.cold"
    assert "without them there is no plan" in caught.value.found
    assert ask_thaw(life.vault, cold_material(life.vault, "ledger"), "Standard") > 2
    for name, rows in life.store.rows.items():
        assert (rows[0].thaw is not None) is ("/full/" in name or "/wal/" in name)
        rows[0].thaw = rows[0].thaw and Thaw(life.clock.now + HOUR)
    assert planned(life).cold.is_empty


def test_locks_of_what_is_cold_are_judged_like_all_others(grown: Life) -> None:
    """A head needs no thaw."""
    life = grown.twin()
    (name, *_) = freeze(life, "/base-")
    assert check_locks(life.vault, "ledger").troubles == ()
    life.store.rows[name][0].lock = None
    assert [one.key for one in check_locks(life.vault, "ledger").troubles] == [name]


def test_a_verification_takes_the_stores_word_for_what_is_cold(grown: Life) -> None:
    """A notice for each, no damage; whose lock lacks, is an error; a cold overlay hides nothing of what was sealed."""
    life = grown.twin()
    names = freeze(life, "/base-")
    report = verify(life.vault)
    assert {found.key for found in report.notices if found.kind == "cold"} == set(names)
    assert report.ok
    life.store.rows[names[0]][0].lock = None
    assert [(found.kind, found.key) for found in verify(life.vault).errors] == [("unlocked", names[0])]
    other = grown.twin()
    row = other.store.rows[names[0]][0]
    assert row.data is not None
    other.store.add(names[0], row.data[:-1] + b"?").storage_class = "DEEP_ARCHIVE"
    row.data = row.data[:-1] + b"!"
    (damage,) = verify(other.vault).errors
    assert damage.key == names[0]
