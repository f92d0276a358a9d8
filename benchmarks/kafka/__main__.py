"""`python -m benchmarks.kafka`: run the pieces, write `results/kafka.json` after each, redraw the page's table.

What belongs here: arguments, progress, files. What stays out: measuring.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import RESULTS, concluded, draw, teller, unwind_on_signals, write
from benchmarks.kafka import pads, pieces
from benchmarks.kafka.pieces import Bench
from benchmarks.kafka.rig import open_rig
from benchmarks.postgres.page import table

PIECES: Final[dict[str, Callable[[Bench], None]]] = {
    "data": pieces.data,
    "plain": pieces.plain,
    "compressed": pieces.compressed,
    "live": pieces.live,
    "pads": pads.pads,
}
BEGIN: Final = "<!-- measured, Kafka: begin (drawn by `python -m benchmarks.kafka --render`) -->"
END: Final = "<!-- measured, Kafka: end -->"
_RESULTS: Final = RESULTS / "kafka.json"


def main() -> int:
    """Parse, run, write; 1 when a floor was missed."""
    options = _parser().parse_args()
    unwind_on_signals()
    tell = teller()
    if not options.render:
        wanted = options.only.split(",") if options.only else list(PIECES)
        with tempfile.TemporaryDirectory(prefix="dr-assets-bench-", dir="/var/tmp") as folder:
            Path(folder).chmod(0o711)  # the engines run as another user
            with open_rig(Path(folder), tell) as rig:
                bench = Bench(rig, options.records, options.runs, options.live_s, options.rate)
                for name in (each for each in PIECES if each in wanted):
                    tell(f"- {name}")
                    PIECES[name](bench)
                    write(options.output, bench.rows)
    rows = json.loads(options.output.read_text())
    if options.output == _RESULTS:
        redraw(rows)
    return concluded(tell, options.output, rows)


def redraw(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table on the page, and which broker it is of."""
    brokers = sorted({each["versions"]["broker"] for each in rows})
    draw(BEGIN, END, f"Broker: {', '.join(brokers)}.\n\n{table(rows)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Topics exported, captured live and restored on one machine.")
    parser.add_argument("--only", default="", help=f"comma-separated pieces of: {', '.join(PIECES)}")
    parser.add_argument("--runs", type=int, default=3, help="how often each figure is taken")
    parser.add_argument("--records", type=int, default=1_000_000, help="of 300 bytes, in the full topics")
    parser.add_argument("--rate", type=int, default=20_000, help="records a second, live")
    parser.add_argument("--live-s", type=float, default=30.0, help="length of a live run's window, seconds")
    parser.add_argument("--output", type=Path, default=_RESULTS)
    parser.add_argument("--render", action="store_true", help="measure nothing, redraw the page from the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
