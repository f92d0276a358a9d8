"""The story of `make demo`: a casino under load loses its servers, and comes back from the vault alone.

What belongs here: the order of events, the ledger's own, and what is measured. What stays out: topics and documents
(events_story.py, documents_story.py), how anything is done (stores/, proving/, reconciliation/), and what counts as a
kept promise (report.py).
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
from rich.console import Console

from dr_assets.casino.acks import read_acks
from dr_assets.casino.events import Place
from dr_assets.casino.incident import Planted, has_transfer, plant_bad_transaction
from dr_assets.casino.loss import Loss, measure_loss
from dr_assets.demo.children import Children
from dr_assets.demo.documents_story import DocumentsBack, DocumentsStory
from dr_assets.demo.embedded import EmbeddedEstate
from dr_assets.demo.events_story import EventsBack, bring_events_back, commit_place
from dr_assets.demo.lock import run_lock
from dr_assets.demo.progress import Step, Steps
from dr_assets.demo.report import DemoReport, NegativeControls, judge, show
from dr_assets.drills.controls import plant_and_catch
from dr_assets.engines.supervise import Child
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import SourceError
from dr_assets.estate.model import Dataset, PostgresDataset
from dr_assets.proving.erasures import erasures_for
from dr_assets.reconciliation.run import Reconciliation, reconcile
from dr_assets.stores.postgres.plan import RestorePlan, plan_restore
from dr_assets.stores.postgres.restore import Restored, RestoreProgress, restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.connect import open_vault
from dr_assets.vault.facts import Fact, latest_fact
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import VerifyReport, verify

_STEPS = 12
_CAPTURE_STOP_S = 180.0
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


@dataclass(frozen=True)
class Outcome:
    """All that a run came to."""

    incident: Incident
    loss: Loss
    latest: Recovery
    before: Recovery
    reached: bool
    controls: NegativeControls
    events: EventsBack
    documents: DocumentsBack
    verified: VerifyReport


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
        workload, captures = self._start_traffic()
        self._take_copies()
        self._forget_somebody()
        committed = self._commit_a_place()
        incident = self._let_it_go_wrong(workload)
        self._stop_captures(captures)
        vault = self._opened()
        latest, loss = self._restore_latest(vault, incident)
        before, reached, controls = self._restore_before(vault, incident)
        events = self._restore_events(vault, committed)
        back = self._restore_documents(vault)
        verified = self._verify(vault)
        outcome = Outcome(incident, loss, latest, before, reached, controls, events, back, verified)
        return self._report(outcome, latest_fact(vault, self._dataset.name, "snapshot"))

    def _start_estate(self) -> None:
        with self._steps.step("start the embedded estate") as step:
            declared = load_estate(default_defs_dir())
            self._dataset: PostgresDataset = declared.postgres()["ledger"]
            self._topics = declared.topics()["game_events"]
            self._estate = self._stack.enter_context(EmbeddedEstate(declared, self._home, self._steps.note))
            self._children = Children(self._estate)
            self._documents = DocumentsStory(self._estate)
            step.says = ", ".join(f"{name} {version}" for name, version in self._estate.describe_engines().items())

    def _start_traffic(self) -> tuple[Child, list[Child]]:
        with self._steps.step("start the casino's workload and the captures") as step:
            workload = self._stack.enter_context(self._children.workload(rate_per_s=self._pace.rate_per_s))
            captures = [
                self._stack.enter_context(self._children.capture(dataset.name, metrics_port=0))
                for dataset in (self._dataset, self._topics)
            ]
            step.says = f"{self._documents.put()} documents put"
            self._watch_load(step, self._pace.load_s, workload, *captures)
        return workload, captures

    def _take_copies(self) -> None:
        with self._steps.step("copy through Dagster (ledger/snapshot, kyc/bucket_copy)") as step:
            took_s = self._children.materialize("key:ledger/snapshot or key:kyc/bucket_copy")
            step.says = f"run of {took_s:.1f} s"

    def _forget_somebody(self) -> None:
        with self._steps.step("erase a player, behind the copies") as step:
            step.says = self._documents.forget()

    def _commit_a_place(self) -> dict[Place, int]:
        with self._steps.step("let a consumer group read, and commit its place") as step:
            committed = commit_place(self._estate.broker.bootstrap, self._opened(), self._topics)
            step.says = f"{sum(committed.values()):,} events in {len(committed)} partitions"
        return committed

    def _let_it_go_wrong(self, workload: Child) -> Incident:
        with self._steps.step("plant a bad transaction, then kill primary, broker and documents mid-load") as step:
            self._watch_load(step, self._pace.load_s, workload)
            planted = plant_bad_transaction(self._estate.env["CASINO_DSN"])
            self._watch_load(step, _SETTLE_S, workload)
            crashed_at = datetime.now(UTC)
            self._estate.kill_sources()
            workload.wait(_CAPTURE_STOP_S)
            step.says = f"SIGKILL at {crashed_at:%H:%M:%S.%f}Z; their data directories are deleted as well"
        return Incident(planted, crashed_at)

    def _stop_captures(self, captures: list[Child]) -> None:
        with (
            self._steps.step("let the captures store what they had received"),
            ThreadPoolExecutor(len(captures)) as pool,
        ):
            codes = list(pool.map(lambda capture: capture.stop(grace_s=_CAPTURE_STOP_S), captures))
            for capture, code in zip(captures, codes, strict=True):
                if code != 0:
                    raise SourceError(
                        "demo.capture_failed",
                        f"{capture.name} ended with return code {code}; its log ends:\n{capture.log_tail(15)}",
                        f"the whole log is {capture.log_path}",
                    )

    def _opened(self) -> Vault:
        return open_vault(self._estate.estate, self._dataset.vault, self._estate.env, role="writer")

    def _restore_latest(self, vault: Vault, incident: Incident) -> tuple[Recovery, Loss]:
        with self._steps.step("restore from the vault alone, to the end of what is stored") as step:
            begin_s = time.monotonic()
            plan = plan_restore(vault, self._dataset.name, Target.parse("latest"))
            with self._restored(plan, vault, "latest", step) as restored:
                recovery = _judge_books(restored, self._dataset, begin_s, step)
                loss = measure_loss(self._estate.ack_dir, restored.dsn(), crashed_at=incident.crashed_at)
            step.says = f"{loss.acknowledged:,} acknowledged, {loss.lost} lost, {recovery.books.breaks_total} breaks"
        return recovery, loss

    def _restore_before(self, vault: Vault, incident: Incident) -> tuple[Recovery, bool, NegativeControls]:
        with self._steps.step("restore to just before the bad transaction") as step:
            begin_s = time.monotonic()
            planted = incident.planted
            plan = plan_restore(vault, self._dataset.name, Target("time", at=planted.good_at))
            with self._restored(plan, vault, "before", step) as restored:
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

    def _restored(self, plan: RestorePlan, vault: Vault, name: str, step: Step) -> AbstractContextManager[Restored]:
        erasures = erasures_for(self._estate.estate, self._dataset, vault, self._estate.env)
        return restore(plan, vault, self._sandbox(name), progress=_shower(step), erasures=erasures)

    def _restore_events(self, vault: Vault, committed: dict[Place, int]) -> EventsBack:
        with self._steps.step("restore the topics into a new cluster") as step:
            back = bring_events_back(self._estate, vault, self._topics, self._sandbox("events"), committed, step.show)
            step.says = (
                f"{back.records:,} records, {back.lost} of {back.acknowledged:,} lost, {back.erased} made silent"
            )
        return back

    def _restore_documents(self, vault: Vault) -> DocumentsBack:
        with self._steps.step("restore the documents into a new bucket") as step:
            back = self._documents.bring_back(vault, self._sandbox("documents"), step.show)
            step.says = f"{back.restored} of {back.due}; {back.gone} of {back.erased} erased is gone"
        return back

    def _verify(self, vault: Vault) -> VerifyReport:
        with self._steps.step("re-read and verify every object in the vault") as step:
            report = verify(vault, progress=lambda done, total, _: step.show(f"{done} objects", done, total))
            step.says = f"{report.objects_total} objects, {report.objects_locked} locked, {len(report.errors)} damaged"
        return report

    def _report(self, outcome: Outcome, snapshot: Fact | None) -> DemoReport:
        body = snapshot.body if snapshot else {}
        loss, latest, both = outcome.loss, outcome.latest, (outcome.latest, outcome.before)
        events, documents, verified = outcome.events, outcome.documents, outcome.verified
        kyc = self._estate.estate.buckets()["kyc"]
        return DemoReport(
            ok=False,
            broken_promises=[],
            crashed_at=outcome.incident.crashed_at,
            commits_acknowledged=loss.acknowledged,
            commits_lost=loss.lost,
            commits_per_s=_commits_per_s(self._estate.ack_dir),
            loss_window_ms=loss.loss_window_ms,
            recovery_point_age_s=_age_s(outcome, self._dataset, latest.last_commit_at),
            recovery_duration_s=latest.duration_s,
            recovery_phases_s=latest.phases_s,
            rpo_s=self._dataset.rpo.total_seconds(),
            rto_s=self._dataset.rto.total_seconds(),
            ledger_breaks=sum(recovery.books.breaks_total for recovery in both),
            rows_reconciled=sum(recovery.books.rows_examined for recovery in both),
            pitr_target=outcome.incident.planted.good_at,
            pitr_reached=outcome.reached,
            negative_controls=outcome.controls,
            objects_total=verified.objects_total,
            objects_locked=verified.objects_locked,
            objects_damaged=len(verified.errors),
            snapshot_mb=float(str(body.get("size_bytes", 0))) / 1e6,
            snapshot_mb_s=float(str(body.get("mb_s", 0))),
            restore_mb_s=latest.mb_s,
            kafka_broker=events.broker,
            kafka_rpo_s=self._topics.rpo.total_seconds(),
            kafka_rto_s=self._topics.rto.total_seconds(),
            kafka_acknowledged=events.acknowledged,
            kafka_lost=events.lost,
            kafka_records=events.records,
            kafka_records_erased=events.erased,
            kafka_offsets_identical=events.offsets_identical,
            kafka_groups_identical=events.groups_identical,
            kafka_recovery_point_age_s=_age_s(outcome, self._topics, events.recovery_point_at),
            kafka_recovery_duration_s=events.duration_s,
            kyc_rpo_s=kyc.rpo.total_seconds(),
            kyc_rto_s=kyc.rto.total_seconds(),
            kyc_documents=documents.put,
            kyc_documents_due=documents.due,
            kyc_documents_restored=documents.restored,
            kyc_documents_identical=documents.identical,
            kyc_persons_erased=documents.erased,
            kyc_persons_gone=documents.gone,
            kyc_recovery_point_age_s=_age_s(outcome, kyc, documents.recovery_point_at),
            kyc_recovery_duration_s=documents.duration_s,
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


def _age_s(outcome: Outcome, dataset: Dataset, recovered_at: datetime | None) -> float:
    """How old at the crash what came back is; nothing recovered is as bad as it gets."""
    if recovered_at is None:
        return dataset.rpo.total_seconds() * 10
    return max(0.0, (outcome.incident.crashed_at - recovered_at).total_seconds())


def _shower(step: Step) -> Callable[[RestoreProgress], None]:
    return lambda told: step.show(told.phase.replace("_", " "), told.done_bytes, told.total_bytes)


def _commits_per_s(ack_dir: Path) -> float:
    """Acknowledged commits per second between the first and the last."""
    acks = read_acks(ack_dir).acks
    bounds = pc.min_max(acks.column("at_ns")).as_py()
    if not acks.num_rows or bounds["min"] == bounds["max"]:
        return 0.0
    return float(acks.num_rows / ((bounds["max"] - bounds["min"]) / 1e9))
