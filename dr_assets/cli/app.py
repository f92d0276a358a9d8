"""The command tree and what an error looks like to a person: one clear line, a hint, an exit code (docs/cli.md)."""

import signal
import sys
from types import FrameType

import typer

from dr_assets.cli.lazy import Verb, add_verbs
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
# One line a verb; `target` is imported when it is run (cli/lazy.py). `help` is the target's own first sentence.
VERBS = (
    Verb(
        "capture",
        "dr_assets.cli.capture:capture",
        "Stream a source (WAL, or record batches of topics) into the vault until stopped (SIGTERM or Ctrl-C).",
    ),
    Verb(
        "bucket",
        "dr_assets.cli.bucket:app",
        "Copy buckets of documents into the vault, restore them, and see where they stand.",
    ),
    Verb("kafka", "dr_assets.cli.kafka:app", "Show captured topics, and settle what was lost or made again."),
    Verb(
        "sync-guard",
        "dr_assets.cli.sync_guard:sync_guard",
        "Watch a zero-loss dataset's source until stopped; "
        "commits that waited `degrade_after` go on without the vault.",
    ),
    Verb(
        "preflight",
        "dr_assets.cli.snapshot:preflight",
        "Check whether the source can be protected; exit 1 and say what to change when it can't.",
    ),
    Verb(
        "snapshot",
        "dr_assets.cli.snapshot:snapshot",
        "Stream a base backup straight into the vault; it becomes usable once the WAL it needs is stored as well.",
    ),
    Verb(
        "restore",
        "dr_assets.cli.restore:restore",
        "Restore to a target, prove that it was reached, and leave a stopped, promoted cluster; or leave nothing.",
    ),
    Verb(
        "prove",
        "dr_assets.cli.prove:prove",
        "Restore databases from the vault all the time, reconcile them, and publish the proven recovery point.",
    ),
    Verb(
        "clone",
        "dr_assets.cli.clone:app",
        "A copy of a database at a moment, read-only, for a few hours: `clone DATASET --at TIME`.",
    ),
    Verb(
        "recovery-point",
        "dr_assets.cli.recovery_point:recovery_point_command",
        "Show the newest moment at which all stores agree, from the vault alone; exit 1 if one stands apart from it.",
    ),
    Verb(
        "extract",
        "dr_assets.cli.extract:app",
        "Everything that a database held of one person at a moment, as a signed file for a review.",
    ),
    Verb(
        "reconcile",
        "dr_assets.cli.reconcile:reconcile_command",
        "Check a ledger's money within itself and against providers, banks, topics and the CRM; exit 1 on a red break.",
    ),
    Verb("contract", "dr_assets.cli.contract:app", "Contracts: how a schema gives what the reconciliations read."),
    Verb("outbox", "dr_assets.cli.outbox:app", "Replay what a ledger's outbox never published, and prove it."),
    Verb(
        "work-list",
        "dr_assets.cli.worklist:work_list_command",
        "List what was lost between a recovery point and the failure, each line with an action and its reason.",
    ),
    Verb(
        "roll-up",
        "dr_assets.cli.roll_up:roll_up_command",
        "Concatenate acknowledged micro-segments into full segments, and extend the locks of those that wait.",
    ),
    Verb(
        "replicate",
        "dr_assets.cli.replicate:replicate_command",
        "Prove each object in every replica, and copy there what our own replicator is to bring; exit 1 if one lacks.",
    ),
    Verb(
        "settle",
        "dr_assets.cli.settle:settle",
        "List the commits that a failover left behind (exit 1 if there are any); with --by and --note, settle them.",
    ),
    Verb(
        "expire",
        "dr_assets.cli.expire:expire_command",
        "Remove, by version id and only where the lock is over, what lies outside the recovery window.",
    ),
    Verb(
        "status",
        "dr_assets.cli.status:status",
        "Show where every dataset stands, read from the vault itself; exit 1 when one is beyond its RPO.",
    ),
    Verb("drift", "dr_assets.cli.drift:app", "What is strange about a database's backups, by their statistics."),
    Verb(
        "doctor",
        "dr_assets.cli.doctor.command:doctor",
        "Look at everything that a capture and a restore rest on; exit 0 (ok), 1 (warnings) or 2 (something is bad).",
    ),
    Verb(
        "demo",
        "dr_assets.cli.demo:demo",
        "Capture a ledger under load, kill it, bring it back from the vault alone, and prove that the money adds up.",
    ),
    Verb(
        "up",
        "dr_assets.cli.demo:up",
        "Keep the embedded estate, its workload, the capture and the Dagster UI running until Ctrl-C.",
    ),
    Verb("approvals", "dr_assets.cli.approvals:app", "Deletions that enough people have signed."),
    Verb(
        "erasure",
        "dr_assets.cli.erasure:app",
        "People who are to be forgotten: asked for, approved, erased, certified.",
    ),
    Verb("roles", "dr_assets.cli.roles:app", "Five identities of a vault, each with one duty."),
    Verb("vault", "dr_assets.cli.vault:app", "The vault: locked, encrypted, signed objects."),
    Verb("estate", "dr_assets.cli.estate:app", "The policy as data: check it, and find what it doesn't cover."),
    Verb("keys", "dr_assets.cli.keys:app", "The life of a vault's keys: rotation, retirement, escrow, people's keys."),
    Verb("wal", "dr_assets.cli.wal:app", "Single WAL files, for standbys."),
    Verb("witness", "dr_assets.cli.witness:app", "A witness: it cosigns logs that only grow."),
    Verb("log", "dr_assets.cli.log:app", "The transparency log: what the vault holds, checkable by outsiders."),
)

add_verbs(app, VERBS)


def main() -> None:
    """Runs the command line. Errors that a person must act on print without a traceback; our own bugs crash."""
    # A shell starts background jobs with SIGINT ignored; SIGTERM by itself would end us with nothing stopped in order.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except DrError as error:
        from rich.console import Console  # noqa: PLC0415 - a quarter of what every verb's start would cost

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
