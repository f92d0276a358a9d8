"""`dr-assets log collect|key|trust|verify`: what outsiders say of the log, and checking a copy of it alone."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dr_assets.cli.context import DefsOption, JsonOption, estate_of, vault_of
from dr_assets.estate.errors import PolicyError
from dr_assets.vault.log.belief import Belief
from dr_assets.vault.log.checkpoint import origin_of, verifiers_of
from dr_assets.vault.log.offline import OfflineReport
from dr_assets.vault.log.offline_run import ObjectProof, verify_export
from dr_assets.vault.log.outside import amiss, belief_of, collect, newest_witnessed, outsiders_of, waiting_since
from dr_assets.vault.log.reader import LogReader

VaultOption = Annotated[str, typer.Option("--vault", help="which of the estate's vaults")]
RED = 1
SHOWN = 20


def collect_command(vault: VaultOption = "primary", defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """Show the newest checkpoint to the declared witnesses, time-stamper and chain, and keep what they say.

    Exit 1 when a witness was shown a fork or a rollback, or leaves wait too long for their quorum.
    """
    estate = estate_of(defs)
    outsiders = outsiders_of(estate, os.environ)
    opened = vault_of(estate, vault, signing=False, role="writer")
    reader = LogReader.open(opened)
    if reader is None:
        raise PolicyError("log.no_checkpoint", f"vault '{vault}' has no log yet", "`dr-assets log sequence` makes one")
    heard = collect(outsiders, reader, datetime.now(UTC))
    witnessed = newest_witnessed(outsiders, reader)
    found = amiss(outsiders, heard, waiting_since(reader, witnessed), datetime.now(UTC))
    if as_json:
        body = {
            "size": reader.checkpoint.size,
            "heard": [{"who": h.who, "standing": h.standing, "size": h.size, "detail": h.detail} for h in heard],
            "witnessed": {"size": witnessed.size, "at": witnessed.at.isoformat()} if witnessed else None,
            "amiss": [{"code": a.code, "red": a.red, "detail": a.detail} for a in found],
        }
        typer.echo(json.dumps(body, indent=2))
    else:
        typer.echo(f"{reader.checkpoint.origin}: {reader.checkpoint.size} leaves")
        for one in heard:
            typer.echo(f"{one.who}: {one.standing} ({one.size} leaves): {one.detail}")
        for trouble in found:
            typer.echo(f"{'RED' if trouble.red else 'warning'}: {trouble.code}: {trouble.detail}")
    if any(trouble.red for trouble in found):
        raise typer.Exit(RED)


def trust_command(vault: VaultOption = "primary", defs: DefsOption = None) -> None:
    """Print whom to believe about this log, for those who check it: hand it over by another way than the log."""
    estate = estate_of(defs)
    opened = vault_of(estate, vault, signing=False)
    belief = belief_of(estate, vault, opened.trust, outsiders_of(estate, os.environ))
    typer.echo(json.dumps(belief.to_json(), indent=2))


def key_command(vault: VaultOption = "primary", defs: DefsOption = None) -> None:
    """Print the log's verifier keys, one for each trusted signer: what a witness is told with `witness add-log`."""
    estate = estate_of(defs)
    trust = vault_of(estate, vault, signing=False).trust
    for verifier in verifiers_of(origin_of(estate.name, vault), trust):
        typer.echo(str(verifier.key))


def verify_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="what `dr-assets log export` wrote")],
    trust: Annotated[Path, typer.Option("--trust", help="whom to believe: what `dr-assets log trust` printed")],
    object_name: Annotated[str | None, typer.Option("--object", help="also prove that this object is logged")] = None,
    sha256: Annotated[str | None, typer.Option("--sha256", help="of the object's bytes, in hex")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a copy of a log, with no network and no vault: what is proven, what is not; exit 1 on any damage."""
    if (object_name is None) != (sha256 is None):
        raise PolicyError("cli.object_without_digest", "--object and --sha256 belong together", "sha256sum FILE")
    wanted = (object_name, sha256.lower()) if object_name and sha256 else None
    belief = Belief.load(trust)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("leaves", total=None)
        report, proof = verify_export(
            folder,
            belief,
            wanted=wanted,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(report.to_json() | {"object": proof.to_json() if proof else None}, indent=2))
    else:
        _show(report, proof, Console(file=sys.stdout, markup=False))
    if not report.ok or (wanted and proof is None):
        raise typer.Exit(RED)


def _show(report: OfflineReport, proof: ObjectProof | None, console: Console) -> None:
    table = Table()
    for column in ("what", "verdict", "detail"):
        table.add_column(column, overflow="fold")
    for row in report.claims:
        table.add_row(row.claim, row.verdict, row.detail)
    console.print(table)
    for damage in report.damage[:SHOWN]:
        console.print(f"DAMAGED {damage.path}: {damage.detail}", highlight=False)
    for path in report.strangers[:SHOWN]:
        console.print(f"not vouched for: {path}", highlight=False)
    if proof:
        console.print_json(json.dumps(proof.to_json()))
    verdict = "nothing is damaged" if not report.damage_total else f"{report.damage_total} damaged or missing"
    missed = "; NO CHECKPOINT HAS ITS QUORUM" if report.quorum_missed else ""
    console.print(f"{report.size} leaves: {verdict}{missed}", highlight=False)
