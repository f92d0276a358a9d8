"""`dr-assets drift`: what is strange about a database's backups, its numbers over time, and what was looked at."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, estate_of, postgres_of, vault_of
from dr_assets.cli.shown import shown
from dr_assets.cli.times import iso
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.errors import PolicyError
from dr_assets.observability.anomalies.record import (
    Look,
    accept_suspicions,
    looks,
    newest_look,
    read_past,
    suspicion_json,
)
from dr_assets.observability.anomalies.series import feature_of
from dr_assets.vault.vault import Vault

app = typer.Typer(no_args_is_help=True, help="What is strange about a database's backups, by their statistics.")
STRANGE = 1
_BARS = "▁▂▃▄▅▆▇█"
_UNSEEN = "·"


@app.command("show")
def show_command(
    dataset: DatasetArgument,
    since: Annotated[str, typer.Option("--since", help="also list the looks of the last 30d")] = "30d",
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """The newest backup's open suspicions with their evidence, and the looks before; exit 1 while something is open."""
    vault = _vault(dataset, defs)
    newest = newest_look(vault, dataset)
    before = looks(vault, dataset, datetime.now(UTC) - parse_duration(since))
    if as_json:
        typer.echo(json.dumps({"newest": _look_json(newest), "looks": [_look_json(one) for one in before]}, indent=2))
    elif newest is None:
        typer.echo(f"no restore test of {dataset} has gathered statistics yet")
    else:
        _print(newest, before)
    if newest is not None and newest.suspicions:
        raise typer.Exit(STRANGE)


@app.command("plot")
def plot_command(
    dataset: DatasetArgument,
    match: Annotated[
        str, typer.Option("--match", help="part of the series' names, such as `accounts` or `entropy`")
    ] = "",
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Each series of numbers as a line of bars, oldest first; a dot where the value was suspicious or lacks."""
    past = read_past(_vault(dataset, defs), dataset, datetime.now(UTC) + timedelta(days=1))
    names = sorted({name for one in past.observed for name in one.series if match in name})
    if not names:
        raise PolicyError("drift.no_series", f"no series of {dataset} has {match!r} in its name", "try without --match")
    if as_json:
        rows = {name: [[iso(one.at), one.series.get(name)] for one in past.observed] for name in names}
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("series", "first", "over time", "last")
    for name in names:
        values = list(past.ordinary(name))
        seen = [one.series[name] for one in past.observed if name in one.series]
        ends = [f"{feature_of(name).unscaled(value):,.4g}" for value in (seen[0], seen[-1])]
        table.add_row(shown(name), ends[0], _bars(values), ends[1])
    Console().print(table)


@app.command("accept")
def accept_command(
    dataset: DatasetArgument,
    by: Annotated[str, typer.Option("--by", help="who looked; it goes on record")],
    note: Annotated[str, typer.Option("--note", help="what it was: a release, an archive job; it goes on record")],
    only: Annotated[list[str] | None, typer.Option("--only", help="a relation or a series; all by default")] = None,
    defs: DefsOption = None,
) -> None:
    """Put on record that somebody looked at the newest backup's suspicions and they are no damage."""
    declared = postgres_of(estate_of(defs), dataset)
    vault = vault_of(estate_of(defs), declared.vault, signing=True)
    for one in accept_suspicions(vault, dataset, only or [], by=by, note=note):
        typer.echo(f"accepted: {one.why}")


def _vault(dataset: str, defs: DefsOption) -> Vault:
    estate = estate_of(defs)
    return vault_of(estate, postgres_of(estate, dataset).vault, signing=False)


def _print(newest: Look, before: list[Look]) -> None:
    console = Console()
    if newest.suspicions:
        table = Table("kind", "series", "what is strange", "spreads", "chance", title=f"as of {iso(newest.at)}")
        for one in newest.suspicions:
            chance = "" if one.kind in {"gone", "emptied", "schema"} else f"{one.chance:.1g}"
            table.add_row(shown(one.kind), shown(one.series), shown(one.why), f"{one.spreads:.0f}", chance)
        console.print(table)
    else:
        typer.echo(f"as of {iso(newest.at)} nothing is strange, held to {newest.backups} backups before")
    strange = [one for one in before if one.suspicions]
    typer.echo(f"{len(before)} looks, {len(strange)} with suspicions" + (":" if strange else ""))
    for look in strange:
        typer.echo(f"  {iso(look.at)}: {look.suspicions[0].why}")


def _look_json(look: Look | None) -> object:
    if look is None:
        return None
    found = [suspicion_json(one) for one in look.suspicions]
    return {"at": iso(look.at), "outcome": look.outcome, "backups_before": look.backups, "suspicions": found}


def _bars(values: list[float]) -> str:
    """One character a value, from the series' least to its greatest."""
    known = [value for value in values if value == value]  # noqa: PLR0124 - NaN alone differs from itself
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_UNSEEN if value != value else _BARS[round((value - low) / step)] for value in values)  # noqa: PLR0124
