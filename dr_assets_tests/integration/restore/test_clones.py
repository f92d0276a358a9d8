"""A clone is a restore that people may ask, for a while; and nothing of it stays."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dr_assets.engines.waiting import wait_until
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError
from dr_assets.proving.clone_shelf import CLONES_DIR_ENV, CloneRecord, CloneShelf
from dr_assets.proving.clones import CLONE, Asked, keep, put_down
from dr_assets.vault.facts import facts
from dr_assets.vault.verify import verify

if TYPE_CHECKING:
    from conftest import LivedCasino, Source

pytestmark = pytest.mark.integration

ESTATE = replace(load_estate(default_defs_dir()), subjects=None)
HELD_S = 180


@pytest.fixture
def source(lived_casino: "LivedCasino") -> "Source":
    """The casino's vault in a copy of its own."""
    return lived_casino.source.clone()


@pytest.fixture
def shelf(engine_dir: Path) -> CloneShelf:
    """A shelf of the test's own."""
    return CloneShelf.of({CLONES_DIR_ENV: str(engine_dir / "clones")})


@contextmanager
def held(shelf: CloneShelf, source: "Source", record: CloneRecord) -> Iterator[tuple[CloneRecord, list[str]]]:
    """The clone once it is ready, and why it ended, once it did."""
    why: list[str] = []
    stop = threading.Event()
    keeper = threading.Thread(
        target=lambda: why.append(
            keep(shelf, record.clone_id, ESTATE, source.dataset, source.vault, {}, stopped=stop.is_set)
        )
    )
    keeper.start()
    try:
        wait_until(
            lambda: not keeper.is_alive() or shelf.read(record.clone_id).state == "ready",
            timeout_s=HELD_S,
            what="the clone",
        )
        yield shelf.read(record.clone_id), why
    finally:
        stop.set()
        keeper.join(HELD_S)


def asked(source: "Source", **changed: object) -> Asked:
    """An investigator's question."""
    usual = Asked(source.dataset.name, "latest", timedelta(hours=1), "eve", "case 17")
    return replace(usual, **changed)  # type: ignore[arg-type]


def now() -> datetime:
    """The clock of records."""
    return datetime.now(UTC)


def test_a_clone_answers_and_refuses_writes_until_it_is_dropped(shelf: CloneShelf, source: "Source") -> None:
    """It holds the postings, nobody changes any, both events are on record with who and why; nothing of it is left."""
    record = put_down(shelf, asked(source), now())
    with held(shelf, source, record) as (ready, why):
        with psycopg.connect(ready.dsn) as session:
            found = session.execute("SELECT count(*) > 100 FROM casino.postings").fetchone()
            with pytest.raises(psycopg.errors.Error, match="read-only"):
                session.execute("UPDATE casino.players SET country = 'SE'")
        assert found == (True,)
        assert shelf.has_keeper(record.clone_id)
        shelf.ask_to_end(record.clone_id)
        wait_until(lambda: bool(why), timeout_s=HELD_S, what="the clone's end")
    assert why == ["dropped"]
    assert shelf.records() == []
    assert not Path(record.home).exists()
    told = [(fact.body["event"], fact.body["by"]) for fact in facts(source.vault, "ledger", CLONE)]
    assert told == [("made", "eve"), ("ended", "eve")]
    made = next(facts(source.vault, "ledger", CLONE)).body
    assert (made["reason"], made["target"]) == ("case 17", "latest")
    assert verify(source.vault).findings == ()


def test_a_clone_ends_at_its_deadline(shelf: CloneShelf, source: "Source") -> None:
    """Without anybody's word; the same process takes it away."""
    record = put_down(shelf, asked(source, ttl=timedelta(milliseconds=1)), now())
    assert keep(shelf, record.clone_id, ESTATE, source.dataset, source.vault, {}) == "its time was over"
    assert not Path(record.home).exists()
    assert shelf.records() == []


