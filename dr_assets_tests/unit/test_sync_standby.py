import re

import pytest

from dr_assets.stores.postgres.slot import SlotStatus
from dr_assets.stores.postgres.slot_room import RoomWatch
from dr_assets.stores.postgres.sync_names import SyncNames, parse_sync_names
from dr_assets.stores.postgres.sync_standby import DEGRADED, SYNCHRONOUS, Look, Mode, Rule

OURS = SyncNames("FIRST", 1, ("ours",))
GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", SyncNames()),
        ("ours", SyncNames("FIRST", 1, ("ours",))),
        ("a, ours", SyncNames("FIRST", 1, ("a", "ours"))),
        ('2 (a, "O ""x""")', SyncNames("FIRST", 2, ("a", 'O "x"'))),
        ("first 1 (*)", SyncNames("FIRST", 1, ("*",))),
        ("ANY 3(a,b , c)", SyncNames("ANY", 3, ("a", "b", "c"))),
        ("any, first", SyncNames("FIRST", 1, ("any", "first"))),
    ],
)
def test_the_setting_is_read_as_the_manual_writes_it(text: str, names: SyncNames) -> None:
    """Every form, and what we write reads back equal."""
    assert parse_sync_names(text) == names
    assert parse_sync_names(str(names)) == names


@pytest.mark.parametrize("text", ["(a)", "2 (a", "a,,b", "a b", "ANY 2 ()", "a;"])
def test_what_no_server_would_show_is_refused(text: str) -> None:
    """Half a setting must not pass for a promise."""
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_sync_names(text)


def test_adding_and_taking_away_one_name_leaves_the_others_as_required_as_before() -> None:
    """Round trips; a name that isn't there is no change; without us the other standby still counts."""
    both = parse_sync_names("FIRST 2 (standby, ours)")
    assert both.without_name("OURS") == SyncNames("FIRST", 1, ("standby",))
    assert both.without_name("ours").with_name("ours") == both
    assert both.without_name("nobody") is both
    assert OURS.without_name("ours") == SyncNames()
    assert SyncNames().with_name("ours") == OURS


def look(flushed: int, vaulted: int, names: SyncNames = OURS, *, streaming: bool = True) -> Look:
    """What the source might say."""
    return Look(names, flushed, vaulted, streaming)


def decisions(rule: Rule, looks: list[tuple[float, Look]]) -> list[Mode | None]:
    """The rule's word for each look."""
    return [rule.decide(each, now_s) for now_s, each in looks]


def test_commits_go_on_once_wal_has_waited_for_too_long_and_not_before() -> None:
    """Counted from when the WAL was seen; progress that is not enough doesn't reset it, catching up does."""
    rule = Rule("ours", 10.0)
    assert decisions(rule, [(0, look(100, 100)), (5, look(200, 100)), (14, look(300, 150))]) == [None, None, None]
    assert decisions(rule, [(14.5, look(300, 250)), (15.5, look(300, 250))]) == [None, None]
    assert decisions(rule, [(23, look(300, 250)), (24.5, look(300, 250))]) == [None, DEGRADED]
    assert decisions(Rule("ours", 10.0), [(0, look(200, 100)), (9, look(200, 200)), (11, look(200, 200))]) == [None] * 3


def test_without_a_limit_nothing_is_ever_changed() -> None:
    """`block` means block, however long."""
    assert decisions(Rule("ours", None), [(0, look(200, 100)), (9e9, look(200, 100))]) == [None, None]


def test_commits_wait_again_only_when_the_vault_has_kept_up_for_a_while() -> None:
    """Without a break; not while nobody streams; not where others could stand in; later each time it flaps."""
    rule, gone = Rule("ours", 1.0, rearm_after_s=5.0), SyncNames()
    rule.degraded(0.0)
    assert decisions(rule, [(1, look(100, 100, gone)), (5, look(100, 100, gone, streaming=False))]) == [None, None]
    assert decisions(rule, [(6, look(100, 100, gone)), (11, look(100, 100, gone))]) == [None, SYNCHRONOUS]
    rule.degraded(20.0)
    assert decisions(rule, [(21, look(100, 100, gone)), (27, look(100, 100, gone))]) == [None, None]
    assert decisions(rule, [(31.5, look(100, 100, gone))]) == [SYNCHRONOUS]
    either = parse_sync_names("ANY 1 (a, b)")
    assert decisions(Rule("ours", 1.0), [(0, look(1, 1, either)), (99, look(1, 1, either))]) == [None, None]


def slot(retained: int, safe: int | None) -> SlotStatus:
    """A slot that keeps so much."""
    return SlotStatus("ours", "physical", True, 7, "extended", 900, retained, safe)


def test_the_alarm_comes_before_either_end() -> None:
    """The slot's own limit or the declared disk, whichever is nearer; by share, or by time when it fills fast."""
    assert RoomWatch(None).look(slot(50 * GIB, None), 0).alarm() is None
    near = RoomWatch(100 * GIB).look(slot(85 * GIB, None), 0).alarm()
    assert near is not None
    assert "nearly at its end" in near
    assert "source stops" in near
    lost = RoomWatch(100 * GIB).look(slot(30 * GIB, 20 * GIB), 0).alarm()
    assert lost is not None
    assert "slot is lost" in lost
    watch = RoomWatch(100 * GIB)
    assert watch.look(slot(20 * GIB, None), 0).alarm() is None
    soon = watch.look(slot(22 * GIB, None), 30)
    assert soon.full_in_s == pytest.approx(78 / 2 * 30)
    assert soon.alarm() is not None
    assert RoomWatch(100 * GIB).look(slot(20 * GIB, None), 0).alarm() is None
