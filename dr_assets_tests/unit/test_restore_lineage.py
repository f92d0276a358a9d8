from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.stores.postgres.base_manifest import Archive, BaseManifest
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.lineage import TIMELINE
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import RestorePlan, plan_restore
from dr_assets.stores.postgres.resume import RECOVERY_POINT_AT
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.prefix import ACKNOWLEDGED_TO, format_position
from dr_assets.vault.storage import Version
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SIZE = 4096
SEGMENT = SIZE
OLD, NEW = "7001", "7002"


class Ticking:
    """A clock that every look moves on by ten milliseconds, the vault's and the store's."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        """Now."""
        self.now += timedelta(milliseconds=10)
        return self.now


@pytest.fixture
def clock() -> Ticking:
    """The only clock."""
    return Ticking()


@pytest.fixture
def vault(clock: Ticking) -> Vault:
    """An empty vault in memory."""
    return throwaway_vault(clock=clock)


def put_wal(
    vault: Vault, system_id: str, timeline: int, begin: int, count: int, *, previous: str | None = None
) -> str | None:
    """`count` linked pieces from `begin` on; the piece that begins at position p holds the beat of T0 + p/SIZE s.

    Returns the last header's digest.
    """
    for first in range(begin, begin + count * SIZE, SIZE):
        extra = {RECOVERY_POINT_AT: format_time(at(first)), ACKNOWLEDGED_TO: format_position(first)}
        prepared = vault.prepare(
            dataset="ledger", stream="wal", kind="wal", system_id=system_id, timeline=timeline, first=first,
            last=first + SIZE, begin_at=T0, end_at=T0, plaintext=bytes(SIZE), previous=previous, extra=extra,
        )  # fmt: skip
        vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock()))
        previous = prepared.header.digest
    return previous


def at(position: int) -> datetime:
    """The source's clock when it wrote that position."""
    return T0 + timedelta(seconds=position / SIZE)


def put_base(
    vault: Vault, system_id: str, timeline: int, start: int, stop: int, *, history: str | None = None
) -> BaseManifest:
    """A base backup of nothing, whose WAL is what matters here."""
    nothing = Archive("base.tar", None, None, 0, 0, 0)
    manifest = BaseManifest(
        dataset="ledger", snapshot_id=f"b{system_id}-{timeline}-{start:x}", system_id=system_id, timeline=timeline,
        server_version=170010, start_lsn=start, stop_lsn=stop, begin_at=at(start), end_at=at(stop),
        segment_bytes=SEGMENT, data_checksums=True, next_xid=1000, superuser="postgres", dbname="ledger",
        settings={}, policy={}, history=history, archives=(nothing,),
        backup_manifest=replace(nothing, name="backup_manifest"), parts=(),
    )  # fmt: skip
    prepared = vault.prepare(
        dataset="ledger", stream="base", kind="manifest", system_id=system_id, timeline=timeline, first=start,
        last=stop, begin_at=T0, end_at=T0, plaintext=manifest.encode(),
    )  # fmt: skip
    vault.put(prepared.seal(), vault.locks.lock("ledger", "manifest", vault.clock()))
    return manifest


def captured(vault: Vault, system_id: str, timeline: int, begin: int, stored: int) -> None:
    """The capture's own word."""
    record_capture(vault, "ledger", "position", Anchor(system_id, timeline, begin, stored, None, None, 1, None))


def plan(vault: Vault, target: str, as_of: datetime | None = None, timeline: int | None = None) -> RestorePlan:
    """Only plan."""
    return plan_restore(vault, "ledger", Target.parse(target), as_of=as_of, timeline=timeline)


def refusal(vault: Vault, target: str, timeline: int | None = None) -> DrError:
    """Why there is no plan."""
    with pytest.raises(DrError) as caught:
        plan(vault, target, timeline=timeline)
    return caught.value


def stretches(found: RestorePlan) -> list[tuple[int, float, float]]:
    """Timeline, begin and end, in pieces."""
    frames = [stretch.frame for stretch in found.stretches]
    return [(frame.timeline, frame.begin / SIZE, frame.end / SIZE) for frame in frames]


