"""The sequencer and its feed: everything that is stored is logged once, by one sequencer at a time."""

from datetime import timedelta

import pytest

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.log import feed
from dr_assets.vault.log.checkpoint import Checkpoint, sign_checkpoint
from dr_assets.vault.log.names import batch_name, checkpoint_name
from dr_assets.vault.log.sequencer import Sequencer
from dr_assets.vault.log.statement import NAMES, OBJECT
from dr_assets.vault.storage import Lock
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.log.conftest import SIZE, Logged


def test_everything_that_is_stored_is_logged_once(logged: Logged) -> None:
    """Facts, manifests and keys a leaf each; pieces one for each place and look; nothing twice, nothing left."""
    logged.fact()
    for _ in range(5):
        logged.piece()
    logged.piece("base-20260310t120000z-00aa")
    logged.piece("base")
    logged.piece("full")
    logged.piece("full-list")
    done = logged.sequence()
    assert (done.leaves, done.names_total, done.batches, done.caught_up) == (7, 11, 1, True)
    kinds = [vouched.statement.kind for vouched in logged.reader().vouched()]
    assert (kinds.count(OBJECT), kinds.count(NAMES)) == (4, 3)
    for _ in range(40):
        logged.piece()
    logged.fact("approval", "vault", event="signed", by="ann")
    assert logged.sequence().names_total == 42, "with the first key of dataset `vault`"
    assert logged.sequence().leaves == 0
    assert sorted(logged.vouched()) == sorted(logged.stored())


def test_the_leaf_of_a_governance_fact_says_it_in_plain_words_and_no_other_does(logged: Logged) -> None:
    """Who approved what is for everybody to read; what a roller counted is not."""
    logged.fact("approval", "vault", event="signed", by="ann")
    logged.fact("roll_up", fulls=3)
    logged.sequence()
    said = {vouched.statement.name.split("/")[2]: vouched.statement.predicate for vouched in logged.reader().vouched()}
    assert said["facts-approval"]["says"] == {"event": "signed", "by": "ann"}
    assert set(said["facts-roll_up"]) == {"kind", "stored_at"}


