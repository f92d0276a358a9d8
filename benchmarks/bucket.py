"""`python -m benchmarks.bucket`: a bucket copied through two kills, restored through one, compared; a million listed.

What belongs here: the order, the comparison, the numbers. What stays out: what runs in processes of their own
(bucket_child.py, bucket_million.py).

The content is random, as encrypted or compressed documents are; sealing and reading back are inside the times. Source,
vault and target are one throwaway store on this machine, so its requests bound what is measured for small documents.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from benchmarks.bucket_rig import Rig, peak_bytes
from benchmarks.figures import RESULTS, Tell, concluded, draw, teller, unwind_on_signals, write
from benchmarks.postgres.page import table
from benchmarks.postgres.rows import Floor, Row
from benchmarks.postgres.rows import row as row_of
from dr_assets.engines.placement import shared_folder
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.stores.bucket.listing import listing
from dr_assets.stores.bucket.source import Place

_RESULTS: Final = RESULTS / "bucket.json"
BEGIN: Final = "<!-- measured, buckets: begin (drawn by `python -m benchmarks.bucket --render`) -->"
END: Final = "<!-- measured, buckets: end -->"
_DOCUMENTS_A_PERSON: Final = 20
_LARGE_BYTES: Final = 8 << 20
_MEMORY: Final = Floor("ours", at_most=512.0)
_LISTED: Final = {
    "full_s": "a full run, everything stored already",
    "unchanged_s": "a run that finds nothing new",
    "unchanged_with_lost_index_s": "the same, the index lost",
    "plan_all_s": "a restore's plan of everything",
    "plan_person_s": "a restore's plan of one person",
}


def main() -> int:
    """Everything, one line each; 1 where something is not equal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=64, help="documents of 8 MiB, in a bucket of their own")
    parser.add_argument("--listed", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=_RESULTS)
    parser.add_argument("--note", default="", help="what has to be known of this run")
    parser.add_argument("--render", action="store_true", help="measure nothing, redraw the page from the results")
    asked = parser.parse_args()
    unwind_on_signals()
    tell = teller()
    if not asked.render:
        _run(asked, tell)
    rows = json.loads(asked.output.read_text())
    if asked.output == _RESULTS:
        draw(BEGIN, END, table(rows))
    return concluded(tell, asked.output, rows)


def _run(asked: argparse.Namespace, tell: Tell) -> None:
    """Measure, and write the rows."""
    folder = shared_folder("bench", Path.cwd() / f"bucket-{os.getpid()}")
    programs = find_programs("weed")
    try:
        with (
            SeaweedRegion(folder / "one", "one", programs) as one,
            SeaweedRegion(folder / "two", "two", programs) as two,
        ):
            one.start()
            two.start()
            said = _measure(one, two, folder, asked, tell)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tell(json.dumps(said, indent=2))
    write(asked.output, rows_of(said, asked.note))


def rows_of(said: Mapping[str, Any], note: str = "") -> list[Row]:
    """What was measured, as every benchmark tells it."""
    found: list[Row] = []
    versions = {"store": str(said["store"]).partition(" from ")[0]}

    def add(what: str, unit: str, value: float, floor: Floor | None = None, why: str = "") -> None:
        says = "; ".join(filter(None, (why, note)))
        found.append(row_of(what, unit, [value], floor=floor, versions=versions, note=says))

    for kind, size in (("small", "2 to 8 kB"), ("large", "8 MiB")):
        each = said[kind]
        what = f"{each['versions']:,} versions, documents of {size}"
        kills = f"{each['kills']} kills on the way" if each["kills"] else ""
        add(
            f"{what}: differences after copy and restore", "names", each["differences"], Floor("ours", at_most=0), kills
        )
        for verb in ("copy", "restore"):
            add(f"{what}: {verb}", "1/s", each[f"{verb}_objects_s"], why=kills)
            add(f"{what}: {verb}, bytes", "MB/s", each[f"{verb}_mb_s"], why=kills)
        add(f"{what}: peak memory of a process", "MB", each["peak_bytes"] / 1e6)
    listed = said["listed"]
    what = f"{listed['rows']:,} versions listed"
    for name, means in _LISTED.items():
        add(f"{what}: {means}", "s", listed[name], why="the listing is made up, all behind it is real")
    add(f"{what}: index on disk", "MB", listed["index_bytes"] / 1e6)
    add(f"{what}: peak memory", "MB", listed["peak_bytes"] / 1e6, _MEMORY)
    return found


def _measure(
    one: SeaweedRegion, two: SeaweedRegion, folder: Path, asked: argparse.Namespace, tell: Tell
) -> dict[str, Any]:
    rig = Rig.make(one, two, folder, "small")
    _fill(one, "small", asked.objects, lambda rng: rng.randbytes(rng.randint(2_000, 8_000)), tell)
    small = _round(rig, one, "small", asked.objects, tell, kills=(0.25, 0.6), restore_kill=0.4)
    large_rig = Rig(**{**rig.to_json(), "source_bucket": "large", "folder": str(folder / "large")})
    _fill(one, "large", asked.large, lambda rng: rng.randbytes(_LARGE_BYTES), tell)
    large = _round(large_rig, one, "large", asked.large, tell, kills=(), restore_kill=None)
    million_rig = Rig(**{**rig.to_json(), "source_bucket": "listed", "folder": str(folder / "million")})
    one.create_bucket("listed", object_lock=True)
    million = _child("benchmarks.bucket_million", {"rig": million_rig.to_json(), "count": asked.listed})
    return {
        "store": one.programs.describe(),
        "small": small,
        "large": large,
        "listed": _rounded(million),
    }