def switched(vault: Vault, timeline: int, *switches: tuple[int, int]) -> None:
    """A capture's word that `timeline` was begun, with where each of its ancestors was left."""
    history = "".join(
        f"{number}\t{format_lsn(position)}\tno recovery target specified\n" for number, position in switches
    )
    parent, position = switches[-1]
    body: dict[str, Json] = {"system_id": OLD, "timeline": timeline, "parent": parent, "history": history}
    body |= {"switch_lsn": format_lsn(position), "followed_at": format_time(T0)}
    record_fact(vault, "ledger", TIMELINE, body)


def test_latest_is_never_the_end_of_a_system_that_the_source_has_left(vault: Vault) -> None:
    """After an upgrade the new system's first base backup is awaited; a time before it still brings the old one."""
    put_wal(vault, OLD, 1, 0, 8)
    old = put_base(vault, OLD, 1, 40, 2 * SIZE)
    captured(vault, OLD, 1, 0, 8 * SIZE)
    assert plan(vault, "latest").base == old
    captured(vault, NEW, 1, 0, 0)
    assert refusal(vault, "latest").code == "restore.other_system"
    previous = put_wal(vault, NEW, 1, 0, 2)
    new = put_base(vault, NEW, 1, 40, 3 * SIZE)
    error = refusal(vault, "latest")
    assert error.code == "restore.other_system"
    assert NEW in error.found
    assert "ask for a time" in error.hint
    earlier = plan(vault, at(5 * SIZE).isoformat())
    assert earlier.base == old
    assert any(NEW in note for note in earlier.notes)
    put_wal(vault, NEW, 1, 2 * SIZE, 4, previous=previous)
    captured(vault, NEW, 1, 0, 6 * SIZE)
    assert plan(vault, "latest").base == new


def test_latest_as_of_a_moment_before_the_upgrade_is_the_old_system(vault: Vault, clock: Ticking) -> None:
    """What was captured later is not known then, the capture's word included."""
    put_wal(vault, OLD, 1, 0, 8)
    old = put_base(vault, OLD, 1, 40, 2 * SIZE)
    captured(vault, OLD, 1, 0, 8 * SIZE)
    before = clock()
    captured(vault, NEW, 1, 0, 0)
    assert plan(vault, "latest", before).base == old


def test_latest_is_refused_when_the_capture_went_back_to_an_older_timeline(vault: Vault) -> None:
    """Two servers both think they are the source: a person has to say which."""
    put_wal(vault, OLD, 2, 0, 8)
    put_base(vault, OLD, 2, 40, 2 * SIZE, history="1\t0/0\tno recovery target specified\n")
    captured(vault, OLD, 1, 0, 0)
    assert refusal(vault, "latest").code == "restore.older_timeline"


@pytest.fixture
def forked(vault: Vault, clock: Ticking) -> Vault:
    """Timeline 1 goes on to piece 19 though timeline 2 began at piece 10."""
    put_wal(vault, OLD, 1, 0, 20)
    put_base(vault, OLD, 1, 40, 2 * SIZE)
    clock.now += timedelta(minutes=1)
    put_wal(vault, OLD, 2, 10 * SIZE, 10)
    captured(vault, OLD, 2, 10 * SIZE, 20 * SIZE)
    return vault


ABANDONED = [f"lsn:{format_lsn(10 * SIZE + 1)}", at(9 * SIZE + 1).isoformat(), at(15 * SIZE).isoformat()]
COMMON = [f"lsn:{format_lsn(10 * SIZE)}", at(8 * SIZE).isoformat(), "immediate"]


@pytest.mark.parametrize("target", ABANDONED)
def test_what_a_failover_abandoned_is_not_restored_without_a_word(forked: Vault, target: str) -> None:
    """Behind the newer timeline's beginning nothing of the older one is handed out; `--as-of` is the way to ask."""
    error = refusal(forked, target)
    assert error.code == "restore.abandoned_timeline"
    assert isinstance(error, PolicyError)
    as_of = datetime.fromisoformat(error.hint.rpartition("--as-of ")[2])
    assert plan(forked, target, as_of).frame.timeline == 1