def test_a_piece_that_lands_late_is_logged_too(logged: Logged) -> None:
    """Within minutes by the mark that stays behind, later by the daily sweep."""
    for _ in range(10):
        logged.piece()
    logged.sequence()
    logged.piece(at=500)
    assert logged.sequence().names_total == 0, "far below the mark: nobody looks there on every run"
    logged.piece(at=logged.position - SIZE - SIZE // 2)
    assert logged.sequence().names_total == 1
    logged.later(days=1)
    logged.piece()
    assert logged.sequence().names_total == 2
    assert sorted(logged.vouched()) == sorted(logged.stored())


def test_a_fact_from_the_future_hides_none_of_the_present(logged: Logged) -> None:
    """A writer whose clock ran ahead for once; it is logged, and what comes after it as well."""
    logged.fact(number=1)
    now = logged.now
    logged.now += timedelta(days=400)
    ahead = logged.vault.prepare(
        dataset="ledger", stream="facts-roll_up", kind="fact", system_id="0", timeline=0, first=1 << 62,
        last=(1 << 62) + 1, begin_at=now, end_at=now, plaintext=b"{}",
    ).seal()  # fmt: skip
    logged.now = now
    logged.vault.put(ahead, logged.vault.locks.lock("ledger", "fact", now))
    logged.sequence()
    logged.later(minutes=10)
    logged.sequence()
    logged.fact(number=2)
    assert logged.sequence().names_total == 1
    assert sorted(logged.vouched()) == sorted(logged.stored())


def test_strangers_names_are_passed_over_and_hold_nothing_up(logged: Logged) -> None:
    """Junk under names of ours is not vouched for, and what comes after it is logged."""
    logged.piece()
    junk = f"casino/ledger/wal/7/00000001/{2000:016X}-{2010:016X}-" + "0" * 32
    fact = f"casino/ledger/facts-capture/0/00000000/{5:016X}-{6:016X}-" + "0" * 32
    for name in (junk, fact, "casino/ledger/wal/7/00000001/x", "casino/x"):
        logged.store.add(name, b"junk")
    assert logged.sequence().passed_over == 2
    logged.piece()
    assert logged.sequence().names_total == 1
    assert not {junk, fact} & set(logged.vouched())


def test_a_large_backlog_takes_several_full_batches(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with a checkpoint of its own, and nothing is lost between them."""
    monkeypatch.setattr(feed, "LEAVES_LIMIT", 20)
    monkeypatch.setattr(feed, "NAMES_LIMIT", 40)
    for _ in range(70):
        logged.piece()
        logged.fact()
    done = logged.sequence()
    assert done.batches > 3
    assert done.caught_up
    assert sorted(logged.vouched()) == sorted(logged.stored())
    assert not [finding for finding in verify(logged.vault).findings if "/log/" in finding.key]


def test_batches_are_ten_seconds_apart(logged: Logged) -> None:
    """Whoever asks more often gets nothing; one that fills no batch waits."""
    logged.fact()
    logged.sequence()
    logged.fact()
    assert Sequencer(logged.vault, pause=timedelta(hours=1)).run().leaves == 0
    assert Sequencer(logged.vault).run().leaves == 1 or logged.sequence().leaves == 1


def test_backups_of_peoples_keys_leave_no_word_in_the_log(logged: Logged) -> None:
    """What must be forgotten in time is not written where nothing is ever forgotten."""
    logged.store.add(f"casino/subjects/ring/0/00000000/{5:016X}-{6:016X}-" + "0" * 32, b"x")
    logged.fact()
    logged.sequence()
    assert not [name for name in logged.vouched() if "/ring/" in name]


def test_a_strangers_batch_is_stepped_over(logged: Logged) -> None:
    """Whoever lays something under the next batch's name can't stop the log; it is reported."""
    logged.fact()
    logged.sequence()
    squatted = batch_name("casino", logged.reader().checkpoint.size, 0)
    logged.store.add(squatted, b"mine", Lock("COMPLIANCE", logged.now + timedelta(days=999)))
    logged.fact()
    assert logged.sequence().leaves == 1
    logged.fact()
    assert logged.sequence().leaves == 1
    assert [finding.kind for finding in verify(logged.vault).findings if finding.key == squatted] == ["foreign"]


def test_what_lies_in_the_way_of_a_tile_or_checkpoint_is_told(logged: Logged) -> None:
    """The log waits, nothing is lost, and once it is gone the log goes on."""
    logged.fact()
    logged.sequence()
    logged.fact()
    size = logged.reader().checkpoint.size + 1
    name = checkpoint_name("casino", size)
    logged.store.add(name, b"mine")
    with pytest.raises(VaultError, match=r"log\.squatted"):
        logged.sequence()
    assert logged.reader().checkpoint.size == size - 1
    logged.store.delete_version(name, logged.store.rows[name][0].version_id)
    assert logged.sequence().resumed
    assert logged.reader().checkpoint.size == size


def test_a_second_history_of_one_log_is_refused(logged: Logged) -> None:
    """A checkpoint that is signed for another tree of the next size: two hands had the key."""
    logged.fact()
    logged.sequence()
    logged.fact()
    other = Checkpoint("dr-assets/casino/throwaway", logged.reader().checkpoint.size + 1, b"\x05" * 32)
    logged.store.add(checkpoint_name("casino", other.size), sign_checkpoint(other, logged.signer).note)
    with pytest.raises(VaultError, match=r"log\.(forked|damaged)"):
        logged.sequence()


def test_another_vaults_log_is_not_continued(logged: Logged) -> None:
    """A replica holds a copy: whoever would append there would fork it."""
    logged.fact()
    logged.sequence()
    replica = throwaway_vault(
        store=logged.store, provider=logged.provider, signer=logged.signer, clock=lambda: logged.now, name="standby"
    )
    with pytest.raises(VaultError, match=r"log\.other_log"):
        Sequencer(replica).run()
    replica.signer = None
    with pytest.raises(PolicyError, match=r"vault\.read_only"):
        Sequencer(replica)


def test_a_log_that_was_set_back_does_not_quietly_begin_anew(logged: Logged) -> None:
    """The newest checkpoints are hidden by delete markers: they count as before."""
    for _ in range(3):
        logged.fact()
        logged.sequence()
    newest = logged.reader().checkpoint
    for name in [name for name in logged.store.rows if "/log/" in name]:
        logged.store.add(name, None)
    assert logged.reader().checkpoint == newest
    logged.fact()
    assert logged.sequence().leaves == 1
    logged.reader().require_extends(newest)


def test_a_listing_that_hides_the_newest_checkpoint_is_seen_through(logged: Logged) -> None:
    """What a batch was decided on leads to the next checkpoint by name."""
    for _ in range(3):
        logged.fact()
        logged.sequence()
    newest, rows = logged.reader().checkpoint, logged.store.list_versions
    hidden = checkpoint_name("casino", newest.size)
    logged.store.list_versions = lambda prefix, start_after="": (  # type: ignore[method-assign]  # a store that lies
        row for row in rows(prefix, start_after) if prefix.count("0") > 9 or row.key != hidden
    )
    assert logged.reader().checkpoint == newest
