"""`dr-assets bucket …`: copy a bucket of documents, see where it stands, bring it back, look at what is stored of it.

What belongs here: options and output. What stays out: everything that is done (stores/bucket).
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dr_assets.cli.bundle import BundleOption, vault_or_bundle
from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, bucket_of, estate_of, vault_of
from dr_assets.cli.options import AccessKeyOption, AsOfOption, SecretKeyOption, VaultOption
from dr_assets.cli.shown import shown
from dr_assets.cli.times import iso, parse_moment
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import BucketDataset, Estate
from dr_assets.estate.sizes import parse_size

if TYPE_CHECKING:
    from dr_assets.stores.bucket.copy import CopyResult
    from dr_assets.stores.bucket.restore import Restored
    from dr_assets.stores.bucket.site import Site
    from dr_assets.stores.bucket.source import Place
    from dr_assets.vault.subjects.erased import ErasureList
    from dr_assets.vault.vault import Vault

BROKEN = 1
WORK_DIR_ENV = "DR_ASSETS_WORK_DIR"

app = typer.Typer(
    help="Copy buckets of documents into the vault, restore them, and see where they stand.", no_args_is_help=True
)
WorkOption = Annotated[
    Path | None,
    typer.Option("--work", help=f"folder for the index; below {WORK_DIR_ENV} by default. Losing it costs time only"),
]

IntoOption = Annotated[str | None, typer.Option("--into", help="the bucket to restore into, in the store below")]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint-env", help="variable with the target's address; the source's by default")
]
ToOption = Annotated[str, typer.Option("--to", help="latest, or a time with zone up to the recovery point")]
PrefixOption = Annotated[str, typer.Option("--prefix", help="only names that begin so")]
PersonOption = Annotated[
    bool, typer.Option("--person", help="only one person's documents; who, is read from standard input")
]
SubjectOption = Annotated[str | None, typer.Option("--subject", help="the same, by subject id")]
VersionsOption = Annotated[
    Literal["current", "all"], typer.Option("--versions", help="`all`: every version and delete marker, in order")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="into a bucket that holds something already")]
LimitOption = Annotated[str | None, typer.Option("--limit", help="at most so much a second, e.g. 20MiB")]
ErasuresOption = Annotated[
    Path | None, typer.Option("--erasures", help="a list that `dr-assets erasure list --out` saved, as well")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="print the plan and touch nothing")]


@app.command("copy")
def copy_command(
    dataset: DatasetArgument,
    full: Annotated[bool, typer.Option("--full", help="write a whole inventory now, whatever is due")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="go on at the declared cadence, and by the queue's events, until stopped")
    ] = False,
    work: WorkOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy what is new in a bucket's listing; what was interrupted goes on."""
    estate = estate_of(defs)
    declared = bucket_of(estate, dataset)
    if follow:
        _follow(estate, declared, work)
        return
    copy_bucket(estate, declared, work, full=full, as_json=as_json)


def copy_bucket(
    estate: Estate, declared: BucketDataset, work: Path | None = None, *, full: bool = False, as_json: bool = False
) -> None:
    """One run, told."""
    _say_copied(_take_copy(estate, declared, work, full=full), as_json=as_json)


def _take_copy(estate: Estate, declared: BucketDataset, work: Path | None, *, full: bool) -> "CopyResult":
    """One run, its progress on standard error."""
    from dr_assets.stores.bucket.copy import Asked, CopyProgress, copy  # noqa: PLC0415 - other verbs don't wait for it
    from dr_assets.stores.bucket.site import open_source  # noqa: PLC0415 - as above

    site = _site(estate, declared, vault_of(estate, declared.vault, signing=True, role="roller"), work, signing=True)
    place = open_source(site, os.environ)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"copy of {declared.name}", total=None)

        def show(told: CopyProgress) -> None:
            bar.update(task, description=told.phase, completed=told.done, total=told.total)

        return copy(site, place, Asked(full=full), progress=show)


