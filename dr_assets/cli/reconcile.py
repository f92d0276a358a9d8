"""`dr-assets reconcile`: whether a ledger's money adds up, within itself and with everybody who knows of it.

What belongs here: options and tables. What stays out: the checks (reconciliation/), the readers of files and topics.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import DefsOption, JsonOption, dsn_in, dsn_of, estate_of, postgres_of, vault_of
from dr_assets.cli.mappings import mappings_of
from dr_assets.cli.shown import shown
from dr_assets.cli.times import parse_moment
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate
from dr_assets.estate.reconcile import FeedFormat, ProviderFeed, Reconcile
from dr_assets.reconciliation.outsiders import outsiders
from dr_assets.reconciliation.result import Reconciliation
from dr_assets.reconciliation.run import reconcile
from dr_assets.reconciliation.sealed import breaks_file
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.vault.vault import Vault

BROKEN = 1
_BY_HAND = "PROVIDER_FILES_{}"  # no variable of anybody's: what the command line names is found under it


def reconcile_command(
    dataset: Annotated[str | None, typer.Option("--dataset", help="a database that the estate declares")] = None,
    dsn_env: Annotated[
        str | None, typer.Option("--dsn-env", help="the variable of another connection string, as of a restored server")
    ] = None,
    contract: Annotated[str | None, typer.Option("--contract", help="by default the dataset's own")] = None,
    provider_files: Annotated[
        list[str] | None,
        typer.Option(
            "--provider-files", metavar="[NAME:]FORMAT=DIR", help="stripe, adyen, camt053 or csv, and the folder"
        ),
    ] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--mapping", metavar="NAME=FILE", help="what a provider's columns mean")
    ] = None,
    area: Annotated[list[str] | None, typer.Option("--area", help="only this of the eight; may be repeated")] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="a time with zone that ages are reckoned from")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="write the breaks to this Parquet file")] = None,
    memory: Annotated[str, typer.Option("--memory", help="what doesn't fit is spilled")] = "512MB",
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a ledger's money within itself and against providers, banks, topics and the CRM; exit 1 on a red break."""
    keep_freed_memory()  # before anything begins a thread
    estate = estate_of(defs) if dataset else None
    declared = postgres_of(estate, dataset) if estate and dataset else None
    if declared is None and (dsn_env is None or contract is None):
        raise PolicyError(
            "cli.reconcile_what",
            "nothing says which ledger is meant",
            "name a --dataset of the estate, or a --dsn-env and a --contract",
        )
    asked, env = _asked(declared.reconcile if declared else None, provider_files or [], mapping or [])
    dsn = dsn_in(dsn_env) if dsn_env else dsn_of(cast("Any", declared))
    agreed = contract or cast("Any", declared).restore_test.contract
    with outsiders(asked, os.environ | env, None, vault_of=_vaults(estate)) as externals:
        found = reconcile(
            dsn,
            agreed,
            externals=externals,
            as_of=parse_moment(as_of) if as_of else None,
            areas=area or None,
            memory_limit=memory,
        )
    if out is not None:
        out.write_bytes(breaks_file(found.breaks))
    if as_json:
        typer.echo(json.dumps(found.summary(), indent=2))
    else:
        _show(found)
    if not found.ok:
        raise typer.Exit(BROKEN)


def _vaults(estate: Estate | None) -> Any:
    def vault(dataset: str) -> Vault:
        return vault_of(cast("Estate", estate), cast("Estate", estate).datasets[dataset].vault, signing=False)

    return vault if estate else None


def _asked(declared: Reconcile | None, files: list[str], mappings: list[str]) -> tuple[Reconcile, dict[str, str]]:
    """What the dataset declares, with files from the command line instead of its providers' where there are any."""
    asked = declared or Reconcile()
    if not files:
        mappings_of(mappings, "--mapping", ())
        return asked, {}
    feeds: list[ProviderFeed] = []
    env: dict[str, str] = {}
    for number, text in enumerate(files):
        named, _, place = text.partition("=")
        name, _, kind = named.rpartition(":")
        if kind not in get_args(FeedFormat) or not place:
            raise PolicyError(
                "cli.provider_files",
                f"'{text}' names no format and folder",
                f"write FORMAT=DIR or NAME:FORMAT=DIR; there are {', '.join(get_args(FeedFormat))}",
            )
        name = name or kind
        env[_BY_HAND.format(number)] = place
        feeds.append(ProviderFeed(name, cast("FeedFormat", kind), _BY_HAND.format(number)))
    meant = mappings_of(mappings, "--mapping", [feed.name for feed in feeds])
    return replace(asked, providers=tuple(replace(feed, mapping=meant.get(feed.name)) for feed in feeds)), env


def _show(found: Reconciliation) -> None:
    console = Console()
    table = Table("area", "checks", "red", "amber", "aged", "left out, and why", title="reconciliation")
    for area, one in found.summary()["areas"].items():
        amber = one["breaks"] - one["red"]
        why = shown("; ".join(one["not_run"]))
        table.add_row(area, str(one["checks"]), str(one["red"]), str(amber), str(one["aged"]), why)
    console.print(table)
    if found.breaks_total:
        _table("breaks", found.kinds(), ("check", "reason", "severity", "currency", "count", "aged", "amount_minor"))
        _table("worst accounts", found.worst_accounts(), ("account", "currency", "amount_minor", "count", "check"))
    matched = [{"check": check, **row} for check, rows in found.matched().items() for row in rows]
    if matched:
        _table("matched", matched, ("check", "outcome", "currency", "count", "amount_minor"))
    rows = ", ".join(f"{count:,} {relation}" for relation, count in found.rows.items())
    console.print(shown(f"{found.verdict()}: {rows}; as of {found.as_of:%Y-%m-%d %H:%M:%S} UTC, {found.duration_s} s"))


def _table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(shown("" if row[name] is None else str(row[name])) for name in columns))
    Console().print(table)
