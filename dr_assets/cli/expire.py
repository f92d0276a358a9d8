"""`dr-assets expire DATASET`: what no kept recovery point needs and whose lock is over; a dry run unless `--yes`."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dr_assets.cli.approvals import read_paper
from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, dataset_of, estate_of, vault_of
from dr_assets.cli.expire_planner import planner_of
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Dataset, Estate
from dr_assets.stores.postgres.expire import Expiry, describe, expire, plan_expiry
from dr_assets.stores.postgres.expire_consent import ACTION, Consent
from dr_assets.stores.postgres.expiry_plan import ExpiryPlan, Planner
from dr_assets.vault.approvals import Approvals, open_papers
from dr_assets.vault.connect import open_store
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.vault import Vault

REFUSED = 1


def expire_command(
    dataset: DatasetArgument,
    yes: Annotated[bool, typer.Option("--yes", help="remove it; without this only show what would go")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would go; the default")] = False,
    approved: Annotated[
        Path | None, typer.Option("--approved", help="the approved list, as `dr-assets approvals request` wrote it")
    ] = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove, by version id and only where the lock is over, what lies outside the recovery window.

    Where the estate declares approvals, --yes needs an --approved list that enough people have signed.
    """
    if yes and dry_run:
        raise typer.BadParameter("give --yes or --dry-run, not both")
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    planner = planner_of(declared)
    vault = vault_of(estate, declared.vault, signing=yes)
    if not yes:
        plan = plan_expiry(vault, declared.name, planner=planner)
        typer.echo(json.dumps(plan_json(plan), indent=2)) if as_json else _show(plan, Console())
        return
    consent = _consent(estate, vault, declared, approved)
    remover = open_store(estate, declared.vault, os.environ, role="expirer")
    done = _expire(vault, declared.name, remover, consent, planner)
    if as_json:
        typer.echo(json.dumps(done.to_json(), indent=2))
    else:
        _tell(done, Console(highlight=False))
    if done.refused:
        raise typer.Exit(REFUSED)


def _consent(estate: Estate, vault: Vault, dataset: Dataset, approved: Path | None) -> Consent | None:
    """The approved list with what uses the approval up; None where the estate asks nobody."""
    if approved is None:
        if estate.approvals is None:
            return None
        raise PolicyError(
            "approvals.needed",
            f"the estate has {estate.approvals.needed} of {len(estate.approvals.approvers)} people agree to a deletion",
            f"`dr-assets approvals request {dataset.name}`, have it signed, then give its file with --approved",
        )
    _, lines = open_papers(read_paper(approved))
    approvals = Approvals(vault, dataset.name, estate.approvals)
    return Consent(lines, lambda: approvals.consume(action=ACTION, objects=lines))


def _expire(
    vault: Vault, dataset: str, remover: ObjectStore, consent: Consent | None, planner: type[Planner]
) -> Expiry:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        return expire(vault, dataset, listener=show, remover=remover, consent=consent, planner=planner)


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
    console.print(f"{len(plan.kept)} points to begin a restore at are kept; nothing was removed", highlight=False)


def _tell(done: Expiry, console: Console) -> None:
    console.print(f"{done.dataset}: {done.removed} objects removed, {done.size_bytes / 1e6:.1f} MB")
    for line in (*done.refused, *([] if done.last is None else done.last.troubles)):
        console.print(line, markup=False)
