"""Promotions under a capture, on real servers: followed without a gap, or refused and on record."""

import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dr_assets.engines.postgres import PostgresServer
from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres import source_stream
from dr_assets.stores.postgres.diverged import find_commits
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.stores.postgres.preflight import preflight
from dr_assets.stores.postgres.wal import PAGE_BYTES

pytestmark = pytest.mark.integration


def test_a_switch_over_is_followed_without_a_gap(rig: ModuleType, cluster: Any, memory_vault: Any) -> None:
    """The old primary stops although we stream from it, the new one is gone on from at once, the old one may follow."""
    old = cluster.servers[0]
    new = cluster.standby(old)
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, cluster.dsn()) as capture:
        capture.wait_stored(rig.write_rows(old.dsn(), 200))
        old.stop()
        new.promote()
        report = capture.wait(lambda report: report.timeline == 2, "timeline 2")
        capture.wait_stored(rig.write_rows(new.dsn(), 200))
        old.follow(new)
        old.start()
        report = capture.wait_stored(rig.write_rows(new.dsn(), 200))
        dated = report.recovery_point_at
        assert dated is not None
        capture.wait(lambda report: report.recovery_point_at > dated, "a heartbeat from the new primary")
    cluster.assert_joined(vault, dataset, {1: new, 2: new})
    assert cluster.said(vault, "gap") == []
    assert cluster.said(vault, "diverged") == []


def test_one_address_behind_which_the_primary_changes_is_enough(
    rig: ModuleType, cluster: Any, memory_vault: Any
) -> None:
    """A server that crashes, comes back as a standby and is promoted: waited for, then followed by the same capture."""
    server = cluster.servers[0]
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, server.dsn()) as capture:
        capture.wait_stored(rig.write_rows(server.dsn(), 20))
        server.stop("immediate")
        server.settings["primary_conninfo"] = ""
        signal_file = server.data_dir / "standby.signal"
        signal_file.touch()
        os.chown(signal_file, server.data_dir.stat().st_uid, server.data_dir.stat().st_gid)
        server.start()
        capture.wait(lambda report: "a standby now" in (report.trouble or ""), "a standby")
        server.promote()
        capture.wait(lambda report: report.timeline == 2, "timeline 2")
        capture.wait_stored(rig.write_rows(server.dsn(), 20))
    cluster.assert_joined(vault, dataset, {1: server, 2: server})


def test_a_promotion_while_the_capture_is_down_is_caught_up_with(
    rig: ModuleType, cluster: Any, memory_vault: Any
) -> None:
    """Two switches in a row while nobody captured: the slots on the standbys kept the WAL, all three chains join."""
    first = cluster.servers[0]
    second, third = cluster.standby(first), cluster.standby(first)
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, cluster.dsn()) as capture:
        capture.wait_stored(rig.write_rows(first.dsn(), 200))
        cluster.slots_on(capture, second, third)
    rig.write_rows(first.dsn(), 300)
    third.stop()  # before the other one has everything: what only it had received would keep it from following that one
    cluster.caught_up(first, second)
    first.kill()
    second.promote()
    third.follow(second)
    third.start()
    rig.write_rows(second.dsn(), 300)
    cluster.execute(second, "SELECT pg_switch_wal()", "CHECKPOINT")
    rig.write_rows(second.dsn(), 300)
    cluster.caught_up(second, third)
    second.kill()
    third.promote()
    with rig.CaptureThread(vault, dataset, cluster.dsn()) as capture:
        report = capture.wait_stored(rig.write_rows(third.dsn(), 200))
        capture.wait(lambda report: report.timeline == 3, "timeline 3")
    assert report.recovery_point_at is not None
    cluster.assert_joined(vault, dataset, {1: third, 2: third, 3: third})
    assert cluster.said(vault, "gap") == []


