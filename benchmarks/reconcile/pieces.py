"""The pieces: what is measured, one function each.

What belongs here: clocks, rows, floors, and that what was planted is found. What stays out: making and running them.
"""

import subprocess
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.postgres.rows import Floor, row
from benchmarks.reconcile.books import Books
from benchmarks.reconcile.rig import Bench, Watched, copy_in

_WHOLE: Final = 10_000_000
_TEN_TIMES: Final = 100_000_000
_SPARK: Final = 1_000_000
_JOIN: Final = "payments/settled_agree"
_GB: Final = 1e9
_NOTE: Final = "random references; every planted break found, none other"


def whole(bench: Bench) -> None:
    """The books in Postgres against Stripe's file: everything from the first byte read to the last check."""
    books = bench.books(_WHOLE)
    path = _made(bench, books)
    took, joins, peaks, extracts, worked = [], [], [], [], []
    for number in range(bench.runs):
        watched = bench.ask(
            what="postgres", dsn=bench.server.dsn(), file=str(path), as_of_us=books.as_of_us, areas=["payments"]
        )
        _require_planted(books, watched)
        took.append(watched.said["duration_s"])
        joins.append(watched.said["checks_s"][_JOIN])
        peaks.append(watched.peak_bytes / _GB)
        worked.append(watched.said["cpu_s"])
        extracts.append(max(watched.said["extract_s"].values()))
        bench.tell(f"  run {number + 1}: {took[-1]:.1f} s, {worked[-1]:.1f} CPU s, {watched.said['extract_s']}")
        bench.tell(f"  {watched.said['checks_s']}")
    named = _named(books)
    versions = bench.versions()
    bench.rows += [
        row(f"{named}: extraction, file and all checks of payments", "s", took, floor=Floor("ours", at_most=20),
            versions=versions, note=_NOTE),
        row(f"{named}: of our process, on all cores", "CPU s", worked, versions=versions),
        row(f"{named}: of it reading both sides", "s", extracts, versions=versions),
        row(f"{named}: the join by reference alone", "s", joins, floor=Floor("ours", at_most=4), versions=versions),
        row(f"{named}: peak memory", "GB", peaks, floor=Floor("ours", at_most=2), versions=versions),
    ]  # fmt: skip


def file(bench: Bench) -> None:
    """The file alone, from bytes to minor units."""
    books = bench.books(_WHOLE)
    path = _made(bench, books)
    watched = [bench.ask(what="file", file=str(path)) for _ in range(bench.runs)]
    lines = watched[0].said["rows"]
    bench.rows += [
        row(f"{_named(books)}: Stripe's file read", "million lines/s",
            [lines / each.said["duration_s"] / 1e6 for each in watched], versions=bench.versions()),
        row(f"{_named(books)}: Stripe's file read, peak memory", "GB", [each.peak_bytes / _GB for each in watched],
            versions=bench.versions()),
    ]  # fmt: skip


def spill(bench: Bench) -> None:
    """Ten times as much, both sides as Parquet: it has to end within the same memory, by spilling."""
    books = bench.books(_TEN_TIMES)
    sides = _sides(bench, books)
    try:
        bench.tell(f"  both sides made: {sum(path.stat().st_size for path in sides.values()) / _GB:.1f} GB")
        watched = bench.ask(
            what="parquet", engine="duckdb", as_of_us=books.as_of_us, relations={n: [str(p)] for n, p in sides.items()}
        )
    finally:
        _forget(sides)
    _require_planted(books, watched)
    bench.tell(f"  {watched.said['checks_s']}")
    named = _named(books)
    bench.rows += [
        row(f"{named}: all checks of payments, spilling", "s", [watched.said["duration_s"]],
            versions=bench.versions(), note=_NOTE),
        row(f"{named}: peak memory, spilling", "GB", [watched.peak_bytes / _GB], floor=Floor("ours", at_most=2),
            versions=bench.versions()),
    ]  # fmt: skip


def spark(bench: Bench) -> None:
    """The same statements on Spark give the same breaks, row by row."""
    from importlib.metadata import version  # noqa: PLC0415 - Spark is an extra

    books = Books(_SPARK)
    sides = _sides(bench, books)
    asked: dict[str, Any] = {
        "what": "parquet", "as_of_us": books.as_of_us, "relations": {n: [str(p)] for n, p in sides.items()},
    }  # fmt: skip
    try:
        ours = bench.ask(engine="duckdb", **asked)
        theirs = bench.ask(engine="spark", **asked | {"memory": "1g"})
    finally:
        _forget(sides)
    _require_planted(books, ours)
    same = ours.said["breaks"] == theirs.said["breaks"] and sorted(map(str, ours.said["matched"])) == sorted(
        map(str, theirs.said["matched"])
    )
    versions = bench.versions(spark=version("pyspark"))
    bench.rows += [
        row(f"{_named(books)}: breaks that Spark finds and DuckDB doesn't, or the other way round", "breaks",
            [0 if same else 1], floor=Floor("ours", at_most=0), versions=versions,
            note=f"{len(ours.said['breaks'])} breaks compared with reason, reference, currency and amount"),
        row(f"{_named(books)}: all checks of payments", "s", [ours.said["duration_s"]],
            against="the same on Spark, local", theirs=[theirs.said["duration_s"]], versions=versions),
    ]  # fmt: skip


