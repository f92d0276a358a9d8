"""`python -m benchmarks.reconcile`: run the pieces, write `results/reconcile.json` after each, redraw the page's table.

What belongs here: arguments, progress, files. What stays out: measuring.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.figures import RESULTS, concluded, draw, teller, unwind_on_signals, write
from benchmarks.postgres.page import table
from benchmarks.reconcile import pieces
from benchmarks.reconcile.rig import Bench, open_bench

PIECES: Final[dict[str, Callable[[Bench], None]]] = {
    "whole": pieces.whole,
    "file": pieces.file,
    "reladiff": pieces.reladiff,
    "spark": pieces.spark,
    "spill": pieces.spill,
}
BEGIN: Final = "<!-- measured, reconciliation: begin (drawn by `python -m benchmarks.reconcile --render`) -->"
END: Final = "<!-- measured, reconciliation: end -->"
_RESULTS: Final = RESULTS / "reconcile.json"
_RELADIFF: Final = Path("/var/tmp/dr-assets-bench-reladiff")  # noqa: S108 - where scripts/install_reladiff.sh puts it


def main() -> int:
    """Parse, run, write; 1 when a floor was missed."""
    options = _parser().parse_args()
    unwind_on_signals()
    tell = teller()
    if not options.render:
        wanted = options.only.split(",") if options.only else list(PIECES)
        asked = {name: getattr(options, name) for name in ("scale", "runs", "memory", "reladiff")}
        with tempfile.TemporaryDirectory(prefix="dr-assets-bench-", dir=options.folder) as folder:
            Path(folder).chmod(0o711)  # the engine runs as another user
            with open_bench(Path(folder), tell, **asked) as bench:
                for name in (each for each in PIECES if each in wanted):
                    tell(f"- {name} (load of the machine before it: {os.getloadavg()[0]:.1f})")
                    PIECES[name](bench)
                    write(options.output, bench.rows)
    rows = json.loads(options.output.read_text())
    if options.output == _RESULTS:
        draw(BEGIN, END, table(rows))
    return concluded(tell, options.output, rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Books in Postgres against settlement lines in a file.")
    parser.add_argument("--only", default="", help=f"comma-separated pieces of: {', '.join(PIECES)}")
    parser.add_argument("--runs", type=int, default=3, help="how often the large figures are taken")
    parser.add_argument("--scale", type=float, default=1.0, help="a part of the 10M and 100M rows, a million at least")
    parser.add_argument("--memory", default="1500MB", help="what the engine may take before it spills")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where both sides lie meanwhile")  # noqa: S108 - a disk
    parser.add_argument("--output", type=Path, default=_RESULTS)
    parser.add_argument("--reladiff", type=Path, default=_RELADIFF, help="the virtual environment with reladiff")
    parser.add_argument("--render", action="store_true", help="measure nothing, redraw the page from the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
