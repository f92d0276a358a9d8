"""`dr-assets snapshot DATASET` and `dr-assets preflight DATASET`: a base backup, and whether one is possible."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from dr_assets.cli.bucket import copy_bucket
from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, dsn_of, estate_of, postgres_of, vault_of
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.preflight import preflight as judge_source
from dr_assets.stores.postgres.preflight import require_ready
from dr_assets.stores.postgres.snapshot import SnapshotProgress, SnapshotResult, take_snapshot

UNFIT = 1


IncrementalOption = Annotated[
    bool, typer.Option("--incremental", help="only what changed since the newest base backup (PostgreSQL 17 and newer)")
]


def snapshot(
    dataset: DatasetArgument,
    incremental: IncrementalOption = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stream a base backup straight into the vault; it becomes usable once the WAL it needs is stored as well.

    Of a bucket: copy what is new, as `dr-assets bucket copy` does.
    """
    keep_freed_memory()  # before anything begins a thread
    estate = estate_of(defs)
    bucket = estate.buckets().get(dataset)
    if bucket is not None:
        copy_bucket(estate, bucket, as_json=as_json)
        return
    declared = postgres_of(estate, dataset)
    dsn = dsn_of(declared)
    vault = vault_of(estate, declared.vault, signing=True, role="roller")
    require_ready(judge_source(dsn, declared), dsn)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"base backup of {declared.name}", total=None)

        def show(progress: SnapshotProgress) -> None:
            bar.update(task, completed=progress.received_bytes, total=progress.estimated_bytes)

        result = take_snapshot(vault, declared, dsn, incremental=incremental, progress=show)
    typer.echo(json.dumps(to_json(result), indent=2) if as_json else to_text(result))


def preflight(dataset: DatasetArgument, defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """Check whether the source can be protected; exit 1 and say what to change when it can't."""
    declared = postgres_of(estate_of(defs), dataset)
    findings = judge_source(dsn_of(declared), declared)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        typer.echo("\n".join(str(finding) for finding in findings) or f"nothing stands in the way of {declared.name}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(UNFIT)


def to_json(result: SnapshotResult) -> dict[str, object]:
    """What `--json` prints; sizes in bytes, `mb_s` in units of 10^6 bytes."""
    return {
        "snapshot_id": result.snapshot_id,
        "kind": result.kind,
        "depth": result.depth,
        "parent_snapshot_id": result.parent_snapshot_id,
        "why_full": result.why_full,
        "manifest_key": result.manifest_key,
        "start_lsn": format_lsn(result.start_lsn),
        "stop_lsn": format_lsn(result.stop_lsn),
        "timeline": result.timeline,
        "system_id": result.system_id,
        "size_bytes": result.size_bytes,
        "stored_bytes": result.stored_bytes,
        "parts": result.parts,
        "duration_s": round(result.duration_s, 3),
        "mb_s": round(result.mb_s, 1),
        "locked_until": result.lock.retain_until.isoformat(),
        "lock_mode": result.lock.mode,
    }


def to_text(result: SnapshotResult) -> str:
    """What people read."""
    built_on = f", incremental {result.depth} on {result.parent_snapshot_id}" if result.depth else ""
    instead = f"\na full in place of an incremental: {result.why_full}" if result.why_full else ""
    return (
        f"base backup {result.snapshot_id}{built_on}: {result.size_bytes / 1e6:.1f} MB in {result.parts} parts"
        f" ({result.stored_bytes / 1e6:.1f} MB stored) in {result.duration_s:.1f} s, {result.mb_s:.0f} MB/s;"
        f" {result.lock.mode.lower()} lock until {result.lock.retain_until:%Y-%m-%d %H:%M}Z{instead}"
    )
