"""`python -m benchmarks.postgres`: run the pieces, write `results/postgres.json` after each, redraw the page.

What belongs here: arguments, progress, files. What stays out: measuring.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.figures import RESULTS, ROOT, concluded, teller, unwind_on_signals, write
from benchmarks.postgres import pieces, pieces_live
from benchmarks.postgres.bench import Bench, Options
from benchmarks.postgres.page import redraw
from benchmarks.postgres.primary import Scale
from benchmarks.postgres.rig import open_rig

PIECES: Final[dict[str, Callable[[Bench], None]]] = {
    "data": pieces.data,
    "backup": pieces.backup,
    "restore": pieces.restore,
    "archive": pieces.archive,
    "pitr": pieces.pitr,
    "lag": pieces_live.lag,
    "cost": pieces_live.cost,
    "memory": pieces_live.memory,  # last: it grows the data
}
_RESULTS: Final = RESULTS / "postgres.json"
_BARMAN: Final = Path("/var/tmp/dr-assets-bench-tools")  # noqa: S108 - where scripts/install_bench_tools.sh puts it


def main() -> int:
    """Parse, run, write; 1 when a floor was missed."""
    options = _parser().parse_args()
    wanted = [name for name in PIECES if name in options.only.split(",")] if options.only else list(PIECES)
    unwind_on_signals()
    tell = teller()
    if not options.render:
        with tempfile.TemporaryDirectory(prefix="dr-assets-bench-", dir="/var/tmp") as folder:
            Path(folder).chmod(0o711)  # the engines run as another user
            scale = Scale(options.scale, options.transfers)
            with open_rig(Path(folder), scale, tell, cache=options.cache) as rig:
                bench = Bench(rig, _options(options))
                for name in wanted:
                    tell(f"- {name}")
                    PIECES[name](bench)
                    write(options.output, bench.rows)
    rows = json.loads(options.output.read_text())
    if options.output == _RESULTS:
        redraw(ROOT, rows)
    return concluded(tell, options.output, rows, lambda each: f"{each['what']} (against {each['against']})")


def _options(asked: argparse.Namespace) -> Options:
    return Options(
        runs=asked.runs,
        wal_bytes=int(asked.wal_gb * 1e9),
        barman=asked.barman,
        load_s=asked.load_s,
        grown_bytes=int(asked.grown_gb * 1e9),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="dr_assets beside pgBackRest and barman-cloud on one machine.")
    parser.add_argument("--only", default="", help=f"comma-separated pieces of: {', '.join(PIECES)}")
    parser.add_argument("--runs", type=int, default=3, help="how often each figure is taken")
    parser.add_argument("--scale", type=int, default=Scale().pgbench, help="pgbench's scale")
    parser.add_argument("--transfers", type=int, default=Scale().transfers, help="the ledger's transfers")
    parser.add_argument("--wal-gb", type=float, default=1.1, help="WAL for archiving and PITR, 10^9 bytes")
    parser.add_argument("--grown-gb", type=float, default=6.0, help="the data's size for the second look at memory")
    parser.add_argument("--load-s", type=int, default=12, help="length of one load, seconds")
    parser.add_argument("--output", type=Path, default=_RESULTS)
    parser.add_argument("--barman", type=Path, default=_BARMAN, help="the virtual environment with barman-cloud")
    parser.add_argument("--cache", type=Path, help="keep the loaded data here for the next time")
    parser.add_argument("--render", action="store_true", help="measure nothing, redraw the page from the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
