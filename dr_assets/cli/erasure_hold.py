"""`dr-assets erasure hold …`: people whose data must stay for now, whatever they ask for."""

import getpass
import os
import sys
from typing import Annotated

import typer

from dr_assets.cli.context import DefsOption, estate_of
from dr_assets.cli.times import parse_moment
from dr_assets.vault.approvals.papers import plain
from dr_assets.vault.erasure.holds import in_force, place, release
from dr_assets.vault.erasure.requests import require_anonymous
from dr_assets.vault.subjects.connect import open_ring, subject_ids

app = typer.Typer(no_args_is_help=True, help="Holds on people: litigation, an investigation, an open payment.")

ReasonOption = Annotated[str, typer.Option("--reason", help="the case or the order; it stays on record, so no name")]
ByOption = Annotated[str | None, typer.Option("--by", help="who says so; the user of this host by default")]


@app.command("place")
def place_command(
    reason: ReasonOption,
    until: Annotated[str | None, typer.Option("--until", help="when it ends by itself; open by default")] = None,
    by: ByOption = None,
    defs: DefsOption = None,
) -> None:
    """Hold the people whose identifiers stand on standard input, a line each."""
    estate = estate_of(defs)
    ids = subject_ids(estate, os.environ)
    named = [line.strip() for line in sys.stdin if line.strip()]
    require_anonymous(reason, named)
    ring = open_ring(estate, os.environ)
    end = parse_moment(until) if until else None
    held = place(
        ring.vault, [ids.of(one) for one in named], reason=reason, placed_by=by or getpass.getuser(), until=end
    )
    typer.echo(f"hold {held.hold_id} is placed on {len(held.subjects)} people")


@app.command("release")
def release_command(
    hold: Annotated[str, typer.Argument(metavar="HOLD", help="its id")],
    reason: ReasonOption,
    by: ByOption = None,
    defs: DefsOption = None,
) -> None:
    """Let the people go that one hold covers."""
    ring = open_ring(estate_of(defs), os.environ)
    release(ring.vault, hold, reason=reason, released_by=by or getpass.getuser())
    typer.echo(f"hold {hold} is released")


@app.command("list")
def list_command(defs: DefsOption = None) -> None:
    """Show the holds in force."""
    vault = open_ring(estate_of(defs), os.environ, signing=False).vault
    for one in in_force(vault, vault.clock()):
        until = "open" if one.until is None else f"until {one.until:%Y-%m-%d %H:%M}Z"
        typer.echo(plain(f"{one.hold_id}  {len(one.subjects)} people, {until}, by {one.placed_by}: {one.reason}"))
