"""Expiry of packs over simulated months: what the window needs stays, the rest goes, and verify is green all along."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.expired import begin_on_record
from dr_assets.stores.kafka.expiry_plan import OLD_CATALOGUE, OLD_PACK, PackPlanner
from dr_assets.stores.kafka.export import Export, open_export
from dr_assets.stores.kafka.pack import open_pack
from dr_assets.stores.kafka.resume import find_stored_end
from dr_assets.stores.postgres.expire import Expiry, expire, plan_expiry
from dr_assets.stores.postgres.expiry_plan import FACT
from dr_assets.vault.expiry_list import EXPIRY, EXPIRY_LIST
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.format.pack import Stream
from dr_assets.vault.format.pack_list import PACK_LIST
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.prefix import format_position
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.kafka_packs import BETS, DAY, PLAYERS, SYSTEM, WINDOW, Topics

BET = (BETS, 0, 0)
A_DAY = 4  # packs
KEPT_AT_SOURCE = 3  # days
RENEWED = 5  # days from one export of players to the next


@dataclass
class Life:
    """Two topics, captured day by day; `endless`: the source keeps all bets."""

    topics: Topics = field(default_factory=Topics)
    endless: bool = False
    renews: bool = True
    catches_up: bool = True
    day: int = 0
    starts: dict[int, int] = field(default_factory=dict)
    generation: int = 0

    @property
    def player(self) -> Stream:
        """The newest export of players."""
        return PLAYERS, 0, self.generation

    def a_day(self) -> None:
        """Bets all day, a table in the morning; now and then players are exported anew, whole by noon."""
        topics = self.topics
        if self.day == 0:
            topics.survey()
        self.starts[self.day] = topics.rows[BET].next if BET in topics.rows else 0
        if not self.endless:
            topics.log_starts[BET] = self.starts.get(self.day - KEPT_AT_SOURCE, 0)
        renewing = self.renews and self.day and self.day % RENEWED == 0
        if renewing:
            self.generation += 1
        topics.put((BET, 3), (self.player, 2), table=True, reached=self.catches_up and not renewing)
        for _ in range(A_DAY - 1):
            topics.clock.now += DAY / A_DAY
            topics.put((BET, 2), (self.player, 1), reached=self.catches_up)
            if self.catches_up:
                topics.rows.pop((PLAYERS, 0, self.generation - 1), None)
        topics.clock.now += DAY / A_DAY
        topics.tell()
        record_inventory(topics.vault, "events")
        self.day += 1

    def days(self, count: int, *, expiring: bool = True) -> None:
        """So many, an expiry every evening."""
        for _ in range(count):
            self.a_day()
            if expiring:
                self.expire()

    def expire(self, limit: int = 20_000) -> Expiry:
        """All that may go."""
        return expire(self.topics.vault, "events", limit=limit, planner=PackPlanner)

    def packs(self) -> list[int]:
        """Numbers of those that are there."""
        return [obj.key.first for obj in self.topics.vault.objects("events", "packs")]

    def export(self, as_of: datetime | None = None) -> Export:
        """As a restore opens it."""
        return open_export(self.topics.vault, "events", as_of=as_of)

    def require_window(self) -> None:
        """At each evening of the window all that the source had can be read, and verify is green."""
        for back in range(min(WINDOW, self.day)):
            evening = self.topics.clock.now - back * DAY
            export = self.export(evening)
            bets, players = (export.topic(name).partitions[0] for name in ("bets", "players"))
            day = self.day - 1 - back
            assert bets.begin <= (0 if self.endless else self.starts.get(day - KEPT_AT_SOURCE, 0))
            assert (players.begin, players.complete) == (0, True)
            assert players.generation == (day // RENEWED if self.renews else 0)
            assert sum(1 for _ in export.slices({(BETS, 0): (bets.begin, bets.next)})) > 0
        assert [each for each in verify(self.topics.vault).findings if each.kind != "lock_expired"] == []


def test_through_two_months_the_window_stays_whole_and_the_rest_goes() -> None:
    """An expiry a day: every evening of the last eight days can be restored, and the vault stops growing."""
    life = Life()
    sizes = []
    for _ in range(4):
        life.days(14)
        life.require_window()
        sizes.append(len(life.packs()))
    assert sizes[-1] <= sizes[1] + RENEWED * A_DAY
    assert life.packs()[0] > 25 * A_DAY
    assert len(life.topics.names(PACK_LIST)) <= sizes[-1] / life.topics.every + 2


def test_a_plan_says_why_and_changes_nothing() -> None:
    """Packs, then their catalogues, then facts; the fact that tells of the list tells where the chain begins."""
    life = Life()
    life.days(30, expiring=False)
    before = life.topics.store.copy().rows.keys()
    plan = plan_expiry(life.topics.vault, "events", planner=PackPlanner)
    assert list(plan.by_stage()) == [OLD_PACK, OLD_CATALOGUE, FACT]
    assert life.topics.store.rows.keys() == before
    life.expire()
    assert begin_on_record(life.topics.vault, "events", SYSTEM) == life.packs()[0] == next(iter(plan.begins.values()))
    life.require_window()


def test_what_the_source_keeps_without_end_is_kept_here() -> None:
    """Its log begins where it always did: a restore to any moment needs its first pack, however old that is."""
    life = Life(endless=True)
    life.days(24, expiring=False)
    life.expire()
    assert life.packs()[0] == 0
    life.require_window()


def test_of_a_compacted_topic_all_stays_until_a_newer_export_is_whole() -> None:
    """Its last record of a key may be in the first pack, whatever locks and days say."""
    life = Life(renews=False)
    life.days(24, expiring=False)
    life.expire()
    assert life.packs()[0] == 0
    life.require_window()


def test_an_export_that_never_became_whole_replaces_none() -> None:
    """It was begun long before the window and has no end yet: what can be restored is the one before."""
    life = Life(renews=False)
    life.days(6, expiring=False)
    life.generation, life.catches_up = 1, False
    life.days(20, expiring=False)
    life.expire()
    assert life.packs()[0] == 0
    players = life.export().topic("players").partitions[0]
    assert (players.generation, players.complete) == (0, True)


def test_a_topic_whose_policy_nobody_knows_counts_as_compacted() -> None:
    """Better a pack too many."""
    life = Life(renews=False)
    life.day = 1  # no survey
    life.days(24, expiring=False)
    life.expire()
    assert life.packs()[0] == 0


def test_when_the_capture_stands_still_nothing_runs_out() -> None:
    """A year later what the last window needed is there, and a capture knows where to go on."""
    life = Life()
    life.days(30)
    known = {number for number in life.packs() if number >= life.packs()[-1] - WINDOW * A_DAY}
    end = find_stored_end(life.topics.vault, "events", SYSTEM)
    life.topics.clock.now += timedelta(days=365)
    life.expire()
    assert known <= set(life.packs())
    assert end is not None
    now = find_stored_end(life.topics.vault, "events", SYSTEM)
    assert now is not None
    assert (now.rows, now.end) == (end.rows, end.end)
    assert life.export().topic("players").partitions[0].complete


def test_the_newest_table_before_the_window_stays_though_the_source_holds_nothing_any_more() -> None:
    """The chain begins with it: every stream's position at the window's begin can be told, by a capture too."""
    life = Life()
    topics = life.topics
    topics.survey()
    for number in range(18 * A_DAY):
        topics.log_starts[BET] = topics.rows[BET].next + 2 if BET in topics.rows else 0
        topics.put((BET, 2), table=number % A_DAY == 1)
        topics.clock.now += DAY / A_DAY
    topics.tell()
    begin = topics.clock.now - WINDOW * DAY
    topics.clock.now += 30 * DAY  # so that nothing is locked
    life.expire()
    first = next(topics.vault.objects("events", "packs"))
    assert first.key.first > 8 * A_DAY
    assert open_pack(topics.vault, first).index.table is not None
    assert life.export(begin).topic("bets").partitions[0].complete


def test_nothing_under_lock_goes() -> None:
    """Though the window needs it no more."""
    life = Life()
    life.days(15)
    assert life.packs()[0] == 0
    plan = plan_expiry(life.topics.vault, "events", planner=PackPlanner)
    assert plan.rows == []


@pytest.mark.parametrize("after", [0, 1, 7])
def test_an_expiry_that_is_killed_leaves_a_vault_that_can_be_read(after: int) -> None:
    """Some of the front are gone, others not: no hole for a reader or for verify; the next one goes on."""
    life = Life()
    life.days(30, expiring=False)
    names = [str(row.key) for row in plan_expiry(life.topics.vault, "events", planner=PackPlanner).rows]
    spared = {names[at] for at in (0, 2, 5)}
    life.topics.store.kill_after = after
    life.topics.store.spared = spared
    with pytest.raises(VaultError):
        life.expire()
    life.topics.store.kill_after = None
    assert {each.kind for each in verify(life.topics.vault).findings} <= {"lock_expired", "unfinished"}
    for back in range(WINDOW):
        assert life.export(life.topics.clock.now - back * DAY).topic("players").partitions[0].complete
    life.days(1)
    life.require_window()


def test_what_lacks_before_the_begin_that_an_expiry_told_is_no_hole() -> None:
    """The list that named it may have expired itself; what lacks behind it is a hole all the same."""
    life = Life(renews=False)
    life.a_day()
    life.a_day()
    topics = life.topics
    for name in topics.names("packs")[:3]:
        del topics.store.rows[name]
    life.topics.tell()
    place = topics.names("packs")[0].rpartition("/")[0] + "/"
    record_fact(topics.vault, "events", EXPIRY, {"event": "done", "begins": {place: format_position(2)}})
    record_inventory(topics.vault, "events")
    assert "hole" in {each.kind for each in verify(topics.vault).findings}
    record_fact(topics.vault, "events", EXPIRY, {"event": "done", "begins": {place: format_position(3)}})
    assert "hole" not in {each.kind for each in verify(topics.vault).findings}


def test_lists_that_expired_themselves_leave_no_hole() -> None:
    """Where the chain begins is said by every later expiry."""
    life = Life()
    life.days(45)
    assert 0 < len(life.topics.names(EXPIRY_LIST)) < 2 * WINDOW + RENEWED
    newest = latest_fact(life.topics.vault, "events", EXPIRY)
    assert newest is not None
    assert "begins" in newest.body
    life.require_window()


def test_packs_of_a_cluster_that_was_left_go_once_the_window_lies_in_the_next_one() -> None:
    """All of them: nothing would ever need them again."""
    life = Life()
    life.days(10)
    left = life.topics
    moved = Topics(clock=left.clock, system_id="6b" * 16)
    moved.vault, moved.store = left.vault, left.store
    moved.start()
    life.topics, life.day, life.starts, life.generation = moved, 0, {}, 0
    life.days(32)
    assert {name.split("/")[3] for name in left.names("packs")} == {moved.system_id}
    assert [each for each in verify(moved.vault).findings if each.kind != "lock_expired"] == []
