"""`dr-assets recovery-point`: the newest moment at which all stores agree, and where each of them stands at it.

What belongs here: options, the table, JSON. What stays out: finding it (recovery/).
"""

import json
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import DefsOption, JsonOption, dataset_of, estate_of, vault_of
from dr_assets.cli.shown import shown
from dr_assets.cli.times import parse_moment
from dr_assets.estate.model import Estate
from dr_assets.recovery.point import LATEST, EstatePoint, StorePoint
from dr_assets.recovery.stores import record_point, recovery_point
from dr_assets.vault.vault import Vault

APART = 1

ToOption = Annotated[str, typer.Option("--to", help=f"{LATEST}, or a time with zone")]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="DATASET", help="only these datasets; all by default")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="buckets hold the whole back, too: money is lost for documents")
]
ApartOption = Annotated[
    list[str] | None, typer.Option("--apart", metavar="DATASET", help="this dataset does not hold the whole back")
]


def recovery_point_command(
    to: ToOption = LATEST,
    only: OnlyOption = None,
    strict: StrictOption = False,
    apart: ApartOption = None,
    vault: Annotated[
        str | None, typer.Option("--vault", help="read this region alone; each dataset's own by default")
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="seal it into the vault as a fact")] = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest moment at which all stores agree, from the vault alone; exit 1 if one stands apart from it."""
    estate = chosen(estate_of(defs), only)
    point = recovery_point(
        estate, vaults_of(estate, vault), moment_of(to), strict=strict, apart=named(estate, apart)
    )  # fmt: skip
    if record:
        for name in sorted({vault or dataset.vault for dataset in estate.datasets.values()}):
            record_point(vault_of(estate, name, signing=True), point)
    if as_json:
        typer.echo(json.dumps(point.to_json(), indent=2))
    else:
        show_point(point)
    if not point.is_consistent:
        raise typer.Exit(APART)


def chosen(estate: Estate, only: list[str] | None) -> Estate:
    """The estate with these datasets alone; all by default."""
    return estate.only(*named(estate, only)) if only else estate


def named(estate: Estate, names: list[str] | None) -> list[str]:
    """The same names, each of which is declared."""
    return [dataset_of(estate, name).name for name in names or ()]


def moment_of(to: str) -> datetime | str:
    """`latest-consistent`, or the moment."""
    return LATEST if to in {LATEST, "latest"} else parse_moment(to)


def vaults_of(estate: Estate, vault: str | None) -> dict[str, Vault]:
    """For each dataset the vault it is read from, opened once each."""
    opened: dict[str, Vault] = {}
    for dataset in estate.datasets.values():
        name = vault or dataset.vault
        if name not in opened:
            opened[name] = vault_of(estate, name, signing=False)
    return {name: opened[vault or dataset.vault] for name, dataset in estate.datasets.items()}


def show_point(point: EstatePoint, console: Console | None = None) -> None:
    """For people."""
    console = console or Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    table = Table(title=f"recovery point of {point.estate}: {point.at:%Y-%m-%d %H:%M:%S.%f}Z", title_justify="left")
    for column in ("dataset", "stands at", "skew, ms", "position", "newer, not used", "its clock"):
        table.add_column(column, overflow="fold")
    apart = {one.dataset for one in point.apart()}
    for one in point.stores.values():
        colour = "red" if one.dataset in apart else "green"
        table.add_row(
            one.dataset, f"{one.at:%H:%M:%S.%f}", f"[{colour}]{one.skew_ms:+d}[/] (+{one.grain_ms})",
            shown(_position(one)), shown(_beyond(one)), shown(one.clock),
        )  # fmt: skip
    console.print(table)
    if point.held_back_by is not None:
        say(f"held back by {point.held_back_by}: it is stored up to this moment, the others are newer")
    for one in point.stores.values():
        if one.clock_ahead_ms:
            say(f"{one.dataset}: its clock is at least {one.clock_ahead_ms} ms ahead of the vault's")
        for note in one.notes:
            say(f"{one.dataset}: {shown(note)}")
    for one in point.apart():
        say(f"{one.told}: its orphans are listed after a restore")


def _position(one: StorePoint) -> str:
    at = one.position
    match one.kind:
        case "postgres":
            return f"{at['lsn_after']} to {at['lsn_before']}, timeline {at['timeline']}"
        case "kafka":
            ends = at["ends"]
            count = sum(end for end in ends.values() if isinstance(end, int)) if isinstance(ends, dict) else 0
            return f"{len(ends) if isinstance(ends, dict) else 0} partitions, offsets {count} in all"
        case _:
            return f"listing of {at['listed_at']}"


def _beyond(one: StorePoint) -> str:
    told = [f"{one.beyond['span_ms']} ms"] if one.beyond.get("span_ms") else []
    told += [f"{value} {name}" for name in ("bytes", "records") if (value := one.beyond.get(name))]
    return ", ".join(told) or "-"
