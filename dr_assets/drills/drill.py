"""The drill of one dataset: recover it to now and to an earlier moment, measure both, test the tests.

What belongs here: the scenario, its verdict, the sealed fact `drill`. What stays out: each restore (proving/).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from dr_assets.drills.controls import plant_and_catch
from dr_assets.drills.planted import Controls
from dr_assets.drills.record import objectives_missed, record_drill, record_end
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import PostgresDataset
from dr_assets.proving.restore_test import RestoreTestResult, run_restore_test
from dr_assets.reconciliation.run import Reconciliation
from dr_assets.stores.postgres.erase import Erasures
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import Restored, RestoreProgress
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class DrillResult:
    """A drill that came to its end. `pitr` is None when the vault reaches no moment after its base backup yet."""

    dataset: str
    outcome: str
    reason: str
    latest: RestoreTestResult
    pitr: RestoreTestResult | None
    controls: Controls


def run_drill(
    vault: Vault,
    dataset: PostgresDataset,
    *,
    env: Mapping[str, str] | None = None,
    progress: Callable[[RestoreProgress], None] | None = None,
    erasures: Erasures | None = None,
) -> DrillResult:
    """Recovers `dataset` twice from the vault alone and seals the fact `drill`, also when it fails.

    The damage of the negative controls is planted into the second sandbox once it has passed. Raises what stood in the
    way of a restore; objectives that were missed make a failed result.
    """
    begin_at = vault.clock()
    ruined: list[Controls] = []

    def ruin(restored: Restored, _: Reconciliation) -> None:
        ruined.append(plant_and_catch(restored, dataset.restore_test.contract))

    try:
        latest = run_restore_test(vault, dataset, Target("latest"), env=env, progress=progress, erasures=erasures)
        earlier = _earlier(vault, dataset)
        pitr = (
            run_restore_test(vault, dataset, earlier, env=env, progress=progress, inspect=ruin, erasures=erasures)
            if earlier
            else None
        )
    except DrError as error:
        record_end(vault, dataset, "failed", f"{error.code}: {error.found}", begin_at, error)
        raise
    except BaseException as ended:  # a drill that a signal ends is on record, too
        record_end(vault, dataset, "aborted", f"ended by {type(ended).__name__}", begin_at, ended)
        raise
    controls = ruined[0] if ruined else Controls(0, 0, ())
    broken = _broken(dataset, latest, pitr, controls)
    outcome, reason = ("failed", "; ".join(broken)) if broken else ("passed", "every objective was met")
    result = DrillResult(dataset.name, outcome, reason, latest, pitr, controls)
    more = {
        "scenario": "primary lost; restored to latest, then to an earlier moment",
        "phases_s": latest.details.get("phases_s", {}),
        "pitr_target": pitr.target if pitr else None,
        "pitr_duration_s": pitr.recovery_duration_s if pitr else None,
    }
    record_drill(vault, dataset, (outcome, reason), begin_at, latest, controls, more)
    return result


def _earlier(vault: Vault, dataset: PostgresDataset) -> Target | None:
    """Half-way between the newest base backup's end and the newest reachable moment, on the source's clock."""
    plan = plan_restore(vault, dataset.name, Target("latest"))
    if plan.reachable_at is None or plan.reachable_at - plan.base.end_at < timedelta(seconds=2):
        return None
    return Target("time", at=plan.base.end_at + (plan.reachable_at - plan.base.end_at) / 2)


def _broken(
    dataset: PostgresDataset, latest: RestoreTestResult, pitr: RestoreTestResult | None, controls: Controls
) -> list[str]:
    """Every objective that was missed, in words."""
    broken = [f"restore to {test.target}: {test.reason}" for test in (latest, pitr) if test and not test.ok]
    return broken + objectives_missed(dataset, latest, controls)
