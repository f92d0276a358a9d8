"""`dr-assets roll-up DATASET`: micro-segments become full segments; the `roller` role."""

import json
import threading
from typing import Annotated

import typer
from rich.console import Console

from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, estate_of, postgres_of, vault_of
from dr_assets.estate.durations import parse_duration
from dr_assets.stores.postgres.full_put import FullStored
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.rollup_run import RollUp, require_untroubled, roll_up


def roll_up_command(
    dataset: DatasetArgument,
    once: Annotated[bool, typer.Option("--once", help="one run; the default unless --every is given")] = False,
    every: Annotated[str | None, typer.Option("--every", help="stay, and run again after this long, e.g. 60s")] = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Concatenate acknowledged micro-segments into full segments, and extend the locks of those that wait."""
    if once and every:
        raise typer.BadParameter("give --once or --every, not both")
    estate = estate_of(defs)
    declared = postgres_of(estate, dataset)
    vault = vault_of(estate, declared.vault, signing=True, role="roller")
    console = Console(stderr=True, highlight=False)

    def told(full: FullStored) -> None:
        console.print(f"full segment up to {format_lsn(full.rolled_to)}: {full.micros} micros, {full.size_bytes} bytes")

    pause_s = parse_duration(every).total_seconds() if every else None
    waiting = threading.Event()  # never set: a signal ends the wait, and the process
    while True:
        done = roll_up(vault, declared.name, listener=told, replicas=declared.replicas)
        typer.echo(json.dumps(done.to_json()) if as_json else _text(done))
        if pause_s is None:
            require_untroubled(done)
            return
        for trouble in done.troubles:
            console.print(f"dr-assets: rollup.stuck: {trouble}", markup=False)
        waiting.wait(pause_s)


def _text(done: RollUp) -> str:
    waits = sum(backlog.micros for backlog in done.backlogs)
    age_s = max((backlog.age(done.at).total_seconds() for backlog in done.backlogs), default=0.0)
    return (
        f"{done.dataset}: {done.micros} micro-segments ({done.size_bytes / 1e6:.1f} MB of WAL) into {done.fulls} full "
        f"segments; {waits} wait, the oldest for {age_s:.0f} s"
        + ("" if done.extended is None else f"; {done.extended} locks extended")
    )
