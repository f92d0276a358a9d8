"""Every kind's lock against DESIGN §4: by heads alone, and by what builds on it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.retention import LOCK_CAP, Kind, LockRules, lock_length
from dr_assets.vault.retention.judged import KEY_OVERLAP, Seen, kind_of, lock_trouble, outlived_keys
from dr_assets.vault.retention.lock_check import check_locks
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.memory import Row
from dr_assets.vault.throwaway import ThrowawayRetention
from dr_assets_tests.unit.test_expire import Life
from dr_assets_tests.unit.test_rollup import T0

DAY = timedelta(days=1)
RULE = ThrowawayRetention("compliance", 30)
RULES = LockRules({"ledger": (RULE, DAY)})


def key_in(stream: str, dataset: str = "ledger") -> ObjectKey:
    """Any name in a stream."""
    return ObjectKey("casino", dataset, stream, "7", 1, 1, 2, "ab" * 16)


@pytest.mark.parametrize(
    ("kind", "days"),
    [("micro", 14), ("wal", 38), ("part", 38), ("incremental", 38), ("manifest", 38), ("fact", 38), ("log", 38),
     ("full", 39), ("key", 2 * 38 + 365)],
)  # fmt: skip
def test_each_kind_has_its_length(kind: Kind, days: int) -> None:
    """DESIGN §4: the micro's two weeks, retention + interval + 7 days, a full one interval more, the key longest."""
    assert lock_length(kind, RULE, DAY) == days * DAY


def test_a_full_under_incrementals_is_held_to_the_cap_too() -> None:
    """What fits without incrementals may not fit with them, and is refused."""
    days = LOCK_CAP.days - 8
    assert lock_length("part", ThrowawayRetention(days=days), DAY) == LOCK_CAP
    with pytest.raises(PolicyError, match="at most 4384"):
        lock_length("full", ThrowawayRetention(days=days), DAY)


def test_a_name_says_which_rule_keeps_it() -> None:
    """By stream where no header was read, and by the header's word where one was; the log's folder is the log's."""
    streams = {"keys": "key", "wal": "micro", "full": "wal", "base": "manifest", "base-b1": "part", "facts-x": "fact"}
    assert {stream: kind_of(key_in(stream)) for stream in streams} == streams
    assert kind_of(key_in("expiry-list"), "manifest") == "manifest"
    assert kind_of(key_in("wal"), "wal") == "micro"
    assert kind_of(key_in("tile", "log")) == "log"


def test_a_lock_that_is_short_weak_or_not_there_is_told() -> None:
    """Ten minutes of tolerance and no more; governance is no compliance; what the people's ring locks is its own."""
    rule = RULES.lock("ledger", "part", T0)
    key = key_in("base-b1")

    def told(lock: Lock | None, one: ObjectKey = key) -> str:
        return lock_trouble(RULES, one, lock, sealed_at=T0, kind="part") or ""

    assert told(rule) == ""
    assert told(Lock("COMPLIANCE", rule.retain_until - timedelta(minutes=9))) == ""
    assert "its rule says" in told(Lock("COMPLIANCE", rule.retain_until - timedelta(minutes=11)))
    assert "bypass" in told(Lock("GOVERNANCE", rule.retain_until + DAY))
    assert "no retention lock" in told(None)
    assert told(None, key_in("ring", "subjects")) == ""


@pytest.fixture(scope="module")
def chain() -> Life:
    """A full with two incrementals on it, WAL, facts and a key."""
    life = Life()
    life.a_day()
    full = life.bases[0]
    lock_all(life, [full.snapshot_id], 6)
    life.a_day(parent=full)
    life.a_day(parent=life.bases[-1])
    lock_all(life, [life.bases[1].snapshot_id], 4)
    return life


