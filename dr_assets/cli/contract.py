"""`dr-assets contract check CONTRACT`: whether a database gives what a contract says, and all that it lacks.

What belongs here: options and tables. What stays out: the comparison (reconciliation/).
"""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import JsonOption, dsn_in
from dr_assets.cli.shown import shown
from dr_assets.reconciliation.result import AREAS
from dr_assets.reconciliation.run import Fulfilment, fulfilment

UNMET = 1

app = typer.Typer(no_args_is_help=True, help="Contracts: how a schema gives what the reconciliations read.")


@app.callback()
def _contract() -> None:
    """Contracts: how a schema gives what the reconciliations read."""


@app.command("check")
def check_command(
    contract: Annotated[str, typer.Argument(help="a packaged contract's name, or the path of a folder, with a slash")],
    dsn_env: Annotated[str, typer.Option("--dsn-env", help="the variable that holds the connection string")],
    as_json: JsonOption = False,
) -> None:
    """Run a contract's queries against a database, without reading its rows; exit 1 if it lacks anything."""
    found = fulfilment(dsn_in(dsn_env), contract)
    if as_json:
        typer.echo(json.dumps(_document(found), indent=2))
    else:
        _show(found)
    if found.unmet:
        raise typer.Exit(UNMET)


def _document(found: Fulfilment) -> dict[str, object]:
    return {
        "contract": found.contract.name,
        "fulfilled": not found.unmet,
        "missing": [{"relation": one.relation, "found": one.found} for one in found.unmet],
        "meanings": found.contract.meanings,
        "checks": found.to_run,
        "not_run": {one.name: one.why for one in found.not_run},
    }


def _show(found: Fulfilment) -> None:
    console = Console()
    if found.unmet:
        table = Table("relation", "missing", title=f"contract {found.contract.name} is not fulfilled")
        for one in found.unmet:
            table.add_row(one.relation, shown(one.found))
        console.print(table)
    table = Table("area", "checks", "left out, and why", title=f"what contract {found.contract.name} lets be checked")
    for area in AREAS:
        why = sorted({one.why for one in found.not_run if one.name.startswith(f"{area}/")})
        table.add_row(area, str(found.to_run.get(area, 0)), shown("; ".join(why)))
    console.print(table)
