from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import Restored
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.storage.s3 import S3Store, make_client

if TYPE_CHECKING:
    from conftest import History, Source

pytestmark = pytest.mark.integration


def ids(restored: Restored) -> list[int]:
    """What is in the test's table, by a full scan."""
    with psycopg.connect(restored.dsn()) as session:
        session.execute("SET enable_indexscan = off")
        return sorted(row[0] for row in session.execute("SELECT id FROM t").fetchall())


@pytest.mark.parametrize("major", [15, 18])
def test_latest_has_every_commit_that_was_stored(
    make_source: "Callable[..., Source]", recover: Callable[..., Restored], major: int
) -> None:
    """On the oldest and newest version: the last commit comes back, a heartbeat dates it, targets stop in between."""
    source = make_source(major)
    source.sql("CREATE TABLE t (id int)")
    source.snapshot()
    source.sql("INSERT INTO t SELECT generate_series(1, 10000)")
    earlier = source.clock()
    source.pause()
    source.sql("SELECT pg_create_restore_point('halfway')")
    source.sql("INSERT INTO t SELECT generate_series(10001, 20000)")
    at = source.beat()
    end = source.feed()
    restored = recover(source)
    assert ids(restored) == list(range(1, 20001))
    assert restored.recovered_at == at
    assert restored.replayed_lsn == restored.end_lsn <= end
    assert restored.timeline == 2
    assert f"PostgreSQL {major}." in restored.engine
    for target in (earlier.isoformat(), "name:halfway"):
        assert ids(recover(source, target)) == list(range(1, 10001))


def test_through_a_real_object_store_and_back(
    make_source: "Callable[..., Source]",
    recover: Callable[..., Restored],
    region: SeaweedRegion,
    bucket: Callable[[], str],
) -> None:
    """Parts and WAL put in parallel over S3, locked, fetched in parallel; every row is there."""
    store = S3Store(make_client(region.endpoint, region.access_key, region.secret_key), bucket())
    source = make_source(17, store=store)
    source.sql("CREATE TABLE t AS SELECT n AS id, md5(n::text) FROM generate_series(1, 300000) n")
    result = source.snapshot()
    assert result.parts > 2
    source.sql("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(300001, 310000) n")
    source.feed()
    assert ids(recover(source)) == list(range(1, 310001))


@pytest.mark.parametrize("kind", ["latest", "immediate", "time-a", "time-b", "xid", "lsn", "name"])
def test_every_kind_of_target_brings_back_exactly_what_lies_before_it(
    history: "History", recover: Callable[..., Restored], kind: str
) -> None:
    """No commit less and none more than the target says, from the right base backup, with both tablespaces."""
    times = [text for text in history.targets if text.startswith("20")]
    named = {"time-a": times[0], "time-b": times[1]}
    text = named.get(kind) or next(text for text in history.targets if text.startswith(kind))
    restored = recover(history.source, text)
    last = history.targets[text]
    assert ids(restored) == list(range(1, last + 1))
    expected = history.b if last >= 104 else history.a
    assert restored.plan.base.snapshot_id == expected.snapshot_id
    with psycopg.connect(restored.dsn()) as session:
        assert session.execute("SELECT sum(id) FROM in_one").fetchone() == (12502500,)
        assert session.execute("SELECT sum(id) FROM in_two").fetchone() == (12502500,)
        found = session.execute("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE oid > 10000").fetchall()
    assert all(path.startswith(str(restored.data_dir.parent)) for (path,) in found)
    assert (restored.stopped is None) == (text == "latest")


def test_the_position_behind_the_last_record_is_reached_without_a_server_target(
    history: "History", recover: Callable[..., Restored]
) -> None:
    """PostgreSQL would fail fatally on a target at the very end of its WAL; it is proven as that end instead."""
    restored = recover(history.source, f"lsn:{format_lsn(history.end)}")
    assert ids(restored) == list(range(1, 107))
    assert restored.replayed_lsn == history.end


def plan(history: "History", target: str) -> None:
    """Only plan."""
    plan_restore(history.source.vault, "ledger", Target.parse(target))