def lock_all(life: Life, ids: list[str], more_days: int) -> None:
    """Extend parts and manifests of these backups."""
    for name, row in rows_of(life, lambda name: any(f"/base-{one}/" in name for one in ids)):
        assert row.lock is not None, name
        row.lock = replace(row.lock, retain_until=row.lock.retain_until + more_days * DAY)
    for one in ids:
        (base,) = [base for base in life.bases if base.snapshot_id == one]
        for _, row in rows_of(life, lambda name, base=base: f"-{base.stop_lsn:016X}-" in name and "/base/" in name):  # type: ignore[misc]  # mypy can't infer a default
            assert row.lock is not None
            row.lock = replace(row.lock, retain_until=row.lock.retain_until + more_days * DAY)


def rows_of(life: Life, wanted: Callable[[str], bool]) -> list[tuple[str, Row]]:
    """The rows whose names are wanted."""
    return [(name, rows[0]) for name, rows in life.store.rows.items() if wanted(name)]


def test_a_vault_as_it_is_written_has_no_trouble(chain: Life) -> None:
    """Base backups, incrementals, full segments, facts and keys: all by rule; micros are left to `rolled_up`."""
    report = check_locks(chain.twin().vault, "ledger")
    assert report.troubles == ()
    assert report.objects == report.locked > 10
    assert check_locks(chain.twin().vault, "ledger", micros=True).objects > report.objects


def test_a_full_that_ends_before_its_incrementals_is_told(chain: Life) -> None:
    """By its own rule it is long enough; an incremental above it, two levels up, is locked for longer."""
    life = chain.twin()
    full = life.bases[0]
    lock_all(life, [full.snapshot_id], -6)
    told = check_locks(life.vault, "ledger").troubles
    assert {one.key for one in told} >= {part.key for part in full.parts}
    assert all("builds on it" in one.detail for one in told)
    assert any("/base/" in one.key for one in told)
    life.clock.now += 60 * DAY
    assert check_locks(life.vault, "ledger").troubles == ()  # the incrementals' locks are over, too


@pytest.mark.parametrize("stream", ["full", "full-list", "base", "base-", "facts-capture", "keys"])
def test_a_lock_taken_away_is_told_in_every_stream(chain: Life, stream: str) -> None:
    """Whatever an object is: without its lock it is named."""
    life = chain.twin()
    name, row = rows_of(life, lambda name: name.split("/")[2].startswith(stream))[0]
    row.lock = None
    assert name in {one.key for one in check_locks(life.vault, "ledger").troubles}


def test_what_waited_before_its_put_is_judged_by_its_seal(chain: Life) -> None:
    """A lock reckoned from the seal is right, though the store took the object days later."""
    life = chain.twin()
    for _, row in rows_of(life, lambda name: "/full/" in name):
        row.modified_at += 2 * DAY
    life.clock.now += 3 * DAY
    assert check_locks(life.vault, "ledger").troubles == ()


def test_a_lock_that_is_over_as_planned_is_no_trouble(chain: Life) -> None:
    """It is counted, not blamed."""
    life = chain.twin()
    life.clock.now += 40 * DAY
    report = check_locks(life.vault, "ledger")
    assert report.ended > 10
    assert report.troubles == ()


def key_seen(key_id: str, stored_at: datetime, days: int) -> Seen:
    """A wrapping of a data key."""
    key = ObjectKey("casino", "ledger", "keys", key_id, 1, 0, 0, "ab" * 16)
    return Seen(key, "v", Lock("COMPLIANCE", T0 + days * DAY), stored_at)


def test_a_key_outlives_what_was_sealed_under_it() -> None:
    """To the next key and a little on; what came later is that one's; the longest wrapping of a key counts."""
    old, new = key_seen("aa", T0, 100), key_seen("bb", T0 + 50 * DAY, 900)
    under_old = [(T0 + 10 * DAY, T0 + 90 * DAY)]
    assert list(outlived_keys([old, new], {"ledger": [*under_old, (T0 + 60 * DAY, T0 + 800 * DAY)]})) == []
    late = (T0 + 50 * DAY + KEY_OVERLAP / 2, T0 + 101 * DAY)
    ((seen, why),) = outlived_keys([old, new], {"ledger": [*under_old, late]})
    assert seen is old
    assert "what it opens" in why
    assert list(outlived_keys([old, key_seen("aa", T0 + DAY, 102), new], {"ledger": [late]})) == []
