"""A restore test: plan, restore into a sandbox, check, reconcile, put on record, destroy.

What belongs here: that order, and the two sealed facts every attempt leaves, whatever became of it. What stays out:
judging whether a proof is recent enough (components/), and planted damage (drills/).
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from dr_assets.estate.model import Level, PostgresDataset
from dr_assets.proving.attempt import DUE, Outcome, fresh_workdir, on_record
from dr_assets.proving.drift import look_for_drift
from dr_assets.proving.erasures import record_replayed
from dr_assets.proving.record import plain
from dr_assets.reconciliation.outsiders import outsiders
from dr_assets.reconciliation.run import Reconciliation, reconcile
from dr_assets.reconciliation.sealed import seal_breaks
from dr_assets.stores.kafka.restore_plan import Cut
from dr_assets.stores.postgres.erase import Erasures
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import RestorePlan, plan_restore
from dr_assets.stores.postgres.restore import Restored, RestoreProgress, restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import record_fact
from dr_assets.vault.vault import Vault

# Clocks that agree differ by less: what is later than now by more was dated by a clock that is wrong, or ours is.
SKEW_MAX_S: Final = 5.0
Inspect = Callable[[Restored, Reconciliation], None]


@dataclass(slots=True)
class RestoreTestResult:
    """One attempt. `recovery_duration_s` runs from the decision until the books were judged.

    `recovery_point_age_s` is the decision minus the newest heartbeat in the data (source's clock); None without one,
    for targets that were meant to be older, and when the two clocks disagree: `ahead_s` is by how much that heartbeat
    was later than the end of planning. `books` is None while nothing was reconciled.
    """

    dataset: str
    target: str
    level: Level
    begin_at: datetime
    outcome: Outcome = "aborted"
    reason: str = "stopped before it was done"
    recovery_duration_s: float = 0.0
    recovery_point_age_s: float | None = None
    ahead_s: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    books: Reconciliation | None = None

    @property
    def ok(self) -> bool:
        """Restored, verified, and the money adds up."""
        return self.outcome == "passed"


def run_restore_test(
    vault: Vault,
    dataset: PostgresDataset,
    target: Target,
    *,
    workdir: Path | None = None,
    level: Level | None = None,
    env: Mapping[str, str] | None = None,
    progress: Callable[[RestoreProgress], None] | None = None,
    inspect: Inspect | None = None,
    erasures: Erasures | None = None,
) -> RestoreTestResult:
    """Restores `dataset` from `vault` alone, reconciles it, seals the facts `restore_test` and `reconciliation`.

    `workdir` is made below DR_ASSETS_WORK_DIR (or the system's folder for temporary files) by default, and is gone
    afterwards. `inspect` may look at the sandbox after everything passed and is on record; what it raises is the
    caller's own. `erasures` are applied before anything is reconciled (a vault that knows of some refuses without), and
    that is on record too. Books that don't add up make a failed result; what can't be restored is put on record as
    failed and raised; an interrupt, as aborted. An attempt that is killed leaves its `restore_test_due` fact alone.
    """
    result = RestoreTestResult(dataset.name, str(target), level or dataset.restore_test.level, vault.clock())
    begin_s = time.monotonic()
    _record_due(vault, dataset, result)
    with ExitStack() as sandbox:
        with on_record(result, lambda: _record(vault, dataset, result)):
            plan = plan_restore(vault, dataset.name, target)
            planned_at = vault.clock()
            _note_plan(result, plan)
            into = workdir or fresh_workdir(dataset.name, env)
            restored = sandbox.enter_context(
                restore(plan, vault, into, level=result.level, env=env, progress=progress, erasures=erasures)
            )
            _note_restored(result, restored)
            record_replayed(vault, restored, purpose="restore test")
            if target.kind == "latest" and restored.recovered_at is not None:
                _note_age(result, restored.recovered_at, planned_at)
            result.books = _reconciled(vault, dataset, target, restored, into, env)
            result.recovery_duration_s = time.monotonic() - begin_s
            _judge(result)
            result.details["drift"] = look_for_drift(vault, restored)
        if inspect is not None and result.ok and result.books is not None:
            inspect(restored, result.books)
    return result


def _reconciled(
    vault: Vault,
    dataset: PostgresDataset,
    target: Target,
    restored: Restored,
    into: Path,
    env: Mapping[str, str] | None,
) -> Reconciliation:
    """The restored books against themselves and everybody whom the declaration names; topics up to the same moment."""
    cut = None if target.kind == "latest" or restored.recovered_at is None else Cut(at=restored.recovered_at)
    known = outsiders(
        dataset.reconcile,
        os.environ if env is None else env,
        into.parent,
        vault_of=lambda _: vault,
        cut=cut,
    )
    with known as externals:
        return reconcile(restored.reader_dsn(), dataset.restore_test.contract, externals=externals)


def _record_due(vault: Vault, dataset: PostgresDataset, result: RestoreTestResult) -> None:
    """Before anything is tried, so that an attempt that vanished shows as one that was due and has no outcome."""
    due = {"outcome": "due", "target": result.target, "level": result.level, "begin_at": result.begin_at}
    record_fact(vault, dataset.name, DUE, plain(due))


def _record(vault: Vault, dataset: PostgresDataset, result: RestoreTestResult) -> None:
    test = {
        "outcome": result.outcome,
        "reason": result.reason,
        "target": result.target,
        "level": result.level,
        "begin_at": result.begin_at,
        "recovery_duration_s": result.recovery_duration_s,
        "recovery_point_age_s": result.recovery_point_age_s,
        "rto_s": dataset.rto.total_seconds(),
        "rpo_s": dataset.rpo.total_seconds(),
        **result.details,
    }
    if result.books is not None:
        outcome = "passed" if result.books.ok else "failed"
        sealed = seal_breaks(vault, dataset.name, result.books)
        books = {
            **result.books.summary(),
            "outcome": outcome,
            "reason": result.books.verdict(),
            "target": result.target,
            "breaks_file": sealed.said() if sealed else None,
        }
        record_fact(vault, dataset.name, "reconciliation", plain(books))
        test["breaks_total"] = result.books.breaks_total
    record_fact(vault, dataset.name, "restore_test", plain(test))


def _note_plan(result: RestoreTestResult, plan: RestorePlan) -> None:
    result.details |= {
        "base_backup": plan.base_key,
        "server_version": plan.base.server_version,
        "chain_end": format_lsn(plan.chain_end),
        "fetch_bytes": plan.fetch_bytes,
        "notes": list(plan.notes),
    }


def _note_restored(result: RestoreTestResult, restored: Restored) -> None:
    result.details |= {
        "engine": restored.engine,
        "replayed_lsn": format_lsn(restored.replayed_lsn),
        "end_lsn": format_lsn(restored.end_lsn),
        "stopped": restored.stopped,
        "last_commit_at": restored.last_commit_at,
        "recovered_at": restored.recovered_at,
        "checks": list(restored.checks),
        "size_bytes": restored.size_bytes,
        "restore_mb_s": restored.mb_s,
        "phases_s": dict(restored.phases_s),
        "notes": list(restored.notes),
    }


def _note_age(result: RestoreTestResult, recovered_at: datetime, planned_at: datetime) -> None:
    """The age of what came back. The capture goes on while we plan, so a heartbeat may be younger than the decision."""
    result.ahead_s = max(0.0, (recovered_at - planned_at).total_seconds())
    if result.ahead_s <= SKEW_MAX_S:
        result.recovery_point_age_s = max(0.0, (result.begin_at - recovered_at).total_seconds())


def _judge(result: RestoreTestResult) -> None:
    """A restore passes only when its reconciliation does, and its age can be told."""
    books = result.books
    assert books is not None  # noqa: S101 - for the type checker: reconciled just now
    result.details["phases_s"]["reconcile"] = books.duration_s
    if not books.ok:
        result.outcome = "failed"
        result.reason = f"restored, but the money does not add up: {books.verdict()}"
    elif result.ahead_s > SKEW_MAX_S:
        result.outcome = "failed"
        result.reason = (
            f"the newest heartbeat lies {result.ahead_s:.0f} s in the future: the clocks of the source and of this "
            "host disagree, so nobody knows how old the recovered data is"
        )
    else:
        result.outcome, result.reason = "passed", f"restored, verified, and {books.verdict()}"