def test_what_the_old_primary_wrote_beyond_the_switch_is_listed(
    rig: ModuleType, cluster: Any, memory_vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commits, those of two-phase transactions too, are the ones that pg_waldump finds there; nothing follows it.

    The old primary lives on, writable: the running capture leaves it and one that is started at it alone refuses.
    """
    monkeypatch.setattr(source_stream, "DONE_BACKOFF_S", 1.0)
    old = cluster.servers[0]
    old.settings["max_prepared_transactions"] = 5
    old.restart()
    new = cluster.standby(old)
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, cluster.dsn()) as capture:
        capture.wait_stored(rig.write_rows(old.dsn(), 200))
        cluster.caught_up(old, new)
        new.stop()
        cluster.execute(
            old,
            "CREATE TABLE bets (id int)", "SELECT pg_switch_wal()", "INSERT INTO bets VALUES (1)",
            "BEGIN", "INSERT INTO bets VALUES (2)", "SAVEPOINT a", "INSERT INTO bets VALUES (3)", "CREATE TABLE t2 ()",
            "PREPARE TRANSACTION 'payout'", "COMMIT PREPARED 'payout'",
            "BEGIN", "INSERT INTO bets VALUES (4)", "ROLLBACK",
        )  # fmt: skip
        capture.wait_stored(rig.write_rows(old.dsn(), 3000))
        new.settings["primary_conninfo"] = ""
        new.start()
        new.promote()
        cluster.terminate(old, dataset.slot)
        capture.wait(lambda report: report.timeline == 2, "timeline 2")
        capture.wait_stored(rig.write_rows(new.dsn(), 200))
        beyond = rig.write_rows(old.dsn(), 10)
        capture.wait_stored(rig.write_rows(new.dsn(), 10))
        capture.wait(lambda _: cluster.said(vault, "diverged"), "the list, which is made beside the stream")
    (listed,) = cluster.said(vault, "diverged")
    assert parse_lsn(listed["stored"]) < beyond
    switch, stored = listed["switch_lsn"], listed["stored"]
    assert (listed["timeline"], listed["next_timeline"], cluster.switches(vault)) == (1, 2, {2: parse_lsn(switch)})
    commits = [(commit["lsn"], commit["xid"]) for commit in listed["commits"]]
    assert commits == dumped_commits(old, switch, stored)
    assert len(commits) == listed["commits_total"] > 4
    assert listed["examined_to"] == stored
    begin, end = parse_lsn(switch), parse_lsn(stored)
    wal = rig.server_wal(old.data_dir, 1, begin, end)
    for step in (13, 8192, 100_003):
        pieces = [(begin + at, wal[at : at + step]) for at in range(0, len(wal), step)]
        found = find_commits(pieces, begin, rig.SEGMENT_BYTES)
        assert [(format_lsn(commit.lsn), commit.xid) for commit in found] == commits
    page = begin - begin % PAGE_BYTES + 3 * PAGE_BYTES
    found = find_commits([(page, wal[page - begin :])], page, rig.SEGMENT_BYTES)
    assert [format_lsn(commit.lsn) for commit in found] == [lsn for lsn, _ in commits if parse_lsn(lsn) > page]
    with rig.CaptureThread(vault, dataset, old.dsn()) as capture:
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert error.code == "source.older_timeline"


def dumped_commits(server: PostgresServer, begin: str, end: str) -> list[tuple[str, int]]:
    """Position and transaction of every commit in [begin, end) of timeline 1, as pg_waldump tells."""
    args: list[str | Path] = ["--path", server.data_dir / "pg_wal", "--timeline", "1", "--start", begin, "--end", end]
    args += ["--rmgr", "Transaction"]
    printed = server.run_tool("pg_waldump", args, check=False).stdout
    found = []
    for line in printed.splitlines():
        said = re.search(r"tx: +(\d+), lsn: (\S+),.*desc: (COMMIT_PREPARED (\d+):|COMMIT )", line)
        if said is not None:
            high, low = said[2].split("/")
            found.append((f"{int(high, 16):X}/{int(low, 16):X}", int(said[4] or said[1])))
    return found


def test_two_standbys_promoted_apart_are_told_apart(rig: ModuleType, cluster: Any, memory_vault: Any) -> None:
    """Both call their timeline 2. The one that is not ours is refused and on record; accepted, it gets a chain."""
    old = cluster.servers[0]
    one, other = cluster.standby(old), cluster.standby(old)
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, cluster.dsn()) as capture:
        capture.wait_stored(rig.write_rows(old.dsn(), 200))
        cluster.slots_on(capture, one, other)
        other.stop()
        capture.wait_stored(rig.write_rows(old.dsn(), 200))
        cluster.caught_up(old, one)
        old.stop()
        one.promote()
        capture.wait(lambda report: report.timeline == 2, "timeline 2")
        captured = capture.wait_stored(rig.write_rows(one.dsn(), 20)).stored_lsn
    other.settings["primary_conninfo"] = ""
    other.start()
    other.promote()
    assert rig.write_rows(other.dsn(), 2000) > captured
    for _ in range(2):
        with rig.CaptureThread(vault, dataset, other.dsn()) as capture:
            error = capture.ended_with()
        assert isinstance(error, SourceError)
        assert error.code == "source.forked"
    assert [(gap["timeline"], gap["available"]) for gap in cluster.said(vault, "gap")] == [(2, None)]
    with rig.CaptureThread(vault, dataset, other.dsn(), accept_gap=True) as capture:
        capture.wait_stored(rig.write_rows(other.dsn(), 20))
    rig.assert_same_wal(vault, dataset, other.data_dir)
    with rig.CaptureThread(vault, dataset, other.dsn()) as capture:
        capture.wait_stored(rig.write_rows(other.dsn(), 20))
    rig.assert_same_wal(vault, dataset, other.data_dir)
    assert all(gap["available"] for gap in cluster.said(vault, "gap")[1:])


def test_a_standby_without_our_slot_leaves_a_gap_that_is_on_record(
    rig: ModuleType, cluster: Any, memory_vault: Any
) -> None:
    """Nobody kept the old timeline's WAL: refused and recorded, and a preflight said so while there was time."""
    old = cluster.servers[0]
    new = cluster.standby(old, wal_keep_size=0)
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)
    with rig.CaptureThread(vault, dataset, old.dsn()) as capture:
        capture.wait_stored(rig.write_rows(old.dsn(), 20))
    assert "source.unknown_standbys" in {finding.code for finding in preflight(old.dsn(), dataset)}
    (finding,) = (each for each in preflight(cluster.dsn(), dataset) if each.code == "source.standby_slot")
    assert str(new.port) in finding.found
    for _ in range(3):
        rig.write_rows(old.dsn(), 20)
        cluster.execute(old, "SELECT pg_switch_wal()", "CHECKPOINT")
    cluster.caught_up(old, new)
    old.stop()
    new.promote()
    cluster.execute(new, "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT")
    with rig.CaptureThread(vault, dataset, new.dsn()) as capture:
        error = capture.ended_with()
    assert isinstance(error, SourceError)
    assert error.code == "source.gap"
    (gap,) = cluster.said(vault, "gap")
    assert (gap["timeline"], parse_lsn(gap["chain_end"])) == (1, rig.chain_of(vault, dataset).end)
    with rig.CaptureThread(vault, dataset, new.dsn(), accept_gap=True) as capture:
        capture.wait_stored(rig.write_rows(new.dsn(), 20))
        capture.wait(lambda report: report.timeline == 2, "timeline 2")


