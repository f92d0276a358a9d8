"""`dr-assets roles …`: what a declared vault's roles may do, as a store's own policy documents.

What belongs here: options and output. What stays out: what is in them (vault/roles/). Needs no vault and no keys.
"""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from dr_assets.cli.context import DefsOption, JsonOption, estate_of
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import ROLES, Estate
from dr_assets.vault.roles.documents import documents, dumped
from dr_assets.vault.roles.duties import duty_of, is_source, scope_of

VaultArgument = Annotated[str, typer.Argument(metavar="VAULT", help="a vault that the estate declares")]

app = typer.Typer(name="roles", help="Five identities of a vault, each with one duty.", no_args_is_help=True)


class RoleName(StrEnum):
    """The roles, as an argument."""

    WRITER = "writer"
    READER = "reader"
    ROLLER = "roller"
    REPLICATOR = "replicator"
    EXPIRER = "expirer"


class StoreKind(StrEnum):
    """Whose way of judging."""

    AWS = "aws"
    SEAWEEDFS = "seaweedfs"


@app.command("show")
def show_command(vault: VaultArgument, defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """The bounds of a vault's roles, and where each one's keys are looked for."""
    estate = _estate(defs, vault)
    scope, place = scope_of(estate, vault), estate.vaults[vault]
    bounds = {"bucket": scope.bucket, "estate": scope.estate, "cap_days": int(scope.cap_days), "mode": scope.mode}
    keys = {role: pair.access_key_env for role, pair in place.roles.items()}
    if as_json:
        typer.echo(json.dumps({**bounds, "is_source": is_source(estate, vault), "keys": keys}, indent=2))
        return
    typer.echo("  ".join(f"{name}={value}" for name, value in bounds.items()))
    for role in ROLES:
        duty = duty_of(role, at_source=is_source(estate, vault))
        typer.echo(f"{role:<11}{keys.get(role, f'not apart: {place.access_key_env}'):<40}{duty.what}")


@app.command("policy")
def policy_command(
    vault: VaultArgument,
    role: Annotated[RoleName, typer.Argument(help="whose document")],
    store: Annotated[StoreKind, typer.Option("--store", help="in whose words")] = StoreKind.AWS,
    defs: DefsOption = None,
) -> None:
    """One role's IAM policy document. SeaweedFS's has a date in it: write it anew at least once a year."""
    estate = _estate(defs, vault)
    typer.echo(dumped(documents(estate, vault, store.value, now=datetime.now(UTC))[role.value]), nl=False)


def _estate(defs: DefsOption, vault: str) -> Estate:
    estate = estate_of(defs)
    if vault not in estate.vaults:
        known = ", ".join(sorted(estate.vaults))
        raise PolicyError("cli.unknown_vault", f"no vault is called '{vault}'", f"declared vaults: {known}")
    return estate
