"""The story of `make demo`: a ledger under load loses its primary, and comes back from the vault alone.

What belongs here: the order of events and what is measured. What stays out: how anything is done (stores/, proving/,
reconciliation/), and what counts as a kept promise (report.py).
"""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
from rich.console import Console

from dr_assets.casino.acks import read_acks
from dr_assets.casino.incident import Planted, has_transfer, plant_bad_transaction
from dr_assets.casino.loss import Loss, measure_loss
from dr_assets.demo.children import Children
from dr_assets.demo.embedded import EmbeddedEstate
from dr_assets.demo.lock import run_lock
from dr_assets.demo.progress import Step, Steps
from dr_assets.demo.report import DemoReport, NegativeControls, judge, show
from dr_assets.drills.controls import plant_and_catch
from dr_assets.engines.supervise import Child
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import SourceError
from dr_assets.estate.model import PostgresDataset
from dr_assets.reconciliation.run import Reconciliation, reconcile
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import Restored, RestoreProgress, restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.connect import open_vault
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import VerifyReport, verify

_STEPS = 8
_CAPTURE_STOP_S = 60.0
_SETTLE_S = 3.0


@dataclass(frozen=True)
class Pace:
    """How much load, for how long before and again after the base backup."""

    rate_per_s: float
    load_s: float


@dataclass(frozen=True)
class Incident:
    """What went wrong, and when: the planted transaction, then the crash."""

    planted: Planted
    crashed_at: datetime


@dataclass(frozen=True)
class Recovery:
    """One restore that was judged while its server ran."""

    phases_s: dict[str, float]
    duration_s: float
    mb_s: float
    last_commit_at: datetime | None
    books: Reconciliation


def tell(home: Path, console: Console, pace: Pace) -> DemoReport:
    """Runs the whole story under `home`, prints and writes the report, and stops everything it started.

    Raises whatever stood in the way; a promise that did not hold is in the report.
    """
    steps = Steps(console, _STEPS)
    with run_lock(home), ExitStack() as stack:
        story = _Story(stack, home, steps, pace)
        report = judge(story.run())
        report.write(home / "report.json")
    show(report, console)
    console.print(f"report: {home / 'report.json'}", highlight=False, soft_wrap=True)
    return report


