"""`dr-assets erasure …`: a person asks to be forgotten (docs/erasure.md)."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dr_assets.cli import erasure_hold
from dr_assets.cli.approvals import read_paper
from dr_assets.cli.context import DefsOption, JsonOption, estate_of, vault_of
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate
from dr_assets.proving.erasures import replays
from dr_assets.proving.weighing import weigh
from dr_assets.vault.approvals import Approvals, Signature
from dr_assets.vault.approvals.papers import papers, plain, read_json
from dr_assets.vault.erasure.certificate import issue, newest, open_certificate
from dr_assets.vault.erasure.daily import Daily, daily
from dr_assets.vault.erasure.requests import ask, execute, find, require_anonymous
from dr_assets.vault.erasure.standing import ErasureStanding, Replay, standing
from dr_assets.vault.settings import path_setting
from dr_assets.vault.signing import Trust
from dr_assets.vault.subjects.connect import open_ring, subject_ids
from dr_assets.vault.subjects.erased import sealed
from dr_assets.vault.subjects.gather import gather
from dr_assets.vault.subjects.records import DATASET
from dr_assets.vault.subjects.ring import SubjectRing

app = typer.Typer(no_args_is_help=True, help="People who are to be forgotten: asked for, approved, erased, certified.")
app.add_typer(erasure_hold.app, name="hold")
BROKEN = 1

ErasureArgument = Annotated[str, typer.Argument(metavar="ERASURE", help="its id, or how that begins")]


@app.command("request")
def request_command(
    ground: Annotated[str, typer.Option("--ground", help="art17_1_a … art17_1_f: what the person can invoke")],
    reason: Annotated[str, typer.Option("--reason", help="the number of the case; it stays on record, so no name")],
    requester: Annotated[str, typer.Option("--requester", help="who asks on the person's behalf")],
    out: Annotated[Path, typer.Option("--out", help="the file that the approvers sign")],
    no_documents: Annotated[
        bool, typer.Option("--no-documents", help="somebody has no key, so no documents: erase them all the same")
    ] = False,
    defs: DefsOption = None,
) -> None:
    """Ask for the erasure of the people whose identifiers stand on standard input, a line each.

    Of an identifier only its keyed digest is kept. Exit 3, and on record, where a duty or a hold opposes.
    """
    estate = estate_of(defs)
    ids = subject_ids(estate, os.environ)
    named = [line.strip() for line in sys.stdin if line.strip()]
    require_anonymous(f"{reason} {requester}", named)
    people = sorted({ids.of(one) for one in named})
    ring = open_ring(estate, os.environ)
    known, oppositions = weigh(estate, ring, people, os.environ)
    erasure, asked = ask(
        ring,
        _approvals(estate, ring),
        people,
        ground=ground,
        reason=reason,
        requester=requester,
        relationships=known,
        oppositions=oppositions,
        may_lack_key=no_documents,
    )
    out.write_bytes(papers(asked, people))
    typer.echo(f"erasure {erasure.erasure_id} of {len(people)} people, until {asked.expires_at}: have {out} signed")


@app.command("approve")
def approve_command(
    signatures: Annotated[list[Path], typer.Argument(metavar="SIGNATURE…", help="what `approvals sign` printed")],
    defs: DefsOption = None,
) -> None:
    """Put approvers' signatures on record; they sign the file of the request with `dr-assets approvals sign`."""
    estate = estate_of(defs)
    approvals = _approvals(estate, open_ring(estate, os.environ))
    for path in signatures:
        done = approvals.add(Signature.of(dict(read_json(read_paper(path)))))
        lacks = done.lacks(approvals.rule)
        state = f"{lacks} more needed" if lacks else "enough: `dr-assets erasure execute`"
        typer.echo(f"{done.request.request_id}: signed by {', '.join(done.approvers)}; {state}")


@app.command("execute")
def execute_command(
    erasure_id: ErasureArgument,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="a file for the certificate")] = None,
    defs: DefsOption = None,
) -> None:
    """Destroy the people's keys in every region: unusable at once, gone for good after the grace; and certify it."""
    estate = estate_of(defs)
    ring = open_ring(estate, os.environ)
    erasure = find(ring.vault, erasure_id)
    _, oppositions = weigh(estate, ring, erasure.subjects, os.environ)
    final_after = execute(ring, _approvals(estate, ring), erasure, oppositions)
    unreplayed = _one(estate, ring, erasure.erasure_id).unreplayed
    data = issue(ring, estate, erasure, unreplayed)
    if certificate is not None:
        certificate.write_bytes(data)
    typer.echo(f"{erasure.erasure_id}: {len(erasure.subjects)} people; for good after {final_after:%Y-%m-%d %H:%M}Z")
    typer.echo(f"still to be replayed: {', '.join(unreplayed) or 'nothing'}")