def test_a_time_beyond_the_stored_wal_is_refused_with_the_newest_reachable_one(history: "History") -> None:
    """Before a byte is fetched; the time that the refusal names is then accepted."""
    with pytest.raises(PolicyError) as caught:
        plan(history, history.end_at.isoformat())
    assert caught.value.code == "restore.target_beyond"
    newest = history.end_at - timedelta(microseconds=1)
    assert newest.isoformat() in caught.value.hint
    plan(history, newest.isoformat())


def test_a_position_beyond_the_stored_wal_is_refused(history: "History") -> None:
    """Naming where the stored WAL ends."""
    with pytest.raises(PolicyError, match=format_lsn(history.end)) as caught:
        plan(history, f"lsn:{format_lsn(history.end + 1)}")
    assert caught.value.code == "restore.target_beyond"


@pytest.mark.parametrize("target", ["time", "xid:3", "lsn:0/28"])
def test_a_target_before_the_first_base_backup_is_refused(history: "History", target: str) -> None:
    """A base backup cannot be followed backwards, and the oldest one is named."""
    text = history.begin_at.isoformat() if target == "time" else target
    with pytest.raises(PolicyError, match="oldest base backup") as caught:
        plan(history, text)
    assert caught.value.code == "restore.target_too_old"


def test_a_restore_point_that_does_not_exist_is_refused(history: "History") -> None:
    """By searching the stored WAL, not by restoring and not finding it."""
    with pytest.raises(PolicyError, match="no_such_point") as caught:
        plan(history, "name:no_such_point")
    assert caught.value.code == "restore.target_unknown"


def test_a_transaction_that_never_was_is_not_reached_and_nothing_is_promoted(
    history: "History", recover: Callable[..., Restored]
) -> None:
    """Its id says nothing about where it is, so the replay goes to the end and refuses there."""
    with pytest.raises(PolicyError, match="not found in the WAL") as caught:
        recover(history.source, "xid:4000000")
    assert caught.value.code == "restore.target_not_reached"


def test_after_a_failover_the_new_timeline_s_base_backup_tells_what_is_common(
    make_source: "Callable[..., Source]", recover: Callable[..., Restored]
) -> None:
    """Until then neither `latest` nor a time nearby is restored; its history file then shows the time to be common."""
    source = make_source(17)
    source.sql("CREATE TABLE t (id int)")
    source.snapshot()
    source.sql("INSERT INTO t VALUES (1)")
    source.pause()
    before = source.clock().isoformat()
    source.pause()
    source.sql("INSERT INTO t VALUES (2)")
    source.beat()
    source.feed()
    source.server.stop()
    (source.server.data_dir / "standby.signal").touch()
    source.server.start()
    source.sql("SELECT pg_promote()")
    source.position, source.previous = source.lsn() - source.lsn() % (16 << 20), None
    source.sql("INSERT INTO t VALUES (3)")
    source.feed()
    for text, code in (("latest", "restore.newer_timeline"), (before, "restore.abandoned_timeline")):
        with pytest.raises(PolicyError) as caught:
            plan_restore(source.vault, "ledger", Target.parse(text))
        assert caught.value.code == code
    source.snapshot()
    source.feed()
    assert ids(recover(source, before)) == [1]
    assert ids(recover(source)) == [1, 2, 3]


def test_as_of_sees_only_what_the_vault_held_then(history: "History") -> None:
    """As of the moment before the second base backup the first is used; as of before the first there is none."""
    vault = history.source.vault
    manifest = next(obj for obj in vault.objects("ledger", "base") if str(obj.key) == history.b.manifest_key)
    before = manifest.modified_at - timedelta(microseconds=1)
    with pytest.raises(PolicyError) as caught:
        plan_restore(vault, "ledger", Target.parse("latest"), as_of=history.begin_at - timedelta(hours=1))
    assert caught.value.code == "restore.no_base_backup"
    with pytest.raises(Exception, match=history.a.snapshot_id):
        plan_restore(vault, "ledger", Target.parse("latest"), as_of=before)
