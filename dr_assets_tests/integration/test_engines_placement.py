"""Engines where the engine's user can reach them, without touching folders that aren't ours."""

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dr_assets.engines.placement import (
    RunAs,
    barred_by,
    engine_home,
    engine_user,
    leftovers,
    may,
    remove,
    remove_below,
    shared_folder,
)
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import Programs, find_programs
from dr_assets.estate.errors import PolicyError

pytestmark = pytest.mark.integration

# What an ordinary user's process does with both engines; prints one word if all of it worked.
ORDINARY = """
import sys
from pathlib import Path
import psycopg
from dr_assets.engines.postgres import PostgresServer
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
with PostgresServer(Path(sys.argv[1]) / "pg", find_programs("postgres", 17)) as server:
    server.init()
    server.start()
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("SELECT 1")
    server.kill()
    server.start()
    server.stop()
    assert not server.notes, server.notes
with PostgresServer(Path(sys.argv[1]) / "pg", find_programs("postgres", 17)) as server:
    server.adopt()
    server.start()
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("SELECT 1")
with SeaweedRegion(Path(sys.argv[1]) / "region", "region", find_programs("weed")) as region:
    region.start()
    region.create_bucket("bucket")
    assert not region.notes, region.notes
print("worked")
"""


@pytest.fixture
def closed(engine_dir: Path, requires: Callable[..., None]) -> Iterator[Path]:
    """A folder below one that only we may enter; what engines placed elsewhere for it is removed."""
    requires("root")
    home = engine_dir / "closed"
    home.mkdir()
    home.chmod(0o700)
    before = {leftover.path for leftover in leftovers()}
    yield home / "estate"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700, "a folder that isn't the engine's was loosened"
    for leftover in leftovers():
        if leftover.path not in before and str(engine_dir) in leftover.preferred:
            remove(leftover)


def test_data_moves_where_the_engines_user_can_enter(closed: Path) -> None:
    """Below a 0700 folder the data goes elsewhere: told why, the same place again next time, and removable."""
    place = engine_home(closed)
    assert place.moved
    assert str(closed.parent) in place.why
    assert barred_by(engine_user(), place.path / "data") is None
    assert engine_home(closed) == place
    assert engine_home(closed.parent / "other").path != place.path

    (leftover,) = [found for found in leftovers() if found.preferred == str(closed)]
    remove(leftover)
    assert not place.path.exists()


def test_a_server_runs_from_programs_and_for_data_it_cannot_reach(
    closed: Path, postgres_programs: Callable[[int], Programs]
) -> None:
    """With programs and data both below a 0700 folder a copy of the programs runs, and both moves are told."""
    original = postgres_programs(18)
    for tree in original.trees:
        shutil.copytree(tree, closed.parent / tree.resolve().relative_to(original.trees[0].parents[1]), symlinks=True)
    hidden = closed.parent / original.bin_dir.resolve().relative_to(original.trees[0].parents[1])
    programs = find_programs("postgres", 18, {"DR_ASSETS_PG_BIN_18": str(hidden)})
    assert programs.bin_dir == hidden

    with PostgresServer(closed / "pg", programs) as server:
        server.init()
        server.start()
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert len(server.notes) == 2
        assert not server.data_dir.is_relative_to(closed.parent)
        assert not server.programs.bin_dir.is_relative_to(closed.parent)


def test_reachable_files_stay_where_they_are(engine_dir: Path, postgres_programs: Callable[[int], Programs]) -> None:
    """Where nothing is in the way, nothing is copied and there is nothing to tell."""
    place = engine_home(engine_dir / "estate")
    assert (place.path, place.moved, place.why) == (engine_dir / "estate", False, "")
    assert engine_user() == engine_user()
    with PostgresServer(engine_dir / "pg", postgres_programs(17)) as server:
        assert server.data_dir == engine_dir / "pg"


def test_clean_up_takes_the_places_of_its_own_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cleaning one checkout up leaves another's engines alone, and our shared folder goes with the last place."""
    monkeypatch.setattr("dr_assets.engines.placement.SHARED", tmp_path)
    mine = shared_folder("home", tmp_path / "checkout" / ".demo")
    other = shared_folder("home", tmp_path / "checkout-2" / ".demo")
    assert [removed.path for removed in remove_below(tmp_path / "checkout")] == [mine]
    assert other.exists()
    remove_below(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_places_are_listed_while_others_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process of ours may make or remove a place just now: whoever lists them never trips over it."""
    monkeypatch.setattr("dr_assets.engines.placement.SHARED", tmp_path)
    kept, done = shared_folder("home", tmp_path / "kept"), threading.Event()
    (label,) = shared_folder("home", tmp_path / "brief").iterdir()

    def come_and_go() -> None:
        while not done.is_set():
            label.unlink()
            label.write_text("made again")

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(2000):
            assert kept in {leftover.path for leftover in leftovers()}
    finally:
        done.set()
        other.join()


def test_rights_are_judged_by_owner_then_group_then_others(tmp_path: Path) -> None:
    """An owner without a right isn't helped by the group's, nor a group's member by the others'."""
    path = tmp_path / "file"
    path.touch()
    me, mine = os.geteuid() + 1, os.getegid()
    path.chmod(0o604)
    assert may(RunAs(me, mine + 1, "other"), path, 0o4)
    assert not may(RunAs(me, mine, "member"), path, 0o4)
    path.chmod(0o077)
    if os.geteuid() != 0:
        assert not may(engine_user(), path, 0o4)


def test_someone_elses_folder_in_the_shared_place_is_refused(
    closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of our name that another user made, or a link, is never used for data."""
    monkeypatch.setattr("dr_assets.engines.placement.SHARED", tmp_path)
    ours = tmp_path / f"dr-assets-{os.geteuid()}"
    ours.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(PolicyError, match="not a folder of ours"):
        engine_home(closed)
    ours.unlink()
    ours.mkdir()
    os.chown(ours, 12345, 12345)
    with pytest.raises(PolicyError, match="not a folder of ours"):
        engine_home(closed)


def test_an_ordinary_user_runs_engines_as_itself(
    engine_dir: Path, requires: Callable[..., None], postgres_programs: Callable[[int], Programs]
) -> None:
    """Nothing needs root: another user's process makes, crashes, restarts and adopts a server of its own."""
    requires("root")
    requires("setpriv")
    postgres_programs(17)
    requires("weed")
    entry = pwd.getpwnam("daemon")
    other = RunAs(entry.pw_uid, entry.pw_gid, entry.pw_name)
    python = _python_for(other)
    home = engine_dir / "home"
    home.mkdir()
    os.chown(home, other.uid, other.gid)
    paths = [_packages_of("dr_assets"), _packages_of("psycopg")]
    result = subprocess.run(
        ["setpriv", f"--reuid={other.uid}", f"--regid={other.gid}", "--clear-groups", python, "-c", ORDINARY, home],  # noqa: S607 - checked above
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(paths), "HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "worked\n", result.stderr


def _packages_of(name: str) -> str:
    """The folder to put on PYTHONPATH for a package of ours."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parents[1])


def _python_for(user: RunAs) -> str:
    """A Python of our version that this user can execute."""
    wanted = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, shutil.which(wanted, path="/usr/bin:/usr/local/bin")):
        if candidate and barred_by(user, Path(candidate)) is None:
            return candidate
    pytest.skip(f"no {wanted} that another user can execute")
