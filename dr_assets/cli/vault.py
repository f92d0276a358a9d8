"""`dr-assets vault init|verify|export|import`: make a vault, re-read all of it, copy it to files and back."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dr_assets.cli.bundle import BundleOption, export_command, import_command, vault_or_bundle
from dr_assets.cli.context import DefsOption, JsonOption, estate_of
from dr_assets.cli.times import parse_moment
from dr_assets.vault.connect import init_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import VerifyReport, verify
from dr_assets.vault.witness import Witness

app = typer.Typer(no_args_is_help=True, help="The vault: locked, encrypted, signed objects.")
DAMAGED = 1

app.command("export")(export_command)
app.command("import")(import_command)

VaultOption = Annotated[str, typer.Option("--vault", help="which of the estate's vaults")]


@app.command("init")
def init(vault: VaultOption = "primary", defs: DefsOption = None) -> None:
    """Create the bucket (versioned, Object Lock, default retention) and the keys that are not there yet."""
    for line in init_vault(estate_of(defs), vault, os.environ):
        typer.echo(line)


@app.command("verify")
def verify_command(
    vault: VaultOption = "primary",
    dataset: Annotated[str | None, typer.Option("--dataset", help="only this dataset")] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="judge the vault as it was at this time")] = None,
    witness: Annotated[
        Path | None, typer.Option("--witness", help="file of the newest known positions; updated when all is well")
    ] = None,
    from_bundle: BundleOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Re-read everything and name every damaged, missing or unlocked object; exit 1 if there is one."""
    opened = vault_or_bundle(estate_of(defs), vault, from_bundle)
    moment = parse_moment(as_of) if as_of else None
    known = Witness.load(witness) if witness else None
    report = _verify_with_progress(opened, dataset, moment, known)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        _show(report, Console())
    if not report.ok:
        raise typer.Exit(DAMAGED)
    if witness is not None and known is not None:
        # As it was at an earlier time the vault may lack what is known since: then nothing is forgotten.
        moved = known.merged(report.witness) if moment else known.moved_on(report.witness, opened.estate, dataset)
        moved.save(witness)


def _verify_with_progress(
    vault: Vault, dataset: str | None, as_of: datetime | None, witness: Witness | None
) -> VerifyReport:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("objects", total=None)
        return verify(
            vault,
            dataset=dataset,
            as_of=as_of,
            witness=witness,
            progress=lambda done, total, _: bar.update(task, completed=done, total=total),
        )


def _show(report: VerifyReport, console: Console) -> None:
    if report.findings:
        table = Table(title="findings", title_justify="left")
        for column in ("kind", "severity", "object", "detail"):
            table.add_column(column, overflow="fold")
        for finding in report.findings:
            version = f" (version {finding.version_id})" if finding.version_id else ""
            table.add_row(finding.kind, finding.severity, finding.key + version, finding.detail)
        console.print(table)
    console.print(
        f"{report.objects_total} objects, {report.objects_locked} locked, {report.size_bytes / 1e6:.1f} MB re-read in"
        f" {report.duration_s:.1f} s: {len(report.errors)} damaged or missing, {len(report.notices)} notices",
        highlight=False,
    )
