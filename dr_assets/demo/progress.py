"""Steps a person can follow: a moving line on a terminal, log lines elsewhere.

What belongs here: showing. What stays out: deciding what the steps are.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn


@dataclass
class Step:
    """One step under way. `says` is what the line shows when the step is done."""

    title: str
    says: str = ""
    _progress: Progress | None = None
    _task: TaskID | None = None

    def show(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Updates the moving line; does nothing where there is no terminal."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=f"{self.title}: {text}", completed=done or 0, total=total)


class Steps:
    """Numbers the steps of a run and prints one line for each that ended."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self._total = total
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """One numbered step; a failure inside is printed as such and goes on upwards."""
        self._number += 1
        label = f"[{self._number}/{self._total}] {title}"
        step = Step(title=label)
        begin = time.monotonic()
        if not self.console.is_terminal:
            self._line(f"{label} …")
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=20))
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            step._progress, step._task = progress, progress.add_task(label, total=None)  # noqa: SLF001 - its maker
            try:
                yield step
            except BaseException:  # a step that a signal ends is said to have failed, too
                self._line(f"✗ {label} failed after {time.monotonic() - begin:.1f} s")
                raise
        said = f": {step.says}" if step.says else ""
        self._line(f"✓ {label}{said} ({time.monotonic() - begin:.1f} s)")

    def note(self, text: str) -> None:
        """A line of its own, for what people should know but need not act on."""
        self._line(f"  {text}")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
