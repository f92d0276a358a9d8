"""`dr-assets kafka …`: what the vault holds of captured topics, and what a person has to look at.

What belongs here: showing and settling. What stays out: capturing (capture.py), restoring (kafka_restore.py).
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from dr_assets.cli.context import DatasetArgument, DefsOption, JsonOption, estate_of, topics_of, vault_of
from dr_assets.cli.lazy import Verb, add_verbs
from dr_assets.cli.times import parse_moment
from dr_assets.estate.model import Estate, TopicsDataset
from dr_assets.stores.kafka.capture_facts import gaps, recreated, settle, unsettled_gaps
from dr_assets.stores.kafka.export import ExportTopic, open_export
from dr_assets.stores.kafka.position import stored_recovery_point
from dr_assets.vault.approvals.papers import plain
from dr_assets.vault.vault import Vault

app = typer.Typer(help="Show captured topics, and settle what was lost or made again.", no_args_is_help=True)
add_verbs(app, (
    Verb(
        "restore", "dr_assets.cli.kafka_restore:restore",
        "Restore topics into a cluster, with the offsets they had where it can be; run again after a kill, it goes on.",
    ),
    Verb(
        "compare", "dr_assets.cli.kafka_restore:compare_command",
        "Hold a cluster's topics to the vault: records, offsets, times, headers, groups; exit 1 if anything differs.",
    ),
    Verb(
        "to-parquet", "dr_assets.cli.kafka_restore:to_parquet_command",
        "Write stored records as one Parquet file: topic, partition, offset, timestamp, key, value, headers.",
    ),
))  # fmt: skip


@app.command()
def status(
    dataset: Annotated[str | None, typer.Argument(help="one dataset; all of topics by default")] = None,
    as_json: JsonOption = False,
    defs: DefsOption = None,
) -> None:
    """Show where captured topics stand, read from the vault; exit 1 beyond the RPO or with anything unsettled."""
    estate = estate_of(defs)
    chosen = list(estate.topics().values()) if dataset is None else [topics_of(estate, dataset)]
    rows = [_standing(estate, each) for each in chosen]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, sort_keys=True))
    else:
        for row in rows:
            typer.echo(_line(row))
    if any(row["trouble"] for row in rows):
        raise typer.Exit(1)


def _standing(estate: Estate, dataset: TopicsDataset) -> dict[str, Any]:
    vault = vault_of(estate, dataset.vault, signing=False)
    point = stored_recovery_point(vault, dataset)
    open_gaps, made_again = unsettled_gaps(vault, dataset.name), recreated(vault, dataset.name)
    now = datetime.now(UTC)
    age_s = None if point is None or point.at is None else (now - point.at).total_seconds()
    troubles = []
    if age_s is None:
        troubles.append("nothing is stored up to any point")
    elif age_s > dataset.rpo.total_seconds():
        troubles.append(f"recovery point {age_s:.0f} s old, RPO {dataset.rpo.total_seconds():.0f} s")
    troubles += [
        f"{gap.why} in {gap.topic}/{gap.partition} [{gap.begin}, {gap.end}): {fact.key}" for fact, gap in open_gaps
    ]
    troubles += [
        f"{fact.body['topic']} was deleted{'' if fact.body['now'] is None else ' and made again'}: {fact.key}"
        for fact in made_again
    ]
    return {
        "dataset": dataset.name,
        "system_id": None if point is None else point.system_id,
        "packs": 0 if point is None else point.packs,
        "topics": 0 if point is None else point.topics,
        "partitions": 0 if point is None else point.partitions,
        "recovery_point_at": None if point is None or point.at is None else point.at.isoformat(),
        "recovery_point_age_s": age_s,
        "locked_until": None if point is None or point.retain_until is None else point.retain_until.isoformat(),
        "trouble": troubles,
    }


def _line(row: dict[str, Any]) -> str:
    age = "none" if row["recovery_point_age_s"] is None else f"{row['recovery_point_age_s']:.1f} s old"
    head = f"{row['dataset']}: {row['topics']} topics, {row['partitions']} partitions, recovery point {age}"
    return "\n".join([head, *(f"  ! {plain(trouble)}" for trouble in row["trouble"])])


@app.command("list")
def list_topics(
    dataset: DatasetArgument,
    as_of: Annotated[str | None, typer.Option("--as-of", help="as it was then, an ISO 8601 time")] = None,
    as_json: JsonOption = False,
    defs: DefsOption = None,
) -> None:
    """List the topics that the vault holds, with their partitions' offsets, groups and gaps."""
    estate = estate_of(defs)
    declared = topics_of(estate, dataset)
    vault = vault_of(estate, declared.vault, signing=False)
    export = open_export(vault, dataset, as_of=None if as_of is None else parse_moment(as_of))
    topics = sorted(export.topics.values(), key=lambda topic: (topic.name, topic.is_gone, topic.topic_id))
    if as_json:
        rows = [{**asdict(topic), "configs": dict(topic.configs)} for topic in topics]
        groups = {name: len(offsets) for name, offsets in export.groups.items()}
        typer.echo(json.dumps({"topics": rows, "groups": groups}, indent=2, sort_keys=True, default=str))
        return
    point = export.recovery_point_at
    typer.echo(f"{dataset}: cluster {export.cluster_id}, {export.packs} packs, up to {point or 'no point yet'}")
    for topic in topics:
        typer.echo(plain(_topic_line(topic)))
        for each in topic.partitions.values():
            records = "" if each.count is None else f", {each.count} records"
            typer.echo(f"    {each.index}: [{each.begin}, {each.next}){records}, {each.size_bytes} bytes")
    typer.echo(f"{len(export.groups)} consumer groups, {len(export.acls)} access rules, {len(export.subjects)} schemas")
    for _, gap in gaps(vault, dataset):
        typer.echo(plain(f"{gap.why}: {gap.topic}/{gap.partition} [{gap.begin}, {gap.end}): {gap.found}"))


def _topic_line(topic: ExportTopic) -> str:
    marks = [mark for mark, holds in (("compacted", topic.compacted), ("gone", topic.is_gone)) if holds]
    return f"  {topic.name} ({topic.topic_id}){''.join(f', {mark}' for mark in marks)}"


@app.command("settle")
def settle_gap(
    dataset: DatasetArgument,
    fact: Annotated[str, typer.Argument(help="the fact's name, as `kafka status` shows it")],
    by: Annotated[str, typer.Option("--by", help="who has dealt with it")],
    note: Annotated[str, typer.Option("--note", help="what was done")],
    defs: DefsOption = None,
) -> None:
    """Put on record that a person has dealt with a gap, a divergence or a topic that was made again."""
    estate = estate_of(defs)
    declared = topics_of(estate, dataset)
    vault = vault_of(estate, declared.vault, signing=True)
    _require_open(vault, dataset, fact)
    settle(vault, dataset, fact, by, note)
    typer.echo(f"settled: {fact}")


def _require_open(vault: Vault, dataset: str, fact: str) -> None:
    known = [str(each.key) for each, _ in unsettled_gaps(vault, dataset)]
    known += [str(each.key) for each in recreated(vault, dataset)]
    if fact not in known:
        raise typer.BadParameter("no such fact is open; `dr-assets kafka status` lists them")
