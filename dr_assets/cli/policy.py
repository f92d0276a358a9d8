"""`dr-assets estate regimes|record-policy|policy|acknowledge-policy`: what the policy asks for, and how it changed."""

import getpass
import json
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import DefsOption, JsonOption, estate_of, vault_of
from dr_assets.cli.times import iso
from dr_assets.estate.commit import commit_of
from dr_assets.estate.declarations import default_defs_dir
from dr_assets.estate.model import Estate
from dr_assets.estate.regimes import UNCONFIRMED, regimes_of
from dr_assets.vault.retention.policy_change import acknowledge_policy, policy_history, record_policy

CommitOption = Annotated[
    str | None, typer.Option("--commit", help="of the declarations; DR_ASSETS_COMMIT or git by default")
]
VaultOption = Annotated[str, typer.Option("--vault", help="which of the estate's vaults")]


def regimes(defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """List the regimes that datasets may name, whether anybody confirmed them, and which dataset is kept by which."""
    estate = estate_of(defs)
    known = regimes_of({regime.name: regime for regime in estate.regimes})
    if as_json:
        told = [
            {"name": one.name, "days": one.days, "mode": one.mode, "source": one.source, "confirmed": one.confirmed,
             "datasets": _named_by(estate, one.name)}
            for one in known.values()
        ]  # fmt: skip
        typer.echo(json.dumps({"regimes": told, "datasets": _effective(estate)}, indent=2))
        return
    table = Table(title="retention regimes", title_justify="left")
    for column in ("regime", "days", "mode", "confirmed", "source", "datasets"):
        table.add_column(column, overflow="fold", no_wrap=column == "regime")
    for one in sorted(known.values(), key=lambda regime: regime.name):
        row = (one.name, str(one.days), one.mode, one.confirmed or UNCONFIRMED.upper(), one.source)
        table.add_row(*row, ", ".join(_named_by(estate, one.name)))
    console = Console(highlight=False)
    console.print(table)
    for name, kept in _effective(estate).items():
        console.print(f"{name}: {kept['days']} days, locks {kept['lock_days']} days in {kept['mode']} mode")
    console.print("UNCONFIRMED: our reading of the source, confirmed by nobody; ask your counsel, then declare it.")


def _named_by(estate: Estate, regime: str) -> list[str]:
    return [
        name for name, dataset in estate.datasets.items() if regime in {one.name for one in dataset.retention.regimes}
    ]


def _effective(estate: Estate) -> dict[str, dict[str, object]]:
    return {
        name: {
            "days": dataset.retention.days,
            "lock_days": dataset.retention.lock_days,
            "mode": dataset.retention.lock,
            "regimes": [one.name for one in dataset.retention.regimes],
            "unconfirmed": [one.name for one in dataset.retention.regimes if one.confirmed is None],
        }
        for name, dataset in estate.datasets.items()
    }


def record(vault: VaultOption = "primary", commit: CommitOption = None, defs: DefsOption = None) -> None:
    """Put today's policy on record if it is another than the one recorded last; say what changed."""
    estate = estate_of(defs)
    told = commit or commit_of(defs if defs is not None else default_defs_dir(), os.environ)
    changed = record_policy(vault_of(estate, vault, signing=True), estate, told)
    if changed is None:
        typer.echo("the policy is as it was recorded last")
        return
    for change in changed:
        typer.echo(f"{'WEAKER ' if change.is_weaker else ''}{change}")
    typer.echo(f"recorded: {len(changed)} changes, commit {told or 'unknown'}")


def show(vault: VaultOption = "primary", defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """Every change of policy on record: what, from, to, by which commit, and whether somebody stands for it."""
    rows = policy_history(vault_of(estate_of(defs), vault, signing=False))
    if as_json:
        told = [
            {"at": iso(one.at), "commit": one.commit, "acknowledged": is_seen,
             "changes": [{"what": each.what, "from": each.was, "to": each.now, "weaker": each.is_weaker}
                         for each in one.changes]}
            for one, is_seen in rows
        ]  # fmt: skip
        typer.echo(json.dumps(told, indent=2))
        return
    table = Table(title="changes of policy", title_justify="left")
    for column in ("recorded", "commit", "change", "weaker", "acknowledged"):
        table.add_column(column, overflow="fold")
    for one, is_seen in rows:
        for change in one.changes:
            seen = ("yes" if is_seen else "NO") if change.is_weaker else ""
            table.add_row(iso(one.at), (one.commit or "unknown")[:12], str(change), "yes" * change.is_weaker, seen)
    Console().print(table)


def acknowledge(
    reason: Annotated[str, typer.Option("--reason", help="why the weaker policy is right")],
    by: Annotated[str | None, typer.Option("--by", help="who stands for it; the user of this host by default")] = None,
    vault: VaultOption = "primary",
    defs: DefsOption = None,
) -> None:
    """Stand for every weakening that is on record, by name and with a reason: the check is green then."""
    opened = vault_of(estate_of(defs), vault, signing=True)
    count = acknowledge_policy(opened, acknowledged_by=by or getpass.getuser(), reason=reason)
    typer.echo(f"{count} weakenings are acknowledged")


def add_to(app: typer.Typer) -> None:
    """Hang them into `dr-assets estate`."""
    app.command("regimes")(regimes)
    app.command("record-policy")(record)
    app.command("policy")(show)
    app.command("acknowledge-policy")(acknowledge)
