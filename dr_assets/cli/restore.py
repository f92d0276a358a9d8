"""`dr-assets restore DATASET|--estate`: bring a dataset, or all of them to one moment, back from the vault alone.

What belongs here: which kind of restore is asked for, and a database's. What stays out: topics' (kafka_restore.py),
buckets' (bucket.py) and the estate's (estate_restore.py) options and tables.
"""

import json
import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dr_assets.cli.bundle import BundleOption, vault_or_bundle
from dr_assets.cli.context import DefsOption, JsonOption, dataset_of, estate_of, postgres_of, vault_of
from dr_assets.cli.options import (
    AccessKeyOption,
    AsOfOption,
    ErasuresOption,
    OfTheCopyOption,
    SecretKeyOption,
    VaultOption,
)
from dr_assets.cli.recovery_point import ApartOption, OnlyOption, StrictOption
from dr_assets.cli.shown import shown
from dr_assets.cli.times import iso, parse_moment
from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.estate.model import BucketDataset, Estate, Level, PostgresDataset, TopicsDataset
from dr_assets.proving.erasures import Bringing, erasures_for, record_replayed, replayed_body
from dr_assets.proving.record import plain
from dr_assets.stores.postgres.erase import Erasures
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import RestorePlan, cold_material, plan_restore
from dr_assets.stores.postgres.restore import Restored, RestoreProgress
from dr_assets.stores.postgres.restore import restore as carry_out
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.log.trust import Trusted, trusted
from dr_assets.vault.retention.thawing import ColdPart, ask_thaw, require_thawed
from dr_assets.vault.storage import ThawTier
from dr_assets.vault.vault import Vault
from dr_assets.vault.witness import Witness, check_witness

