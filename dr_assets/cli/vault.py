"""`dr-assets vault init|verify|export|import`: make a vault, re-read all of it, copy it to files and back."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dr_assets.cli import hold, keeping
from dr_assets.cli.bundle import BundleOption, export_command, import_command, vault_or_bundle
from dr_assets.cli.context import DefsOption, JsonOption, estate_of, vault_of
from dr_assets.cli.times import parse_moment
from dr_assets.cli.verifying import progress, show
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.vault.connect import init_vault
from dr_assets.vault.verify import verify
from dr_assets.vault.verify.levels import DEFAULT_SHARE, depth_of
from dr_assets.vault.verify.record import record_verification, settings_before
from dr_assets.vault.witness import Witness

app = typer.Typer(no_args_is_help=True, help="The vault: locked, encrypted, signed objects.")
DAMAGED = 1

app.command("export")(export_command)
app.command("import")(import_command)

VaultOption = Annotated[str, typer.Option("--vault", help="which of the estate's vaults")]


@app.command("init")
def init(vault: VaultOption = "primary", defs: DefsOption = None) -> None:
    """Create the bucket (versioned, Object Lock, default retention) and the keys that are not there yet."""
    for line in init_vault(estate_of(defs), vault, os.environ):
        typer.echo(line)


@app.command("verify")
def verify_command(
    vault: VaultOption = "primary",
    dataset: Annotated[str | None, typer.Option("--dataset", help="only this dataset")] = None,
    level: Annotated[str, typer.Option("--level", help="index (heads), sample (a share of the bytes), full")] = "full",
    share: Annotated[float, typer.Option("--share", help="of the bulk that `sample` reads")] = DEFAULT_SHARE,
    seed: Annotated[str, typer.Option("--seed", help="which share; today's date by default")] = "",
    state: Annotated[
        Path | None, typer.Option("--state", help="file in which a run that was killed finds what it had judged")
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="judge the vault as it was at this time; name what was laid over it since"),
    ] = None,
    witness: Annotated[
        Path | None, typer.Option("--witness", help="file of the newest known positions; updated when all is well")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="seal what came of it as a fact (wants the signing key)")
    ] = False,
    from_bundle: BundleOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at everything and name every damaged, missing or unlocked object; exit 1 if there is one."""
    keep_freed_memory()  # before anything begins a thread
    estate = estate_of(defs)
    opened = vault_or_bundle(estate, vault, from_bundle)
    moment = parse_moment(as_of) if as_of else None
    known = Witness.load(witness) if witness else None
    with progress() as tell:
        report = verify(
            opened,
            dataset,
            depth=depth_of(level, share, seed or f"{opened.clock():%Y-%m-%d}"),
            as_of=moment,
            witness=known,
            state=state,
            settings_before=None if from_bundle else settings_before(opened),
            progress=tell,
        )
    if record:
        record_verification(vault_of(estate, vault, signing=True), report, dataset)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        show(report, Console())
    if not report.ok:
        raise typer.Exit(DAMAGED)
    if witness is not None and known is not None:
        # As it was at an earlier time the vault may lack what is known since: then nothing is forgotten.
        moved = known.merged(report.witness) if moment else known.moved_on(report.witness, opened.estate, dataset)
        moved.save(witness)


keeping.add_to(app)
app.add_typer(hold.app, name="hold")
