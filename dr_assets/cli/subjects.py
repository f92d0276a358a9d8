"""`dr-assets keys subjects …`: the ring of people's keys, and forgetting somebody (docs/keys.md, People's keys)."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dr_assets.cli.context import DefsOption, JsonOption, estate_of
from dr_assets.estate.model import Estate
from dr_assets.vault.approvals import Approvals
from dr_assets.vault.approvals.papers import papers, plain
from dr_assets.vault.keys.secret_file import read_secret
from dr_assets.vault.subjects.backup import back_up, recover
from dr_assets.vault.subjects.connect import init_ring, open_ring, subject_ids
from dr_assets.vault.subjects.deletion import delete, finish, restore
from dr_assets.vault.subjects.ids import require_subject_id
from dr_assets.vault.subjects.look import look
from dr_assets.vault.subjects.policy import ERASE
from dr_assets.vault.subjects.records import DATASET
from dr_assets.vault.subjects.rewrap import outdated, people_under, rewrap
from dr_assets.vault.subjects.ring import SubjectRing

app = typer.Typer(no_args_is_help=True, help="People's keys: made, backed up, deleted by approval, forgotten.")
BROKEN = 1

SubjectsArgument = Annotated[list[str], typer.Argument(metavar="SUBJECT…", help="subject ids, as `subjects id` prints")]
ReasonOption = Annotated[str, typer.Option("--reason", help="why; it goes on record")]


@app.command("init")
def init(defs: DefsOption = None) -> None:
    """Create the buckets (versioned, without Object Lock) and the key of subject ids where they are absent."""
    for line in init_ring(estate_of(defs), os.environ):
        typer.echo(line)


@app.command("id")
def id_command(defs: DefsOption = None) -> None:
    """Subject ids of the personal identifiers on standard input, a line each; nothing is stored or logged."""
    ids = subject_ids(estate_of(defs), os.environ)
    for line in sys.stdin:
        if line.strip():
            typer.echo(ids.of(line.strip()))


@app.command("verify")
def verify(defs: DefsOption = None, as_json: JsonOption = False) -> None:
    """Compare the regions with the facts and the newest backup; exit 1 when something vanished, lacks or is foreign."""
    seen = look(open_ring(estate_of(defs), os.environ, signing=False))
    if as_json:
        typer.echo(json.dumps(asdict(seen), indent=2, default=str))
    else:
        typer.echo(f"{seen.people} people; newest backup: {seen.backup_at or 'none'}")
        for what in (
            "vanished",
            "replaced",
            "returned",
            "partial",
            "undecided",
            "unmarked",
            "foreign",
            "overdue",
            "soft",
        ):
            for name in getattr(seen, what):
                typer.echo(f"{what}: {plain(name)}")
    if not seen.ok:
        raise typer.Exit(BROKEN)


@app.command("backup")
def backup(defs: DefsOption = None) -> None:
    """Seal all people's keys into every vault, locked for exactly the erasure grace. Exit 1 when some had vanished."""
    done = back_up(_ring(estate_of(defs)))
    typer.echo(f"{done.people} people's keys backed up")
    for subject_id in done.carried:
        typer.echo(f"{subject_id}: in no region, and nobody decided so; carried over from the backup before")
    if done.carried:
        raise typer.Exit(BROKEN)


@app.command("request")
def request(
    subjects: SubjectsArgument,
    requester: Annotated[str, typer.Option("--requester", help="who asks")],
    reason: ReasonOption,
    out: Annotated[Path, typer.Option("--out", help="the file that the approvers sign")],
    defs: DefsOption = None,
) -> None:
    """Ask for the deletion of exactly these people's keys; the file goes to the approvers (`dr-assets approvals`)."""
    estate = estate_of(defs)
    people = sorted({require_subject_id(subject_id) for subject_id in subjects})
    asked = _approvals(estate, _ring(estate)).request(ERASE, people, requester, reason)
    out.write_bytes(papers(asked, people))
    typer.echo(f"request {asked.request_id} until {asked.expires_at}: have {out} signed")


@app.command("delete")
def delete_command(subjects: SubjectsArgument, defs: DefsOption = None) -> None:
    """Delete exactly the people's keys that were approved: unusable at once, gone for good after the grace."""
    estate = estate_of(defs)
    ring = _ring(estate)
    final_after = delete(ring, subjects, _approvals(estate, ring))
    typer.echo(f"{len(set(subjects))} people's keys are deleted; for good after {final_after:%Y-%m-%d %H:%M}Z")


@app.command("restore")
def restore_command(subjects: SubjectsArgument, reason: ReasonOption, defs: DefsOption = None) -> None:
    """Take deletions back that are not final yet."""
    restore(_ring(estate_of(defs)), subjects, reason)
    typer.echo(f"{len(set(subjects))} people's keys are back")


@app.command("finish")
def finish_command(defs: DefsOption = None) -> None:
    """Complete what was begun and make final what is due; for cron, every day. Exit 1 when somebody had come back."""
    done = finish(open_ring(estate_of(defs), os.environ, patient=True))
    typer.echo(f"{len(done.erased)} erased for good, {len(done.waiting)} wait")
    for subject_id, until in done.waiting:
        typer.echo(f"{subject_id}: until {until:%Y-%m-%d %H:%M}Z")
    for subject_id in done.returned:
        typer.echo(f"{subject_id}: erased before, and a region had the key or lacked the mark again; erased again")
    for region in done.away:
        typer.echo(f"{region}: gave no answer; nobody counts as erased before it does")
    if done.returned or done.away:
        raise typer.Exit(BROKEN)


@app.command("rewrap")
def rewrap_command(
    identity: Annotated[
        Path | None, typer.Option("--identity", help="the offline age identity, when every provider is lost")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="change nothing; exit 1 if somebody's key needs it")] = False,
    defs: DefsOption = None,
) -> None:
    """Wrap people's keys by today's key-encryption keys alone, in every region; the old wrappings are removed."""
    text = read_secret(identity, "age identity").decode("ascii", errors="replace") if identity else None
    ring = open_ring(estate_of(defs), os.environ, signing=not check, identity=text)
    if check:
        late = outdated(ring)
        typer.echo(f"{len(late)} people's keys are wrapped by others than today's key-encryption keys")
        if late:
            raise typer.Exit(BROKEN)
        return
    done = rewrap(ring)
    typer.echo(f"{len(done.anew)} of {done.people} people's keys wrapped anew, by {', '.join(done.kek_ids)}")


@app.command("under")
def under_command(
    kek: Annotated[str, typer.Argument(metavar="KEK", help="a key-encryption key's id, as `keys list` shows it")],
    defs: DefsOption = None,
) -> None:
    """List whose keys one key-encryption key opens, in any region and version."""
    for subject_id in people_under(open_ring(estate_of(defs), os.environ, signing=False), kek):
        typer.echo(subject_id)


@app.command("recover")
def recover_command(defs: DefsOption = None) -> None:
    """Lay back what the newest backup holds, the regions lack and nobody decided to delete."""
    laid = recover(_ring(estate_of(defs)))
    typer.echo(f"{len(laid)} people's keys were laid back")


def _ring(estate: Estate) -> SubjectRing:
    return open_ring(estate, os.environ)


def _approvals(estate: Estate, ring: SubjectRing) -> Approvals:
    return Approvals(ring.vault, DATASET, estate.approvals)
