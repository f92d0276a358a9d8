"""`dr-assets vault extend|locks|sample|cold-rule`: locks lengthened and judged, old objects read back or moved away."""

import json
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, dataset_of, estate_of, vault_of
from dr_assets.cli.times import parse_moment
from dr_assets.vault.connect import open_vault
from dr_assets.vault.retention.cold_rule import cold_rule
from dr_assets.vault.retention.extension import extend_locks
from dr_assets.vault.retention.lock_check import check_locks
from dr_assets.vault.retention.sampling import plan_sample, sample

DAMAGED = 1

VaultOption = Annotated[str | None, typer.Option("--vault", help="which vault; the dataset's own by default")]


def extend(
    dataset: DatasetArgument,
    until: Annotated[str, typer.Option("--until", help="locks end then or later, at most twelve years from now")],
    objects: Annotated[list[str] | None, typer.Option("--object", help="one object by its full name; repeat")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do it; a compliance lock can never be shortened again")] = False,
    vault: VaultOption = None,
    defs: DefsOption = None,
) -> None:
    """Lengthen the locks of a dataset, or of some of its objects, and of the data keys that open them."""
    moment = parse_moment(until)
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    # Extending is the roller's right; the word of it is sealed by the same pair.
    opened = open_vault(estate, vault or declared.vault, os.environ, signing=yes, role="roller")
    done = extend_locks(opened, declared.name, moment, objects=objects or (), dry_run=not yes)
    verb = "were extended" if yes else "would be extended (--yes does it, and nobody can undo it)"
    typer.echo(f"{done.extended} of {done.objects} locks {verb}, to {done.until:%Y-%m-%d %H:%M}Z at least")


def locks(
    dataset: DatasetArgument,
    micros: Annotated[bool, typer.Option("--micros", help="ask for each micro-segment's lock as well")] = False,
    vault: VaultOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the store for every lock and hold each to its rule; exit 1 if one is missing, short or weak."""
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    report = check_locks(vault_of(estate, vault or declared.vault, signing=False), declared.name, micros=micros)
    if as_json:
        told = [{"object": one.key, "detail": one.detail} for one in report.troubles]
        counts = {
            "objects": report.objects,
            "locked": report.locked,
            "ended": report.ended,
            "held": report.held,
            "unheld": report.unheld,
        }
        typer.echo(json.dumps({"ok": not report.troubles, **counts, "troubles": told}, indent=2))
    else:
        for one in report.troubles:
            typer.echo(f"{one.key}: {one.detail}")
        typer.echo(
            f"{report.objects} locks asked for: {report.locked} hold, {report.ended} are over as planned,"
            f" {report.held} objects are under legal hold, {len(report.troubles)} are not as they should be"
        )
        if report.unheld:
            typer.echo(f"{report.unheld} objects are under legal hold and not flagged: `dr-assets vault hold keep`")
    if report.troubles:
        raise typer.Exit(DAMAGED)


def sample_command(
    dataset: DatasetArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say how much would be read")] = False,
    vault: VaultOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read back the share of the vault that is due, judge it, record it; exit 1 if something is damaged."""
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    opened = vault_of(estate, vault or declared.vault, signing=not dry_run)
    if dry_run:
        planned = plan_sample(opened, declared.name, declared.sampling)
        typer.echo(f"{planned.objects} of {planned.listed} objects, {planned.size_bytes / 1e6:.1f} MB, would be read")
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed} objects read"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sample", total=None)
        done = sample(
            opened, declared.name, declared.sampling, progress=lambda count: bar.update(task, completed=count)
        )
    if as_json:
        typer.echo(json.dumps(done.to_json(), indent=2))
    else:
        for finding in done.errors:
            typer.echo(f"{finding.kind}: {finding.key}: {finding.detail}")
        typer.echo(
            f"{done.objects} of {done.listed} objects, {done.size_bytes / 1e6:.1f} MB read in {done.duration_s:.1f} s;"
            f" {done.cold} lie cold; {len(done.errors)} damaged"
        )
    if done.errors:
        raise typer.Exit(DAMAGED)


def cold_rule_command(defs: DefsOption = None) -> None:
    """Print the bucket's lifecycle for what is declared cold, as put-bucket-lifecycle-configuration of AWS takes it."""
    estate = estate_of(defs)
    rules = [rule for dataset in estate.datasets.values() if (rule := cold_rule(estate.name, dataset)) is not None]
    typer.echo(json.dumps({"Rules": rules}, indent=2))


def add_to(app: typer.Typer) -> None:
    """Hang them into `dr-assets vault`."""
    app.command("extend")(extend)
    app.command("locks")(locks)
    app.command("sample")(sample_command)
    app.command("cold-rule")(cold_rule_command)
