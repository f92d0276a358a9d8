"""What the demo promises, measured: the report behind `.demo/report.json` and the table on the terminal.

What belongs here: the report's fields, which of them are promises, how both are shown. What stays out: measuring.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table

NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Promise = tuple[str, str, str, bool]  # what, measured, promised, held


class NegativeControls(BaseModel):
    """Damage planted into the restored sandbox after it had passed: reconciliation must catch every kind."""

    model_config = ConfigDict(extra="forbid")

    planted: Count
    caught: Count
    missed: list[str]


class DemoReport(BaseModel):
    """One run of the demo. Times are seconds unless the name says otherwise, moments are UTC."""

    model_config = ConfigDict(extra="forbid")

    format: int = Field(default=2, description="version of this report's shape")
    ok: bool = Field(description="every promise held")
    broken_promises: list[str] = Field(description="the promises that did not hold, in words; empty when ok")
    crashed_at: datetime = Field(description="when the primary was killed")
    commits_acknowledged: Count = Field(description="money commits that the primary acknowledged to the workload")
    commits_lost: Count = Field(description="of those, how many are absent after the restore to the end of the vault")
    commits_per_s: NonNegative = Field(description="acknowledged commits per second while the workload ran")
    loss_window_ms: NonNegative = Field(
        description="from the first lost acknowledgement to the crash; 0 if none is lost"
    )
    recovery_point_age_s: NonNegative = Field(description="crash minus newest recovered commit, on the source's clock")
    recovery_duration_s: NonNegative = Field(description="from the decision to restore until the money added up")
    recovery_phases_s: dict[str, NonNegative] = Field(description="the parts of recovery_duration_s")
    rpo_s: NonNegative = Field(description="the declared recovery point objective")
    rto_s: NonNegative = Field(description="the declared recovery time objective")
    ledger_breaks: Count = Field(description="breaks found by reconciliation, both restores together")
    rows_reconciled: Count = Field(description="rows that the reconciliations examined, both restores together")
    pitr_target: datetime = Field(description="the moment just before the planted bad transaction")
    pitr_reached: bool = Field(description="stopped by the target: the last good commit is there, the bad one is not")
    negative_controls: NegativeControls
    objects_total: Count = Field(description="objects in the primary vault, of all kinds")
    objects_locked: Count = Field(description="of those, with a retention lock read back that is long enough")
    objects_damaged: Count = Field(description="integrity findings of `vault verify`")
    snapshot_mb: NonNegative = Field(description="size of the base backup, in MB of plaintext")
    snapshot_mb_s: NonNegative = Field(description="speed of the base backup, in MB of plaintext a second")
    restore_mb_s: NonNegative = Field(description="base backup and WAL restored per second of recovery's byte work, MB")
    kafka_broker: str = Field(description="product and version of the brokers that ran; an emulator's if it was one")
    kafka_rpo_s: NonNegative = Field(description="the declared recovery point objective of the events")
    kafka_rto_s: NonNegative = Field(description="the declared recovery time objective of the events")
    kafka_acknowledged: Count = Field(description="events that the broker acknowledged to the casino")
    kafka_lost: Count = Field(description="of those, how many are absent after the restore, all at the very end")
    kafka_records: Count = Field(description="records in the restored cluster, read by the casino's own client")
    kafka_records_erased: Count = Field(description="of those, how many are of the erased player, and say nothing")
    kafka_offsets_identical: bool = Field(description="each restored event lies at the offset it was acknowledged with")
    kafka_groups_identical: bool = Field(description="the consumer group stands where it had committed")
    kafka_recovery_point_age_s: NonNegative = Field(
        description="crash minus the moment up to which everything is stored"
    )
    kafka_recovery_duration_s: NonNegative = Field(
        description="from the decision to restore until topics and groups were there"
    )
    kyc_rpo_s: NonNegative = Field(description="the declared recovery point objective of the documents")
    kyc_rto_s: NonNegative = Field(description="the declared recovery time objective of the documents")
    kyc_documents: Count = Field(description="documents that the casino had put")
    kyc_documents_due: Count = Field(description="of those, how many are not of people who were erased")
    kyc_documents_restored: Count = Field(description="documents in the restored bucket")
    kyc_documents_identical: bool = Field(description="the restored documents are those due, byte for byte")
    kyc_persons_erased: Count = Field(description="people erased after their documents were copied")
    kyc_persons_gone: Count = Field(description="of those, how many no restore brings back and no region has a key of")
    kyc_recovery_point_age_s: NonNegative = Field(description="crash minus the newest copy's listing")
    kyc_recovery_duration_s: NonNegative = Field(
        description="from the decision to restore until the documents were there"
    )
    engines: dict[str, str] = Field(description="engine versions and where their programs came from")

    def write(self, path: Path) -> None:
        """Writes the report as JSON, atomically, so that a reader never sees half of one."""
        partial = path.with_suffix(".partial")
        partial.write_text(self.model_dump_json(indent=2) + "\n")
        partial.replace(path)


def promises(report: DemoReport) -> list[Promise]:
    """The promises of a report."""
    return [*_of_the_ledger(report), *_of_the_events(report), *_of_the_documents(report), *_of_the_vault(report)]


def _of_the_ledger(report: DemoReport) -> list[Promise]:
    controls = report.negative_controls
    return [
        ("recovery point age", f"{report.recovery_point_age_s:.2f} s", f"≤ {report.rpo_s:.0f} s (RPO)",
         report.recovery_point_age_s <= report.rpo_s),
        ("recovery duration", f"{report.recovery_duration_s:.1f} s", f"≤ {report.rto_s:.0f} s (RTO)",
         report.recovery_duration_s <= report.rto_s),
        ("commits lost", f"{report.commits_lost} of {report.commits_acknowledged:,}",
         f"loss window ≤ {report.rpo_s:.0f} s",
         report.commits_acknowledged > 0 and report.loss_window_ms <= report.rpo_s * 1000),
        ("ledger breaks", f"{report.ledger_breaks} in {report.rows_reconciled:,} rows", "0",
         report.ledger_breaks == 0 and report.rows_reconciled > 0),
        ("restored to before the incident", "reached" if report.pitr_reached else "NOT reached", "reached",
         report.pitr_reached),
        ("negative controls caught", f"{controls.caught} of {controls.planted}", "all",
         controls.planted > 0 and controls.caught == controls.planted),
    ]  # fmt: skip


def _of_the_events(report: DemoReport) -> list[Promise]:
    offsets = f"{_said(report.kafka_offsets_identical)}, {report.kafka_records:,} records"
    kept = report.kafka_acknowledged - report.kafka_lost
    return [
        ("events: recovery point age", f"{report.kafka_recovery_point_age_s:.2f} s",
         f"≤ {report.kafka_rpo_s:.0f} s (RPO)", report.kafka_recovery_point_age_s <= report.kafka_rpo_s),
        ("events: recovery duration", f"{report.kafka_recovery_duration_s:.1f} s",
         f"≤ {report.kafka_rto_s:.0f} s (RTO)", report.kafka_recovery_duration_s <= report.kafka_rto_s),
        ("events back at their offsets",
         f"{offsets}; {report.kafka_lost} of {report.kafka_acknowledged:,} lost", "all but the last seconds'",
         report.kafka_offsets_identical and 0 < kept <= report.kafka_records),
        ("events of the erased player", f"{report.kafka_records_erased} silent", "all, at their offsets",
         report.kafka_records_erased > 0),
        ("consumer group's place", _said(report.kafka_groups_identical), "identical", report.kafka_groups_identical),
    ]  # fmt: skip


def _of_the_documents(report: DemoReport) -> list[Promise]:
    back = f"{report.kyc_documents_restored} of {report.kyc_documents_due}, {_said(report.kyc_documents_identical)}"
    return [
        ("documents: recovery point age", f"{report.kyc_recovery_point_age_s:.2f} s",
         f"≤ {report.kyc_rpo_s:.0f} s (RPO)", report.kyc_recovery_point_age_s <= report.kyc_rpo_s),
        ("documents: recovery duration", f"{report.kyc_recovery_duration_s:.1f} s",
         f"≤ {report.kyc_rto_s:.0f} s (RTO)", report.kyc_recovery_duration_s <= report.kyc_rto_s),
        ("documents back", back, "all, identical",
         report.kyc_documents_identical and report.kyc_documents_restored == report.kyc_documents_due > 0),
        ("people erased and gone", f"{report.kyc_persons_gone} of {report.kyc_persons_erased}", "all",
         report.kyc_persons_gone == report.kyc_persons_erased > 0),
    ]  # fmt: skip


def _of_the_vault(report: DemoReport) -> list[Promise]:
    return [
        ("objects locked", f"{report.objects_locked} of {report.objects_total}", "all",
         report.objects_total > 0 and report.objects_locked == report.objects_total),
        ("objects damaged", str(report.objects_damaged), "0", report.objects_damaged == 0),
    ]  # fmt: skip


def _said(identical: bool) -> str:  # noqa: FBT001 - a word for a fact
    return "identical" if identical else "NOT identical"


def judge(report: DemoReport) -> DemoReport:
    """The same report with `ok` and `broken_promises` set from its own numbers."""
    broken = [f"{what}: {measured}, promised {promised}" for what, measured, promised, held in promises(report)
              if not held]  # fmt: skip
    return report.model_copy(update={"ok": not broken, "broken_promises": broken})


def show(report: DemoReport, console: Console) -> None:
    """Prints the promises and the phases of the recovery as two tables."""
    table = Table(title="The money came back" if report.ok else "A promise did not hold", title_justify="left")
    for column in ("promise", "measured", "promised"):
        table.add_column(column)
    table.add_column("", justify="center")
    for what, measured, promised, held in promises(report):
        table.add_row(what, measured, promised, "[green]held[/]" if held else "[red]BROKEN[/]")
    console.print(table)
    phases = Table(title="Recovery, phase by phase", title_justify="left", min_width=26)
    phases.add_column("phase")
    phases.add_column("s", justify="right")
    for phase, duration_s in report.recovery_phases_s.items():
        phases.add_row(phase.replace("_", " "), f"{duration_s:.2f}")
    phases.add_row("[bold]all[/]", f"[bold]{report.recovery_duration_s:.2f}[/]")
    console.print(phases)
    console.print(
        f"{report.commits_acknowledged:,} commits at {report.commits_per_s:.0f}/s; loss window"
        f" {report.loss_window_ms:.0f} ms; base backup {report.snapshot_mb:.0f} MB at {report.snapshot_mb_s:.0f} MB/s;"
        f" restore {report.restore_mb_s:.0f} MB/s; " + ", ".join(f"{k} {v}" for k, v in report.engines.items()),
        soft_wrap=True,
        highlight=False,
    )


def json_schema() -> str:
    """The report's JSON schema, as committed in docs/report.schema.json."""
    return json.dumps(DemoReport.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
