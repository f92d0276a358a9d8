"""Finding server programs: the order, the exact major version, and clear refusals."""

from pathlib import Path

import pytest

from dr_assets.engines.programs import find_programs
from dr_assets.estate.errors import PolicyError


def programs_at(folder: Path, version: str) -> Path:
    """A folder with stand-ins for Postgres's programs that know their version."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_setting_comes_first_then_path_then_the_distribution(tmp_path: Path) -> None:
    """Of several installations the setting's runs, without one PATH's, then the distribution's; origin tells which."""
    setting = programs_at(tmp_path / "set" / "bin", "17.1")
    on_path = programs_at(tmp_path / "path" / "bin", "17.2")
    programs_at(tmp_path / "root/usr/lib/postgresql/17/bin", "17.3 (Debian 17.3-1)")
    env = {"DR_ASSETS_PG_BIN": str(setting), "PATH": str(on_path)}
    found = []
    for missing in ("", "DR_ASSETS_PG_BIN", "PATH"):
        env.pop(missing, None)
        programs = find_programs("postgres", 17, env, root=tmp_path / "root")
        found.append((programs.origin, programs.version))
    assert found == [("setting", (17, 1)), ("path", (17, 2)), ("distribution", (17, 3))]
    assert programs.describe().startswith("PostgreSQL 17.3 from distribution (")


def test_the_wheel_comes_last(tmp_path: Path) -> None:
    """With nothing else on the machine the installed wheel's programs run."""
    programs = find_programs("postgres", 18, {}, root=tmp_path)
    assert (programs.origin, programs.major) == ("wheel", 18)
    assert find_programs("weed", None, {}).origin == "wheel"


def test_the_major_version_is_exact(tmp_path: Path) -> None:
    """Another major version is passed over wherever it stands in the order, and a setting for one major goes first."""
    newer = programs_at(tmp_path / "newer", "18beta1")
    wanted = programs_at(tmp_path / "wanted", "15.4")
    env = {"DR_ASSETS_PG_BIN": str(newer), "PATH": str(wanted)}
    assert find_programs("postgres", 15, env, root=tmp_path).version == (15, 4)
    assert find_programs("postgres", 18, env, root=tmp_path).version == (18, 0)
    env["DR_ASSETS_PG_BIN_18"] = str(programs_at(tmp_path / "own", "18.1"))
    assert find_programs("postgres", 18, env, root=tmp_path).version == (18, 1)


def test_without_a_wish_the_distributions_newest_runs(tmp_path: Path) -> None:
    """Where no major version is asked for, the highest of the distribution's is taken: 15 before 9."""
    for major in (9, 15):
        programs_at(tmp_path / f"usr/lib/postgresql/{major}/bin", f"{major}.1")
    assert find_programs("postgres", None, {}, root=tmp_path).major == 15


def test_a_setting_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    """A setting is obeyed or refused, never passed over in silence."""
    with pytest.raises(PolicyError, match="holds no program `postgres`") as caught:
        find_programs("postgres", 17, {"DR_ASSETS_PG_BIN": str(tmp_path)}, root=tmp_path)
    assert caught.value.code == "engine.bad_setting"
    other = programs_at(tmp_path / "bin", "15.4")
    with pytest.raises(PolicyError, match=r"DR_ASSETS_PG_BIN_17 is .* which holds version 15"):
        find_programs("postgres", 17, {"DR_ASSETS_PG_BIN_17": str(other)}, root=tmp_path)
    with pytest.raises(PolicyError, match="is not the program `weed`"):
        find_programs("weed", None, {"DR_ASSETS_WEED": str(tmp_path)})


def test_nothing_found_says_what_was_and_what_to_do(tmp_path: Path) -> None:
    """The refusal lists what was found of another version and names the setting, the package and the extra."""
    other = programs_at(tmp_path / "bin", "15.4")
    with pytest.raises(PolicyError) as caught:
        find_programs("postgres", 12, {"PATH": str(other)}, root=tmp_path)
    assert caught.value.code == "engine.no_programs"
    assert "PostgreSQL 12" in caught.value.found
    assert "15.4 from path" in caught.value.found
    for way in ("postgresql-12", "DR_ASSETS_PG_BIN_12", "dr_assets[engines]"):
        assert way in caught.value.hint


def test_clients_alone_are_not_a_server(tmp_path: Path) -> None:
    """A folder on PATH whose server has no initdb beside it is passed over."""
    (programs_at(tmp_path / "bin", "17.4") / "initdb").unlink()
    assert find_programs("postgres", 17, {"PATH": str(tmp_path / "bin")}, root=tmp_path).origin == "wheel"
