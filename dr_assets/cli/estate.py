"""`dr-assets estate check|discover`: whether the declared policy is sound, and covers what is there."""

import json
import os
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dr_assets.cli import policy
from dr_assets.cli.context import DefsOption, JsonOption, estate_of
from dr_assets.estate.declarations import check_estate, default_defs_dir
from dr_assets.estate.durations import format_duration
from dr_assets.estate.key_rules import demo_only
from dr_assets.estate.model import Regime
from dr_assets.estate.regimes import UNCONFIRMED

app = typer.Typer(no_args_is_help=True, help="The policy as data: check it, and find what it doesn't cover.")
policy.add_to(app)
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
            table.add_column(column, overflow="fold", no_wrap=column in ("dataset", "owners"))
        for dataset in estate.datasets.values():
            table.add_row(
                dataset.name,
                dataset.tier.name,
                format_duration(dataset.rpo),
                format_duration(dataset.rto),
                "\n".join(
                    (f"{dataset.retention.lock} {dataset.retention.days} d", *map(_told, dataset.retention.regimes))
                ),
                "\n".join((dataset.vault, *dataset.replicas)),
                "\n".join(dataset.owners),
            )
        Console().print(table)
        note = demo_only(estate)
        if note:
            typer.echo(f"NOTE: {note}", err=True)


def _told(regime: Regime) -> str:
    return f"{regime.name} ({regime.days} d, {'confirmed' if regime.confirmed else UNCONFIRMED.upper()})"


@app.command("discover")
def discover(defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """List databases, topics and buckets that the credentials can see and no dataset declares; exit 1 if any."""
    from dr_assets.stores.discover import undeclared  # noqa: PLC0415 - drivers of every kind: `check` needs none

    found = undeclared(estate_of(defs), os.environ)
    tables = (
        ("database", ("server", "database", "size_bytes"), [asdict(one) for one in found.databases]),
        ("topic", ("cluster_id", "topic", "partitions"), [asdict(one) for one in found.topics]),
        ("bucket", ("endpoint", "bucket", "prefix"), [asdict(one) for one in found.places]),
    )
    if as_json:
        typer.echo(json.dumps([{"kind": kind} | row for kind, _, rows in tables for row in rows], indent=2))
    else:
        for kind, columns, rows in tables:
            if rows:
                _show(f"{kind}s that no dataset declares", columns, rows)
        if not found:
            typer.echo("every database, topic and bucket that the credentials can see is declared")
    if found:
        raise typer.Exit(FAILED)


def _show(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(escape(str(row[column])) for column in columns))
    Console().print(table)
