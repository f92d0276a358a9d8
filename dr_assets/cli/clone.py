"""`dr-assets clone DATASET --at TIME`: a copy at a moment, for investigators, that goes away by itself."""

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, estate_of, postgres_of, vault_of
from dr_assets.cli.shown import shown
from dr_assets.cli.stopping import stop_on_signals
from dr_assets.cli.times import iso
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import Level
from dr_assets.proving.clone_shelf import UNKNOWN, CloneRecord, CloneShelf
from dr_assets.proving.clones import Asked, dropped, keep, put_down
from dr_assets.stores.postgres.host import keep_freed_memory

_LOOK_S = 0.1


class DatasetOrVerb(TyperGroup):
    """`clone ledger …` is `clone make ledger …`: what is no verb of this group is a dataset."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click does, with the verb that goes without saying."""
        if args and args[0] not in self.commands and args[0] not in {"--help", "-h"}:
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    no_args_is_help=True,
    cls=DatasetOrVerb,
    help="A copy of a database at a moment, read-only, for a few hours: `clone DATASET --at TIME`.",
)


@app.command("make")
def make_command(
    dataset: DatasetArgument,
    by: Annotated[str, typer.Option("--by", help="who asks; it goes on record")],
    reason: Annotated[str, typer.Option("--reason", help="why: the number of the case; it goes on record")],
    at: Annotated[str, typer.Option("--at", help="a time with zone; or latest, lsn:…, xid:…, name:…")] = "latest",
    ttl: Annotated[str, typer.Option("--ttl", help="after so long nothing is left of it; 7d at most")] = "4h",
    into: Annotated[Path | None, typer.Option("--into", help="an empty or absent folder for its files")] = None,
    os_users: Annotated[
        list[str] | None, typer.Option("--os-user", help="a user of this host who may connect, too; repeat it")
    ] = None,
    level: Annotated[Level, typer.Option("--level", help="how deeply the restored data is checked")] = "quick",
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore to TIME from the vault alone, hold it up read-only until its deadline, and print how to connect."""
    postgres_of(estate_of(defs), dataset)
    stop = stop_on_signals()  # whoever no longer waits for a clone would not know how to connect
    shelf, now = CloneShelf.of(os.environ), datetime.now(UTC)
    shelf.sweep(now)
    users = tuple(os_users or ())
    record = put_down(shelf, Asked(dataset, at, parse_duration(ttl), by, reason, into, users, level), now)
    ready = _wait_ready(shelf, record, _start_keeper(shelf, record, defs), stop)
    if as_json:
        typer.echo(json.dumps(_to_json(ready, "ready"), indent=2))
        return
    typer.echo(f"clone {ready.clone_id} of {dataset} at {ready.target}: ready after {ready.phases_s['in all']:.1f} s")
    typer.echo(f"newest heartbeat in it: {iso(ready.recovered_at) or 'none'}")
    typer.echo(f"connect: psql '{ready.dsn}'")
    typer.echo(f"gone at {iso(ready.deadline_at)}; before that with `dr-assets clone drop {ready.clone_id}`")


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """The clones on this host; those whose time is over are taken away first."""
    shelf = CloneShelf.of(os.environ)
    gone = shelf.sweep(datetime.now(UTC))
    found = [(record, _standing(shelf, record)) for record in shelf.records()]
    if as_json:
        typer.echo(json.dumps([_to_json(record, standing) for record, standing in found], indent=2))
        return
    for record in gone:
        typer.echo(f"clone {record.clone_id} of {record.dataset} was overdue and is gone", err=True)
    table = Table()
    for column in ("clone", "dataset", "at", "standing", "gone at", "by", "reason", "connect"):
        table.add_column(column, overflow="fold")
    for record, standing in found:
        cells = (record.clone_id, record.dataset, record.target, standing, iso(record.deadline_at) or "")
        table.add_row(*(shown(cell) for cell in (*cells, record.by, record.reason, record.dsn)))
    Console().print(table)


@app.command("drop")
def drop_command(
    clone_id: Annotated[str, typer.Argument(metavar="CLONE", help="its id, as `clone list` shows it")],
) -> None:
    """Take a clone away now."""
    shelf = CloneShelf.of(os.environ)
    shelf.read(clone_id)
    _drop(shelf, clone_id)
    typer.echo(f"clone {clone_id} is gone")


@app.command("keep", hidden=True)
def keep_command(clone_id: str, defs: DefsOption = None) -> None:
    """The process behind a clone: restores it, holds it up, takes it away."""
    stop = stop_on_signals()  # a host that is shut down leaves no copy of anybody behind
    keep_freed_memory()  # before anything begins a thread
    estate = estate_of(defs)
    shelf = CloneShelf.of(os.environ)
    dataset = postgres_of(estate, shelf.read(clone_id).dataset)
    vault = vault_of(estate, dataset.vault, signing=True)
    typer.echo(keep(shelf, clone_id, estate, dataset, vault, stopped=stop.is_set))


def _start_keeper(shelf: CloneShelf, record: CloneRecord, defs: Path | None) -> "subprocess.Popen[bytes]":
    """A process of its own that outlives this one and its terminal."""
    where = [] if defs is None else ["--defs", str(defs)]
    log_path = shelf.log_path(record.clone_id)
    log_path.touch(mode=0o600)
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dr_assets.cli", "clone", "keep", record.clone_id, *where],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_ready(
    shelf: CloneShelf, record: CloneRecord, keeper: "subprocess.Popen[bytes]", stop: threading.Event
) -> CloneRecord:
    """Wait until one can connect; whoever ends this waiting drops the clone."""
    with Console(stderr=True).status("clone") as status:
        while record.state != "ready" and keeper.poll() is None:
            status.update(record.phase.replace("_", " ") or "start")
            if stop.wait(_LOOK_S):
                _drop(shelf, record.clone_id)
                raise dropped(record.clone_id)
            record = _newest(shelf, record)
    if record.state == "ready":
        return record
    raise _failed(shelf, _newest(shelf, record))


def _newest(shelf: CloneShelf, record: CloneRecord) -> CloneRecord:
    """As its keeper noted it last. Raises PolicyError `clone.dropped` when somebody else had it taken away."""
    try:
        return shelf.read(record.clone_id)
    except PolicyError as error:
        if error.code != UNKNOWN:
            raise
        raise dropped(record.clone_id) from None


def _drop(shelf: CloneShelf, clone_id: str) -> None:
    """Have its keeper take it away, or do it where there is none; returns when nothing of it is left."""
    shelf.ask_to_end(clone_id)
    try:
        while shelf.path(clone_id).exists() and not shelf.take_away(clone_id):
            time.sleep(_LOOK_S)
    except PolicyError as error:
        if error.code != UNKNOWN:  # its keeper was quicker, between the look and the lock
            raise
    shelf.forget(clone_id)


def _failed(shelf: CloneShelf, record: CloneRecord) -> VaultError | PolicyError:
    """What the keeper said, as this process's own error; nothing of the clone is left."""
    log_path = shelf.log_path(record.clone_id)
    said = log_path.read_text(errors="replace")[-2000:] if log_path.exists() else ""
    shelf.take_away(record.clone_id)
    if record.state == "failed" and ": " in record.why:
        found, _, hint = record.why.partition("\n")
        code, _, text = found.partition(": ")
        return VaultError(code, text, hint)
    return VaultError("clone.ended", f"the clone's process ended: {said.strip() or record.why}", "try again")


def _standing(shelf: CloneShelf, record: CloneRecord) -> str:
    if shelf.has_keeper(record.clone_id):
        return f"{record.state} {record.phase}".strip()
    if record.state == "failed":
        return f"failed: {record.why.splitlines()[0] if record.why else ''}"
    return "stopped: its process is gone; drop it, or it goes at its deadline"


def _to_json(record: CloneRecord, standing: str) -> dict[str, object]:
    said: dict[str, object] = json.loads(record.encode())
    return {**said, "standing": standing}