@pytest.mark.parametrize("target", COMMON)
def test_what_both_timelines_have_is_restored_and_said(forked: Vault, target: str) -> None:
    """A target that provably lies before the switch is nobody's loss."""
    found = plan(forked, target)
    assert found.frame.timeline == 1
    assert any("left timeline 1 for 2" in note for note in found.notes)


def test_a_transaction_is_only_looked_for_in_what_both_timelines_have(forked: Vault) -> None:
    """Nobody knows where it lies: the replay gets no WAL in which an abandoned one could be found."""
    found = plan(forked, "xid:1001")
    assert found.frame.end == 10 * SIZE
    assert plan(forked, "xid:1001", as_of=T0 + timedelta(seconds=30)).frame.end == 20 * SIZE


def test_a_history_file_says_exactly_where_the_source_left(forked: Vault) -> None:
    """Captures begin at a WAL segment; the first base backup of the new timeline knows better, either way."""
    target = at(12 * SIZE).isoformat()
    assert "can tell where exactly" in refusal(forked, target).found
    put_base(forked, OLD, 2, 15 * SIZE + 40, 16 * SIZE, history=f"1\t{format_lsn(14 * SIZE)}\tno target\n")
    assert plan(forked, target).frame.timeline == 1
    assert stretches(plan(forked, at(14 * SIZE).isoformat())) == [(1, 0, 14), (2, 14, 16)]
    assert plan(forked, at(17 * SIZE).isoformat()).stretches[0].frame.timeline == 2


def test_latest_after_a_failover_awaits_a_base_backup_of_the_newer_timeline(forked: Vault) -> None:
    """The old timeline's end is not the newest there is."""
    assert refusal(forked, "latest").code == "restore.newer_timeline"
    put_base(forked, OLD, 2, 15 * SIZE + 40, 16 * SIZE, history=f"1\t{format_lsn(10 * SIZE)}\tx\n")
    assert plan(forked, "latest").frame.timeline == 2


def test_a_base_backup_of_what_was_abandoned_is_passed_over(forked: Vault) -> None:
    """It was taken from the old primary after the failover: an older one is used, and that is said."""
    put_base(forked, OLD, 1, 12 * SIZE + 40, 13 * SIZE)
    found = plan(forked, "immediate")
    assert found.base.start_lsn == 40
    assert any("restore.abandoned_timeline" in note for note in found.notes)


