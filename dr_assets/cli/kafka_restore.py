"""`dr-assets kafka restore|compare|to-parquet`: topics brought back from the vault, held to it, or shown as a table.

What belongs here: options, tables, JSON. What stays out: showing what is captured (kafka.py), the work itself.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dr_assets.cli.bundle import BundleOption, vault_or_bundle
from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, estate_of, topics_of, vault_of
from dr_assets.cli.options import AsOfOption, ErasuresOption, OfTheCopyOption, VaultOption
from dr_assets.cli.shown import shown
from dr_assets.cli.times import parse_moment
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate, TopicsDataset
from dr_assets.proving.erasures import Bringing, record_blanked, topic_eraser
from dr_assets.stores.kafka.access import connect_target
from dr_assets.stores.kafka.compare import Comparison, compare
from dr_assets.stores.kafka.restore import Restored, RestoreProgress
from dr_assets.stores.kafka.restore import restore as carry_out
from dr_assets.stores.kafka.restore_export import ExportSource, export_source
from dr_assets.stores.kafka.restore_plan import Cut, Limits, Options, RestorePlan, Wish, plan_restore
from dr_assets.stores.kafka.restore_record import record_restore
from dr_assets.stores.kafka.restore_rules import create_rules, register_subjects, rules_for
from dr_assets.stores.kafka.restore_source import Pinned
from dr_assets.stores.kafka.restore_state import RestoreState
from dr_assets.stores.kafka.wire import Cluster

# A broker that restarts, or another that takes over, is waited for: a restore is run when things are bad.
_PATIENCE_S = 180.0
_DIFFERENT = 1
_LIMITS = Limits()

IntoOption = Annotated[str, typer.Option("--into", metavar="HOST:PORT,…", help="the cluster to restore into")]
ToOption = Annotated[str, typer.Option("--to", help="latest, a time with zone, or offsets:TOPIC/PARTITION=OFFSET,…")]
TopicOption = Annotated[
    list[str] | None, typer.Option("--topic", metavar="NAME[=NEW]", help="only these topics, perhaps under new names")
]
PrefixOption = Annotated[str, typer.Option("--prefix", help="what all topics' names get in front")]
PlainOption = Annotated[
    bool, typer.Option("--plaintext", help="the target has neither TLS nor SASL; else it is spoken to as the source is")
]
AllStoredOption = Annotated[bool, typer.Option("--all-stored", help="also what the source had let go of by then")]
PlanOption = Annotated[bool, typer.Option("--plan", help="print what would be done and touch nothing")]
MethodOption = Annotated[
    Wish, typer.Option("--method", help="identical: the same offsets or nothing; mapped: offsets anew, with a map")
]
AppendOption = Annotated[bool, typer.Option("--append", help="write behind what topics of the target hold")]
AllOfThenOption = Annotated[
    bool, typer.Option("--all-stored", help="also what the source itself had let go of by then")
]
HoldOption = Annotated[
    bool, typer.Option("--hold-retention", help="topics delete nothing yet, whatever their settings say")
]
GroupOption = Annotated[list[str] | None, typer.Option("--group", help="only these groups; all by default")]
NoGroupsOption = Annotated[bool, typer.Option("--no-groups", help="leave groups alone")]
AclsOption = Annotated[bool, typer.Option("--with-acls", help="make the captured access rules as well")]
RegistryOption = Annotated[
    str | None, typer.Option("--registry-env", help="the variable with a registry's URL: register schemas there")
]
ReplicationOption = Annotated[int | None, typer.Option("--replication", min=1, help="replicas of new topics")]
PadOption = Annotated[int, typer.Option("--pad-limit", help="padded offsets beyond which a map is used")]
HoleOption = Annotated[int, typer.Option("--hole-limit", help="holes of a partition beyond which a map is used")]
ThrottleOption = Annotated[float | None, typer.Option("--throttle", help="at most so many MB a second")]
StateOption = Annotated[Path | None, typer.Option("--state", help="the file by which a killed restore goes on")]
VerifyOption = Annotated[bool, typer.Option("--verify/--no-verify", help="compare the target with the vault")]
RecordOption = Annotated[bool, typer.Option("--record", help="seal the result and its offset maps into the vault")]


def restore(
    dataset: DatasetArgument,
    into: IntoOption,
    to: ToOption = "latest",
    topic: TopicOption = None,
    prefix: PrefixOption = "",
    plan_only: PlanOption = False,
    method: MethodOption = "auto",
    append: AppendOption = False,
    all_stored: AllOfThenOption = False,
    hold: HoldOption = False,
    group: GroupOption = None,
    no_groups: NoGroupsOption = False,
    with_acls: AclsOption = False,
    registry_env: RegistryOption = None,
    replication: ReplicationOption = None,
    pad_limit: PadOption = _LIMITS.pad_offsets,
    hole_limit: HoleOption = _LIMITS.holes,
    throttle: ThrottleOption = None,
    state: StateOption = None,
    verify: VerifyOption = True,
    record: RecordOption = False,
    plaintext: PlainOption = False,
    vault: VaultOption = None,
    as_of: AsOfOption = None,
    from_bundle: BundleOption = None,
    erasures: ErasuresOption = None,
    erasures_of_the_copy: OfTheCopyOption = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore topics into a cluster, with the offsets they had where it can be; run again after a kill, it goes on."""
    path = state or Path(f"dr-assets-restore-{dataset}.json")
    begun = None if plan_only else RestoreState.load(path)
    stored = _stored(
        _Read(dataset, to, vault, as_of, from_bundle, all_stored, defs),
        Bringing(from_bundle is not None, erasures, erasures_of_the_copy), pinned=begun.pinned if begun else None,
    )  # fmt: skip
    options = Options(
        mapping=_mapping(topic, prefix), prefix=prefix, wish=method, append=append,
        limits=Limits(pad_limit, hole_limit), replication=replication,
        groups=() if no_groups else tuple(group) if group else None, held=hold,
    )  # fmt: skip
    ends, ours = (begun.ends, begun.behind) if begun else (stored.source.ends, None)
    with _target(stored.declared, into, plaintext=plaintext) as cluster:
        plan = plan_restore(stored.source, cluster, options, ends=ends, ours=ours)
        if plan_only:
            _show_plan(plan, as_json=as_json)
            return
        restored, found = _brought(stored.source, cluster, plan, path, throttle, verify=verify, as_json=as_json)
        _make_beside(cluster, stored.source, restored, registry_env, with_acls=with_acls)
    _tell_blanked(stored, restored)
    if record:
        _seal(stored, restored, found)
    _show_restored(restored, found, as_json=as_json)


