"""`dr-assets keys list|rotate|retire|export|drill|recover`: the life of a vault's keys."""

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli import subjects
from dr_assets.cli.context import DefsOption, JsonOption, estate_of, vault_of
from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.estate.model import Estate, Subjects
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.keys.file_provider import DEMO_ONLY, FileKeyProvider
from dr_assets.vault.keys.life.escrow import drill, export, open_escrow, recover
from dr_assets.vault.keys.life.listing import KeyRow, Lying, datasets_with_keys, list_keys, objects_under
from dr_assets.vault.keys.life.retirement import retire
from dr_assets.vault.keys.life.rotation import age_of, rotate, unfinished
from dr_assets.vault.keys.provider import KeyProvider
from dr_assets.vault.keys.providers import providers_of
from dr_assets.vault.keys.secret_file import read_secret, write_secret
from dr_assets.vault.subjects.connect import open_ring, subject_id_key
from dr_assets.vault.subjects.rewrap import rewrap
from dr_assets.vault.vault import Vault

app = typer.Typer(no_args_is_help=True, help="The life of a vault's keys: rotation, retirement, escrow, people's keys.")
app.add_typer(subjects.app, name="subjects")
BROKEN = 1

VaultOption = Annotated[str, typer.Option("--vault", help="which of the estate's vaults")]
ReasonOption = Annotated[str, typer.Option("--reason", help="why; it goes on record")]
EscrowArgument = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="what `keys export` wrote")
]
IdentityOption = Annotated[Path, typer.Option("--identity", help="the age identity file that `age-keygen` wrote")]


@runtime_checkable
class Renewable(Protocol):
    """A provider that makes its next key-encryption key when asked."""

    def renew(self) -> str:
        """The id of the new one."""
        ...