def test_a_timeline_that_is_no_ancestor_is_abandoned_as_a_whole(forked: Vault) -> None:
    """Timeline 3 was begun from timeline 1 behind the back of 2: nothing of 2 is the source's."""
    put_base(forked, OLD, 2, 10 * SIZE + 40, 12 * SIZE, history=f"1\t{format_lsn(10 * SIZE)}\tx\n")
    put_wal(forked, OLD, 3, 9 * SIZE, 3)
    put_base(forked, OLD, 3, 9 * SIZE + 40, 10 * SIZE, history=f"1\t{format_lsn(9 * SIZE)}\tx\n")
    assert plan(forked, at(8 * SIZE - SIZE // 2).isoformat()).frame.timeline == 1
    found = plan(forked, f"lsn:{format_lsn(12 * SIZE)}")
    assert found.frame.timeline == 3
    assert refusal(forked, f"lsn:{format_lsn(13 * SIZE)}").code == "restore.target_beyond"


def test_rubbish_under_a_newer_timeline_s_name_stops_no_restore(vault: Vault) -> None:
    """Anybody who may write can make such a name; only a piece whose header can be believed counts."""
    put_wal(vault, OLD, 1, 0, 8)
    put_base(vault, OLD, 1, 40, 2 * SIZE)
    assert isinstance(vault.store, MemoryStore)
    vault.store.add(f"casino/ledger/wal/{OLD}/00000002/{0:016X}-{SIZE:016X}-{'0' * 32}", b"rubbish")
    vault.store.add(f"casino/ledger/wal/{OLD}/0000000z/{0:016X}-{SIZE:016X}-{'0' * 32}", b"rubbish")
    assert plan(vault, "latest").frame.timeline == 1


def test_planning_lists_no_wal_from_before_its_base_backup(clock: Ticking) -> None:
    """A year of WAL is millions of names: which timelines there are is told by their folders."""

    class Counting(MemoryStore):
        rows_listed = 0
        within_level = False

        def list_level(self, prefix: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - as its parent's
            self.within_level = True
            try:
                return super().list_level(prefix)
            finally:
                self.within_level = False

        def list_versions(self, prefix: str, start_after: str = "") -> Iterator[Version]:
            for version in super().list_versions(prefix, start_after):
                self.rows_listed += "/wal/" in prefix and not self.within_level
                yield version

    store = Counting(clock)
    vault = throwaway_vault(clock=clock, store=store)
    far = 128 << 20  # more than any piece of WAL is long
    put_wal(vault, OLD, 1, 0, 300)
    put_wal(vault, OLD, 1, far, 8)
    put_base(vault, OLD, 1, far + 40, far + 2 * SIZE)
    plan(vault, "latest")
    assert store.rows_listed == 8


SWITCH = 10 * SIZE + SIZE // 2


@pytest.fixture
def followed(vault: Vault, clock: Ticking) -> Vault:
    """Timeline 1 goes on to piece 19, timeline 2 began in the middle of piece 10, and a capture followed."""
    put_wal(vault, OLD, 1, 0, 20)
    put_base(vault, OLD, 1, 40, 2 * SIZE)
    clock.now += timedelta(minutes=1)
    switched(vault, 2, (1, SWITCH))
    put_wal(vault, OLD, 2, SWITCH, 10)
    captured(vault, OLD, 2, SWITCH, SWITCH + 10 * SIZE)
    return vault


def test_latest_follows_a_switch_whose_history_was_sealed(followed: Vault) -> None:
    """The older timeline up to exactly there, then the newer one; what the old primary wrote later is left out."""
    found = plan(followed, "latest")
    assert stretches(found) == [(1, 0, 10.5), (2, 10.5, 20.5)]
    assert (found.frame.timeline, found.wal_bytes) == (2, 20 * SIZE + SIZE // 2)
    assert [len(stretch.pieces) for stretch in found.stretches] == [11, 10]
    assert found.to_json()["wal"]["timelines"][1]["begin"] == format_lsn(SWITCH)  # type: ignore[index,call-overload]
    assert found.histories == {2: f"1\t{format_lsn(SWITCH)}\tno recovery target specified\n"}
    assert found.reachable_at == at(SWITCH + 9 * SIZE) - timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("target", "timelines"),
    [
        (f"lsn:{format_lsn(SWITCH)}", [1]),
        (f"lsn:{format_lsn(SWITCH + 8)}", [1, 2]),
        (at(7 * SIZE).isoformat(), [1]),
        # The first beat behind it that both timelines' readers may believe is one of the newer timeline.
        (at(9 * SIZE).isoformat(), [1, 2]),
        (at(15 * SIZE).isoformat(), [1, 2]),
        ("immediate", [1]),
        ("xid:1001", [1, 2]),
    ],
)
def test_a_target_brings_the_timelines_that_lead_to_it_and_no_other(
    followed: Vault, target: str, timelines: list[int]
) -> None:
    """Either side of a switch; a piece that reaches over it dates nothing, for its beat may lie beyond."""
    assert [timeline for timeline, _, _ in stretches(plan(followed, target))] == timelines


def test_the_other_side_of_a_switch_has_to_be_asked_for(followed: Vault) -> None:
    """`--timeline` brings the end that was abandoned, or any target on it; never a number that nobody knows."""
    assert stretches(plan(followed, "latest", timeline=1)) == [(1, 0, 20)]
    assert stretches(plan(followed, at(15 * SIZE).isoformat(), timeline=1)) == [(1, 0, 17)]
    assert stretches(plan(followed, "latest", timeline=2)) == stretches(plan(followed, "latest"))
    assert refusal(followed, "latest", timeline=3).code == "restore.no_such_timeline"


def test_two_switches_are_followed_one_after_the_other(followed: Vault) -> None:
    """Also where the middle timeline is short."""
    switched(followed, 3, (1, SWITCH), (2, 13 * SIZE))
    put_wal(followed, OLD, 3, 13 * SIZE, 5)
    captured(followed, OLD, 3, 13 * SIZE, 18 * SIZE)
    assert stretches(plan(followed, "latest")) == [(1, 0, 10.5), (2, 10.5, 13), (3, 13, 18)]
    assert stretches(plan(followed, "latest", timeline=2)) == [(1, 0, 10.5), (2, 10.5, 20.5)]


@pytest.mark.parametrize("missing", ["before", "behind"])
def test_a_hole_at_the_switch_is_no_way_to_what_lies_beyond(vault: Vault, missing: str) -> None:
    """The old timeline's last bytes, or the new one's first, are missing: what lies before them is still there."""
    put_wal(vault, OLD, 1, 0, 8 if missing == "before" else 11)
    put_base(vault, OLD, 1, 40, 2 * SIZE)
    switched(vault, 2, (1, SWITCH))
    put_wal(vault, OLD, 2, SWITCH + (0 if missing == "before" else SIZE), 10)
    captured(vault, OLD, 2, SWITCH, SWITCH + 10 * SIZE)
    for target in ("latest", f"lsn:{format_lsn(12 * SIZE)}", at(15 * SIZE).isoformat()):
        error = refusal(vault, target)
        assert error.code == "restore.hole"
        assert format_lsn(8 * SIZE if missing == "before" else SWITCH) in error.found
    found = plan(vault, f"lsn:{format_lsn(7 * SIZE)}")
    assert stretches(found) == [(1, 0, 8)] if missing == "before" else [(1, 0, 10.5)]
    assert any("restore.hole" in note for note in found.notes)


def test_a_switch_of_which_nothing_is_stored_yet_ends_at_what_is_stored(vault: Vault) -> None:
    """A capture seals the history first; until WAL of the newer timeline comes, the older one's is the newest."""
    put_wal(vault, OLD, 1, 0, 8)
    put_base(vault, OLD, 1, 40, 2 * SIZE)
    captured(vault, OLD, 1, 0, 8 * SIZE)
    switched(vault, 2, (1, SWITCH))
    assert stretches(plan(vault, "latest")) == [(1, 0, 8)]
    captured(vault, OLD, 2, SWITCH, SWITCH)
    assert refusal(vault, "latest").code == "restore.hole"


def test_histories_that_contradict_one_another_prove_nothing(followed: Vault) -> None:
    """Two servers were promoted to one number: nobody knows whose WAL is stored."""
    switched(followed, 2, (1, 9 * SIZE))
    assert refusal(followed, "latest").code == "restore.newer_timeline"


def test_latest_is_refused_while_the_capture_is_on_what_was_abandoned(followed: Vault) -> None:
    """The old primary is captured again behind the switch: a person has to say which of the two is the true one."""
    captured(followed, OLD, 1, 0, 20 * SIZE)
    assert refusal(followed, "latest").code == "restore.older_timeline"
    captured(followed, OLD, 1, 0, 10 * SIZE)
    assert plan(followed, "latest").frame.timeline == 2


def test_a_base_backup_behind_the_switch_on_the_old_timeline_leads_to_the_old_end_alone(followed: Vault) -> None:
    """It is passed over for an older one, and used where its timeline is asked for."""
    put_base(followed, OLD, 1, 12 * SIZE + 40, 13 * SIZE)
    found = plan(followed, "latest")
    assert found.base.start_lsn == 40
    assert any("restore.abandoned_timeline" in note for note in found.notes)
    assert plan(followed, "latest", timeline=1).base.start_lsn == 12 * SIZE + 40


def test_as_of_a_moment_before_the_switch_nothing_of_it_is_known(followed: Vault) -> None:
    """Facts that came later are not there, either."""
    assert stretches(plan(followed, "latest", T0 + timedelta(seconds=30))) == [(1, 0, 20)]
