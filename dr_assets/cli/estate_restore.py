"""`dr-assets restore --estate`: every dataset to one recovery point; the plan first, then what became of each.

What belongs here: options put together, tables, JSON, the exit code. What stays out: all that is done (recovery/).
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.bucket import target_of
from dr_assets.cli.bundle import vault_or_bundle
from dr_assets.cli.context import estate_of, vault_of
from dr_assets.cli.recovery_point import chosen, moment_of, named, show_point, vaults_of
from dr_assets.cli.shown import shown
from dr_assets.estate.errors import DrError, PolicyError
from dr_assets.estate.model import Estate, Level
from dr_assets.proving.erasures import REPLAYED, Bringing
from dr_assets.proving.record import plain
from dr_assets.recovery.estate_restore import (
    ORPHANS,
    EstateRestore,
    EstateRestored,
    Outcome,
    begun_point,
    record_restore,
)
from dr_assets.recovery.point import EstatePoint
from dr_assets.recovery.restorers import DatasetPlan, Ground, Targets
from dr_assets.recovery.stores import recovery_point
from dr_assets.stores.bucket.source import Place
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json, format_time
from dr_assets.vault.vault import Vault

NOT_WHOLE = 1


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, as the options say it."""

    into: str | None
    to: str
    vault: str | None
    level: Level
    plan_only: bool
    only: list[str] | None
    strict: bool
    apart: list[str] | None
    topics_into: list[str] = field(default_factory=list)
    bucket_into: list[str] = field(default_factory=list)
    endpoint_env: str | None = None
    access_key_env: str | None = None
    secret_key_env: str | None = None
    plaintext: bool = False
    bringing: Bringing = field(default_factory=Bringing)


def restore_estate(wish: Wish, defs: Path | None, bundle: Path | None, *, as_json: bool) -> None:
    """Find the point, or the one of the restore that is gone on with; plan; restore unless only a plan is wanted."""
    estate = chosen(estate_of(defs), wish.only)
    vaults = _vaults(estate, wish, bundle)
    begun = None if wish.into is None else begun_point(Path(wish.into))
    point, said = _point(estate, vaults, wish, begun)
    if wish.into is None:
        if as_json:
            typer.echo(json.dumps({"point": said}, indent=2))
        return
    restore = EstateRestore(said, vaults, _ground(estate, wish, Path(wish.into)))
    plans = restore.plan()
    if not as_json:
        _show_plan(plans, str(said["at"]), is_begun=begun is not None)
    if wish.plan_only:
        if as_json:
            typer.echo(json.dumps({"point": said, "plan": [_plan_json(one) for one in plans]}, indent=2))
        return
    if point is not None and point.apart() and not as_json:
        typer.echo("what stands apart from the moment is restored to its own; see the orphans at the end", err=True)
    done: list[Outcome] = []

    def hear(outcome: Outcome) -> None:
        done.extend([outcome] if outcome.state == "whole" else [])
        _tell(outcome, as_json=as_json)

    restored = restore.run(hear)
    restored.notes += [*_recorded(estate, wish, restored), *_erasures_recorded(estate, wish, done)]
    if as_json:
        typer.echo(json.dumps(restored.to_json(), indent=2))
    else:
        _show(restored, Path(wish.into))
    if not (restored.is_whole and restored.money_adds_up and restored.orphans is not None):
        raise typer.Exit(NOT_WHOLE)


def _vaults(estate: Estate, wish: Wish, bundle: Path | None) -> dict[str, Vault]:
    if bundle is None:
        return vaults_of(estate, wish.vault)
    return {
        name: vault_or_bundle(estate, wish.vault or dataset.vault, bundle) for name, dataset in estate.datasets.items()
    }


def _point(
    estate: Estate, vaults: dict[str, Vault], wish: Wish, begun: Any
) -> tuple[EstatePoint | None, dict[str, Json]]:
    """A begun restore goes on to its own moment: `latest-consistent` of now would be another one."""
    if begun is not None:
        asked = moment_of(wish.to)
        if not isinstance(asked, str) and str(begun["at"]) != format_time(asked):
            raise PolicyError(
                "estate.restore_state",
                f"the restore that was begun in {wish.into} is to {begun['at']}",
                "go on with that one, or choose another, empty --into folder",
            )
        return None, dict(begun)
    apart = named(estate, wish.apart)
    point = recovery_point(estate, vaults, moment_of(wish.to), strict=wish.strict, apart=apart)
    show_point(point, Console(stderr=True))
    return point, point.to_json()


def _ground(estate: Estate, wish: Wish, into: Path) -> Ground:
    topics = _by_dataset(wish.topics_into, list(estate.topics()), "--topics-into")
    buckets: dict[str, Place] = {}
    for name, bucket in _by_dataset(wish.bucket_into, list(estate.buckets()), "--bucket-into").items():
        declared = estate.buckets()[name]
        buckets[name] = target_of(declared, bucket, wish.endpoint_env, wish.access_key_env, wish.secret_key_env)
    targets = Targets(into, topics, buckets, plaintext=wish.plaintext)
    return Ground(estate, os.environ, targets, wish.bringing, wish.level)


