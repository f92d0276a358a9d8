"""`dr-assets work-list`: what a loss window lost, by those outside who know, with a proposed action for each line.

What belongs here: options put together, what is printed. What stays out: the list (recovery/worklist/).
"""

import json
import os
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast, get_args

import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import DefsOption, JsonOption, dsn_in, estate_of, postgres_of, topics_of, vault_of
from dr_assets.cli.mappings import mappings_of
from dr_assets.cli.times import parse_moment
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.proving.erasures import topic_eraser
from dr_assets.reconciliation.providers.open import Feed, FeedFormat, provider_lines
from dr_assets.reconciliation.streams.gather import gather
from dr_assets.reconciliation.streams.rules import StreamRules
from dr_assets.recovery.worklist.amounts import written
from dr_assets.recovery.worklist.relations import Rows
from dr_assets.recovery.worklist.sources import events, restored_ledger, rounds_file
from dr_assets.recovery.worklist.worklist import Window, WorkList, work_list
from dr_assets.recovery.worklist.written import seal, write
from dr_assets.stores.kafka.restore_export import export_source

if TYPE_CHECKING:
    import pyarrow as pa

_FORMATS: Final = get_args(FeedFormat)
_BEFORE: Final = timedelta(minutes=10)  # records may carry a time that is older than their place


def work_list_command(
    since: Annotated[str, typer.Option("--since", help="the recovery point of the restored ledger, with zone")],
    until: Annotated[str, typer.Option("--until", help="when it failed, with zone")],
    dsn_env: Annotated[str, typer.Option("--dsn-env", help="the variable with the restored ledger's DSN")],
    out: Annotated[Path, typer.Option("--out", help="a folder for work-list.csv, .json and .html")],
    dataset: Annotated[str, typer.Option("--dataset", help="the ledger's dataset")] = "ledger",
    provider_files: Annotated[
        list[str] | None,
        typer.Option(
            "--provider-files",
            metavar="[FORMAT=]DIR",
            help="a payment provider's files: stripe=DIR, adyen=DIR …; a bare DIR where one provider is declared",
        ),
    ] = None,
    mappings: Annotated[
        list[str] | None,
        typer.Option("--provider-mapping", metavar="FORMAT=FILE", help="what a format's columns or names mean here"),
    ] = None,
    rounds: Annotated[Path | None, typer.Option("--rounds", help="the game provider's rounds, CSV")] = None,
    topics: Annotated[
        str | None, typer.Option("--topics", help="the dataset of topics that the outbox publishes to")
    ] = None,
    slack: Annotated[str, typer.Option("--clock-slack", help="how far outsiders' clocks may be off")] = "10s",
    seal_it: Annotated[bool, typer.Option("--seal", help="keep the list's digest and totals in the vault")] = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what was lost between a recovery point and the failure, each line with an action and its reason."""
    estate = estate_of(defs)
    declared = postgres_of(estate, dataset)
    window = Window(parse_moment(since), parse_moment(until), parse_duration(slack))
    feeds, dsn = _feeds(declared, provider_files or [], mappings or []), dsn_in(dsn_env)
    contract = declared.restore_test.contract
    given: dict[str, Rows | None] = dict(restored_ledger(dsn, contract))
    given["rounds"] = rounds_file(rounds) if rounds else None
    given["events"] = _events(estate, topics, window, given, contract) if topics else None
    with provider_lines(feeds) as lines:
        given["provider_lines"] = lines if provider_files else None
        found = work_list(given, window)
    files = write(found, out, f"Work-list: {declared.name}")
    sealed = (
        seal(vault_of(estate, declared.vault, signing=True), declared.name, found, files.sha256) if seal_it else None
    )
    if as_json:
        said = {"sha256": files.sha256, "page": str(files.page_path), "sealed": sealed, "lines": found.lines.num_rows}
        typer.echo(json.dumps({**said, "per_action": found.per_action(), "handled": dict(found.handled)}, indent=2))
        return
    Console().print(_table(found))
    typer.echo(f"the page: {files.page_path}")


def _feeds(declared: PostgresDataset, files: list[str], mappings: list[str]) -> list[Feed]:
    """The files with what their columns mean: what was named, else what the declaration says of that format."""
    feeds = [_feed(declared, each) for each in files]
    named = mappings_of(mappings, "--provider-mapping", [feed.format for feed in feeds])
    known = {feed.format: feed.mapping for feed in (declared.reconcile.providers if declared.reconcile else ())}
    return [replace(feed, mapping=named.get(feed.format, known.get(feed.format))) for feed in feeds]


def _feed(declared: PostgresDataset, asked: str) -> Feed:
    format_, given, folder = asked.partition("=")
    known = declared.reconcile.providers if declared.reconcile else ()
    if not given:
        if len(known) != 1:
            raise PolicyError(
                "cli.provider_format", f"the format of the files in {asked} is not said", f"write stripe={asked}"
            )
        format_, folder = known[0].format, asked
    if format_ not in _FORMATS:
        raise PolicyError("cli.provider_format", f"there is no format {format_}", f"choose from {', '.join(_FORMATS)}")
    return Feed(format_, cast("FeedFormat", format_), Path(folder))


def _events(estate: Estate, topics: str, window: Window, given: dict[str, Rows | None], contract: str) -> "pa.Table":
    """What the vault holds of the topics, also beyond any recovery point, from before the window on."""
    dataset = topics_of(estate, topics)
    vault = vault_of(estate, dataset.vault, signing=False)
    source = export_source(vault, dataset.name, eraser=topic_eraser(estate, dataset, vault, os.environ))
    begins = source.export.positions_at(window.since - _BEFORE)
    ranges = {
        (name, index): (begins.get((topic.topic_id, index), part.begin), part.end)
        for name, topic in source.topics.items()
        for index, part in topic.partitions.items()
    }
    ledger = {name: rows for name, rows in given.items() if name.startswith("ledger_")}
    with tempfile.TemporaryDirectory(prefix="work-list-") as folder:
        records = gather(source, Path(folder), StreamRules(with_payload=True), ranges=ranges).records
        return events(pq.read_table(records), ledger, contract)


def _table(found: WorkList) -> Table:
    window = found.window
    table = Table(
        title=f"work-list: {window.since:%Y-%m-%d %H:%M:%S.%f}Z to {window.until:%H:%M:%S.%f}Z", title_justify="left"
    )
    for column in ("action", "lines", "amount"):
        table.add_column(column, justify="left" if column == "action" else "right")
    for total in found.totals():
        amount = f"{written(total['amount_minor'], total['currency'])} {total['currency'] or '?'}"
        table.add_row(str(total["action"]), str(total["lines"]), amount)
    return table