def test_a_vault_that_is_away_does_not_hold_up_a_switch_over(
    rig: ModuleType, cluster: Any, memory_vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A primary waits for its receivers to confirm its last WAL; we confirm nothing unstored, so we leave in time.

    The new primary is followed as soon as the vault is back, and nothing is missing.
    """
    monkeypatch.setattr(source_stream, "GIVE_WAY_AFTER_S", 0.5)
    old = cluster.servers[0]
    new = cluster.standby(old)
    dataset = rig.make_dataset()
    vault, back = memory_vault(dataset), rig.threading.Event()
    put = vault.store.put

    def held(key: str, *args: Any) -> Any:
        assert back.wait(300)
        return put(key, *args)

    with rig.CaptureThread(vault, dataset, cluster.dsn()) as capture:
        capture.wait_stored(rig.write_rows(old.dsn(), 20))
        cluster.slots_on(capture, new)
        vault.store.put = held
        stuck = rig.write_rows(old.dsn(), 20)
        old.stop(timeout_s=150)
        assert "database system is shut down" in old.log_tail(5)
        assert capture.report.stored_lsn < stuck
        assert not back.is_set()
        new.promote()
        back.set()
        capture.wait(lambda report: report.timeline == 2, "timeline 2")
        capture.wait_stored(rig.write_rows(new.dsn(), 20))
    cluster.assert_joined(vault, dataset, {1: new, 2: new})
