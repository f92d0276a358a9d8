"""`python -m benchmarks.reconcile.child`: one reconciliation in a process of its own, its memory watched.

It reads what to do as JSON from standard input and writes what it found as JSON to standard output.
"""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from dr_assets.reconciliation.checks import CheckResult, all_checks, run_check
from dr_assets.reconciliation.engine.duckdb import duckdb_engine
from dr_assets.reconciliation.engine.port import Engine
from dr_assets.reconciliation.engine.spark import spark_engine
from dr_assets.reconciliation.providers.open import Feed, provider_lines
from dr_assets.reconciliation.run import reconcile
from dr_assets.reconciliation.shared import stand_in
from dr_assets.reconciliation.tolerances import Tolerances

_AREA = "payments"


def main() -> None:
    """Do it."""
    asked: dict[str, Any] = json.load(sys.stdin)
    begin_s = time.monotonic()
    said = {"postgres": _postgres, "parquet": _parquet, "file": _file}[asked["what"]](asked)
    json.dump(said | {"duration_s": time.monotonic() - begin_s, "cpu_s": time.process_time()}, sys.stdout)


def _at(asked: dict[str, Any]) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=asked["as_of_us"])


def _postgres(asked: dict[str, Any]) -> dict[str, Any]:
    """The books in Postgres against a file: extraction, reading, every check of payments."""
    with provider_lines([Feed("stripe", "stripe", Path(asked["file"]))]) as lines:
        result = reconcile(
            asked["dsn"],
            asked["contract"],
            externals={"provider_lines": lines},
            as_of=_at(asked),
            areas=asked["areas"],
            workdir=Path(asked["workdir"]),
            memory_limit=asked["memory"],
            max_breaks=asked["max_breaks"],
        )
    return _said(result.checks) | {"extract_s": result.extract_s, "rows": result.rows}


def _file(asked: dict[str, Any]) -> dict[str, Any]:
    """The file alone, read and thrown away."""
    with provider_lines([Feed("stripe", "stripe", Path(asked["file"]))]) as lines:
        return {"rows": sum(batch.num_rows for batch in lines)}


def _parquet(asked: dict[str, Any]) -> dict[str, Any]:
    """Both sides as Parquet, in the engine that was asked for."""
    workdir = Path(asked["workdir"])
    engine = (
        spark_engine(workdir, memory=asked["memory"])
        if asked["engine"] == "spark"
        else duckdb_engine(workdir, asked["memory"], 2)
    )
    with engine as sets:
        return _said(_judge(sets, asked))


def _judge(engine: Engine, asked: dict[str, Any]) -> tuple[CheckResult, ...]:
    rows = {name: engine.load(name, [Path(path) for path in paths]) for name, paths in asked["relations"].items()}
    settings = Tolerances().settings(_at(asked))
    engine.load("settings", pa.table({name: pa.array([value]) for name, value in settings.items()}))
    engine.load("accounts", pa.table({"account_id": pa.array([0], pa.int64())}))
    checks = [check for check in all_checks() if check.area == _AREA and set(check.reads) <= set(rows)]
    stand_in(engine, checks, frozenset(rows))
    return tuple(run_check(engine, check, rows, max_breaks=asked["max_breaks"]) for check in checks)


def _said(checks: tuple[CheckResult, ...]) -> dict[str, Any]:
    breaks = [row for check in checks for row in check.breaks.to_pylist()]
    reasons: dict[str, int] = {}
    for check in checks:
        for reason, count in check.breaks_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return {
        "reasons": reasons,
        "checks_s": {check.name: check.duration_s for check in checks},
        "matched": [[each.outcome, each.currency, each.count] for check in checks for each in check.matched],
        "breaks": sorted([row["reason"], row["reference"], row["currency"], str(row["amount_minor"])] for row in breaks)
        if len(breaks) <= 20_000  # noqa: PLR2004 - to be compared with another engine's, not to be kept
        else [],
    }


main()
