"""The bench: all tools on one rig, and what later pieces need of earlier ones, made when it is first asked for.

What belongs here: backups and WAL that pieces share, whose turn it is, collecting rows. What stays out: the pieces.
"""

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.postgres.barman import BarmanCloud
from benchmarks.postgres.ours import Ours
from benchmarks.postgres.pgbackrest import PgBackRest
from benchmarks.postgres.rig import ArchivingTool, Came, Rig, Tool
from benchmarks.postgres.rows import Row, row
from benchmarks.postgres.running import Ran, ToolError
from dr_assets.engines.waiting import wait_until

_DRAIN_TIMEOUT_S: Final = 900


@dataclass(frozen=True, slots=True)
class Wal:
    """A stretch of WAL between segment ends; `target` is a position near its end, after `contents` were committed."""

    begin: int
    end: int
    target: int
    contents: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Options:
    """How often each figure is taken and how much WAL it takes."""

    runs: int
    wal_bytes: int
    barman: Path
    load_s: int = 12
    grown_bytes: int = 6_000_000_000


class Bench:
    """Tools, rows so far, and shared material. `theirs` archive with the server's archiver, `ours` streams."""

    def __init__(self, rig: Rig, options: Options) -> None:
        self.rig = rig
        self.options = options
        self.pgbackrest = PgBackRest(rig)
        self.barman = BarmanCloud(rig, options.barman)
        self.ours = Ours(rig)
        self.theirs: tuple[ArchivingTool, ...] = (self.pgbackrest, self.barman)
        self.rows: list[Row] = []
        self.contents: Mapping[str, int] = {}
        self._sources: dict[str, Ours] = {}
        self._wal: Wal | None = None
        self._backed_up: set[str] = set()
        self._first_backup = 0
        for tool in (*self.theirs, self.ours):
            tool.prepare()
        self.ours.prime()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Everybody."""
        return (*self.theirs, self.ours)

    def versions(self, *tools: Tool) -> dict[str, str]:
        """What was measured, and on what kind of machine, to be written beside each figure."""
        server = self.rig.primary.server.programs
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        said = {
            "PostgreSQL": ".".join(map(str, server.version)),
            "S3": f"SeaweedFS {'.'.join(map(str, self.rig.region.programs.version))}, TLS",
            "cores": str(os.cpu_count()),
            "memory": f"{memory_bytes / (1 << 30):.0f} GiB",
        }
        for tool in tools:
            said |= tool.versions
        return said

    def add(self, what: str, unit: str, ours: list[float], *, against: Tool | None = None, **more: Any) -> None:
        """A row of this rig; `more` as `rows.row` takes it."""
        told = (self.ours,) if against is None else (self.ours, against)
        name = more.pop("name", None) or (against.name if against else None)
        fresh = row(what, unit, ours, against=name, versions=self.versions(*told), **more)
        self.rows.append(fresh)
        shown = "" if fresh.theirs is None else f" against {fresh.theirs:g} of {fresh.against}, x {fresh.ratio}"
        self.rig.tell(f"= {what}: {fresh.ours:g} {unit}{shown} ({fresh.verdict})")

    def rounds(self, tools: tuple[Tool, ...] | None = None) -> Iterator[tuple[int, Tool]]:
        """Whose turn it is: every run asks everybody, each time somebody else first."""
        asked = tools or self.tools
        for number in range(self.options.runs):
            yield from ((number, asked[(number + place) % len(asked)]) for place in range(len(asked)))

    # -- shared material --------------------------------------------------------------------------------------------

    def backup(self, tool: Tool, *, watch_memory: bool = False) -> Ran:
        """One backup with the tool's own archiving on; dirty buffers are written first, so nobody pays for them."""
        primary = self.rig.primary
        self._first_backup = self._first_backup or primary.flushed
        primary.checkpoint()
        if isinstance(tool, Ours):
            with tool.capture() as capture:
                tool.wait_streaming(capture)
                ran = tool.backup(watch_memory=watch_memory)
                tool.wait_stored(primary.flushed, capture)
                capture.stop()
        else:
            primary.archive_with(self._archiver(tool).archive_command())
            ran = tool.backup(watch_memory=watch_memory)
            self.stop_archiving()
        self._backed_up.add(tool.name)
        return ran

    def ensure_backup(self, tool: Tool) -> None:
        """One backup, if there is none yet."""
        if tool.name not in self._backed_up:
            self.rig.tell(f"a base backup by {tool.name}")
            self.backup(tool)

    def ensure_wal(self) -> Wal:
        """The stretch that is archived and recovered; everybody who streams it has a slot from its begin."""
        if self._wal is None:
            primary = self.rig.primary
            for tool in self.tools:  # what recovers over the stretch begins before it
                self.ensure_backup(tool)
            primary.checkpoint()
            for number in range(self.options.runs):
                self.fresh_source(f"archive{number}")
            self.rig.tell(f"writing {self.options.wal_bytes / 1e9:.1f} GB of WAL")
            begin, _ = primary.grow_wal(self.options.wal_bytes)
            primary.checkpoint()  # its record lies after every commit: a position to recover to
            contents, target = primary.contents(), primary.flushed
            self._wal = Wal(begin, primary.switch(), target, contents)
            self.rig.tell(f"compressibility of the WAL: {primary.wal_compressibility(begin, self._wal.end)}")
        return self._wal

    def ensure_archived(self, tool: Tool) -> None:
        """Everything from the tool's first backup to the end of the stretch in the archive of its backups."""
        wal = self.ensure_wal()
        if isinstance(tool, Ours):
            with tool.capture() as capture:
                tool.wait_stored(wal.end, capture)
                capture.stop()
        else:
            self.drain(self._archiver(tool).archive_command(), self._first_backup, wal.end)

    def drain(self, command: str, begin: int, end: int) -> float:
        """Have the archiver do a stretch of finished segments; how many seconds it took."""
        primary = self.rig.primary
        primary.forget_ready()
        primary.make_ready(begin, end)
        begin_s = time.monotonic()
        primary.archive_with(command)
        self._wait_drained()
        duration_s = time.monotonic() - begin_s
        primary.archive_with("")
        return duration_s

    def stop_archiving(self) -> None:
        """Let the archiver finish what waits, then take its command away."""
        self._wait_drained()
        self.rig.primary.archive_with("")

    def fresh_source(self, tag: str) -> Ours:
        """Another vault of ours whose chain begins here, or the one of that name."""
        if tag not in self._sources:
            source = Ours(self.rig, tag)
            source.prepare()
            source.prime()
            self._sources[tag] = source
        return self._sources[tag]

    @contextmanager
    def passing_source(self, **declared: Any) -> Iterator[Ours]:
        """A vault of ours for one measurement, with nothing to catch up with; its slot goes at the end."""
        source = Ours(self.rig, secrets.token_hex(3), declared=declared)
        source.prepare()
        try:
            yield source
        finally:
            source.forget()

    def check(self, tool: Tool, came: Came, wanted: Mapping[str, int]) -> None:
        """Raises ToolError when a restored copy is not the one that was asked for."""
        if dict(came.contents) != dict(wanted):
            raise ToolError(f"{tool.name} brought back {came.contents} instead of {wanted}")

    def _archiver(self, tool: Tool) -> ArchivingTool:
        return next(each for each in self.theirs if each.name == tool.name)

    def _wait_drained(self) -> None:
        wait_until(
            lambda: self.rig.primary.unarchived() == 0,
            timeout_s=_DRAIN_TIMEOUT_S,
            what="the archiver done",
            every_s=0.02,
        )


@dataclass(slots=True)
class Runs:
    """Numbers by tool's name and figure, in the order they were taken."""

    numbers: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def note(self, tool: Tool | str, figure: str, value: float) -> None:
        """One more."""
        name = tool if isinstance(tool, str) else tool.name
        self.numbers.setdefault((name, figure), []).append(value)

    def of(self, tool: Tool | str, figure: str) -> list[float]:
        """All of one tool's."""
        return self.numbers.get((tool if isinstance(tool, str) else tool.name, figure), [])
