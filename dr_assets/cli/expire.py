"""`dr-assets expire DATASET`: what no kept recovery point needs and whose lock is over; a dry run unless `--yes`."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, dataset_of, estate_of, vault_of
from dr_assets.stores.postgres.expire import Expiry, describe, expire, plan_expiry
from dr_assets.stores.postgres.expiry_plan import ExpiryPlan
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.vault import Vault

REFUSED = 1


def expire_command(
    dataset: DatasetArgument,
    yes: Annotated[bool, typer.Option("--yes", help="remove it; without this only show what would go")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would go; the default")] = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove, by version id and only where the lock is over, what lies outside the recovery window."""
    if yes and dry_run:
        raise typer.BadParameter("give --yes or --dry-run, not both")
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    vault = vault_of(estate, declared.vault, signing=yes)
    if not yes:
        plan = plan_expiry(vault, declared.name)
        typer.echo(json.dumps(plan_json(plan), indent=2)) if as_json else _show(plan, Console())
        return
    done = _expire(vault, declared.name)
    if as_json:
        typer.echo(json.dumps(done.to_json(), indent=2))
    else:
        _tell(done, Console(highlight=False))
    if done.refused:
        raise typer.Exit(REFUSED)


def _expire(vault: Vault, dataset: str) -> Expiry:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        return expire(vault, dataset, listener=show)


def plan_json(plan: ExpiryPlan) -> dict[str, Json]:
    """Every name with its versions and why, and what is kept."""
    return {
        "dataset": plan.dataset,
        "window_begin": plan.window_begin.isoformat(),
        "keeps": [str(backup.key) for backup in plan.kept],
        "removes": [
            {"key": str(row.key), "versions": list[Json](row.versions), "size_bytes": row.size_bytes, "why": row.stage}
            for row in plan.rows
        ],
        "size_bytes": plan.size_bytes,
        "locked": plan.locked,
        "next_at": None if plan.next_at is None else plan.next_at.isoformat(),
        "has_more": plan.has_more,
        "troubles": list[Json](plan.troubles),
    }


def _show(plan: ExpiryPlan, console: Console) -> None:
    table = Table(title=f"{plan.dataset}: outside the recovery window that begins {plan.window_begin:%Y-%m-%d %H:%M}Z")
    for column in ("why", "objects", "MB"):
        table.add_column(column, overflow="fold", justify="left" if column == "why" else "right")
    for stage, count, size_bytes in describe(plan):
        table.add_row(stage, str(count), f"{size_bytes / 1e6:.1f}")
    console.print(table)
    if plan.has_more:
        console.print("there is more behind these; --yes removes that as well", highlight=False)
    if plan.next_at is not None:
        console.print(f"{plan.locked} more are locked, the first until {plan.next_at:%Y-%m-%d %H:%M}Z", highlight=False)
    for trouble in plan.troubles:
        console.print(trouble, markup=False, highlight=False)
    console.print(f"{len(plan.kept)} base backups are kept; nothing was removed", highlight=False)


def _tell(done: Expiry, console: Console) -> None:
    console.print(f"{done.dataset}: {done.removed} objects removed, {done.size_bytes / 1e6:.1f} MB")
    for line in (*done.refused, *([] if done.last is None else done.last.troubles)):
        console.print(line, markup=False)
