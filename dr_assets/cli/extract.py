"""`dr-assets extract --player ID --at TIME`: one person's data at a moment, as a signed file; `extract verify FILE`."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dr_assets.cli.context import DefsOption, JsonOption, estate_of, postgres_of, vault_of
from dr_assets.estate.errors import PolicyError
from dr_assets.proving.extract import Review, extract
from dr_assets.proving.extract_file import verify_zip
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.vault.settings import path_setting
from dr_assets.vault.signing import Trust


class OptionsOrVerb(TyperGroup):
    """`extract --player …` is `extract make --player …`: what begins with an option of that verb's asks for it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click does, with the verb that goes without saying."""
        if args and args[0].startswith("-") and args[0] not in {"--help", "-h"}:
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    no_args_is_help=True,
    cls=OptionsOrVerb,
    help="Everything that a database held of one person at a moment, as a signed file for a review.",
)


@app.command("make")
def make_command(
    player: Annotated[str, typer.Option("--player", help="the person's identifier; `-` reads it from standard input")],
    by: Annotated[str, typer.Option("--by", help="who asks; it goes on record")],
    reason: Annotated[str, typer.Option("--reason", help="legal basis and number of the case; it goes on record")],
    out: Annotated[Path, typer.Option("--out", help="the file to write, a zip; none is written over")],
    at: Annotated[str, typer.Option("--at", help="a time with zone; or latest, lsn:…, xid:…, name:…")] = "latest",
    dataset: Annotated[str, typer.Option("--dataset", help="a database that the estate declares")] = "ledger",
    may_be_unknown: Annotated[
        bool, typer.Option("--may-be-unknown", help="sign that there was nothing, if that is the answer")
    ] = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore to TIME from the vault alone, ask for one person's data, and write it signed.

    Who was erased is refused (exit 2). That somebody asked is on record, by the keyed digest of the identifier.
    """
    keep_freed_memory()  # before anything begins a thread
    estate = estate_of(defs)
    declared = postgres_of(estate, dataset)
    person = sys.stdin.readline().strip() if player == "-" else player
    vault = vault_of(estate, declared.vault, signing=True)
    done = extract(estate, declared, vault, Review(person, at, by, reason, may_be_unknown), out)
    if as_json:
        typer.echo(json.dumps({"file": str(done.path), "rows": dict(done.rows), **done.manifest}, indent=2))
        return
    counted = ", ".join(f"{count} {name}" for name, count in done.rows.items())
    typer.echo(f"{done.path}: {counted}; as of {done.manifest['recovered_at'] or done.manifest['target']}")


@app.command("verify")
def verify_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what `extract` wrote")],
    trust: Annotated[
        Path | None, typer.Option("--trust", help="the trust file; by default the one that the estate names")
    ] = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check an extract with the trust file alone: signature, digests, counts, sums; exit 4 if anything was changed."""
    if not file.is_file():
        raise PolicyError("extract.no_file", f"{file} is no file", "name the file that `dr-assets extract` wrote")
    path = trust or path_setting(os.environ, estate_of(defs).trust_file_env, "the trust file")
    manifest = verify_zip(file, Trust.load(path))
    if as_json:
        typer.echo(json.dumps(manifest, indent=2))
        return
    counted = ", ".join(f"{query['rows']} {query['name']}" for query in manifest["queries"])
    typer.echo(f"{file} is as it was signed: {manifest['dataset']} of {manifest['estate']} at {manifest['target']}")
    typer.echo(f"recovered point {manifest['recovered_at']}, LSN {manifest['replayed_lsn']}; {counted}")
    typer.echo(f"made {manifest['made_at']} for {manifest['by']}: {manifest['reason']}")