def reladiff(bench: Bench) -> None:
    """A tool that compares tables, given both sides in one Postgres: its best case."""
    if not (bench.reladiff / "bin" / "reladiff").exists():
        bench.tell("  no reladiff here: scripts/install_reladiff.sh")
        return
    books = bench.books(_WHOLE)
    path = _made(bench, books)
    summed = "SELECT reference, any_value(currency) AS currency, sum(gross_minor) AS amount_minor"
    plain = bench.write(
        f"{summed} FROM ({books.lines()}) GROUP BY reference", bench.folder / "settled.csv", "FORMAT csv, HEADER"
    )
    bench.execute("CREATE UNLOGGED TABLE bench.settled (reference text, currency text, amount_minor bigint)")
    loaded_s = copy_in(bench.server.dsn(), plain, "bench.settled")
    bench.execute(
        "ALTER TABLE bench.settled ADD PRIMARY KEY (reference)",
        "ALTER TABLE bench.postings ADD PRIMARY KEY (reference)",
    )
    plain.unlink()
    begin_s = time.monotonic()
    command = [
        str(bench.reladiff / "bin" / "reladiff"), _url(bench), "bench.postings", "bench.settled", "-k", "reference",
        "-c", "currency", "-c", "amount_minor", "--algorithm", "joindiff", "--stats",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    took_s = time.monotonic() - begin_s
    if done.returncode:
        raise RuntimeError(f"reladiff: {done.stderr[-500:]}")
    bench.tell(f"  reladiff: {' '.join(done.stdout.split())[:300]}")
    mine = bench.ask(
        what="postgres", dsn=bench.server.dsn(), file=str(path), as_of_us=books.as_of_us, areas=["payments"]
    )
    bench.rows.append(
        row(f"{_named(books)}: from file and Postgres to a list of what differs", "s", [mine.said["duration_s"]],
            against="reladiff, joindiff within Postgres", theirs=[took_s + loaded_s],
            versions=bench.versions(reladiff=_version(bench)),
            note=f"theirs: {loaded_s:.1f} s of it loading the lines by COPY, summed by reference beforehand; it tells "
            "rows apart, not reasons, and knows no dates, refunds or batches")
    )  # fmt: skip
    bench.execute("DROP TABLE bench.settled", "ALTER TABLE bench.postings DROP CONSTRAINT postings_pkey")


def _made(bench: Bench, books: Books) -> Path:
    """The books in Postgres and Stripe's file, made once."""
    path = bench.folder / "stripe.csv"
    if not path.exists():
        begin_s = time.monotonic()
        bench.execute(*books.postgres())
        bench.write(books.file(), path, "FORMAT csv, HEADER")
        size_gb = path.stat().st_size / _GB
        bench.tell(f"  {books.rows} postings and {size_gb:.1f} GB of lines in {time.monotonic() - begin_s:.0f} s")
    return path


def _sides(bench: Bench, books: Books) -> dict[str, Path]:
    form = "FORMAT parquet, COMPRESSION zstd"
    return {
        "payments": bench.write(books.payments(), bench.folder / "payments.parquet", form),
        "provider_lines": bench.write(books.relation(), bench.folder / "lines.parquet", form),
    }


def _forget(sides: dict[str, Path]) -> None:
    for path in sides.values():
        path.unlink()


def _require_planted(books: Books, watched: Watched) -> None:
    found = watched.said["reasons"]
    if found != books.planted:
        raise RuntimeError(f"planted {books.planted}, found {found}")


def _named(books: Books) -> str:
    return f"{books.rows // 1_000_000}M postings, as many lines"


def _url(bench: Bench) -> str:
    import psycopg.conninfo as info  # noqa: PLC0415 - for this alone

    parts = info.conninfo_to_dict(bench.server.dsn())
    return f"postgresql://{parts['user']}:{parts.get('password', '')}@127.0.0.1:{parts['port']}/{parts['dbname']}"


def _version(bench: Bench) -> str:
    asked = [str(bench.reladiff / "bin" / "pip"), "show", "reladiff"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return next((line.split()[-1] for line in said.splitlines() if line.startswith("Version")), "unknown")
