"""The machine that every tool is measured on: primary, object store, folders; and the servers that come back.

What belongs here: what all tools share, and asking a restored server whether it is the right one. What stays out:
each tool's own settings (its module) and what is measured.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import psycopg

from benchmarks.postgres.primary import DBNAME, MAJOR, Primary, Scale, contents, open_primary
from benchmarks.postgres.running import Ran
from dr_assets.engines.placement import RunAs, engine_user, give
from dr_assets.engines.postgres import PostgresServer, Setting
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion

PATH: Final = "/usr/bin:/bin"


@dataclass(frozen=True)
class Rig:
    """Everything that is up. `mine` belongs to the engines' user, who runs the other tools and the servers."""

    folder: Path
    mine: Path
    primary: Primary
    region: SeaweedRegion
    tell: Callable[[str], None]

    @property
    def user(self) -> RunAs:
        """Who runs the servers and, as their owner would, the other tools."""
        return engine_user()

    def fresh(self, name: str) -> Path:
        """A new, empty folder of the engines' user."""
        folder = self.mine / f"{name}-{secrets.token_hex(3)}"
        folder.mkdir(mode=0o700)
        give(folder, self.user)
        return folder

    def script(self, name: str, env: Mapping[str, str], command: str) -> Path:
        """What the server may execute with an environment. It holds throwaway secrets: only its user reads it."""
        path = self.mine / name
        lines = [f"export {key}='{value}'" for key, value in env.items()]
        path.touch(mode=0o700)
        path.write_text("\n".join(["#!/bin/sh", *lines, f"exec {command}", ""]))
        path.chmod(0o700)
        give(path, self.user)
        return path


@dataclass(frozen=True, slots=True)
class Came:
    """A restore: seconds from its command's start until the data lay, the command ended, the server answered.

    `laid_s` is None where the tool's command ends with that. `phases_s` are the tool's own words.
    """

    command_s: float
    answers_s: float
    laid_s: float | None = None
    peak_bytes: int = 0
    cpu_s: float = 0.0
    contents: Mapping[str, int] = field(default_factory=dict)
    phases_s: Mapping[str, float] = field(default_factory=dict)


class Tool(Protocol):
    """One backup tool, driven as its documentation tells its users to."""

    name: str
    versions: Mapping[str, str]

    def prepare(self) -> None:
        """Whatever is set up once."""

    def backup(self, *, watch_memory: bool = False) -> Ran:
        """A full base backup into the object store."""

    def restore(self, target_lsn: int | None, *, watch_memory: bool = False) -> Came:
        """The newest backup, recovered to a position or to the end of its archive; the server is removed again."""


class ArchivingTool(Tool, Protocol):
    """A tool that the server hands finished WAL segments to."""

    def archive_command(self, place: str | None = None) -> str:
        """What the server is to run; `place` is an archive of its own, the one of the backups by default."""


@contextmanager
def open_rig(folder: Path, scale: Scale, tell: Callable[[str], None], *, cache: Path | None = None) -> Iterator[Rig]:
    """Primary and object store over TLS, below `folder`; all of it stops at the end."""
    with ExitStack() as stack:
        mine = folder / "tools"
        mine.mkdir(mode=0o700)
        give(mine, engine_user())
        tell("loading the primary")
        primary = stack.enter_context(open_primary(folder, scale, cache=cache))
        region = SeaweedRegion(folder / "region", "bench", find_programs("weed"), tls=True)
        stack.enter_context(region)
        region.start()
        yield Rig(folder, mine, primary, region, tell)


def answered(data_dir: Path, begin_s: float, settings: Mapping[str, Setting]) -> tuple[float, dict[str, int]]:
    """Start a restored data directory; seconds since `begin_s` until it is recovered and answers, and what it holds."""
    server = PostgresServer(
        data_dir, find_programs("postgres", MAJOR), settings={"shared_buffers": "256MB", **settings}
    )
    try:
        server.adopt()
        server.start(timeout_s=900)
        while _recovers(server):
            time.sleep(0.02)
        answers_s = time.monotonic() - begin_s
        return answers_s, contents(server.dsn(DBNAME))
    finally:
        server.stop("immediate")


def _recovers(server: PostgresServer) -> bool:
    with psycopg.connect(server.dsn(DBNAME)) as session:
        found = session.execute("SELECT pg_is_in_recovery()").fetchone()
    return found is None or bool(found[0])


def remove(folder: Path) -> None:
    """Take a restored cluster away."""
    shutil.rmtree(folder, ignore_errors=True)


def base_environment() -> dict[str, str]:
    """What any program gets: nothing of ours."""
    return {"PATH": PATH, "HOME": "/", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