def _brought(
    source: ExportSource,
    cluster: Cluster,
    plan: RestorePlan,
    state: Path,
    throttle: float | None,
    *,
    verify: bool,
    as_json: bool,
) -> tuple[Restored, Comparison | None]:
    """Carried out, and held to the vault if that is wanted: a difference is shown, and the topics stay as they lie."""
    compared: list[Comparison] = []

    def check(done: Restored) -> None:
        compared.append(_compared(source, cluster, plan, done))
        if not compared[0].is_equal:
            _show_restored(done, compared[0], as_json=as_json)
            typer.echo("the topics keep the settings for loading: nothing is deleted or compacted", err=True)
            raise typer.Exit(_DIFFERENT)

    restored = _carried_out(plan, cluster, state, throttle, check if verify else None)
    return restored, compared[0] if compared else None


def _make_beside(
    cluster: Cluster, source: ExportSource, restored: Restored, registry_env: str | None, *, with_acls: bool
) -> None:
    if with_acls:
        made = create_rules(cluster, rules_for(source.acls, restored.plan.names))
        restored.notes.append(f"{made} access rules made")
    if registry_env:
        made = register_subjects(_url(registry_env), source.subjects)
        restored.notes.append(f"{made} versions of schemas registered")


def _tell_blanked(stored: "_Stored", restored: Restored) -> None:
    if stored.source.eraser is None:
        return
    done = stored.source.eraser.blanked
    restored.notes.append(
        f"{done.records} records of {len(done.people)} erased people came back without what they said"
    )


def _seal(stored: "_Stored", restored: Restored, found: Comparison | None) -> None:
    dataset, eraser = stored.declared.name, stored.source.eraser
    record_blanked(vault_of(stored.estate, stored.vault_name, signing=True), dataset, eraser, purpose="restore")
    record_restore(vault_of(stored.estate, stored.vault_name, signing=True), dataset, restored, found)


