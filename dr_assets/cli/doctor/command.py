"""`dr-assets doctor [DATASET]`: everything that must be right before and at 3 a.m., in one table.

What belongs here: which probes there are, and printing. What stays out: the probes.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import DefsOption, JsonOption, dataset_of, estate_of
from dr_assets.cli.doctor import (
    backups,
    keys,
    orchestration,
    proving,
    roles,
    settings,
    source,
    standing,
    stores,
    vaults,
)
from dr_assets.cli.doctor.bounded import Probe, examine
from dr_assets.cli.doctor.line import EXIT_CODES, Line, worst
from dr_assets.cli.doctor.patient import Patient, secrets_of, without_secrets
from dr_assets.estate.declarations import check_estate, default_defs_dir
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.model import Estate

ESTATE: Final = "estate"
_CODED: Final = re.compile(r"[a-z]+\.[a-z_]+: ")  # an error's code leads its line
_COLOURS: Final = {"ok": "green", "warn": "yellow", "bad": "red"}
Told = list[tuple[str, Line]]
Look = Callable[[Patient], Iterator[Line]]
_DATABASE: Final[dict[str, Look]] = {
    "spool": settings.spool,
    "source": source.source,
    "patroni": source.patroni,
    "preflight": source.fitness,
}
_STORED_DATABASE: Final[dict[str, Look]] = {
    "recovery point": backups.recovery_point,
    "base backup": backups.base_backup,
    "gaps": backups.gaps,
    "diverged": backups.left_behind,
    "roll-up": backups.roll_up,
    "proofs": backups.proofs,
    "proven": proving.proven,
}


def doctor(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="only this one; all by default")] = None,
    within: Annotated[str, typer.Option("--within", help="how long one probe may take: 20s, 2m")] = "20s",
    write_probe: Annotated[
        bool,
        typer.Option(
            "--write-probe", help="also store one small object, locked as facts are, and try to write over it"
        ),
    ] = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at everything that a capture and a restore rest on; exit 0 (ok), 1 (warnings) or 2 (something is bad)."""
    limit = parse_duration(within)
    told = _declared(defs)
    bugs: list[BaseException] = []
    secrets: list[str] = []
    if not any(line.verdict == "bad" for _, line in told):
        estate = estate_of(defs)
        names = list(estate.datasets) if dataset is None else [dataset_of(estate, dataset).name]
        secrets = secrets_of(estate, os.environ)
        lines, bugs = examine(
            probes_of(estate, names, os.environ, write_probe=write_probe), within_s=limit / timedelta(seconds=1)
        )
        told += [(probe.subject, line) for probe, line in lines]
    _show(_without_repeats(told), secrets, as_json=as_json)
    if bugs:
        raise bugs[0]
    raise typer.Exit(EXIT_CODES[worst(line.verdict for _, line in told)])


def probes_of(estate: Estate, names: list[str], env: Mapping[str, str], *, write_probe: bool) -> list[Probe]:
    """Every probe, in the order of the table: this host, the source, the vault, what it holds, Dagster."""
    probes: list[Probe] = []
    for name in names:
        patient = Patient(estate, estate.datasets[name], env)
        is_postgres = patient.dataset.kind == "postgres"
        looks: dict[str, Look] = {
            "environment": settings.environment,
            "keys": keys.keys,
            **(_DATABASE if is_postgres else stores.SOURCES[patient.dataset.kind]),
            "vault": vaults.vault,
            **{f"replica {each}": partial(vaults.replica, name=each) for each in patient.dataset.replicas},
            "transit": standing.transit,
            **standing.buckets(patient),
            "wrappings": standing.wrappings,
            "replication": standing.replication,
            "roles": roles.roles,
            "log": standing.log,
            "witness": standing.witness,
            "verification": standing.verification,
            **({"write probe": vaults.write_once} if write_probe else {}),
            **(_STORED_DATABASE if is_postgres else stores.STORED[patient.dataset.kind]),
        }
        probes += [Probe(name, check, partial(look, patient)) for check, look in looks.items()]
    probes.append(Probe(ESTATE, "dagster", partial(orchestration.dagster, env)))
    return probes


def _declared(defs: Path | None) -> Told:
    findings = check_estate(defs if defs is not None else default_defs_dir())
    hint = "correct the line; docs/policy.md explains each code"
    bad = [
        (ESTATE, Line("declarations", "bad", f"{each.path}:{each.line}: {each.reason} [{each.code}]", hint))
        for each in findings
    ]
    return bad or [(ESTATE, Line("declarations", "ok", "every one is accepted"))]


def _without_repeats(told: Told) -> Told:
    """One cause is told in full once: a vault that is away makes many probes say the same."""
    shown: set[tuple[str, str]] = set()
    kept: Told = []
    for subject, line in told:
        told_before = (line.found, line.hint) in shown and _CODED.match(line.found)
        shown.add((line.found, line.hint))
        short = Line(line.check, line.verdict, f"as above: {line.found.partition(':')[0]}", "see above")
        kept.append((subject, short if told_before else line))
    return kept


def _show(told: Told, secrets: list[str], *, as_json: bool) -> None:
    verdict = worst(line.verdict for _, line in told)
    rows = [
        {
            "dataset": subject,
            "check": line.check,
            "verdict": line.verdict,
            "found": without_secrets(line.found, secrets),
            "hint": without_secrets(line.hint, secrets),
        }
        for subject, line in told
    ]
    if as_json:
        typer.echo(json.dumps({"verdict": verdict, "checks": rows}, indent=2))
        return
    table = Table(title=f"doctor: {verdict}", title_justify="left")
    for column in ("dataset", "check", "", "found"):
        table.add_column(column, overflow="fold", no_wrap=column == "")
    for row in rows:
        hint = f"\nHINT: {row['hint']}" if row["hint"] and row["verdict"] != "ok" else ""
        colour = _COLOURS[row["verdict"]]
        table.add_row(row["dataset"], row["check"], f"[{colour}]{row['verdict']}[/]", _plain(row["found"] + hint))
    Console().print(table)


def _plain(text: str) -> str:
    """Brackets in what a server said are no marks of ours."""
    return text.replace("[", r"\[")
