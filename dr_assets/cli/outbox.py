"""`dr-assets outbox plan|replay|prove|mark`: what was never published reaches its topics, each event once.

What belongs here: options, tables, JSON, CSV. What stays out: the work itself (recovery/outbox*.py).
"""

import csv
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import typer
from rich.console import Console
from rich.table import Table

from dr_assets.cli.context import (
    DatasetArgument,
    DefsOption,
    JsonOption,
    dsn_in,
    dsn_of,
    estate_of,
    postgres_of,
    topics_of,
    vault_of,
)
from dr_assets.cli.shown import shown
from dr_assets.cli.times import parse_moment
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.reconciliation.cells import harmless
from dr_assets.reconciliation.streams.rules import StreamRules
from dr_assets.recovery.outbox import plan_outbox
from dr_assets.recovery.outbox_mark import mark_outbox
from dr_assets.recovery.outbox_plan import Entry, OutboxPlan, load_plan
from dr_assets.recovery.outbox_proof import Proof, prove_outbox, record_replay
from dr_assets.recovery.outbox_replay import Progress, Replayed, replay_outbox
from dr_assets.stores.kafka.access import connect, connect_target
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.stores.postgres.dsn import require_safe_transport
from dr_assets.vault.vault import Vault

app = typer.Typer(help="Replay what a ledger's outbox never published, and prove it.", no_args_is_help=True)

_PATIENCE_S = 180.0
_UNPROVEN = 1
_SHOWN = 50

LedgerOption = Annotated[
    str | None,
    typer.Option("--ledger-env", help="the variable with the restored ledger's connection string; the dataset's own"),
]
IntoOption = Annotated[
    str | None, typer.Option("--into", metavar="HOST:PORT,…", help="the cluster; the topics dataset's own by default")
]
TopicsOption = Annotated[
    str | None, typer.Option("--topics", help="the dataset of the topics; the ledger's `reconcile: topics` by default")
]
PlainOption = Annotated[
    bool, typer.Option("--plaintext", help="the cluster has neither TLS nor SASL; else it is spoken to as declared")
]
PlanOption = Annotated[Path, typer.Option("--plan", exists=True, dir_okay=False, help="the file that `plan` wrote")]
YesOption = Annotated[bool, typer.Option("--yes", help="do it: without this nothing is written anywhere")]
Format = Literal["table", "csv", "json"]
OutOption = Annotated[Path | None, typer.Option("--out", help="save the plan to this new file, for `replay`")]
FormatOption = Annotated[Format, typer.Option("--format", help="how the list is shown")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="believe that what is marked as published before this time is there")
]
PartitionerOption = Annotated[str, typer.Option("--partitioner", help="the application's: murmur2 or crc32")]
ContractOption = Annotated[str | None, typer.Option("--contract", help="the restore test's by default")]
KeyHeaderOption = Annotated[str | None, typer.Option("--key-header", help="the header of the idempotency key")]
KeyJsonOption = Annotated[str | None, typer.Option("--key-json", help="or its path in the value: a.b")]
KeyIsKeyOption = Annotated[bool, typer.Option("--key-is-key", help="or the record's own key is it")]