def _by_dataset(given: list[str], declared: list[str], option: str) -> dict[str, str]:
    """`NAME=VALUE`, or a value alone where only one dataset can be meant."""
    found: dict[str, str] = {}
    for text in given:
        name, is_named, value = text.partition("=")
        if not is_named:
            name, value = (declared[0] if len(declared) == 1 else ""), text
        if name not in declared:
            raise PolicyError(
                "cli.unknown_dataset",
                f"{option} {text[:80]!r} names none of {', '.join(declared) or 'no datasets of this kind'}",
                f"write {option} DATASET=…",
            )
        found[name] = value
    return found


def _recorded(estate: Estate, wish: Wish, restored: EstateRestored) -> list[str]:
    """On record in each vault; why not, where this host can't: a restore doesn't fail for it."""
    notes = []
    for name in sorted({wish.vault or dataset.vault for dataset in estate.datasets.values()}):
        try:
            record_restore(vault_of(estate, name, signing=True), restored)
        except DrError as error:
            notes.append(f"this restore is not on record in vault {name}: {error.code}")
    return notes


def _erasures_recorded(estate: Estate, wish: Wish, done: list[Outcome]) -> list[str]:
    """On record of each database that came back just now that its erasures were applied, as by any restore."""
    notes = []
    for one in done:
        replayed = one.details.get("erasures_replayed")
        if not isinstance(replayed, dict):
            continue
        try:
            vault = vault_of(estate, wish.vault or estate.datasets[one.dataset].vault, signing=True)
            record_fact(vault, one.dataset, REPLAYED, plain(replayed))
        except DrError as error:
            notes.append(f"that the erasures were applied to {one.dataset} is not on record: {error.code}")
    return notes


def _plan_json(one: DatasetPlan) -> dict[str, object]:
    return {
        "dataset": one.dataset,
        "kind": one.kind,
        "at": one.at.isoformat(),
        "into": one.into,
        "what": one.what,
        "fetch_bytes": one.fetch_bytes,
        "expected_s": one.expected_s,
        "notes": list(one.notes),
    }


def _show_plan(plans: list[DatasetPlan], at: str, *, is_begun: bool) -> None:
    title = f"{'going on with the restore' if is_begun else 'plan: the estate'} to {at}"
    table = Table(title=title, title_justify="left")
    for column in ("dataset", "to", "into", "what", "to fetch", "last test took"):
        table.add_column(column, overflow="fold")
    for one in plans:
        took = "unknown" if one.expected_s is None else f"{one.expected_s:.1f} s"
        table.add_row(
            one.dataset, f"{one.at:%H:%M:%S.%f}", shown(one.into), shown(one.what),
            f"{one.fetch_bytes / 1e6:.1f} MB", took,
        )  # fmt: skip
    Console(stderr=True).print(table)
    for one in plans:
        for note in one.notes:
            typer.echo(f"{one.dataset}: {shown(note)}", err=True)


def _tell(outcome: Outcome, *, as_json: bool) -> None:
    if not as_json:
        typer.echo(f"{outcome.dataset}: {outcome.state} ({outcome.reason}, {outcome.duration_s:.1f} s)", err=True)


def _show(restored: EstateRestored, into: Path) -> None:
    table = Table(title=f"the estate at {restored.point['at']}", title_justify="left")
    for column in ("dataset", "state", "took", "what"):
        table.add_column(column, overflow="fold")
    for one in restored.outcomes:
        colour = "green" if one.state == "whole" else "red"
        table.add_row(one.dataset, f"[{colour}]{one.state}[/]", f"{one.duration_s:.1f} s", shown(_what(one)))
    Console().print(table)
    orphans = restored.orphans
    if orphans is not None:
        counts = (
            ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in orphans.counts.items()) or "none counted"
        )
        typer.echo(f"orphans: {counts}" + (f"; listed in {into / ORPHANS}" if orphans.total else ""))
        for name, why in orphans.skipped.items():
            typer.echo(f"not counted: {name.replace('_', ' ')}: {why}")
        if orphans.topics_clock_behind_ms:
            typer.echo(f"the records' clock is at least {orphans.topics_clock_behind_ms} ms behind the database's")
    for note in restored.notes:
        typer.echo(f"note: {shown(note)}")
    typer.echo(f"{'whole' if restored.is_whole else 'NOT WHOLE'} in {restored.duration_s:.1f} s")


def _what(one: Outcome) -> str:
    details = one.details
    match one.kind:
        case _ if one.state != "whole":
            return one.reason
        case "postgres":
            books = details["reconciliation"]
            money = "the money adds up" if books["ok"] else f"{books['breaks_total']} breaks"
            return f"{details['data_dir']}, {details['replayed_lsn']}, {money}"
        case "kafka":
            identical = ", offsets as they were" if details["offsets_identical"] else ""
            return f"{details['topics']} topics, {details['records']} records compared{identical}"
        case _:
            return f"{details['documents']} documents in {details['bucket']}"
