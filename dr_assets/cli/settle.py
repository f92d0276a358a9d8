"""`dr-assets settle DATASET`: what a failover left behind, and a person's word that it was dealt with."""

import json
from typing import Annotated, Any

import typer

from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, estate_of, postgres_of, vault_of
from dr_assets.stores.postgres.settled import settle as record
from dr_assets.stores.postgres.settled import unsettled
from dr_assets.vault.facts import Fact

OPEN = 1


def settle(
    dataset: DatasetArgument,
    by: Annotated[str | None, typer.Option("--by", help="who dealt with them")] = None,
    note: Annotated[str | None, typer.Option("--note", help="what was done: replayed, refunded, held")] = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the commits that a failover left behind (exit 1 if there are any); with --by and --note, settle them."""
    estate = estate_of(defs)
    declared = postgres_of(estate, dataset)
    signing = by is not None or note is not None
    vault = vault_of(estate, declared.vault, signing=signing)
    found = record(vault, declared.name, by=by or "", note=note or "") if signing else unsettled(vault, declared.name)
    if as_json:
        typer.echo(json.dumps([{"fact": str(fact.key), **fact.body} for fact in found], indent=2))
    else:
        typer.echo("\n".join(_text(fact) for fact in found) or "no commit waits to be settled")
    if signing:
        typer.echo(f"settled by {by}: {len(found)} failover(s)", err=True)
    elif found:
        raise typer.Exit(OPEN)


def _text(fact: Fact) -> str:
    body: dict[str, Any] = fact.body
    lines = [
        f"timeline {body['timeline']} was left at {body['switch_lsn']}, {body['commits_total']} commit(s) behind it:"
    ]
    lines += [f"  {row['at']}  xid {row['xid']}  {row['lsn']}" for row in body["commits"]]
    if len(body["commits"]) < int(body["commits_total"]):
        lines.append(f"  … {int(body['commits_total']) - len(body['commits'])} more")
    return "\n".join(lines)