def compare_command(
    dataset: DatasetArgument,
    into: Annotated[str, typer.Option("--with", metavar="HOST:PORT,…", help="the cluster to hold to the vault")],
    to: ToOption = "latest",
    topic: TopicOption = None,
    prefix: PrefixOption = "",
    all_stored: AllStoredOption = False,
    plaintext: PlainOption = False,
    vault: VaultOption = None,
    as_of: AsOfOption = None,
    from_bundle: BundleOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a cluster's topics to the vault: records, offsets, times, headers, groups; exit 1 if anything differs."""
    read = _Read(dataset, to, vault, as_of, from_bundle, all_stored, defs)
    stored = _stored(read, Bringing(from_bundle is not None, accept_copy=True))
    source = stored.source
    options = Options(mapping=_mapping(topic, prefix), prefix=prefix)
    names = {
        name: target for name, each in source.topics.items()
        if (options.mapping or not each.is_gone) and (target := options.target_of(name))
    }  # fmt: skip
    with _target(stored.declared, into, plaintext=plaintext) as cluster:
        found = compare(source, cluster, names, ends=source.ends)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        _say_compared(found)
    if not found.is_equal:
        raise typer.Exit(_DIFFERENT)


def to_parquet_command(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="a new file")],
    topic: Annotated[list[str] | None, typer.Option("--topic", help="only these topics; all by default")] = None,
    begin: Annotated[str | None, typer.Option("--from", help="the first timestamp, with its zone")] = None,
    to: ToOption = "latest",
    until: Annotated[str | None, typer.Option("--until", help="before this timestamp, with its zone")] = None,
    uncommitted: Annotated[
        bool, typer.Option("--read-uncommitted", help="also records of aborted and unfinished transactions")
    ] = False,
    all_stored: AllStoredOption = False,
    vault: VaultOption = None,
    as_of: AsOfOption = None,
    from_bundle: BundleOption = None,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write stored records as one Parquet file: topic, partition, offset, timestamp, key, value, headers."""
    from dr_assets.stores.kafka.parquet import offset_ranges, to_parquet  # noqa: PLC0415 - pyarrow takes its time

    read = _Read(dataset, to, vault, as_of, from_bundle, all_stored, defs)
    source = _stored(read, Bringing(from_bundle is not None)).source
    ranges = dict(offset_ranges(source, tuple(topic or ()), source.ends))
    times = tuple(round(parse_moment(each).timestamp() * 1000) if each else None for each in (begin, until))
    written = to_parquet(source, out, ranges, read_committed=not uncommitted, times=(times[0], times[1]))
    said = {
        "file": str(out),
        "records": written.records,
        "left_out": written.left_out,
        "size_bytes": written.size_bytes,
    }
    if as_json:
        typer.echo(json.dumps(said, indent=2))
        return
    left_out = f", {written.left_out} of aborted or unfinished transactions left out" if written.left_out else ""
    typer.echo(f"{out}: {written.records} records, {written.size_bytes / 1e6:.1f} MB{left_out}")


@dataclass(frozen=True, slots=True)
class _Read:
    """What all verbs here are asked of what is stored, as the options say it."""

    dataset: str
    to: str
    vault: str | None
    as_of: str | None
    from_bundle: Path | None
    all_stored: bool
    defs: Path | None


@dataclass(frozen=True, slots=True)
class _Stored:
    """Stored topics: whose they are, which vault holds them, and they themselves, erased people blanked."""

    estate: Estate
    declared: TopicsDataset
    vault_name: str
    source: ExportSource


def _stored(read: _Read, bringing: Bringing, *, pinned: Pinned | None = None) -> _Stored:
    estate = estate_of(read.defs)
    declared = topics_of(estate, read.dataset)
    cut = Cut.parse(read.to)
    name = read.vault or declared.vault
    opened = vault_or_bundle(estate, name, read.from_bundle)
    moment = parse_moment(read.as_of) if read.as_of else None
    eraser = topic_eraser(estate, declared, opened, os.environ, bringing)
    source = export_source(
        opened, declared.name, cut, as_of=moment, all_stored=read.all_stored, eraser=eraser, pinned=pinned
    )
    return _Stored(estate, declared, name, source)


def _mapping(topics: list[str] | None, prefix: str) -> dict[str, str]:
    """`a` and `a=b` as names of the source and the target."""
    pairs = [each.partition("=") for each in topics or ()]
    return {name: new if is_new else prefix + name for name, is_new, new in pairs}


def _target(declared: TopicsDataset, into: str, *, plaintext: bool) -> Cluster:
    return connect_target(declared, into, os.environ, plaintext=plaintext, patience_s=_PATIENCE_S)


def _url(name: str) -> str:
    url = os.environ.get(name, "")
    if not url:
        raise PolicyError("cli.no_env", f"the environment variable {name} is not set", f"set {name}")
    return url


def _carried_out(
    plan: RestorePlan,
    cluster: Cluster,
    state: Path,
    throttle: float | None,
    check: Callable[[Restored], None] | None,
) -> Restored:
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("restore", total=None)

        def show(told: RestoreProgress) -> None:
            bar.update(task, description=told.phase, completed=told.done_bytes, total=told.total_bytes)

        bytes_s = throttle * 1e6 if throttle else None
        return carry_out(plan, cluster, state, throttle_bytes_s=bytes_s, progress=show, check=check)


def _compared(source: ExportSource, cluster: Cluster, plan: RestorePlan, restored: Restored) -> Comparison:
    behind = {
        (topic.target, each.partition): each.behind for topic in plan.topics for each in topic.partitions if each.behind
    }
    ends = {(topic.source.name, each.partition): each.end for topic in plan.topics for each in topic.partitions}
    groups = plan.options.groups
    return compare(source, cluster, plan.names, ends=ends, behind=behind, maps=restored.maps, groups=groups)


def _show_plan(plan: RestorePlan, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(plan.to_json(), indent=2))
        return
    table = Table(title=f"plan: {plan.source.dataset} into {plan.target_cluster}", title_justify="left")
    for column in ("topic", "as", "partition", "offsets", "MB", "method", "padded", "why"):
        # Names and reasons fold; a number or a method that is broken in two is another one.
        table.add_column(column, overflow="fold", no_wrap=column not in {"topic", "as", "why"})
    for topic in plan.topics:
        for each in topic.partitions:
            table.add_row(
                shown(topic.source.name), shown(topic.target), str(each.partition), f"{each.begin} to {each.end}",
                f"{each.size_bytes / 1e6:.1f}", each.method, str(each.pad_offsets or ""), shown(each.why),
            )  # fmt: skip
    Console().print(table)
    typer.echo(
        f"{plan.offsets} offsets, {plan.size_bytes / 1e6:.1f} MB; "
        f"{plan.pad_offsets} padded: {plan.pad_s:.0f} s of a core"
    )
    for gap in plan.gaps:
        typer.echo(f"lost before it was captured: {shown(gap.topic)}/{gap.partition} offsets {gap.begin} to {gap.end}")
    for note in plan.notes:
        typer.echo(f"note: {shown(note)}")


def _show_restored(restored: Restored, found: Comparison | None, *, as_json: bool) -> None:
    if as_json:
        said = {**restored.to_json(), "comparison": None if found is None else found.to_json()}
        typer.echo(json.dumps(said, indent=2))
        return
    mapped = sum(not each.is_identical for each in restored.maps.values())
    how = "every record at the offset it had" if not mapped else f"{mapped} partitions with an offset map"
    positions = sum(len(each.positions) for each in restored.groups)
    typer.echo(
        f"restored {len(restored.plan.topics)} topics, {restored.plan.offsets} offsets, "
        f"{restored.size_bytes / 1e6:.1f} MB "
        f"in {restored.duration_s:.1f} s ({restored.mb_s:.0f} MB/s): {how}; {positions} positions of groups"
    )
    for note in restored.notes:
        typer.echo(f"note: {shown(note)}")
    if found is not None:
        _say_compared(found)


def _say_compared(found: Comparison) -> None:
    for each in found.differences:
        typer.echo(f"DIFFERS {shown(str(each))}")
    if found.is_equal:
        typer.echo(
            f"compared: {found.records} records of {found.partitions} partitions, {found.transactions} transactions, "
            f"{found.positions} positions of groups: all equal{', offsets too' if found.is_identical else ''}"
        )
    else:
        typer.echo(f"compared: {found.count} differences")
