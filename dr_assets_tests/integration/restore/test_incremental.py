from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dr_assets.engines.placement import give
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import Restored
from dr_assets.stores.postgres.snapshot import SnapshotResult, take_snapshot
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Source

pytestmark = pytest.mark.integration


@pytest.fixture
def source(make_source: Callable[..., "Source"], request: pytest.FixtureRequest) -> "Source":
    """A PostgreSQL 17 (or what the test asks for) that keeps summaries of its WAL; a table whose rows are numbered."""
    source = make_source(getattr(request, "param", 17), summarize_wal=True)
    with_incrementals(source)
    source.sql("CREATE TABLE t (id int PRIMARY KEY, filler text)")
    source.sql("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 4000) n")
    source.begin_stream()
    return source


def with_incrementals(source: "Source", **policy: Any) -> None:
    """Change the source's declaration: an incremental each hour, and whatever else."""
    snapshot = replace(source.dataset.snapshot, incremental_every=timedelta(hours=1), **policy)
    source.dataset = replace(source.dataset, snapshot=snapshot)


def take(source: "Source", *, incremental: bool = True, **options: Any) -> SnapshotResult:
    """One base backup, an incremental unless told otherwise."""
    return take_snapshot(source.vault, source.dataset, source.dsn, incremental=incremental, **options)


@contextmanager
def load(source: "Source") -> "Iterator[None]":
    """Somebody who writes all the time: rows, changes and deletions behind what the tests look at."""
    stop = Event()

    def write() -> None:
        number = 0
        with psycopg.connect(source.dsn, autocommit=True) as session:
            session.execute("CREATE TABLE IF NOT EXISTS busy (id int, filler text)")
            while not stop.is_set():
                number += 1
                session.execute("INSERT INTO busy SELECT %s, repeat('l', 300) FROM generate_series(1, 20)", (number,))
                session.execute("UPDATE busy SET filler = repeat('m', 200) WHERE id = %s", (number - 3,))
                session.execute("DELETE FROM busy WHERE id < %s", (number - 40,))

    writer = Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join(180)


def rows(restored: Restored, statement: str) -> list[tuple[Any, ...]]:
    """What a statement finds in the restored cluster."""
    with psycopg.connect(restored.dsn()) as session:
        return session.execute(statement).fetchall()


@dataclass(frozen=True)
class Lived:
    """A full and three incrementals on top, one after the other."""

    backups: list[SnapshotResult]
    between: str
    end: int


def live(source: "Source", folder: Path) -> Lived:
    """Rows, a truncation, a dropped and a new table, a tablespace that comes later; a full and three incrementals."""
    source.sql("CREATE TABLE goes AS SELECT generate_series(1, 2000) AS id")
    source.sql("CREATE TABLE shrinks AS SELECT generate_series(1, 20000) AS id")
    with load(source):
        backups = [take(source, incremental=False)]
        source.sql("UPDATE t SET filler = 'first' WHERE id <= 100")
        source.sql("DROP TABLE goes")
        backups.append(take(source))
        source.sql("DELETE FROM shrinks WHERE id > 10")
        source.sql("VACUUM shrinks")
        space = folder / "later"
        space.mkdir()
        give(space, source.server.user)
        source.sql(f"CREATE TABLESPACE later LOCATION '{space}'")
        source.sql("CREATE TABLE in_later TABLESPACE later AS SELECT generate_series(1, 3000) AS id")
        source.sql("UPDATE t SET filler = 'second' WHERE id <= 50")
        backups.append(take(source))
        source.pause()
        between = source.clock().isoformat()
        source.pause()
        source.sql("UPDATE t SET filler = 'third' WHERE id <= 10")
        source.beat()
        backups.append(take(source))
        source.sql("UPDATE t SET filler = 'wal' WHERE id = 1")
    source.beat()
    return Lived(backups, between, source.feed())