@dataclass(frozen=True, slots=True)
class _Sides:
    """A ledger and the topics it publishes to, as the options of every verb here say them."""

    estate: Estate
    ledger: PostgresDataset
    topics: str | None
    into: str | None
    plaintext: bool
    ledger_env: str | None = None

    @classmethod
    def of(
        cls, dataset: str, defs: Path | None, topics: str | None, into: str | None, plaintext: bool,
        ledger_env: str | None = None,
    ) -> Self:  # fmt: skip
        """From the options themselves."""
        estate = estate_of(defs)
        return cls(estate, postgres_of(estate, dataset), topics, into, plaintext, ledger_env)

    def dsn(self) -> str:
        """The ledger's connection string: the variable that was named, else the declared one."""
        dsn = dsn_in(self.ledger_env) if self.ledger_env else dsn_of(self.ledger)
        require_safe_transport(dsn)
        return dsn

    def cluster(self) -> Cluster:
        """The cluster that was named, spoken to as is declared of the topics, else their own."""
        name = self.topics or (self.ledger.reconcile.topics if self.ledger.reconcile else None)
        if name is None:
            raise PolicyError(
                "outbox.no_topics",
                f"nothing says where {self.ledger.name} publishes its outbox",
                "declare `reconcile: {topics: …}`, or give --topics",
            )
        declared = topics_of(self.estate, name)
        if self.into is None:
            return connect(declared, os.environ, patience_s=_PATIENCE_S)
        return connect_target(declared, self.into, os.environ, plaintext=self.plaintext, patience_s=_PATIENCE_S)

    def sealing(self) -> Vault:
        """The ledger's vault, to put on record what was done."""
        return vault_of(self.estate, self.ledger.vault, signing=True)


@app.command()
def plan(
    dataset: DatasetArgument,
    out: OutOption = None,
    form: FormatOption = "table",
    since: SinceOption = None,
    partitioner: PartitionerOption = "murmur2",
    contract: ContractOption = None,
    key_header: KeyHeaderOption = None,
    key_json: KeyJsonOption = None,
    key_is_key: KeyIsKeyOption = False,
    ledger_env: LedgerOption = None,
    into: IntoOption = None,
    topics: TopicsOption = None,
    plaintext: PlainOption = False,
    defs: DefsOption = None,
) -> None:
    """List what the topics lack of a ledger's outbox, in the order of replay; nothing is written to either."""
    sides = _Sides.of(dataset, defs, topics, into, plaintext, ledger_env)
    header = key_header or (None if key_json or key_is_key else _declared_header(sides.ledger))
    rules = StreamRules(header, key_json, key_is_key)
    moment, dsn = parse_moment(since) if since else None, sides.dsn()
    with sides.cluster() as cluster:
        found = plan_outbox(
            dsn, contract or sides.ledger.restore_test.contract, cluster, dataset=dataset, rules=rules,
            partitioner=partitioner, since=moment,
        )  # fmt: skip
    if out is not None:
        found.save(out)
    _show_plan(found, form)