@app.command("status")
def status_command(
    dataset: DatasetArgument,
    vault: VaultOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a bucket's recovery point and its newest run; exit 1 when it is beyond its RPO."""
    estate = estate_of(defs)
    declared = bucket_of(estate, dataset)
    opened = vault_of(estate, vault or declared.vault, signing=False)
    said = _status(opened, declared)
    if as_json:
        typer.echo(json.dumps(said, indent=2))
    else:
        _print_table(f"bucket {declared.name}", said)
    if not said["within_rpo"]:
        raise typer.Exit(BROKEN)


@app.command("restore")
def restore_command(
    dataset: DatasetArgument,
    into: IntoOption = None,
    endpoint_env: EndpointOption = None,
    access_key_env: AccessKeyOption = None,
    secret_key_env: SecretKeyOption = None,
    to: ToOption = "latest",
    prefix: PrefixOption = "",
    person: PersonOption = False,
    subject: SubjectOption = None,
    versions: VersionsOption = "current",
    overwrite: OverwriteOption = False,
    limit: LimitOption = None,
    vault: VaultOption = None,
    as_of: AsOfOption = None,
    from_bundle: BundleOption = None,
    erasures: ErasuresOption = None,
    dry_run: DryRunOption = False,
    work: WorkOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a bucket back, or a part of it, into any S3-compatible store; the erased stay erased."""
    from dr_assets.stores.bucket.plan import Wanted, plan_restore  # noqa: PLC0415 - other verbs don't wait for it
    from dr_assets.stores.bucket.restore import restore  # noqa: PLC0415 - as above
    from dr_assets.vault.subjects.gather import gather  # noqa: PLC0415 - as above

    if into is None and not dry_run:
        raise PolicyError("cli.into_missing", "there is no bucket to restore into", "add --into BUCKET, or --dry-run")
    estate = estate_of(defs)
    declared = bucket_of(estate, dataset)
    opened = vault_or_bundle(estate, vault or declared.vault, from_bundle)
    site = _site(estate, declared, opened, work, signing=False)
    who = _person(site, asked=person, subject=subject)
    wanted = Wanted(None if to == "latest" else parse_moment(to), prefix, who, versions)

    def known() -> "ErasureList":
        return gather(estate, opened, os.environ, is_copy=from_bundle is not None, saved=erasures)

    place = None if into is None else target_of(declared, into, endpoint_env, access_key_env, secret_key_env)
    told_by = "" if place is None else f"{place.endpoint}/{place.bucket}"
    with ExitStack() as stack:
        plan = plan_restore(site, wanted, known(), target=told_by, as_of=parse_moment(as_of) if as_of else None)
        stack.enter_context(plan.picked)
        if place is None or dry_run:
            _say(plan.to_json(), f"plan: {declared.name} to {to}", as_json=as_json)
            return
        show = stack.enter_context(_Bar("restore"))
        done = restore(
            plan, site, place, overwrite=overwrite, bytes_a_s=None if limit is None else float(parse_size(limit)),
            erasures_now=known, progress=lambda told: show(told.done, told.total),
        )  # fmt: skip
    _say(_restored(done), f"{declared.name} restored to {to}", as_json=as_json)


@app.command("verify")
def verify_command(
    dataset: DatasetArgument,
    documents: Annotated[
        bool, typer.Option("--documents", help="open every document that still has a key, and compare its digest")
    ] = False,
    source: Annotated[
        bool, typer.Option("--source", help="compare counts and bytes with the source's listing of now, too")
    ] = False,
    vault: VaultOption = None,
    work: WorkOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that every row of the newest inventory lies in a stored part; exit 1 when one does not."""
    from dr_assets.stores.bucket.complete import check_complete  # noqa: PLC0415 - other verbs don't wait for it
    from dr_assets.stores.bucket.site import open_source  # noqa: PLC0415 - as above
    from dr_assets.stores.bucket.verify import verify_copy  # noqa: PLC0415 - as above

    estate = estate_of(defs)
    declared = bucket_of(estate, dataset)
    opened = vault_of(estate, vault or declared.vault, signing=False)
    site = _site(estate, declared, opened, work, signing=False)
    with _Bar("verify") as show:
        verified = verify_copy(site, documents=documents, progress=show)
    said = verified.to_json()
    ok = verified.ok
    if source:
        complete = check_complete(site, open_source(site, os.environ))
        said |= complete.to_json()
        ok = ok and complete.ok
    _say(said, f"what is stored of {declared.name}", as_json=as_json)
    if not ok:
        raise typer.Exit(BROKEN)


def _follow(estate: Estate, declared: BucketDataset, work: Path | None) -> None:
    from dr_assets.stores.bucket.events import queue_of  # noqa: PLC0415 - other verbs don't wait for it
    from dr_assets.stores.bucket.follow import follow  # noqa: PLC0415 - as above
    from dr_assets.stores.bucket.site import open_source  # noqa: PLC0415 - as above

    site = _site(estate, declared, vault_of(estate, declared.vault, signing=True, role="roller"), work, signing=True)

    def say(text: str) -> None:
        typer.echo(text, err=True)

    follow(site, open_source(site, os.environ), queue_of(declared, os.environ), say=say)


def _site(estate: Estate, declared: BucketDataset, vault: "Vault", work: Path | None, *, signing: bool) -> "Site":
    from dr_assets.stores.bucket.site import open_site  # noqa: PLC0415 - other verbs don't wait for it

    return open_site(estate, declared, vault, os.environ, work or _work_folder(), signing=signing)


def _work_folder() -> Path:
    root = os.environ.get(WORK_DIR_ENV)
    return (
        Path(root) / "dr_assets-buckets" if root else Path(tempfile.gettempdir()) / f"dr_assets-buckets-{os.getuid()}"
    )


def _person(site: "Site", *, asked: bool, subject: str | None) -> str | None:
    """A subject id; a name of a person is never an argument, which everybody on the host could read."""
    from dr_assets.vault.subjects.ids import require_subject_id  # noqa: PLC0415 - other verbs don't wait for it

    if subject is not None:
        return require_subject_id(subject)
    if not asked:
        return None
    if site.whose.ids is None:
        raise PolicyError("bucket.no_subjects", f"documents of {site.name} are nobody's", "leave --person out")
    return site.whose.ids.of(sys.stdin.readline().rstrip("\n"))


def target_of(
    declared: BucketDataset, into: str, endpoint_env: str | None, access_env: str | None, secret_env: str | None
) -> "Place":
    """The bucket to restore into: in the source's store and with its keys, but for what is named otherwise."""
    from dr_assets.stores.bucket.source import place_of  # noqa: PLC0415 - other verbs don't wait for it
    from dr_assets.vault.connect import ca_file  # noqa: PLC0415 - as above
    from dr_assets.vault.settings import setting  # noqa: PLC0415 - as above

    endpoint = endpoint_env or declared.endpoint_env
    return place_of(
        setting(os.environ, endpoint, "the target's address"),
        into,
        access_key=setting(os.environ, access_env or declared.access_key_env, "the target's access key"),
        secret_key=setting(os.environ, secret_env or declared.secret_key_env, "the target's secret key"),
        region=declared.s3_region,
        told_by=endpoint,
        ca=ca_file(os.environ),
    )


def _status(vault: "Vault", declared: BucketDataset) -> dict[str, object]:
    from dr_assets.stores.bucket.position import recovery_point  # noqa: PLC0415 - other verbs don't wait for it

    point, now = recovery_point(vault, declared.name), vault.clock()
    lag_s = None if point is None else point.lag_s(now)
    body = {} if point is None else point.fact.body
    numbers = ("copied", "markers", "vanished", "replaced", "withheld", "unread", "unassigned", "gone")
    return {
        "dataset": declared.name,
        "recovery_point_at": None if point is None else iso(point.at),
        "recovery_point_age_s": None if lag_s is None else round(lag_s, 1),
        "rpo_s": declared.rpo.total_seconds(),
        "within_rpo": lag_s is not None and lag_s <= declared.rpo.total_seconds(),
        "locked_until": None if point is None else iso(point.retain_until),
        "newest_run": body.get("kind"),
        "is_complete": body.get("is_complete"),
        "listed": body.get("listed"),
        "held": body.get("held"),
        **{name: body.get(name) for name in numbers},
    }


def _say_copied(result: "CopyResult", *, as_json: bool) -> None:
    counts = result.counts
    said = {
        "kind": result.kind,
        "snapshot_id": result.snapshot_id,
        "manifest_key": result.manifest_key,
        "recovery_point_at": iso(result.listing_begin_at),
        "is_complete": result.is_complete,
        "why_full": result.why_full,
        "listed": result.listed.to_json(),
        "held": result.held.to_json(),
        "copied": counts.copied,
        "copied_bytes": counts.copied_bytes,
        "markers": counts.markers,
        "vanished": counts.vanished,
        "replaced": counts.replaced,
        "withheld": counts.withheld,
        "unassigned": counts.unassigned,
        "gone": result.gone,
        "parts": result.parts,
        "stored_bytes": result.stored_bytes,
        "duration_s": round(result.duration_s, 3),
    }
    _say(said, "copied", as_json=as_json)


def _restored(done: "Restored") -> dict[str, object]:
    return {
        "run": str(done.plan.run.key),
        "point_at": iso(done.plan.point_at),
        "resumed": done.plan.is_resumed,
        "restored": done.restored.to_json(),
        "target": done.target.to_json(),
        "erased": done.erased.to_json(),
        "erased_people": list(done.erased_people),
        "erased_meanwhile": list(done.erased_meanwhile),
        "left_out": done.left_out,
        "erasures_from": list(done.plan.erasures.sources),
        "duration_s": round(done.duration_s, 3),
        "mb_s": round(done.mb_s, 1),
        "notes": list(done.plan.notes),
    }


def _say(said: Mapping[str, object], title: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(said, indent=2))
    else:
        _print_table(title, said)


def _print_table(title: str, said: Mapping[str, object]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for name, value in said.items():
        table.add_row(name.replace("_", " "), shown(_plain(value)))
    Console().print(table)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {one}" for name, one in value.items())
    if isinstance(value, list):
        return "\n".join(str(one) for one in value) or "-"
    return "-" if value is None else str(value)


class _Bar:
    """Progress on standard error; call it with done and total."""

    def __init__(self, what: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(what, total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int | None) -> None:
        self._progress.update(self._task, completed=done, total=total)