# From 18 on pg_combinebackup links what did not change instead of copying it.
@pytest.mark.parametrize("source", [17, 18], indirect=True)
def test_a_full_with_its_incrementals_restores_to_the_end_and_to_a_time_between_them(
    source: "Source", engine_dir: Path, recover: Callable[..., Restored]
) -> None:
    """Taken under load; every change since the full is there: updated, dropped, truncated and new files alike."""
    lived = live(source, engine_dir)
    assert [backup.depth for backup in lived.backups] == [0, 1, 2, 3]
    assert all(backup.stored_bytes < lived.backups[0].stored_bytes for backup in lived.backups[1:])
    latest = recover(source, "latest", level="standard")
    assert [layer.manifest.snapshot_id for layer in latest.plan.layers] == [b.snapshot_id for b in lived.backups]
    assert rows(latest, "SELECT filler, count(*) FROM t GROUP BY 1 ORDER BY 2") == [
        ("wal", 1), ("third", 9), ("second", 40), ("first", 50), ("x" * 500, 3900),
    ]  # fmt: skip
    assert rows(latest, "SELECT to_regclass('goes'), (SELECT count(*) FROM shrinks)") == [(None, 10)]
    assert rows(latest, "SELECT count(*), (SELECT count(*) FROM pg_tablespace) FROM in_later") == [(3000, 3)]
    between = recover(source, lived.between)
    assert between.plan.base.depth == 2
    assert rows(between, "SELECT count(*) FROM t WHERE filler = 'second'") == [(50,)]
    assert not list(latest.data_dir.parent.glob("layers"))
    assert verify(source.vault).findings == ()


def locked_until(source: "Source", snapshot: SnapshotResult) -> list[Any]:
    """The locks that the store shows for a base backup's parts and its manifest."""
    objects = [
        obj
        for stream in ("base", f"base-{snapshot.snapshot_id}")
        for obj in source.vault.objects("ledger", stream)
        if stream != "base" or str(obj.key) == snapshot.manifest_key
    ]
    heads = [source.vault.store.head(str(obj.key), obj.version_id) for obj in objects]
    assert len(heads) == snapshot.parts + 1
    return [head.lock.retain_until for head in heads if head is not None and head.lock is not None]


