"""The command tree and what an error looks like to a person: one clear line, a hint, an exit code (docs/cli.md)."""

import signal
import sys
from types import FrameType

import typer
from rich.console import Console

from dr_assets.cli import (
    approvals,
    capture,
    demo,
    estate,
    expire,
    hold,
    keeping,
    keys,
    log,
    policy,
    replicate,
    restore,
    roles,
    roll_up,
    settle,
    snapshot,
    status,
    sync_guard,
    vault,
    wal,
    witness,
)
from dr_assets.cli.doctor import command as doctor
from dr_assets.estate.errors import DrError

INTERRUPTED = 130

app = typer.Typer(
    name="dr-assets",
    help="The money comes back: capture, restore and prove the backups of a casino or FinTech.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(approvals.app, name="approvals")
app.add_typer(roles.app, name="roles")
vault.app.add_typer(hold.app, name="hold")
keeping.add_to(vault.app)
policy.add_to(estate.app)
app.add_typer(vault.app, name="vault")
app.add_typer(estate.app, name="estate")
app.add_typer(keys.app, name="keys")
app.add_typer(wal.app, name="wal")
app.add_typer(witness.app, name="witness")
app.add_typer(log.app, name="log")
app.command("capture")(capture.capture)
app.command("sync-guard")(sync_guard.sync_guard)
app.command("preflight")(snapshot.preflight)
app.command("snapshot")(snapshot.snapshot)
app.command("restore")(restore.restore)
app.command("roll-up")(roll_up.roll_up_command)
app.command("replicate")(replicate.replicate_command)
app.command("settle")(settle.settle)
app.command("expire")(expire.expire_command)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("up")(demo.up)


def main() -> None:
    """Runs the command line. Errors that a person must act on print without a traceback; our own bugs crash."""
    # A shell starts background jobs with SIGINT ignored; SIGTERM by itself would end us with nothing stopped in order.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except DrError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"dr-assets: {error.code}: {error.found}", markup=False)
        for note in getattr(error, "__notes__", ()):
            console.print(note, markup=False)
        console.print(f"HINT: {error.hint}", markup=False)
        sys.exit(error.exit_code)
    except _InterruptedError:
        print("dr-assets: interrupted", file=sys.stderr)  # noqa: T201 - the console may be in mid-progress
        sys.exit(INTERRUPTED)


class _InterruptedError(BaseException):
    """Unwinds everything, stopping children on the way. Not KeyboardInterrupt, which typer keeps for itself."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _InterruptedError