def test_a_clone_goes_when_somebody_is_erased(
    shelf: CloneShelf, source: "Source", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one place that still knew them doesn't stand until its deadline."""
    from dr_assets_tests.integration.restore.test_erasure_replay import forget  # noqa: PLC0415 - its engines

    monkeypatch.setattr("dr_assets.proving.clones._ERASURES_EVERY_S", 0.0)
    with held(shelf, source, put_down(shelf, asked(source), now())) as (ready, why):
        assert ready.state == "ready"
        forget(source, "1")
        wait_until(lambda: bool(why), timeout_s=HELD_S, what="the clone's end")
    assert why == ["somebody was erased meanwhile"]


def test_a_clone_that_was_dropped_before_its_keeper_looked_leaves_nothing(shelf: CloneShelf, source: "Source") -> None:
    """Whoever waited for it took it away while the keeper was starting: no lock of the keeper's stays behind."""
    record = put_down(shelf, asked(source), now())
    assert shelf.take_away(record.clone_id)
    with pytest.raises(PolicyError, match=r"clone\.unknown"):
        keep(shelf, record.clone_id, ESTATE, source.dataset, source.vault, {})
    assert list(shelf.folder.iterdir()) == []


def test_a_clone_that_cannot_be_made_leaves_why_and_no_file(shelf: CloneShelf, source: "Source") -> None:
    """A moment that no backup reaches: the error's own words are in the record, and the folder is gone."""
    record = put_down(shelf, asked(source, target="2001-01-01T00:00:00+00:00"), now())
    with pytest.raises(PolicyError, match=r"restore\.target_too_old"):
        keep(shelf, record.clone_id, ESTATE, source.dataset, source.vault, {})
    failed = shelf.read(record.clone_id)
    assert (failed.state, failed.why.split(":")[0]) == ("failed", "restore.target_too_old")
    assert not Path(record.home).exists()


def test_what_a_dead_keeper_left_is_swept_at_its_deadline(shelf: CloneShelf, source: "Source") -> None:
    """After a restart of the host nobody keeps it: it is there until its time, and then wholly gone."""
    record = put_down(shelf, asked(source), now())
    data = Path(record.home) / "data"
    (data / "base").mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    assert shelf.sweep(now()) == []
    assert data.exists()
    assert [gone.clone_id for gone in shelf.sweep(now() + timedelta(hours=1))] == [record.clone_id]
    assert not Path(record.home).exists()
    assert shelf.records() == []
    assert [path for path in shelf.folder.iterdir() if path.name.startswith(record.clone_id)] == []


def test_a_sweep_leaves_a_living_clone_alone(shelf: CloneShelf, source: "Source") -> None:
    """What is late by a moment ends by its keeper; files go only when nobody holds them."""
    record = put_down(shelf, asked(source), now())
    with shelf.kept(record.clone_id):
        assert shelf.sweep(now() + timedelta(hours=1, seconds=5)) == []
        assert shelf.take_away(record.clone_id) is False
    assert Path(record.home).is_dir()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"ttl": timedelta(days=8)}, "clone.too_long"),
        ({"reason": " "}, "clone.no_reason"),
        ({"by": ""}, "clone.no_reason"),
        ({"os_users": ('x" "postgres',)}, "clone.bad_user"),
        ({"target": "yesterday"}, "target.unreadable"),
    ],
)
def test_a_clone_that_must_not_be_is_refused_with_nothing_on_disk(
    shelf: CloneShelf, source: "Source", changed: dict[str, object], code: str
) -> None:
    """Too long, for nobody, for no reason, for a user's name that is a rule: not even a record."""
    with pytest.raises(PolicyError) as caught:
        put_down(shelf, asked(source, **changed), now())
    assert caught.value.code == code
    assert list(shelf.folder.iterdir()) == []


def test_nothing_of_somebody_elses_is_removed(shelf: CloneShelf, source: "Source", engine_dir: Path) -> None:
    """A folder that isn't empty is refused; what others put beside a clone's files stays when it goes."""
    folder = engine_dir / secrets.token_hex(4)
    folder.mkdir()
    (folder / "theirs").touch()
    with pytest.raises(PolicyError, match=r"restore\.not_empty"):
        put_down(shelf, asked(source, into=folder), now())
    (folder / "theirs").unlink()
    record = put_down(shelf, asked(source, into=folder), now())
    (folder / "theirs").touch()
    (folder / "data").mkdir()
    assert shelf.take_away(record.clone_id)
    assert [path.name for path in folder.iterdir()] == ["theirs"]