@app.command("certificate")
def certificate_command(
    erasure_id: Annotated[str | None, typer.Argument(metavar="ERASURE", help="its id, or how that begins")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="a file for it; standard output by default")] = None,
    verify: Annotated[
        Path | None, typer.Option("--verify", help="check this certificate with the trust file alone, and print it")
    ] = None,
    defs: DefsOption = None,
) -> None:
    """Hand out the newest certificate of an erasure; or check one that somebody shows, without vault or network."""
    estate = estate_of(defs)
    if verify is not None:
        trust = Trust.load(path_setting(os.environ, estate.trust_file_env, "the trusted signers"))
        typer.echo(json.dumps(open_certificate(read_paper(verify), trust), indent=2))
        return
    if erasure_id is None:
        raise PolicyError("erasure.unknown", "no erasure is named", "name one, or give --verify FILE")
    vault = open_ring(estate, os.environ, signing=False).vault
    data = newest(vault, find(vault, erasure_id).erasure_id)
    if data is None:
        raise PolicyError("erasure.not_executed", "it has no certificate yet", "`dr-assets erasure execute` issues it")
    if out is None:
        typer.echo(data.decode("ascii").rstrip())
    else:
        out.write_bytes(data)


@app.command("list")
def list_command(
    out: Annotated[
        Path | None,
        typer.Option("--out", help="save the signed list of all erased for restores where no region answers"),
    ] = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every erasure; with --out, save the list that each restore has to apply."""
    estate = estate_of(defs)
    ring = open_ring(estate, os.environ, signing=out is not None)
    rows = _standing(estate, ring)
    if out is not None:
        listed = gather(estate, ring.vault, os.environ)
        out.write_bytes(sealed(listed, estate.name, ring.vault.clock(), ring.signer()))
        typer.echo(f"{out}: {len(listed)} people, as of {ring.vault.clock():%Y-%m-%d %H:%M}Z")
    elif as_json:
        typer.echo(json.dumps([asdict(one) for one in rows], indent=2, default=str))
    else:
        typer.echo("\n".join(map(_line, rows)) or "nobody asked to be forgotten")


@app.command("status")
def status_command(defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """Say how far every erasure is; exit 1 where one is overdue, not replayed, or the source still knows somebody."""
    estate = estate_of(defs)
    ring = open_ring(estate, os.environ, signing=False)
    found, rows = _replays(estate, ring), _standing(estate, ring)
    if as_json:
        told = {"replays": found, "erasures": [asdict(one) for one in rows]}
        typer.echo(json.dumps(told, indent=2, default=lambda one: asdict(one) if isinstance(one, Replay) else str(one)))
    else:
        for name, replay in found.items():
            at = "no restore has applied the list yet" if replay is None else f"applied up to {replay.newest_at}"
            typer.echo(f"{name}: {at}")
        for one in rows:
            typer.echo(_line(one))
    if any(one.state == "overdue" or one.unreplayed or one.still_known for one in rows):
        raise typer.Exit(BROKEN)


@app.command("daily")
def daily_command(defs: DefsOption = None) -> None:
    """Back the ring up, make final what is due, wrap keys anew, certify; for cron. Exit 1 when something is wrong."""
    estate = estate_of(defs)
    ring = open_ring(estate, os.environ, patient=True)
    done = daily(ring, estate, _replays(estate, ring))
    for line in _told(done):
        typer.echo(line)
    if not done.ok:
        raise typer.Exit(BROKEN)


def _told(done: Daily) -> list[str]:
    lines = [f"TROUBLE {plain(one)}" for one in done.troubles]
    if done.backed_up is not None:
        lines.append(f"{done.backed_up.people} people's keys backed up")
    if done.finished is not None:
        lines.append(f"{len(done.finished.erased)} erased for good, {len(done.finished.waiting)} wait")
    if done.rewrapped is not None:
        lines.append(f"{len(done.rewrapped.anew)} of {done.rewrapped.people} keys wrapped anew")
    return lines + [f"{one}: certified" for one in done.certified]


def _line(one: ErasureStanding) -> str:
    erasure = one.erasure
    parts = [f"{erasure.erasure_id}  {one.state:<10} {len(erasure.subjects)} people, {erasure.ground}"]
    parts += [f"for good after {one.final_after:%Y-%m-%d %H:%M}Z"] if one.final_after else []
    parts += [f"NOT REPLAYED: {', '.join(one.unreplayed)}"] if one.unreplayed else []
    parts += [f"STILL KNOWN TO THE SOURCE: {', '.join(one.still_known)}"] if one.still_known else []
    return plain("; ".join([*parts, erasure.reason]))


def _standing(estate: Estate, ring: SubjectRing) -> list[ErasureStanding]:
    return standing(ring.vault, estate.approvals, _replays(estate, ring), ring.vault.clock())


def _one(estate: Estate, ring: SubjectRing, erasure_id: str) -> ErasureStanding:
    return next(one for one in _standing(estate, ring) if one.erasure.erasure_id == erasure_id)


def _replays(estate: Estate, ring: SubjectRing) -> dict[str, Replay | None]:
    opened = {vault.name: vault for vault in ring.vaults}
    wanted = {one.vault for one in (*estate.postgres().values(), *estate.topics().values())}
    return replays(estate, opened | {n: vault_of(estate, n, signing=False) for n in wanted - opened.keys()})


def _approvals(estate: Estate, ring: SubjectRing) -> Approvals:
    return Approvals(ring.vault, DATASET, estate.approvals)