@app.command()
def replay(
    dataset: DatasetArgument,
    path: PlanOption,
    yes: YesOption = False,
    record: Annotated[bool, typer.Option("--record", help="seal plan, replay and proof into the vault")] = False,
    ledger_env: LedgerOption = None,
    into: IntoOption = None,
    topics: TopicsOption = None,
    plaintext: PlainOption = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send what a plan lists and its topics lack, then prove it; run again after a kill, it goes on."""
    sides = _Sides.of(dataset, defs, topics, into, plaintext, ledger_env)
    planned = _planned(path, dataset)
    if not yes:
        raise _not_without_yes(f"{len(planned.entries)} events would be sent to {len(planned.counts)} topics")
    dsn = sides.dsn()
    with sides.cluster() as cluster:
        done = replay_outbox(planned, dsn, cluster, progress=_progress(as_json=as_json))
        proof = prove_outbox(planned, cluster)
    if record:
        record_replay(sides.sealing(), planned, proof, done)
    _show_proof(proof, done, as_json=as_json)


@app.command()
def prove(
    dataset: DatasetArgument,
    path: PlanOption,
    record: Annotated[bool, typer.Option("--record", help="seal the proof into the vault")] = False,
    into: IntoOption = None,
    topics: TopicsOption = None,
    plaintext: PlainOption = False,
    defs: DefsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read topics and groups back: each event of a plan once, and before its consumers; exit 1 if it is not so."""
    sides = _Sides.of(dataset, defs, topics, into, plaintext)
    planned = _planned(path, dataset)
    with sides.cluster() as cluster:
        proof = prove_outbox(planned, cluster)
    if record:
        record_replay(sides.sealing(), planned, proof)
    _show_proof(proof, None, as_json=as_json)


@app.command()
def mark(
    dataset: DatasetArgument,
    path: PlanOption,
    yes: YesOption = False,
    ledger_env: LedgerOption = None,
    into: IntoOption = None,
    topics: TopicsOption = None,
    plaintext: PlainOption = False,
    defs: DefsOption = None,
) -> None:
    """Tell the ledger that what its topics hold is out, before the application's relay starts again."""
    sides = _Sides.of(dataset, defs, topics, into, plaintext, ledger_env)
    planned = _planned(path, dataset)
    if not yes:
        raise _not_without_yes("events that the topics hold would be marked in the ledger")
    dsn = sides.dsn()
    with sides.cluster() as cluster:
        count = mark_outbox(planned, dsn, cluster)
    typer.echo(f"{count} events are marked as published")


def _planned(path: Path, dataset: str) -> OutboxPlan:
    planned = load_plan(path)
    if planned.dataset != dataset:
        raise PolicyError("outbox.other_ledger", f"the plan is for {planned.dataset}", f"name {planned.dataset}")
    return planned


def _declared_header(ledger: PostgresDataset) -> str | None:
    return ledger.reconcile.idempotency_header if ledger.reconcile else StreamRules().header


def _not_without_yes(what: str) -> PolicyError:
    return PolicyError("outbox.not_confirmed", f"{what}, and nobody said --yes", "look at the plan, then add --yes")


def _progress(*, as_json: bool) -> Progress | None:
    """How many are there, on one line of a terminal."""
    if as_json or not sys.stderr.isatty():
        return None
    return lambda there, of: typer.echo(f"\r{there} of {of}", err=True, nl=there == of)


def _show_plan(found: OutboxPlan, form: Format) -> None:
    if form == "json":
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    if form == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(Entry._fields)
        writer.writerows([harmless(one) if isinstance(one, str) else one for one in entry] for entry in found.entries)
        return
    table = Table(title=f"to replay from {found.dataset}, in this order", title_justify="left")
    for column in ("position", "transfer", "topic", "partition", "idempotency key", "message key"):
        table.add_column(column, overflow="fold")
    for entry in found.entries[:_SHOWN]:
        table.add_row(
            str(entry.position), shown(entry.transfer), shown(entry.topic), str(entry.partition),
            shown(entry.idempotency_key), shown(entry.message_key or ""),
        )  # fmt: skip
    Console().print(table)
    if len(found.entries) > _SHOWN:
        typer.echo(f"… and {len(found.entries) - _SHOWN} more (--format csv shows all)")
    for topic, count in found.counts.items():
        typer.echo(f"{topic}: {count}")
    typer.echo(f"{len(found.entries)} of {found.rows} events are missing; digest {found.digest}")


def _show_proof(proof: Proof, done: Replayed | None, *, as_json: bool) -> None:
    if as_json:
        said = proof.to_json()
        if done is not None:
            said["replay"] = {"present": done.present, "sent": done.sent, "duration_s": done.duration_s}
        typer.echo(json.dumps(said, indent=2))
    else:
        if done is not None:
            how = f"in {done.steps} transactions ({done.duration_s:.1f} s)"
            typer.echo(f"{done.sent} sent {how}, {done.present} were there")
        for example in proof.examples:
            typer.echo(f"FOUND {example}")
        for one in proof.groups:
            said_of = one.standing.replace("_", " ") if one.covered else "PASSES OVER them"
            typer.echo(f"group {one.group}, {one.topic}/{one.partition} offsets {one.first} to {one.last}: {said_of}")
        if proof.spared:
            typer.echo(f"{proof.spared} records of aborted transactions lie there: who reads uncommitted ones saw them")
        typer.echo(f"{'proven' if proof.ok else 'NOT PROVEN'}: {proof.once} of {proof.planned} events are there once")
    if not proof.ok:
        raise typer.Exit(_UNPROVEN)
