"""`dr-assets vault export|import`, and a bundle in a vault's place: the copy that lies on a disk or a tape."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dr_assets.cli.context import DefsOption, dataset_of, estate_of, vault_of
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate
from dr_assets.estate.sizes import parse_size
from dr_assets.vault.connect import open_vault
from dr_assets.vault.replication import Options, replicate
from dr_assets.vault.replication.bundle import BundleStore, export_bundle
from dr_assets.vault.signing import Trust
from dr_assets.vault.vault import Vault

LACKING: Final = 1

BundleOption = Annotated[
    Path | None, typer.Option("--from-bundle", help="read this folder that `vault export` wrote instead of a store")
]


def vault_or_bundle(estate: Estate, name: str, bundle: Path | None) -> Vault:
    """The vault for reading; over the files of `bundle` where one is named. No store is asked anything then."""
    if bundle is None:
        return vault_of(estate, name, signing=False)
    store = BundleStore(bundle, Trust.load(_trust_file(estate)))
    if store.bundle.estate != estate.name:
        raise PolicyError(
            "bundle.other_estate", f"{bundle} is of estate '{store.bundle.estate}', not '{estate.name}'", "see --defs"
        )
    return open_vault(estate, name, os.environ, store=store, signing=False)


def export_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="an empty or absent folder, or an unfinished bundle")],
    vault: Annotated[str, typer.Option("--vault", help="which of the estate's vaults")] = "primary",
    dataset: Annotated[list[str] | None, typer.Option("--dataset", help="only these; all by default")] = None,
    volume_size: Annotated[
        str | None, typer.Option("--volume-size", help="begin another volume before one holds more, e.g. 100GiB")
    ] = None,
    defs: DefsOption = None,
) -> None:
    """Write a self-contained, verifiable copy of the vault; run again, it goes on where it was stopped."""
    estate = estate_of(defs)
    names = tuple(dataset_of(estate, name).name for name in dataset or sorted(estate.datasets))
    opened = vault_of(estate, vault, signing=True, role="reader")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("export", total=None)
        done = export_bundle(
            opened,
            folder,
            names,
            volume_bytes=parse_size(volume_size) if volume_size else None,
            listener=lambda objects, size: bar.update(task, description=f"{objects} objects, {size / 1e6:.0f} MB"),
        )
    for name in done.bundle.lacks:
        typer.echo(f"LACKS {name}: damaged in the vault", err=True)
    objects, size_bytes = sum(v.objects for v in done.bundle.volumes), sum(v.size_bytes for v in done.bundle.volumes)
    typer.echo(
        f"{folder}: {objects} objects, {size_bytes / 1e6:.1f} MB in {len(done.bundle.volumes)} volume(s), as of"
        f" {done.bundle.as_of:%Y-%m-%d %H:%M:%S}Z; {done.written} of them written and read back now"
    )
    if done.bundle.lacks:
        raise typer.Exit(LACKING)


def import_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a whole bundle, all volumes in it")],
    vault: Annotated[str, typer.Option("--vault", help="the vault to copy it to; `vault init` makes an empty one")],
    defs: DefsOption = None,
) -> None:
    """Copy a bundle's objects into a vault, locked as they were; what is there already is proven and left."""
    estate = estate_of(defs)
    source = vault_or_bundle(estate, vault, folder)
    if not isinstance(source.store, BundleStore):
        raise TypeError("a bundle was asked for")
    # The vault's own pair: in a first region the replicator may not put what a bundle brings (docs/roles.md).
    target = open_vault(estate, vault, os.environ, signing=False)
    options = Options(copy=True, samples=0, record=False)
    done = replicate(source, target, source.store.bundle.datasets, options)
    for each in done.standing.unproven:
        typer.echo(f"{each.why}: {each.name}: {each.detail}", err=True)
    typer.echo(f"{vault}: {done.tally.listed} objects proven, {done.tally.copied} of them copied now")
    if done.standing.unproven_count:
        raise typer.Exit(LACKING)


def _trust_file(estate: Estate) -> Path:
    path = os.environ.get(estate.trust_file_env, "")
    if not path:
        raise PolicyError(
            "vault.setting_missing",
            f"{estate.trust_file_env} (the trusted signers) is not set",
            f"export {estate.trust_file_env}=…, your own copy: a bundle's trust.json proves nothing by itself",
        )
    return Path(path).expanduser()
