"""A standby fed from the vault by its own restore_command; the real contract, with the vault in this process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dr_assets.cli import wal as command
from dr_assets.engines.placement import give
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.wal_feed import NotStoredError, WalFeed, system_of

if TYPE_CHECKING:
    from conftest import Lives, Source

pytestmark = pytest.mark.integration

SEGMENT = 16 << 20
# Asks through files, so that the vault may live in this process: `<name>.ask` holds the path, `.code` the answer.
ASK = 'echo "$PWD/%p" > {box}/%f.new; mv {box}/%f.new {box}/%f.ask; while [ ! -e {box}/%f.code ]; do sleep 0.02; done; \
code=$(cat {box}/%f.code); rm -f {box}/%f.*; exit $code'


@contextmanager
def feeding(source: "Source", server: PostgresServer, box: Path) -> Iterator[list[tuple[str, int]]]:
    """Answers the server's requests as the command line does; yields what was asked and answered."""
    box.mkdir()
    give(box, server.user)
    asked: list[tuple[str, int]] = []
    over = threading.Event()
    thread = threading.Thread(target=_answer, args=(source, server, box, asked, over))
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def _answer(
    source: "Source", server: PostgresServer, box: Path, asked: list[tuple[str, int]], over: threading.Event
) -> None:
    system_id = system_of(server.data_dir)
    assert system_id is not None
    feed = WalFeed(source.vault, source.dataset.name, system_id, segment_bytes=SEGMENT)
    while not over.wait(0.02):
        for ask in box.glob("*.ask"):
            path = Path(ask.read_text().strip())
            try:
                feed.fetch(ask.stem, path)
                give(path, server.user)
                code = 0
            except NotStoredError:
                code = command.NOT_STORED
            except VaultError:
                code = command.STOP
            asked.append((ask.stem, code))
            ask.unlink()
            # Whole at once: the server's shell looks again and again, and takes an empty answer for a good one.
            (box / "answer").write_text(str(code))
            (box / "answer").rename(box / f"{ask.stem}.code")


def notes_of(server: PostgresServer) -> set[str]:
    """What is there."""
    with psycopg.connect(server.dsn()) as session:
        return {row[0] for row in session.execute("SELECT note FROM t")}


def test_a_standby_gets_the_dead_primary_s_tail_from_the_vault_before_it_is_promoted(
    make_source: Callable[..., "Source"], engine_dir: Path
) -> None:
    """Whole segments and the unfinished last one: every commit that was stored is there, though it never got it."""
    source = make_source()
    source.begin_stream()
    source.sql("CREATE TABLE t (note text)")
    box = engine_dir / "box"
    lagging = {"restore_command": ASK.format(box=box), "wal_retrieve_retry_interval": "100ms"}
    with PostgresServer.standby_of(source.server, engine_dir / "standby", settings=lagging) as standby:
        source.sql("INSERT INTO t VALUES ('early')")
        source.sql("CREATE TABLE noise AS SELECT repeat('x', 1000) FROM generate_series(1, 40000)")
        source.sql("INSERT INTO t VALUES ('late')")
        source.sql("SELECT pg_switch_wal()")
        source.sql("INSERT INTO t VALUES ('last')")
        end = source.feed()
        source.server.kill()
        with feeding(source, standby, box) as asked:
            standby.start()
            _reaches(standby, end)
            standby.promote()
        assert notes_of(standby) == {"early", "late", "last"}
    segments = [name for name, code in asked if code == 0]
    assert len(set(segments)) > 2


def _reaches(standby: PostgresServer, lsn: int) -> None:
    with psycopg.connect(standby.dsn(), autocommit=True) as session:
        reached = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        wait_until(
            lambda: session.execute(reached, (format_lsn(lsn),)).fetchone() == (True,), timeout_s=180, what="replayed"
        )


def test_files_of_either_timeline_are_what_the_source_s_servers_had(lives: "Lives", tmp_path: Path) -> None:
    """The segment of a switch begins with the older timeline's bytes; what was abandoned is never given."""
    source, (switch, _) = lives.source, lives.switches
    system_id = next(obj.key.system_id for obj in source.vault.objects("ledger", "wal"))
    feed = WalFeed(source.vault, "ledger", system_id, segment_bytes=SEGMENT)
    number = switch // SEGMENT
    feed.fetch(f"00000001{0:08X}{number:08X}", tmp_path / "old")
    feed.fetch(f"00000002{0:08X}{number:08X}", tmp_path / "new")
    old, new = (tmp_path / "old").read_bytes(), (tmp_path / "new").read_bytes()
    inside = switch % SEGMENT
    assert old[:inside] == new[:inside]
    assert any(old[:inside])
    assert not any(old[inside:])
    assert any(new[inside : inside + 64])
    assert len(old) == len(new) == SEGMENT
    feed.fetch("00000003.history", tmp_path / "history")
    assert "no recovery target" in (tmp_path / "history").read_text()
    for name in (
        "00000004.history",
        f"00000001{0:08X}{number + 1:08X}",
        f"00000003{0:08X}{number + 64:08X}",
        "x.backup",
    ):
        with pytest.raises(NotStoredError):
            feed.fetch(name, tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history", "new", "old"]


def test_a_hole_before_stored_wal_stops_a_standby(lives: "Lives", tmp_path: Path) -> None:
    """Saying that there is no more would let it be promoted over what is stored behind the hole."""
    source = lives.source.clone()
    newest = max(
        (obj for obj in source.vault.objects("ledger", "wal") if obj.key.timeline == 1), key=lambda o: o.key.first
    )
    middle = min(
        (obj for obj in source.vault.objects("ledger", "wal") if obj.key.timeline == 1), key=lambda o: o.key.first
    )
    assert newest.key != middle.key
    del source.store.rows[str(middle.key)]
    feed = WalFeed(source.vault, "ledger", newest.key.system_id, segment_bytes=SEGMENT)
    with pytest.raises(VaultError) as caught:
        feed.fetch(f"00000001{0:08X}{middle.key.first // SEGMENT:08X}", tmp_path / "file")
    assert caught.value.code == "restore.hole"