def test_what_an_incremental_rests_on_is_locked_for_as_long_as_itself(
    source: "Source", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The full's and every parent's parts and manifests, extended and read back, before the new manifest is put."""
    backups = [take(source, incremental=False), take(source)]
    before = locked_until(source, backups[0])
    source.dataset = replace(source.dataset, retention=replace(source.dataset.retention, days=60, lock_days=60))
    put = source.vault.put
    seen: list[Any] = []

    def watched(sealed: Any, lock: Any) -> Any:
        if sealed.header.kind == "manifest":
            seen.extend(until for backup in backups for until in locked_until(source, backup))
        return put(sealed, lock)

    monkeypatch.setattr(source.vault, "put", watched)
    newest = take(source)
    assert seen
    assert min(seen) >= newest.lock.retain_until > max(before)
    assert min(locked_until(source, newest)) >= newest.lock.retain_until


def test_a_full_that_incrementals_will_follow_is_locked_for_their_time_at_once(source: "Source") -> None:
    """One interval longer, so that its many parts need no second request."""
    full = take(source, incremental=False)
    calls: list[str] = []
    extend = source.store.extend
    source.store.extend = lambda key, version, lock: (calls.append(key), extend(key, version, lock))[1]  # type: ignore[method-assign]
    take(source)
    assert not calls
    assert full.lock.retain_until - source.vault.clock() > timedelta(days=30 + 1 + 1 + 7) - timedelta(minutes=5)


def test_a_chain_at_its_longest_and_an_empty_vault_give_a_full_and_say_why(source: "Source") -> None:
    """Whoever asked for an incremental learns it from the result, and everybody else from the fact."""
    with_incrementals(source, incrementals_max=1)
    first, second, third = take(source), take(source), take(source)
    assert (first.kind, second.kind, third.kind) == ("full", "incremental", "full")
    assert "no base backup" in str(first.why_full)
    assert "at most 1" in str(third.why_full)
    fact = latest_fact(source.vault, "ledger", "snapshot")
    assert fact is not None
    assert fact.body["kind"] == "full"
    assert fact.body["why_full"] == third.why_full


def test_a_source_that_keeps_no_summaries_is_told_what_to_change(make_source: Callable[..., "Source"]) -> None:
    """PostgreSQL 15 can't at all, 17 with `summarize_wal` off could: neither becomes a full in silence."""
    for major, error, code in (
        (15, PolicyError, "snapshot.no_incrementals"),
        (17, SourceError, "snapshot.no_summaries"),
    ):
        source = make_source(major)
        with pytest.raises(error) as caught:
            take(source, full_if_refused=True)
        assert caught.value.code == code
        assert not list(source.vault.objects("ledger", "base"))


def test_lost_summaries_are_an_error_or_a_full_as_the_caller_wishes(source: "Source") -> None:
    """The server's word is passed on; nothing of the refused incremental is left in the vault."""
    take(source, incremental=False)
    source.sql("UPDATE t SET filler = 'unseen'")
    changed = source.lsn()
    source.sql("CHECKPOINT")
    until(source.server, "SELECT summarized_lsn - '0/0'::pg_lsn >= %s FROM pg_get_wal_summarizer_state()", changed)
    for summary in (source.server.data_dir / "pg_wal" / "summaries").glob("*.summary"):
        summary.unlink()
    stored = len(list(source.vault.objects("ledger")))
    with pytest.raises(SourceError) as caught:
        take(source)
    assert caught.value.code == "snapshot.incremental_refused"
    assert "summar" in caught.value.found
    assert len(list(source.vault.objects("ledger"))) == stored
    full = take(source, full_if_refused=True)
    assert full.kind == "full"
    assert "summar" in str(full.why_full)


def test_what_lacks_a_part_is_not_built_on_and_not_restored(source: "Source") -> None:
    """Without its parent's part an incremental is worth nothing: the next is a full, a restore takes an older one."""
    old, parent = take(source, incremental=False), take(source, incremental=False)
    child = take(source)
    source.feed()
    assert plan_restore(source.vault, "ledger", Target("latest")).base.snapshot_id == child.snapshot_id
    gone = next(key for key in source.store.rows if f"/base-{parent.snapshot_id}/" in key)
    del source.store.rows[gone]
    plan = plan_restore(source.vault, "ledger", Target("latest"))
    assert plan.base.snapshot_id == old.snapshot_id
    assert any(child.snapshot_id in note or "part_missing" in note for note in plan.notes)
    fresh = take(source)
    assert fresh.kind == "full"
    assert "restore.part_missing" in str(fresh.why_full)


def test_an_incremental_spans_a_promotion(
    engine_dir: Path,
    source: "Source",
    promoted: "Callable[[Source, PostgresServer], tuple[Source, int]]",
    recover: Callable[..., Restored],
) -> None:
    """The promoted server knows its own history's changes: built on the old primary's backup, and both come back."""
    standby = PostgresServer.standby_of(source.server, engine_dir / "standby", slot="standby")
    with standby:
        standby.start()
        full = take(source, incremental=False)
        source.sql("UPDATE t SET filler = 'before' WHERE id <= 5")
        source.feed()
        new, switch = promoted(source, standby)
        source.feed(until=switch)
        source.server.stop("fast")
        with_incrementals(new)
        new.sql("UPDATE t SET filler = 'after' WHERE id <= 2")
        newest = take(new)
        new.sql("UPDATE t SET filler = 'wal' WHERE id = 1")
        new.beat()
        new.feed()
    assert newest.why_full is None
    assert (newest.timeline, newest.kind, newest.parent_snapshot_id) == (2, "incremental", full.snapshot_id)
    restored = recover(new, "latest", level="standard")
    assert [layer.manifest.snapshot_id for layer in restored.plan.layers] == [full.snapshot_id, newest.snapshot_id]
    assert rows(restored, "SELECT filler, count(*) FROM t GROUP BY 1 ORDER BY 2, 1") == [
        ("after", 1), ("wal", 1), ("before", 3), ("x" * 500, 3995),
    ]  # fmt: skip
    assert not verify(source.vault).errors


def until(server: PostgresServer, statement: str, lsn: int) -> None:
    """Wait until a server says yes to a question about a position."""
    with psycopg.connect(server.dsn(), autocommit=True) as session:
        wait_until(
            lambda: session.execute(statement, (lsn,)).fetchone() == (True,), timeout_s=180, what=statement, every_s=0.1
        )
