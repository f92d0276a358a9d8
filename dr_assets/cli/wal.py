"""`dr-assets wal get`: a `restore_command` for standbys.

What belongs here: PostgreSQL's contract for such a command (its manual, "Recovery Target Settings"): 0 only with the
whole file written; up to 125 when there is none, which ends an archive recovery and lets a standby ask again; more
than that stops the server, so that nobody promotes over WAL that is stored and cannot be read.
"""

import os
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final

import typer

from dr_assets.cli.context import DatasetArgument, DefsOption, estate_of, postgres_of, vault_of
from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.stores.postgres.patience import patiently
from dr_assets.stores.postgres.wal_feed import NotStoredError, WalFeed, system_of

NOT_STORED: Final = 1
STOP: Final = 126
_SEGMENT_BYTES: Final = 16 << 20
_STANDBY: Final = "standby.signal"

app = typer.Typer(no_args_is_help=True, help="Single WAL files, for standbys.")


@app.callback()
def wal() -> None:
    """Single WAL files, for standbys."""


@app.command("get")
def get(
    dataset: DatasetArgument,
    name: Annotated[str, typer.Argument(metavar="%f", help="the file that the server asks for")],
    path: Annotated[Path, typer.Argument(metavar="%p", help="where the server wants it")],
    vault: Annotated[str | None, typer.Option("--vault", help="which vault; the dataset's own by default")] = None,
    system_id: Annotated[
        str | None, typer.Option("--system-id", help="of the cluster; read from the working directory by default")
    ] = None,
    segment_bytes: Annotated[
        int, typer.Option("--segment-bytes", min=1 << 20, help="the cluster's WAL segment size")
    ] = _SEGMENT_BYTES,
    patience_s: Annotated[
        float, typer.Option("--patience-s", min=0, help="how long to try again while the vault is unreachable")
    ] = 60.0,
    defs: DefsOption = None,
) -> None:
    """Write one WAL segment or history file; exit 1 when it is not stored, 126 when it must not be gone on without."""
    sys.excepthook = _crash
    try:
        estate = estate_of(defs)
        declared = postgres_of(estate, dataset)
        opened = vault_of(estate, vault or declared.vault, signing=False)
        feed = WalFeed(opened, declared.name, _system(system_id), segment_bytes=segment_bytes)
        patiently(lambda: feed.fetch(name, path), threading.Event(), give_up_s=patience_s)
    except NotStoredError as error:
        _say(str(error))
        raise typer.Exit(NOT_STORED) from None
    except DrError as error:
        _say(f"{error.code}: {error.found}\nHINT: {error.hint}")
        raise typer.Exit(_code(error)) from None


def _system(given: str | None) -> str:
    system_id = given or system_of(Path.cwd())
    if system_id is None:
        raise PolicyError(
            "wal.no_system",
            "there is no cluster in the working directory, so nobody knows whose WAL is asked for",
            "run it as a server's restore_command, or add --system-id",
        )
    return system_id


def _code(error: DrError) -> int:
    """A standby asks again by itself, so a vault that is away for a while need not stop it; a recovery would end."""
    away = isinstance(error, VaultError) and error.code == "vault.unreachable"
    return NOT_STORED if away and Path(_STANDBY).exists() else STOP


def _crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug of ours would end Python with 1, which tells a server that there is no more WAL."""
    traceback.print_exception(kind, error, trace)
    sys.stderr.flush()
    os._exit(STOP)


def _say(text: str) -> None:
    """Into the server's log."""
    print(f"dr-assets wal get: {text}", file=sys.stderr)  # noqa: T201 - not a page for people
