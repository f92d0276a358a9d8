"""How `dr-assets vault verify` tells how far it is, and what it found.

What belongs here: a bar on a terminal, lines elsewhere, the table of findings. What stays out: options (vault.py).
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dr_assets.cli.shown import shown
from dr_assets.vault.verify import VerifyReport

LINE_EVERY_S: Final = 30.0
Told = Callable[[int, int, int], None]


@contextmanager
def progress() -> Iterator[Told]:
    """What a verification calls: names examined, their total, bytes read. Told on standard error."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        read = TextColumn("{task.fields[read]}")
        with Progress(*columns, read, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("objects", total=None, read="")
            yield lambda done, total, read_bytes: bar.update(
                task, completed=done, total=total, read=f"{read_bytes / 1e6:.0f} MB"
            )
        return
    yield _lines()


def _lines() -> Told:
    begin_s = told_s = time.monotonic()

    def tell(done: int, total: int, read_bytes: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= LINE_EVERY_S:
            told_s = now_s
            rate = read_bytes / max(now_s - begin_s, 1e-9) / 1e6
            line = f"verify: {done} of {total} objects, {read_bytes / 1e6:.0f} MB read, {rate:.0f} MB/s"
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - lines for a log

    return tell


def show(report: VerifyReport, console: Console) -> None:
    """Findings in a table, and one line about all."""
    if report.findings:
        table = Table(title="findings", title_justify="left")
        for column in ("kind", "severity", "object", "detail"):
            table.add_column(column, overflow="fold")
        for finding in report.findings:
            version = f" (version {finding.version_id})" if finding.version_id else ""
            table.add_row(finding.kind, finding.severity, shown(finding.key + version), shown(finding.detail))
        console.print(table)
    recalled = f", {report.recalled_total} objects judged by a run before" if report.recalled_total else ""
    console.print(
        f"{report.objects_total} objects, {report.objects_locked} locked, {report.read_bytes / 1e6:.1f} MB re-read in"
        f" {report.duration_s:.1f} s{recalled}: {len(report.errors)} damaged or missing, {len(report.notices)} notices",
        highlight=False,
    )
