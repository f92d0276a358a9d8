"""`make bench-drift`: false ambers over 90 simulated days, and after how many backups each planted damage is named.

What belongs here: limits, runs, rows. What stays out: the world (drift_world.py) and the detection itself, whose own
limits are in dr_assets/observability/anomalies.

The first 28 days are past only; the 90 after them are judged. An operator looks at each amber within a day and accepts
what is no damage, as `dr-assets drift accept` does. An amber that goes on over backups in a row is one.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from benchmarks.drift_world import BEGIN, HIT, PLANTED, Plant, live, migrate
from benchmarks.figures import RESULTS, concluded, draw, teller, write
from benchmarks.postgres.page import table
from benchmarks.postgres.rows import Floor, Row, row
from dr_assets.observability.anomalies.judge import Observed, Past, accept, observe
from dr_assets.observability.anomalies.series import series_of

WARM_DAYS: Final = 28
JUDGED_DAYS: Final = 90
# Set before anything was measured: no more than one false amber in 30 days, each damage named within so many backups.
FALSE_PER_30_DAYS: Final = Floor("ours", at_most=1.0)
AT_ONCE: Final = Floor("ours", at_most=1.0)
SOON: Final = Floor("ours", at_most=7.0)
SLOW: Final = {"a column encrypted slowly", "slow corruption of a text", "slow corruption of a number"}
_CADENCES: Final = {"daily": timedelta(days=1), "every 6 h": timedelta(hours=6)}
_GIVE_UP_DAYS: Final = 20
_RESULTS: Final = RESULTS / "drift.json"
MARK_BEGIN: Final = "<!-- measured drift: begin (drawn by `make bench-drift`) -->"
MARK_END: Final = "<!-- measured drift: end -->"


@dataclass(frozen=True, slots=True)
class Clean:
    """A world without damage: ambers, what they were, milliseconds a judged backup."""

    ambers: int
    whats: tuple[str, ...]
    judge_ms: float


def judge_clean(arguments: tuple[int, timedelta]) -> Clean:
    """118 days without damage but with promotions, holidays, monthly archiving and a migration in the middle."""
    seed, every = arguments
    past, open_now, whats, times = Past(), set[str](), list[str](), list[float]()
    for each in live(seed, days=WARM_DAYS + JUDGED_DAYS, every=every, planted_day=WARM_DAYS + 40, plant=migrate):
        begin_s = time.perf_counter()
        observed, found = observe(each, past)
        times.append(time.perf_counter() - begin_s)
        relations = {one.series for one in found}
        if each.at >= BEGIN + timedelta(days=WARM_DAYS) and relations and not open_now:
            whats.append(f"{each.at:%m-%d}: {found[0]}")
        open_now = relations
        past.add(observed)
        past.accept(*(accept(one, each) for one in found))
    return Clean(len(whats), tuple(whats), 1000 * statistics.median(times))


def judge_planted(arguments: tuple[int, timedelta, str]) -> tuple[str, int | None]:
    """After how many backups the damage is named: its place is among the suspicions; None if not in 20 days."""
    seed, every, name = arguments
    plant: Plant = PLANTED[name]
    day = WARM_DAYS + 10 + seed % 30
    past, nth = Past(), 0
    for each in live(seed, days=day + _GIVE_UP_DAYS, every=every, planted_day=day, plant=plant):
        if each.at < BEGIN + timedelta(days=day):
            past.add(Observed(each, series_of(each, past.observed[-1].statistics if past.observed else None)))
            continue
        observed, found = observe(each, past)
        past.add(observed)
        nth += 1
        if any(one.series.startswith(HIT[name]) for one in found):
            return name, nth
    return name, None


def main() -> int:
    """Parse, simulate, write; 1 when a limit was missed."""
    options = _parser().parse_args()
    tell = teller()
    rows: list[Row] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for label in options.only or _CADENCES:
            every = _CADENCES[label]
            seeds = range(options.seeds if label == "daily" else max(2, options.seeds // 4))
            clean = pool.map(judge_clean, [(seed, every) for seed in seeds], chunksize=1)
            rows += _clean_rows(label, clean)
            for seed, one in zip(seeds, clean, strict=True):
                tell(f"{label}, seed {seed}: {one.ambers} ambers {one.whats}")
            wanted = [(seed, every, name) for name in PLANTED for seed in seeds]
            found = pool.map(judge_planted, wanted, chunksize=2)
            rows += [_planted_row(label, name, [nth for which, nth in found if which == name]) for name in PLANTED]
            for each in rows[-len(PLANTED) :]:
                tell(f"{each.what}: {each.ours} {each.unit} {each.note}")
            write(options.output, rows)
    if options.output == _RESULTS:
        draw(MARK_BEGIN, MARK_END, table(json.loads(_RESULTS.read_text(encoding="utf-8"))))
    return concluded(tell, options.output, [asdict(each) for each in rows])


def _clean_rows(label: str, clean: Sequence[Clean]) -> list[Row]:
    per = [one.ambers * 30 / JUDGED_DAYS for one in clean]
    note = f"{len(clean)} seeds, 90 days each, with promotions, holidays, monthly archiving and a migration"
    return [
        row(
            f"drift, {label}: false ambers in 30 days, mean of seeds",
            "ambers",
            [statistics.mean(per)],
            floor=FALSE_PER_30_DAYS,
            note=note,
        ),
        row(
            f"drift, {label}: false ambers in 30 days, the worst seed",
            "ambers",
            [max(per)],
            floor=FALSE_PER_30_DAYS,
            note=note,
        ),
        row(f"drift, {label}: time to judge a backup", "ms", [one.judge_ms for one in clean]),
    ]


def _planted_row(label: str, name: str, found: Sequence[int | None]) -> Row:
    """What was not found counts as the number of backups after which nobody looked any more."""
    given_up = _GIVE_UP_DAYS * round(timedelta(days=1) / _CADENCES[label]) + 1
    lacks = sum(1 for nth in found if nth is None)
    taken = [float(given_up if nth is None else nth) for nth in found]
    note = f"named in {len(found) - lacks} of {len(found)} seeds; the slowest after {max(taken):.0f}"
    worst = max(taken) if name not in SLOW else statistics.median(taken)
    return row(f"drift, {label}: {name}", "backups", [worst], floor=SOON if name in SLOW else AT_ONCE, note=note)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Drift: false ambers and detection over simulated months.")
    parser.add_argument(
        "--seeds", type=int, default=12, help="worlds with a backup a day; a quarter as many, 6 h apart"
    )
    parser.add_argument("--only", action="append", choices=_CADENCES, help="this cadence; rows of the other stay")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=_RESULTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
