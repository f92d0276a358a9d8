"""`dr-assets estate check|discover`: whether the declared policy is sound, and covers what is there."""

import json
import os
from dataclasses import asdict

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli import policy
from dr_assets.cli.context import DefsOption, JsonOption, estate_of
from dr_assets.estate.declarations import check_estate, default_defs_dir
from dr_assets.estate.durations import format_duration
from dr_assets.estate.key_rules import demo_only
from dr_assets.estate.model import Regime
from dr_assets.estate.regimes import UNCONFIRMED
from dr_assets.stores.postgres.discover import undeclared_databases

app = typer.Typer(no_args_is_help=True, help="The policy as data: check it, and find what it doesn't cover.")
FAILED = 1


@app.command("check")
def check(defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """Check every declaration; exit 1 and name file, line and reason where one is refused."""
    findings = check_estate(defs if defs is not None else default_defs_dir())
    if as_json:
        rows = [{"file": str(f.path), "line": f.line, "code": f.code, "reason": f.reason} for f in findings]
        typer.echo(json.dumps({"ok": not findings, "findings": rows}, indent=2))
    else:
        for finding in findings:
            typer.echo(f"{finding.path}:{finding.line}: {finding.reason} [{finding.code}]", err=True)
    if findings:
        raise typer.Exit(FAILED)
    if not as_json:
        estate = estate_of(defs)
        table = Table(title=f"estate {estate.name}: every declaration holds", title_justify="left")
        for column in ("dataset", "tier", "RPO", "RTO", "lock", "vaults", "owners"):
            table.add_column(column)
        for dataset in estate.datasets.values():
            table.add_row(
                dataset.name,
                dataset.tier.name,
                format_duration(dataset.rpo),
                format_duration(dataset.rto),
                "\n".join(
                    (f"{dataset.retention.lock} {dataset.retention.days} d", *map(_told, dataset.retention.regimes))
                ),
                ", ".join((dataset.vault, *dataset.replicas)),
                ", ".join(dataset.owners),
            )
        Console().print(table)
        note = demo_only(estate)
        if note:
            typer.echo(f"NOTE: {note}", err=True)


def _told(regime: Regime) -> str:
    return f"{regime.name} ({regime.days} d, {'confirmed' if regime.confirmed else UNCONFIRMED.upper()})"


@app.command("discover")
def discover(defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """List databases that the credentials can see and no dataset declares; exit 1 if there are any."""
    found = undeclared_databases(estate_of(defs), os.environ)
    if as_json:
        typer.echo(json.dumps([asdict(database) for database in found], indent=2))
    elif found:
        table = Table(title="databases that no dataset declares", title_justify="left")
        for column in ("server", "database", "MB"):
            table.add_column(column)
        for database in found:
            table.add_row(database.server, database.database, f"{database.size_bytes / 1e6:.1f}")
        Console().print(table)
    else:
        typer.echo("every database that the credentials can see is declared")
    if found:
        raise typer.Exit(FAILED)


policy.add_to(app)