class _Story:
    """One run. Each method is one step, in the order of `run`."""

    def __init__(self, stack: ExitStack, home: Path, steps: Steps, pace: Pace) -> None:
        self._stack = stack
        self._home = home
        self._steps = steps
        self._pace = pace

    def run(self) -> DemoReport:
        self._start_estate()
        workload, capture = self._start_traffic()
        self._take_snapshot()
        incident = self._let_it_go_wrong(workload)
        self._stop_capture(capture)
        vault = open_vault(self._estate.estate, self._dataset.vault, self._estate.env, role="writer")
        latest, loss = self._restore_latest(vault, incident)
        before, reached, controls = self._restore_before(vault, incident)
        verified = self._verify(vault)
        return self._report(incident, loss, (latest, before), reached, controls, verified, vault)

    def _start_estate(self) -> None:
        with self._steps.step("start the embedded estate") as step:
            declared = load_estate(default_defs_dir())
            self._dataset: PostgresDataset = declared.postgres()["ledger"]
            self._estate = self._stack.enter_context(EmbeddedEstate(declared, self._home, self._steps.note))
            self._children = Children(self._estate)
            step.says = ", ".join(f"{name} {version}" for name, version in self._estate.describe_engines().items())

    def _start_traffic(self) -> tuple[Child, Child]:
        with self._steps.step("start the casino's workload and the capture") as step:
            workload = self._stack.enter_context(self._children.workload(rate_per_s=self._pace.rate_per_s))
            capture = self._stack.enter_context(self._children.capture(metrics_port=0))
            self._watch_load(step, self._pace.load_s, workload, capture)
        return workload, capture

    def _take_snapshot(self) -> None:
        with self._steps.step("take a base backup through Dagster (ledger/snapshot)") as step:
            took_s = self._children.materialize("key:ledger/snapshot")
            step.says = f"run of {took_s:.1f} s"

    def _let_it_go_wrong(self, workload: Child) -> Incident:
        with self._steps.step("plant a bad transaction, then kill the primary with SIGKILL mid-load") as step:
            self._watch_load(step, self._pace.load_s, workload)
            planted = plant_bad_transaction(self._estate.env["CASINO_DSN"])
            self._watch_load(step, _SETTLE_S, workload)
            crashed_at = datetime.now(UTC)
            self._estate.primary.kill()
            workload.wait(_CAPTURE_STOP_S)
            # Gone for good: whatever comes back now comes from the vault.
            shutil.rmtree(self._estate.primary.data_dir)
            step.says = f"at {crashed_at:%H:%M:%S.%f}Z; its data directory is deleted as well"
        return Incident(planted, crashed_at)

    def _stop_capture(self, capture: Child) -> None:
        with self._steps.step("let the capture store what it had received"):
            code = capture.stop(grace_s=_CAPTURE_STOP_S)
            if code != 0:
                raise SourceError(
                    "demo.capture_failed",
                    f"the capture ended with return code {code}; its log ends:\n{capture.log_tail(15)}",
                    f"the whole log is {capture.log_path}",
                )

    def _restore_latest(self, vault: Vault, incident: Incident) -> tuple[Recovery, Loss]:
        with self._steps.step("restore from the vault alone, to the end of what is stored") as step:
            begin_s = time.monotonic()
            plan = plan_restore(vault, self._dataset.name, Target.parse("latest"))
            with restore(plan, vault, self._sandbox("latest"), progress=_shower(step)) as restored:
                recovery = _judge_books(restored, self._dataset, begin_s, step)
                loss = measure_loss(self._estate.ack_dir, restored.dsn(), crashed_at=incident.crashed_at)
            step.says = f"{loss.acknowledged:,} acknowledged, {loss.lost} lost, {recovery.books.breaks_total} breaks"
        return recovery, loss

    def _restore_before(self, vault: Vault, incident: Incident) -> tuple[Recovery, bool, NegativeControls]:
        with self._steps.step("restore to just before the bad transaction") as step:
            begin_s = time.monotonic()
            planted = incident.planted
            plan = plan_restore(vault, self._dataset.name, Target("time", at=planted.good_at))
            with restore(plan, vault, self._sandbox("before"), progress=_shower(step)) as restored:
                recovery = _judge_books(restored, self._dataset, begin_s, step)
                stopped = restored.stopped is not None
                good = has_transfer(restored.dsn(), planted.good_transfer_id)
                bad = has_transfer(restored.dsn(), planted.transfer_id)
                controls = plant_and_catch(restored, self._dataset.restore_test.contract)
            reached = stopped and good and not bad
            step.says = f"{'reached' if reached else 'NOT reached'}; planted damage caught: {controls.caught}"
        return recovery, reached, NegativeControls(
            planted=controls.planted, caught=controls.caught, missed=list(controls.missed)
        )  # fmt: skip

    def _verify(self, vault: Vault) -> VerifyReport:
        with self._steps.step("re-read and verify every object in the vault") as step:
            report = verify(vault, progress=lambda done, total, _: step.show(f"{done} objects", done, total))
            step.says = f"{report.objects_total} objects, {report.objects_locked} locked, {len(report.errors)} damaged"
        return report

    def _report(
        self,
        incident: Incident,
        loss: Loss,
        recoveries: tuple[Recovery, Recovery],
        reached: bool,  # noqa: FBT001 - a fact among facts
        controls: NegativeControls,
        verified: VerifyReport,
        vault: Vault,
    ) -> DemoReport:
        latest, _ = recoveries
        snapshot = latest_fact(vault, self._dataset.name, "snapshot")
        body = snapshot.body if snapshot else {}
        age_s = self._dataset.rpo.total_seconds() * 10  # nothing recovered is as bad as it gets
        if latest.last_commit_at is not None:
            age_s = max(0.0, (incident.crashed_at - latest.last_commit_at).total_seconds())
        return DemoReport(
            ok=False,
            broken_promises=[],
            crashed_at=incident.crashed_at,
            commits_acknowledged=loss.acknowledged,
            commits_lost=loss.lost,
            commits_per_s=_commits_per_s(self._estate.ack_dir),
            loss_window_ms=loss.loss_window_ms,
            recovery_point_age_s=age_s,
            recovery_duration_s=latest.duration_s,
            recovery_phases_s=latest.phases_s,
            rpo_s=self._dataset.rpo.total_seconds(),
            rto_s=self._dataset.rto.total_seconds(),
            ledger_breaks=sum(recovery.books.breaks_total for recovery in recoveries),
            rows_reconciled=sum(recovery.books.rows_examined for recovery in recoveries),
            pitr_target=incident.planted.good_at,
            pitr_reached=reached,
            negative_controls=controls,
            objects_total=verified.objects_total,
            objects_locked=verified.objects_locked,
            objects_damaged=len(verified.errors),
            snapshot_mb=float(str(body.get("size_bytes", 0))) / 1e6,
            snapshot_mb_s=float(str(body.get("mb_s", 0))),
            restore_mb_s=latest.mb_s,
            engines=self._estate.describe_engines(),
        )

    def _sandbox(self, name: str) -> Path:
        return self._estate.sandbox / name

    @staticmethod
    def _watch_load(step: Step, seconds: float, *children: Child) -> None:
        """Lets traffic flow for a while; a child that died meanwhile is an error."""
        begin = time.monotonic()
        while (elapsed := time.monotonic() - begin) < seconds:
            step.show("money flows", elapsed, seconds)
            for child in children:
                if not child.alive:
                    raise SourceError(
                        "demo.child_died",
                        f"{child.name} ended with return code {child.poll()}; its log ends:\n{child.log_tail(15)}",
                        f"the whole log is {child.log_path}",
                    )
            time.sleep(0.2)


def _judge_books(restored: Restored, dataset: PostgresDataset, begin_s: float, step: Step) -> Recovery:
    """Reconciles the restored ledger: the clock of a recovery stops when the books are judged, not earlier."""
    step.show("reconcile")
    books = reconcile(restored.reader_dsn(), dataset.restore_test.contract)
    return Recovery(
        phases_s={**restored.phases_s, "reconcile": books.duration_s},
        duration_s=time.monotonic() - begin_s,
        mb_s=restored.mb_s,
        last_commit_at=restored.last_commit_at,
        books=books,
    )


def _shower(step: Step) -> Callable[[RestoreProgress], None]:
    return lambda told: step.show(told.phase.replace("_", " "), told.done_bytes, told.total_bytes)


def _commits_per_s(ack_dir: Path) -> float:
    """Acknowledged commits per second between the first and the last."""
    acks = read_acks(ack_dir).acks
    bounds = pc.min_max(acks.column("at_ns")).as_py()
    if not acks.num_rows or bounds["min"] == bounds["max"]:
        return 0.0
    return float(acks.num_rows / ((bounds["max"] - bounds["min"]) / 1e9))
