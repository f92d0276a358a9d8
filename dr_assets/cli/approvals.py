"""`dr-assets approvals …`: ask for a deletion, sign it elsewhere, collect the signatures, see where it stands.

What belongs here: files, options and output. What stays out: what is signed and what counts (vault/approvals/).

`key`, `show` and `sign` need neither the vault nor a network: an approver runs them wherever their own key lies.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, dataset_of, estate_of, vault_of
from dr_assets.cli.expire_planner import planner_of
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate
from dr_assets.stores.postgres.expire import plan_expiry
from dr_assets.stores.postgres.expire_consent import ACTION
from dr_assets.vault.approvals import Approvals, Request, Signature, Standing, open_papers, sign
from dr_assets.vault.approvals.papers import PAPER_LIMIT_BYTES, papers, plain, read_json
from dr_assets.vault.expiry_list import line_of
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.signing import Signer
from dr_assets.vault.vault import Vault

NOT_ENOUGH = 1
_SHOWN = 20

PaperArgument = Annotated[Path, typer.Argument(metavar="REQUEST", help="the file that `request` wrote")]

app = typer.Typer(name="approvals", help="Deletions that enough people have signed.", no_args_is_help=True)


@app.command("key")
def key_command(path: Annotated[Path, typer.Argument(metavar="FILE", help="a new file, of mode 0600")]) -> None:
    """Make an approver's own key; prints the public key for the estate's declaration."""
    signer = Signer.generate()
    signer.save(path)
    typer.echo(signer.public_key.hex())


@app.command("request")
def request_command(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="a new file for the approvers, with the whole list")],
    requester: Annotated[str, typer.Option("--requester", help="who asks")],
    reason: Annotated[str, typer.Option("--reason", help="why; the approvers read it")],
    valid_for: Annotated[str | None, typer.Option("--valid-for", help="how long it holds, for example 24h")] = None,
    defs: DefsOption = None,
) -> None:
    """Ask, on record, to remove what `dr-assets expire` would remove now; writes the list for the approvers."""
    estate = estate_of(defs)
    declared = dataset_of(estate, dataset)
    vault = vault_of(estate, declared.vault, signing=True, role="writer")
    approvals = Approvals(vault, declared.name, estate.approvals)
    planner = planner_of(declared)
    lines = sorted(line_of(row) for row in plan_expiry(vault, declared.name, planner=planner).rows)
    lasting = None if valid_for is None else parse_duration(valid_for)
    if output.exists():
        raise PolicyError("approvals.file_exists", f"{output} is there already", "name a new file")
    made = approvals.request(ACTION, lines, requester, reason, valid_for=lasting)
    with output.open("xb") as file:
        file.write(papers(made, lines))
    typer.echo(f"{made.request_id}: {made.objects} objects, {approvals.rule.needed} approvals needed: {output}")


@app.command("show")
def show_command(paper: PaperArgument, as_json: JsonOption = False) -> None:
    """What a request asks for, and whether its list is the one that was asked for; no vault is needed."""
    request, lines = open_papers(read_paper(paper))
    if as_json:
        typer.echo(json.dumps({"request_id": request.request_id, **request.to_json(), "list": lines}, indent=2))
        return
    typer.echo(_text(request))
    typer.echo("\n".join(f"  {plain(line.split(' ')[0])}" for line in lines[:_SHOWN]))
    if len(lines) > _SHOWN:
        typer.echo(f"  … and {len(lines) - _SHOWN} more; --json lists all")


@app.command("sign")
def sign_command(
    paper: PaperArgument,
    key: Annotated[Path, typer.Option("--key", help="the approver's own key")],
) -> None:
    """Agree to exactly this list; prints the signature. Needs neither the vault nor a network."""
    request, _ = open_papers(read_paper(paper))
    typer.echo(_text(request), err=True)
    typer.echo(json.dumps(sign(request, Signer.load(key)).to_json()))


@app.command("add")
def add_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="whose deletion it is: a dataset, or `subjects`")],
    signatures: Annotated[list[Path], typer.Argument(metavar="SIGNATURE…", help="files that `sign` printed")],
    defs: DefsOption = None,
) -> None:
    """Put approvers' signatures on record."""
    estate = estate_of(defs)
    approvals = Approvals(_vault(estate, dataset, signing=True), dataset, estate.approvals)
    for path in signatures:
        standing = approvals.add(Signature.of(dict(read_json(read_paper(path)))))
        lacks = standing.lacks(approvals.rule)
        typer.echo(
            f"{standing.request.request_id}: signed by {', '.join(standing.approvers)}; "
            + (f"{lacks} more needed" if lacks else "enough")
        )


@app.command("list")
def list_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="whose deletions: a dataset, or `subjects`")],
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Requests on record of the last month and how far each has come."""
    estate = estate_of(defs)
    vault = _vault(estate, dataset, signing=False)
    approvals, now = Approvals(vault, dataset, estate.approvals), vault.store.now()
    found = approvals.standing()
    rows = [_row(standing, approvals, now) for standing in found]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        lines = [
            f"{row['state']:<8} {row['request_id']}  {_line(one.request)}" for row, one in zip(rows, found, strict=True)
        ]
        typer.echo("\n".join(lines) or f"nothing was asked for in {dataset}")


def read_paper(path: Path) -> bytes:
    """The bytes of a request or a signature. Raises PolicyError `approvals.no_file`."""
    try:
        with path.open("rb") as file:
            return file.read(PAPER_LIMIT_BYTES)
    except OSError as error:
        raise PolicyError(
            "approvals.no_file", f"{path}: {error.strerror}", "name the file as it was handed on"
        ) from None


def _vault(estate: Estate, dataset: str, *, signing: bool) -> Vault:
    """The vault that a deletion is recorded in; people's keys belong to no dataset and lie in the first of theirs."""
    if dataset == "subjects" and estate.subjects is not None:
        return vault_of(estate, estate.subjects.vaults[0], signing=signing)
    return vault_of(estate, dataset_of(estate, dataset).vault, signing=signing)


def _row(standing: Standing, approvals: Approvals, now: datetime) -> dict[str, Json]:
    lacks = standing.lacks(approvals.rule)
    state = (
        "used" if standing.used else "expired" if standing.request.has_expired(now) else "open" if lacks else "ready"
    )
    signed: list[Json] = [*standing.approvers]
    return {
        "request_id": standing.request.request_id,
        "state": state,
        "approvers": signed,
        "lacks": lacks,
        **standing.request.to_json(),
    }


def _line(request: Request) -> str:
    return plain(
        f"{request.action} {request.objects} objects, asked by {request.requester}, until {request.expires_at}"
    )


def _text(request: Request) -> str:
    where = plain(f"{request.estate}/{request.dataset} in vault {request.vault}: {request.reason}")
    return f"{request.request_id}: {_line(request)}\n{where}\nlist: sha256 {plain(request.digest)}"
