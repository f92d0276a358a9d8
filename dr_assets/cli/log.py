"""`dr-assets log sequence|show|prove|export|collect|trust|verify`: the transparency log of a vault."""

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from dr_assets.cli import log_outside
from dr_assets.cli.context import DefsOption, JsonOption, estate_of, vault_of
from dr_assets.cli.times import iso
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.errors import PolicyError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.log.batch import Batch
from dr_assets.vault.log.export import export_log
from dr_assets.vault.log.proof import make_proof, not_vouched
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.sequencer import PAUSE, Sequenced, Sequencer
from dr_assets.vault.storage.versions import find_name
from dr_assets.vault.vault import Vault

app = typer.Typer(no_args_is_help=True, help="The transparency log: what the vault holds, checkable by outsiders.")

app.command("collect")(log_outside.collect_command)
app.command("key")(log_outside.key_command)
app.command("trust")(log_outside.trust_command)
app.command("verify")(log_outside.verify_command)

VaultOption = Annotated[str, typer.Option("--vault", help="which of the estate's vaults")]
LOST = 1


@app.command("sequence")
def sequence(
    vault: VaultOption = "primary",
    every: Annotated[
        str | None, typer.Option("--every", metavar="SPAN", help="stay, and do it again each SPAN (10s at least)")
    ] = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Append what is new in the vault to its log, and publish a checkpoint; exit 1 if another sequencer is at work."""
    opened = vault_of(estate_of(defs), vault, signing=True)
    pause = _pause(every)
    while True:
        done = Sequencer(opened).run()
        typer.echo(json.dumps(_to_json(done)) if as_json else _told(done))
        if pause is None:
            raise typer.Exit(LOST if done.lost else 0)
        time.sleep(pause.total_seconds())


def _pause(every: str | None) -> timedelta | None:
    if every is None:
        return None
    span = parse_duration(every)
    if span < PAUSE:
        raise PolicyError("cli.every_too_short", f"--every {every} is below 10s", "batches are made of 10s and more")
    return span


def _told(done: Sequenced) -> str:
    if done.checkpoint is None:
        return "nothing is stored yet, so there is no log"
    said = f"{done.checkpoint.size} leaves, root {done.checkpoint.root.hex()[:16]}…: "
    said += f"{done.leaves} new ones speak of {done.names_total} objects" if done.leaves else "nothing new"
    said += ", after a batch that another sequencer left unfinished" if done.resumed else ""
    said += "; another sequencer is at work" if done.lost else ""
    return said + (f"; {done.passed_over} names were passed over as not ours" if done.passed_over else "")


def _to_json(done: Sequenced) -> dict[str, Any]:
    head = done.checkpoint
    return {
        "origin": None if head is None else head.origin,
        "size": 0 if head is None else head.size,
        "root": None if head is None else head.root.hex(),
        "leaves": done.leaves,
        "objects": done.names_total,
        "batches": done.batches,
        "passed_over": done.passed_over,
        "resumed": done.resumed,
        "lost": done.lost,
        "caught_up": done.caught_up,
    }


@app.command("show")
def show(vault: VaultOption = "primary", defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """The newest checkpoint: how many leaves, which root, how old, and whether everything was logged then."""
    reader = _reader(vault_of(estate_of(defs), vault, signing=False))
    last = reader.last_batch()
    told = _standing(reader, last)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo(f"{told['origin']}: {told['size']} leaves, root {told['root']}")
    left = "" if last.caught_up else "; more was there than fitted into the batch"
    typer.echo(f"everything stored before {told['looked_at']} is in it, {told['age_s']:.0f} s ago{left}")
    typer.echo(reader.note.decode(), nl=False)


def _standing(reader: LogReader, last: Batch) -> dict[str, Any]:
    age = reader.vault.store.now() - last.looked_at
    return {
        "origin": reader.checkpoint.origin,
        "size": reader.checkpoint.size,
        "root": reader.checkpoint.root.hex(),
        "looked_at": iso(last.looked_at),
        "age_s": age.total_seconds(),
        "caught_up": last.caught_up,
        "note": reader.note.decode(),
    }


@app.command("prove")
def prove(
    name: Annotated[str, typer.Argument(metavar="OBJECT", help="an object's name in the vault")],
    out: Annotated[Path | None, typer.Option("--out", help="write it to this file; else to the terminal")] = None,
    vault: VaultOption = "primary",
    defs: DefsOption = None,
) -> None:
    """A file (C2SP tlog-proof) that shows, without vault and network, that the log vouches for an object."""
    reader = _reader(vault_of(estate_of(defs), vault, signing=False))
    key = ObjectKey.parse(name)
    stored = None if key is None else find_name(reader.vault.store, key)
    vouched = reader.find(name, stored.versions[0].modified_at if stored and stored.versions else None)
    if vouched is None:
        raise not_vouched(name, reader.checkpoint)
    proof = make_proof(reader, vouched)
    if out is None:
        typer.echo(proof, nl=False)
        return
    out.write_text(proof, encoding="utf-8", newline="")
    typer.echo(f"{out}: leaf {vouched.index} of {reader.checkpoint.size} vouches for {name}")


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="an empty folder, or one of an earlier export")],
    vault: VaultOption = "primary",
    defs: DefsOption = None,
) -> None:
    """Copy the whole log to a folder, for anybody to serve or check; an earlier copy is brought up to date."""
    done = export_log(_reader(vault_of(estate_of(defs), vault, signing=False)), folder)
    typer.echo(f"{folder}: {done.size} leaves, {done.files} files written, {done.kept} were there")


def _reader(vault: Vault) -> LogReader:
    reader = LogReader.open(vault)
    if reader is None:
        raise PolicyError(
            "log.no_checkpoint", f"vault '{vault.name}' has no log yet", "`dr-assets log sequence` makes one"
        )
    return reader