@app.command("list")
def list_command(
    under: Annotated[str | None, typer.Option("--under", metavar="KEK", help="only what this key opens")] = None,
    objects: Annotated[bool, typer.Option("--objects", help="every object too; reads each header")] = False,
    vault: VaultOption = "primary",
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every data key, which of them writes, what wraps it; with --under, what one key-encryption key opens."""
    opened = vault_of(estate_of(defs), vault, signing=False)
    rows = [row for dataset in datasets_with_keys(opened) for row in list_keys(opened, dataset)]
    rows = [row for row in rows if under is None or row.under(under)]
    lying = {row.key_id: list(objects_under(opened, row.dataset, frozenset({row.key_id}))) for row in rows if objects}
    begun = [
        f"{row.dataset}/{key_id}" for row in rows if row.is_writing and (key_id := unfinished(opened, row.dataset))
    ]
    if as_json:
        typer.echo(json.dumps({"keys": [_row(row, lying) for row in rows], "unfinished": begun}, indent=2))
        return
    _show(rows, lying, Console())
    for name in begun:
        typer.echo(f"a rotation was begun and not finished: {name}; `dr-assets keys rotate` completes it")


@app.command("rotate")
def rotate_command(
    dataset: Annotated[str | None, typer.Argument(metavar="DATASET", help="all that have a key by default")] = None,
    due: Annotated[bool, typer.Option("--due", help="only what is older than the declared rotate_every")] = False,
    reason: ReasonOption = "asked for",
    vault: VaultOption = "primary",
    defs: DefsOption = None,
) -> None:
    """A new data key for writing from now on; nothing is re-encrypted, and live captures take it up by themselves."""
    estate = estate_of(defs)
    opened = vault_of(estate, vault, signing=True)
    failed: list[DrError] = []
    for name in [dataset] if dataset else datasets_with_keys(opened):
        try:
            _rotate(opened, name, reason, estate.rotate_every if due else None)
        except DrError as error:  # one dataset whose provider is away keeps no other's key from being rotated
            typer.echo(f"{name}: {error.code}", err=True)
            failed.append(error)
    if failed:
        raise failed[0]


def _rotate(vault: Vault, dataset: str, reason: str, every: timedelta | None) -> None:
    """Rotate one dataset's key; with `every` only where it is due or was begun."""
    age = None if every is None else age_of(vault, dataset, every)
    if age is not None and not age.is_due and unfinished(vault, dataset) is None:
        typer.echo(f"{dataset}: {age.key_id} is {age.age.days} days old, due at {age.every.days}")
        return
    done = rotate(vault, dataset, reason)
    typer.echo(f"{dataset}: {done.key_id} writes now; {done.previous} goes on opening what it sealed")
    for trouble in done.troubles:
        typer.echo(f"{dataset}: could not be wrapped anew: {trouble}")


@app.command("retire")
def retire_command(
    kek: Annotated[str, typer.Argument(metavar="KEK", help="the key-encryption key's id, as `keys list` shows it")],
    reason: Annotated[str, typer.Option("--reason", help="why; it goes on record")],
    vault: VaultOption = "primary",
    defs: DefsOption = None,
) -> None:
    """Give every dataset that writes under KEK a new data key, then mark KEK: nothing is written under it any more."""
    estate = estate_of(defs)
    done = retire(vault_of(estate, vault, signing=True), kek, reason)
    for rotation in done.rotations:
        typer.echo(f"{rotation.dataset}: {rotation.key_id} writes now")
    typer.echo(f"{kek}: {'was retired already' if done.was_retired else 'is retired'}")
    _show(list(done.exposed), {}, Console())
    typer.echo("whoever has that key can read all of this, wherever it is locked: see docs/keys.md")
    if estate.subjects is not None:
        typer.echo(_rewrap_people(estate, estate.subjects))


def _rewrap_people(estate: Estate, declared: Subjects) -> str:
    try:
        people = rewrap(open_ring(estate, os.environ))
    except VaultError as error:
        if error.code != "vault.no_bucket":
            raise
        return "the declared ring of people's keys is not set up yet: there is nobody's key to wrap anew"
    return (
        f"{len(people.anew)} of {people.people} people's keys wrapped anew; backups of the ring with the old wrapping"
        f" are gone after the erasure grace of {declared.erasure_grace.days} days"
    )


@app.command("new-kek")
def new_kek(
    provider: Annotated[
        str | None, typer.Argument(help="as `keys list` names it; needed where there are several")
    ] = None,
    defs: DefsOption = None,
) -> None:
    """A new key-encryption key in a token, a transit engine or a folder; AWS KMS's are made by whoever runs it."""
    chosen = _provider_of(providers_of(estate_of(defs), os.environ).every, provider)
    if isinstance(chosen, FileKeyProvider):
        kek_id = FileKeyProvider.create(chosen.folder).kek_id
        typer.echo(f"NOTE: {DEMO_ONLY}")
    elif isinstance(chosen, Renewable):
        kek_id = chosen.renew()
    else:
        raise PolicyError(
            "keys.not_ours", f"the keys of {chosen.name} are not made from here", "make one in the service itself"
        )
    typer.echo(f"{chosen.name}: {kek_id} wraps from now on; `dr-assets keys rotate` puts it to use")


@app.command("export")
def export_command(
    recipient: Annotated[str, typer.Option("--recipient", help="age1…, whose identity is kept offline")],
    out: Annotated[Path, typer.Option("--out", help="a new file; copy it to where the vault is not")],
    vault: VaultOption = "primary",
    defs: DefsOption = None,
) -> None:
    """All data keys, encrypted to an offline age identity: with it the vault opens when every provider is lost."""
    estate = estate_of(defs)
    id_key = subject_id_key(estate, os.environ) if estate.subjects else None
    more = {"subject_id_key": id_key.hex()} if id_key else {}
    data = export(vault_of(estate, vault, signing=True), recipient, more, save=lambda data: _save(out, data))
    typer.echo(f"{out}: {len(data)} bytes for {recipient}; now `dr-assets keys drill` where the identity is")


@app.command("drill")
def drill_command(
    file: EscrowArgument,
    identity: IdentityOption,
    vault: VaultOption = "primary",
    defs: DefsOption = None,
    no_record: Annotated[bool, typer.Option("--no-record", help="don't seal the outcome as a fact")] = False,
) -> None:
    """Prove that the escrow opens: with it alone, a few objects of every dataset. Exit 1 if it lacks a key."""
    opened = vault_of(estate_of(defs), vault, signing=not no_record)
    done = drill(opened, file.read_bytes(), _identity(identity))
    for dataset, count in done.opened.items():
        typer.echo(f"{dataset}: {count} objects opened with the escrow alone")
    for name in done.lacking:
        typer.echo(f"{name}: not in this escrow; `dr-assets keys export` anew")
    if not done.ok:
        raise typer.Exit(BROKEN)


@app.command("recover")
def recover_command(
    file: EscrowArgument, identity: IdentityOption, vault: VaultOption = "primary", defs: DefsOption = None
) -> None:
    """After the loss of every provider: wrap the escrowed data keys by those that are declared now."""
    opened = vault_of(estate_of(defs), vault, signing=True)
    for name in recover(opened, open_escrow(file.read_bytes(), _identity(identity), opened.trust)):
        typer.echo(f"{name}: wrapped by every declared provider")


def _save(out: Path, data: bytes) -> None:
    try:
        write_secret(out, data)
    except FileExistsError:
        raise PolicyError("escrow.file_exists", f"{out} exists already", "name a new file") from None


def _identity(path: Path) -> str:
    return read_secret(path, "age identity").decode("ascii", errors="replace")


def _provider_of(providers: Sequence[KeyProvider], name: str | None) -> KeyProvider:
    if name is None and len(providers) == 1:
        return providers[0]
    for provider in providers:
        if provider.name == name:
            return provider
    known = ", ".join(provider.name for provider in providers)
    raise PolicyError("keys.which_provider", f"no provider `{name or ''}` is declared", f"name one of: {known}")


def _row(row: KeyRow, lying: dict[str, list[Lying]]) -> dict[str, Json]:
    wrappings: list[Json] = [
        {"provider": one.provider, "kek_id": one.kek_id, "generation": one.generation, "retired": one.is_retired}
        for one in row.wrappings
    ]
    told: dict[str, Json] = {
        "dataset": row.dataset,
        "key_id": row.key_id,
        "created_at": row.created_at.isoformat(),
        "writing": row.is_writing,
        "wrappings": wrappings,
    }
    if row.key_id in lying:
        told["objects"] = [str(one.obj.key) for one in lying[row.key_id]]
    return told


def _show(rows: list[KeyRow], lying: dict[str, list[Lying]], console: Console) -> None:
    table = Table()
    for column in ("dataset", "data key", "since", "writes", "wrapped by"):
        table.add_column(column, overflow="fold")
    for row in rows:
        wrapped = "\n".join(
            f"{one.provider} {one.kek_id}{' RETIRED' if one.is_retired else ''}" for one in row.wrappings
        )
        table.add_row(
            row.dataset, row.key_id, f"{row.created_at:%Y-%m-%d %H:%M}Z", "yes" if row.is_writing else "", wrapped
        )
    console.print(table)
    for found in lying.values():
        for one in found:
            console.print(str(one.obj.key), markup=False, highlight=False)
