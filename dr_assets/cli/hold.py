"""`dr-assets vault hold place|release|list|keep`: legal holds, which no date and no policy ends."""

import getpass
import json
import os
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, dataset_of, estate_of
from dr_assets.cli.shown import shown
from dr_assets.cli.times import iso, parse_moment
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Dataset, Estate
from dr_assets.stores.postgres.held import needed_from, needed_until
from dr_assets.vault.connect import open_vault
from dr_assets.vault.retention.holds import Hold, all_holds, keep_holds, place_hold, release_hold
from dr_assets.vault.vault import Vault

app = typer.Typer(no_args_is_help=True, help="Legal holds: what must stay until somebody lets it go.")

ReasonOption = Annotated[str, typer.Option("--reason", help="the case, the order, or who allowed the release")]
ByOption = Annotated[str | None, typer.Option("--by", help="who says so; the user of this host by default")]
VaultOption = Annotated[
    str | None, typer.Option("--vault", help="which vault; the dataset's own and all its replicas by default")
]


@app.command("place")
def place(
    dataset: DatasetArgument,
    reason: ReasonOption,
    begin: Annotated[str | None, typer.Option("--from", help="first instant that must stay restorable")] = None,
    end: Annotated[str | None, typer.Option("--to", help="last such instant; open by default")] = None,
    objects: Annotated[list[str] | None, typer.Option("--object", help="one object by its full name; repeat")] = None,
    by: ByOption = None,
    vault: VaultOption = None,
    defs: DefsOption = None,
) -> None:
    """Hold a whole dataset, what a stretch of time needs, or single objects; data keys are held with any of them."""
    if objects and (begin or end):
        raise PolicyError("hold.two_scopes", "objects and a time range are given", "place two holds")
    first, last = (parse_moment(text) if text else None for text in (begin, end))
    if first and last and last < first:
        raise PolicyError("hold.backwards", "--to lies before --from", "swap them")
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    for opened in _vaults(estate, declared, vault):
        hold, flagged = _place(opened, declared.name, reason, by or getpass.getuser(), first, last, objects or [])
        typer.echo(f"{opened.name}: hold {hold.hold_id} is placed on {declared.name}, {flagged} objects are flagged")


def _place(
    vault: Vault, dataset: str, reason: str, by: str, begin: datetime | None, end: datetime | None, objects: list[str]
) -> tuple[Hold, int]:
    return place_hold(
        vault, dataset, reason=reason, placed_by=by, begin=begin, end=end, objects=objects,
        stored_from=None if begin is None else needed_from(vault, dataset, begin),
        until=None if end is None else needed_until(end),
    )  # fmt: skip


@app.command("release")
def release(
    dataset: DatasetArgument,
    hold: Annotated[str, typer.Argument(metavar="HOLD", help="its id, as `list` shows it")],
    reason: ReasonOption,
    by: ByOption = None,
    vault: Annotated[str | None, typer.Option("--vault", help="which vault; the dataset's own by default")] = None,
    defs: DefsOption = None,
) -> None:
    """Let go of what one hold covers and no other does. Run again after a kill: it finishes."""
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    opened = open_vault(estate, vault or declared.vault, os.environ)
    freed = release_hold(opened, declared.name, hold, reason=reason, released_by=by or getpass.getuser())
    typer.echo(f"{opened.name}: hold {hold} is released, {freed} objects are free")


@app.command("keep")
def keep(dataset: DatasetArgument, vault: VaultOption = None, defs: DefsOption = None) -> None:
    """Flag what was sealed since a hold was placed; the check `locks` says when it is due."""
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    for opened in _vaults(estate, declared, vault):
        typer.echo(f"{opened.name}: {keep_holds(opened, declared.name)} objects are flagged anew")


@app.command("list")
def list_command(
    dataset: DatasetArgument,
    vault: Annotated[str | None, typer.Option("--vault", help="which vault; the dataset's own by default")] = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every hold that was ever placed, and whether it is in force."""
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    rows = all_holds(open_vault(estate, vault or declared.vault, os.environ, signing=False, role="reader"), dataset)
    if as_json:
        told = [hold.to_json() | {"placed_at": iso(hold.placed_at), "in_force": not is_over} for hold, is_over in rows]
        typer.echo(json.dumps(told, indent=2))
        return
    Console().print(_table(dataset, rows))


def _table(dataset: str, rows: Sequence[tuple[Hold, bool]]) -> Table:
    table = Table(title=f"legal holds on {dataset}", title_justify="left")
    for column in ("hold", "in force", "placed", "by", "reason", "covers"):
        table.add_column(column, overflow="fold")
    for hold, is_over in rows:
        is_held = "no" if is_over else "yes"
        told = (hold.hold_id, is_held, hold.placed_at.isoformat(), hold.placed_by, hold.reason, _scope(hold))
        table.add_row(*map(shown, told))
    return table


def _scope(hold: Hold) -> str:
    if hold.objects:
        return f"{len(hold.objects)} objects"
    if hold.begin is None and hold.end is None:
        return "everything"
    return f"{iso(hold.begin) or 'the beginning'} to {iso(hold.end) or 'open'}"


def _vaults(estate: Estate, declared: Dataset, name: str | None) -> list[Vault]:
    """With the vault's own pair of keys: no role may place or release a hold (docs/roles.md)."""
    names = (name,) if name else (declared.vault, *declared.replicas)
    return [open_vault(estate, one, os.environ) for one in names]
