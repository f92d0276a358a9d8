"""`dr-assets witness init|add-log|serve|show`: a witness for logs, to run elsewhere (docs/witness.md)."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.connect import utc_now
from dr_assets.vault.log.checkpoint import Checkpoint
from dr_assets.vault.log.note import parse_note
from dr_assets.vault.log.witness_book import WitnessBook
from dr_assets.vault.log.witness_server import WitnessServer
from dr_assets.vault.log.witness_setup import WitnessFolder

app = typer.Typer(no_args_is_help=True, help="A witness: it cosigns logs that only grow. Run it where the log isn't.")

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="the witness's own folder")]


@app.command("init")
def init(
    folder: FolderArgument,
    name: Annotated[str, typer.Option("--name", help="its name in notes, best a URL without scheme; no spaces")],
) -> None:
    """Make a witness: key and empty book. Prints the verifier key that estates declare."""
    typer.echo(str(WitnessFolder(folder).begin(name, utc_now).verifier.key))


@app.command("add-log")
def add_log(
    folder: FolderArgument,
    key: Annotated[str, typer.Argument(metavar="KEY", help="the log's verifier key: `dr-assets log key` prints it")],
) -> None:
    """Know a log (or a new key of one); a serving witness takes it up when it is started anew."""
    typer.echo(f"knows {WitnessFolder(folder).add_log(key).name}")


@app.command("serve")
def serve(
    folder: FolderArgument,
    host: Annotated[str, typer.Option("--host", help="where to listen; TLS is a proxy's business")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: any free one")] = 7380,
) -> None:
    """Answer C2SP tlog-witness over HTTP until interrupted."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    setup = WitnessFolder(folder)
    with WitnessBook(folder) as book:
        cosigner = setup.cosigner(book, utc_now)
        try:
            server = WitnessServer((host, port), cosigner)
        except OSError as error:
            raise PolicyError(
                "witness.address", f"can't listen on {host}:{port}: {error.strerror}", "choose another --host or --port"
            ) from None
        with server:
            known = ", ".join(sorted(cosigner.logs)) or "no log yet: `dr-assets witness add-log`"
            typer.echo(f"{cosigner.signer.name} listens on {host}:{server.server_port}, knows {known}")
            server.serve_forever()


@app.command("show")
def show(folder: FolderArgument) -> None:
    """Its verifier key, the logs it knows, and what it cosigned last of each."""
    setup = WitnessFolder(folder)
    typer.echo(str(setup.signer(utc_now).verifier.key))
    for origin in sorted(setup.logs()):
        typer.echo(f"knows {origin}")
    with WitnessBook(folder, shared=True) as book:
        for named in book.names():
            checkpoint = Checkpoint.parse(parse_note(book.read(named) or b"").text)
            typer.echo(f"cosigned {checkpoint.origin}: {checkpoint.size} leaves, root {checkpoint.root.hex()}")
