"""What every benchmark does with its rows: keep them, draw them into the page, say how it went.

What belongs here: files, progress, the exit code. What stays out: measuring, arithmetic over rows
(postgres/rows.py), how a table looks (postgres/page.py).
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.postgres.page import between_marks
from benchmarks.postgres.rows import Row, merged

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
PAGE: Final = ROOT / "docs" / "benchmarks.md"
_INTERRUPTED: Final = 130

Tell = Callable[[str], None]
Stored = Sequence[Mapping[str, Any]]


def unwind_on_signals() -> None:
    """SIGINT and SIGTERM end the process by unwinding it: servers stop, folders go."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(_INTERRUPTED))


def teller() -> Tell:
    """Says a line on standard output, with the seconds since now."""
    begin_s = time.monotonic()

    def tell(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - begin_s:6.1f} s] {line}\n")
        sys.stdout.flush()

    return tell


def write(path: Path, rows: Iterable[Row]) -> None:
    """Join the rows to those of earlier runs."""
    old = json.loads(path.read_text()) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged(old, rows), indent=1) + "\n", encoding="utf-8")


def draw(begin: str, end: str, drawn: str) -> None:
    """Put `drawn` between its marks on the page; nothing where the page has none."""
    text = PAGE.read_text(encoding="utf-8")
    if begin in text:
        PAGE.write_text(between_marks(text, drawn, begin, end), encoding="utf-8")


def concluded(tell: Tell, output: Path, rows: Stored, name: Callable[[Mapping[str, Any]], str] | None = None) -> int:
    """Say which floors are missed, by `name` or by what they are; the exit code: 1 when one is."""
    missed = [name(each) if name else str(each["what"]) for each in rows if each["verdict"] == "missed"]
    tell(f"{output}: " + ("every floor held" if not missed else f"missed: {'; '.join(missed)}"))
    return 1 if missed else 0