def _fill(region: SeaweedRegion, bucket: str, count: int, content: Any, tell: Tell) -> None:
    """Documents with metadata, every tenth with tags, every hundredth overwritten, every two hundredth deleted."""
    client = region.client(request_checksum_calculation="when_required", max_pool_connections=64)
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def put(number: int) -> None:
        rng = random.Random(number)  # noqa: S311 - content to be told apart, not to be secret
        name = f"kyc/p{number // _DOCUMENTS_A_PERSON:05d}/{number:06d}.pdf"
        more: dict[str, Any] = {"Tagging": "kind=passport"} if number % 10 == 0 else {}
        for _ in range(2 if number % 100 == 0 else 1):
            client.put_object(
                Bucket=bucket, Key=name, Body=content(rng), ContentType="application/pdf",
                Metadata={"number": str(number)}, **more,
            )  # fmt: skip
        if number % 200 == 1:
            client.delete_object(Bucket=bucket, Key=name)

    with ThreadPoolExecutor(12) as pool:
        for done, _ in enumerate(pool.map(put, range(count)), start=1):
            if done % 10_000 == 0:
                tell(f"{bucket}: {done} put")


def _round(
    rig: Rig,
    region: SeaweedRegion,
    bucket: str,
    count: int,
    tell: Tell,
    *,
    kills: tuple[float, ...],
    restore_kill: float | None,
) -> dict[str, Any]:
    """Copy with kills, restore with one, compare."""
    target = f"{bucket}-restored"
    client = region.client()
    client.create_bucket(Bucket=target)
    begin_s = time.monotonic()
    peaks = [_killed(rig, "copy", int(share * count), target, tell) for share in kills]
    last = _child("benchmarks.bucket_child", _asked(rig, "copy", target))
    copy_s = time.monotonic() - begin_s
    tell(f"{bucket}: copied in {copy_s:.0f} s: {last}")
    begin_s = time.monotonic()
    if restore_kill is not None:
        peaks.append(_killed(rig, "restore", int(restore_kill * count), target, tell))
    back = _child("benchmarks.bucket_child", _asked(rig, "restore", target))
    restore_s = time.monotonic() - begin_s
    tell(f"{bucket}: restored in {restore_s:.0f} s: {back}")
    versions, size_bytes = last["held"]["versions"], last["held"]["size_bytes"]
    return _rounded(
        {
            "versions": versions,
            "size_bytes": size_bytes,
            "kills": len(kills) + (restore_kill is not None),
            "copied_by_the_last_attempt": last["copied"],
            "copy_s": copy_s,
            "copy_objects_s": versions / copy_s,
            "copy_mb_s": size_bytes / copy_s / 1e6,
            "restored": back["restored"],
            "restore_s": restore_s,
            "restore_objects_s": back["restored"]["versions"] / restore_s,
            "restore_mb_s": back["restored"]["size_bytes"] / restore_s / 1e6,
            "peak_bytes": max([*peaks, last["peak_bytes"], back["peak_bytes"]]),
            "differences": _differences(rig, bucket, target),
        }
    )


def _asked(rig: Rig, what: str, target: str) -> dict[str, Any]:
    return {"rig": rig.to_json(), "what": what, "target": target, "status": f"{rig.folder}/{what}.status"}


def _child(module: str, asked: dict[str, Any]) -> dict[str, Any]:
    Path(asked["rig"]["folder"]).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", module], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _killed(rig: Rig, what: str, after: int, target: str, tell: Tell) -> int:
    """Let it run until so many are done, then SIGKILL; its peak until then."""
    asked = _asked(rig, what, target)
    status = Path(asked["status"])
    status.unlink(missing_ok=True)
    child = subprocess.Popen([sys.executable, "-m", "benchmarks.bucket_child"], stdin=subprocess.PIPE, text=True)
    assert child.stdin is not None  # noqa: S101 - for the type checker
    child.stdin.write(json.dumps(asked))
    child.stdin.close()
    while child.poll() is None and _number(status) < after:
        time.sleep(0.2)
    if child.poll() is not None:
        raise RuntimeError(f"{what} ended before it was killed, with {child.returncode}")
    peak = peak_bytes(child.pid)
    child.kill()
    child.wait()
    tell(f"{what}: killed after {_number(status)}")
    return peak


def _number(path: Path) -> int:
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):
        return 0


def _differences(rig: Rig, bucket: str, target: str) -> int:
    """Names of which size, digest (as the store tells it), type, metadata or tags differ between source and target."""
    source, back = (dict(_current(rig, name)) for name in (bucket, target))
    different = {name for name in source.keys() | back.keys() if source.get(name) != back.get(name)}
    places = rig.bucket(bucket), rig.bucket(target)
    sample = random.Random(1).sample(sorted(source), min(2_000, len(source)))  # noqa: S311 - which ones does not matter
    with ThreadPoolExecutor(12) as pool:
        sames = pool.map(lambda name: _belongs(places[0], name) == _belongs(places[1], name), sample)
        different |= {name for name, same in zip(sample, sames, strict=True) if not same}
    return len(different)


def _current(rig: Rig, bucket: str) -> Iterator[tuple[str, tuple[int, str]]]:
    for rows in listing(rig.bucket(bucket)):
        last = ""
        for row in rows:
            if row.name != last and not row.is_marker:
                # Of what was put in pieces the store's tag is no digest of the whole; the restore has read it back.
                yield row.name, (row.size_bytes, row.etag if "-" not in row.etag and row.size_bytes < (4 << 20) else "")
            last = row.name


def _belongs(place: Place, name: str) -> Any:
    head = place.client.head_object(Bucket=place.bucket, Key=name)
    return head["ContentType"], head["Metadata"], place.tags(name, {})


def _rounded(said: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in said.items()}


if __name__ == "__main__":
    sys.exit(main())