DatasetOption = Annotated[
    str | None, typer.Argument(metavar="[DATASET]", help="a dataset that the estate declares; or say --estate")
]
IntoOption = Annotated[
    str | None,
    typer.Option("--into", help="an empty or absent folder; for topics HOST:PORT of a cluster, for a bucket its name"),
]
TargetOption = Annotated[
    str, typer.Option("--to", help="latest, a time with zone; of a database immediate, lsn:…, xid:… or name:…, too")
]
LevelOption = Annotated[Level, typer.Option("--level", help="how deeply a restored database is checked")]
TimelineOption = Annotated[
    int | None, typer.Option("--timeline", min=1, help="another timeline than the source's newest, to its stored end")
]
WitnessOption = Annotated[
    Path | None, typer.Option("--witness", help="refuse a vault older than this file of known positions")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", "--plan", help="print the plan and touch nothing")]
ThawOption = Annotated[
    bool, typer.Option("--thaw", help="ask the store to bring back what lies cold; run again when it is there")
]
EstateOption = Annotated[
    bool, typer.Option("--estate", help="all datasets, to one moment: `latest-consistent` or a time")
]
TopicsIntoOption = Annotated[
    list[str] | None,
    typer.Option("--topics-into", metavar="[DATASET=]HOST:PORT", help="with --estate: the cluster for topics"),
]
BucketIntoOption = Annotated[
    list[str] | None,
    typer.Option("--bucket-into", metavar="[DATASET=]BUCKET", help="with --estate: the bucket for documents"),
]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint-env", help="variable with the address of the target bucket's store")
]
PlainOption = Annotated[bool, typer.Option("--plaintext", help="the target cluster has neither TLS nor SASL")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for, as the options say it; which of it is heeded depends on the kind of dataset."""

    into: str | None
    to: str
    vault: str | None
    level: Level
    timeline: int | None
    as_of: str | None
    witness: Path | None
    from_bundle: Path | None
    erasures: Path | None
    erasures_of_the_copy: bool
    dry_run: bool
    thaw: bool
    only: list[str] | None
    strict: bool
    apart: list[str] | None
    topics_into: list[str] | None
    bucket_into: list[str] | None
    endpoint_env: str | None
    access_key_env: str | None
    secret_key_env: str | None
    plaintext: bool
    defs: Path | None
    as_json: bool

    @property
    def bringing(self) -> Bringing:
        """How erasures are come by."""
        return Bringing(self.from_bundle is not None, self.erasures, self.erasures_of_the_copy)


def restore(
    dataset: DatasetOption = None,
    into: IntoOption = None,
    to: TargetOption = "latest",
    vault: VaultOption = None,
    level: LevelOption = "standard",
    timeline: TimelineOption = None,
    as_of: AsOfOption = None,
    witness: WitnessOption = None,
    from_bundle: BundleOption = None,
    erasures: ErasuresOption = None,
    erasures_of_the_copy: OfTheCopyOption = False,
    dry_run: DryRunOption = False,
    thaw: ThawOption = False,
    whole_estate: EstateOption = False,
    only: OnlyOption = None,
    strict: StrictOption = False,
    apart: ApartOption = None,
    topics_into: TopicsIntoOption = None,
    bucket_into: BucketIntoOption = None,
    endpoint_env: EndpointOption = None,
    access_key_env: AccessKeyOption = None,
    secret_key_env: SecretKeyOption = None,
    plaintext: PlainOption = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore to a target, prove that it was reached, and leave a stopped, promoted cluster; or leave nothing."""
    asked = Asked(
        into=into, to=to, vault=vault, level=level, timeline=timeline, as_of=as_of, witness=witness,
        from_bundle=from_bundle, erasures=erasures, erasures_of_the_copy=erasures_of_the_copy, dry_run=dry_run,
        thaw=thaw, only=only, strict=strict, apart=apart, topics_into=topics_into, bucket_into=bucket_into,
        endpoint_env=endpoint_env, access_key_env=access_key_env, secret_key_env=secret_key_env, plaintext=plaintext,
        defs=defs, as_json=as_json,
    )  # fmt: skip
    if whole_estate == (dataset is not None):
        raise PolicyError(
            "cli.what_to_restore", "name one dataset, or say --estate for all of them", "see `dr-assets status`"
        )
    if dataset is None:
        _restore_estate(asked)
    else:
        _restore_one(dataset, asked)


def _restore_estate(asked: Asked) -> None:
    from dr_assets.cli.estate_restore import Wish, restore_estate  # noqa: PLC0415 - one dataset needs none of it

    wish = Wish(
        into=asked.into, to=asked.to, vault=asked.vault, level=asked.level, plan_only=asked.dry_run, only=asked.only,
        strict=asked.strict, apart=asked.apart, topics_into=asked.topics_into or [],
        bucket_into=asked.bucket_into or [], endpoint_env=asked.endpoint_env, access_key_env=asked.access_key_env,
        secret_key_env=asked.secret_key_env, plaintext=asked.plaintext, bringing=asked.bringing,
    )  # fmt: skip
    restore_estate(wish, asked.defs, asked.from_bundle, as_json=asked.as_json)


def _restore_one(dataset: str, asked: Asked) -> None:
    """By its kind; topics and documents have verbs with more options of their own."""
    match dataset_of(estate_of(asked.defs), dataset):
        case TopicsDataset():
            _require_a_database(timeline=asked.timeline, witness=asked.witness, thaw=asked.thaw)
            from dr_assets.cli.kafka_restore import restore as restore_topics  # noqa: PLC0415 - only topics need Kafka

            restore_topics(
                dataset, _into(asked.into), to=asked.to, plan_only=asked.dry_run, plaintext=asked.plaintext,
                vault=asked.vault, as_of=asked.as_of, from_bundle=asked.from_bundle, erasures=asked.erasures,
                erasures_of_the_copy=asked.erasures_of_the_copy, defs=asked.defs, as_json=asked.as_json,
            )  # fmt: skip
        case BucketDataset():
            _require_a_database(timeline=asked.timeline, witness=asked.witness, thaw=asked.thaw)
            from dr_assets.cli.bucket import restore_command  # noqa: PLC0415 - only documents need it

            restore_command(
                dataset, asked.into, endpoint_env=asked.endpoint_env, access_key_env=asked.access_key_env,
                secret_key_env=asked.secret_key_env, to=asked.to, vault=asked.vault, as_of=asked.as_of,
                from_bundle=asked.from_bundle, erasures=asked.erasures, dry_run=asked.dry_run, defs=asked.defs,
                as_json=asked.as_json,
            )  # fmt: skip
        case _:
            _restore_database(dataset, asked)


def _require_a_database(**options: object) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        raise PolicyError(
            "cli.wrong_kind", f"--{given[0]} is for a database's restore", "leave it out for topics and documents"
        )


def _into(into: str | None) -> str:
    if into is None:
        raise PolicyError("cli.into_missing", "there is no cluster to restore into", "add --into HOST:PORT")
    return into


def _restore_database(dataset: str, asked: Asked) -> None:
    target = Target.parse(asked.to)
    moment = parse_moment(asked.as_of) if asked.as_of else None
    into, dry_run, as_json = None if asked.into is None else Path(asked.into), asked.dry_run, asked.as_json
    if into is None and not dry_run:
        raise PolicyError("cli.into_missing", "there is no folder to restore into", "add --into DIR, or --dry-run")
    keep_freed_memory()  # before anything begins a thread
    estate = estate_of(asked.defs)
    declared = postgres_of(estate, dataset)
    opened = vault_or_bundle(estate, asked.vault or declared.vault, asked.from_bundle)
    if asked.witness:
        check_witness(opened, Witness.load(asked.witness))
    tier = declared.cold.thaw if declared.cold else "Standard"
    asks = tier if asked.thaw and not dry_run else None
    newest = opened
    seen = trusted(opened, moment) if moment else Trusted(opened)
    opened = seen.vault
    plan = _plan(opened, declared.name, target, moment, asked.timeline, asks)
    if seen.left_out:
        typer.echo(f"note: left out {len(seen.left_out)} objects that the log of then does not vouch for", err=True)
    if into is None or dry_run:
        if as_json:
            typer.echo(json.dumps(plan.to_json(), indent=2))
        else:
            Console().print(_plan_table(plan))
        return
    require_thawed(plan.cold, tier)
    forgotten = erasures_for(estate, declared, newest, os.environ, asked.bringing)
    restored = _carried_out(plan, opened, into, asked.level, forgotten)
    told = _record(estate, declared, restored)
    said, table = _to_json(restored, into), _table(restored)
    restored.notes += [told] if told else []
    if as_json:
        typer.echo(json.dumps(said, indent=2))
    else:
        Console().print(table)
        for note in restored.notes:
            typer.echo(f"note: {note}")
        typer.echo(f"the cluster lies, stopped, in {into / 'data'}")


def _carried_out(plan: RestorePlan, vault: Vault, into: Path, level: Level, erasures: Erasures) -> Restored:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("restore", total=None)

        def show(told: RestoreProgress) -> None:
            phase = told.phase.replace("_", " ")
            bar.update(task, description=phase, completed=told.done_bytes, total=told.total_bytes)

        with carry_out(plan, vault, into, level=level, keep_cluster=True, progress=show, erasures=erasures) as restored:
            pass
    return restored


def _plan(
    vault: Vault, dataset: str, target: Target, as_of: datetime | None, timeline: int | None, asks: ThawTier | None
) -> RestorePlan:
    """The plan; with `asks` the store was asked for everything that it, or making it, needs and that lies cold."""
    try:
        plan = plan_restore(vault, dataset, target, as_of=as_of, timeline=timeline)
    except VaultError as error:
        if asks and error.code == "restore.cold":
            _ask(vault, cold_material(vault, dataset, as_of), asks)
        raise
    return replace(plan, cold=_ask(vault, plan.cold, asks)) if asks and plan.cold.frozen else plan


def _ask(vault: Vault, cold: ColdPart, tier: ThawTier) -> ColdPart:
    """Ask for what is frozen; the same, now thawing."""
    typer.echo(f"{ask_thaw(vault, cold, tier)} objects are being thawed; nothing is restored yet", err=True)
    return ColdPart((), (*cold.frozen, *cold.thawing))


def _plan_table(plan: RestorePlan) -> Table:
    base, said = plan.base, plan.to_json()
    table = Table(title=f"plan: {plan.dataset} to {plan.target}", title_justify="left")
    table.add_column("what")
    table.add_column("value", overflow="fold")
    reachable = iso(plan.reachable_at) or "unknown: no heartbeat is stored"
    rows = {
        "base backup": f"{base.snapshot_id} of {base.end_at:%Y-%m-%d %H:%M:%S}Z, {base.size_bytes / 1e6:.1f} MB",
        "its manifest": plan.base_key,
        "WAL to lay": f"{plan.wal_bytes / 1e6:.1f} MB in {len(plan.pieces)} pieces",
        "timelines": _timelines(plan),
        "stored up to": f"{format_lsn(plan.chain_end)}, every commit before {reachable}",
        "to fetch": f"{plan.fetch_bytes / 1e6:.1f} MB sealed",
        "wants": f"PostgreSQL {base.major} programs, {len(base.archives) - 1} tablespaces",
        "as of": str(said["as_of"] or "now"),
        "cold": "nothing" if plan.cold.is_empty else plan.cold.describe(),
    }
    for what, value in rows.items():
        table.add_row(what, shown(value))
    for note in plan.notes:
        table.add_row("note", shown(note))
    return table


def _to_json(restored: Restored, into: Path) -> dict[str, object]:
    return {
        "dataset": restored.plan.dataset,
        "target": str(restored.plan.target),
        "data_dir": str(into / "data"),
        "replayed_lsn": format_lsn(restored.replayed_lsn),
        "end_lsn": format_lsn(restored.end_lsn),
        "timeline": restored.timeline,
        "timelines": [stretch.frame.timeline for stretch in restored.plan.stretches],
        "last_commit_at": iso(restored.last_commit_at),
        "recovered_at": iso(restored.recovered_at),
        "stopped": restored.stopped,
        "checks": list(restored.checks),
        "engine": restored.engine,
        "size_bytes": restored.size_bytes,
        "phases_s": {phase: round(duration_s, 3) for phase, duration_s in restored.phases_s.items()},
        "duration_s": round(restored.duration_s, 3),
        "erased": _plain_body(restored),
        "notes": restored.notes,
    }


def _table(restored: Restored) -> Table:
    table = Table(title=f"{restored.plan.dataset} restored to {restored.plan.target}", title_justify="left")
    table.add_column("what")
    table.add_column("value", overflow="fold")
    rows = {
        "replayed to": f"{format_lsn(restored.replayed_lsn)}, timeline {restored.timeline} from here",
        "timelines laid": _timelines(restored.plan),
        "newest commit": iso(restored.last_commit_at) or "unknown",
        "recovered point (source's clock)": iso(restored.recovered_at) or "unknown",
        "stopped by": restored.stopped or "the end of what is stored",
        "checked with": ", ".join(restored.checks),
        "programs": restored.engine,
        "laid": f"{restored.size_bytes / 1e6:.1f} MB in {restored.duration_s:.1f} s ({restored.mb_s:.0f} MB/s)",
        "erased again": _erased(restored),
        "phases, s": ", ".join(f"{phase} {took:.1f}" for phase, took in restored.phases_s.items()),
    }
    for what, value in rows.items():
        table.add_row(what, shown(value))
    return table


def _plain_body(restored: Restored) -> dict[str, Json] | None:
    body = replayed_body(restored, purpose="restore")
    return None if body is None else plain(body)


def _erased(restored: Restored) -> str:
    if restored.erased is None or not restored.erased.erasures:
        return "nobody is on the erasure list"
    return f"{restored.erased.found} people, of {restored.erased.erasures} on the erasure list"


def _record(estate: Estate, dataset: PostgresDataset, restored: Restored) -> str | None:
    """Put on record that the erasures were applied; why not, where this host can't: a restore doesn't fail for it."""
    if restored.erased is None or not restored.erased.erasures:
        return None
    try:
        record_replayed(vault_of(estate, dataset.vault, signing=True), restored, purpose="restore")
    except DrError as error:
        return f"that the erasures were applied is not on record in the vault: {error.code}"
    return None


def _timelines(plan: RestorePlan) -> str:
    """Each timeline with where it ends: `1 to 0/5000108, 2 to 0/9000000`."""
    frames = [stretch.frame for stretch in plan.stretches]
    return ", ".join(f"{frame.timeline} to {format_lsn(frame.end)}" for frame in frames)
