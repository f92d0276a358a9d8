"""`vault/sampling`: a share of the vault read back every round, with the checks on sampling, locks and policy.

What belongs here: the asset, its job, schedule and checks, and the verdicts. What stays out: reading, judging locks and
comparing policies (vault/retention), which a host without Dagster does by `dr-assets vault sample|locks` and
`dr-assets estate record-policy`.

The checks are judged from sealed facts and from the store's own word, so that they turn when nobody samples any more.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import dagster as dg

from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judgements import Judgement, Value
from dr_assets.components.labels import cadence_window, storing_keys
from dr_assets.components.parts import Parts, job_of, schedule_of
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.commit import commit_of
from dr_assets.estate.durations import format_duration
from dr_assets.estate.model import Dataset, Estate
from dr_assets.vault.retention.lock_check import LockReport, check_locks
from dr_assets.vault.retention.policy_change import Recorded, record_policy, unacknowledged
from dr_assets.vault.retention.sampling import Coverage, coverage, is_due, sample
from dr_assets.vault.vault import Vault

KEY: Final = dg.AssetKey(["vault", "sampling"])
CRON: Final = "23 * * * *"  # what is due is decided by each dataset's own rounds
TOLD: Final = 3


def keeping_parts(estate: Estate, defs_dir: Path) -> Parts:
    """Asset, checks, job and schedule; nothing where no dataset is declared."""
    if not estate.datasets:
        return Parts()
    job = job_of(
        "vault_sampling",
        KEY,
        "Reads back the share of the vault that is due, asks for every lock, records a changed policy.",
    )
    schedule = schedule_of(
        "vault_sampling", job, CRON, "Hourly; a dataset whose round was read already is passed over."
    )
    return Parts([_asset(estate, defs_dir)], [_checks(estate)], [job], [schedule])


def check_keys(dataset: Dataset) -> tuple[dg.AssetCheckKey, dg.AssetCheckKey]:
    """`sampled_<dataset>` and `locks_<dataset>`."""
    return dg.AssetCheckKey(KEY, f"sampled_{dataset.name}"), dg.AssetCheckKey(KEY, f"locks_{dataset.name}")


POLICY_CHECK: Final = dg.AssetCheckKey(KEY, "policy_unweakened")


def _resources(estate: Estate) -> set[str]:
    return {resource_key(dataset.vault) for dataset in estate.datasets.values()}


def _asset(estate: Estate, defs_dir: Path) -> dg.AssetsDefinition:
    every = min(dataset.sampling.every for dataset in estate.datasets.values())

    @dg.asset(
        key=KEY,
        deps=storing_keys(estate, but="wal_chain"),
        description="Old objects, read back whole: each at least once in the time that its dataset declares.",
        kinds={"s3"},
        freshness_policy=cadence_window(every),
        required_resource_keys=_resources(estate),
        owners=estate.owners,
        group_name="vault",
        tags={"dr_assets/estate": estate.name},
    )
    def sampling(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        values: dict[str, Value] = {}
        with shown_as_failure():
            vaults = _opened(context.resources, estate, signing=True)
            for name, dataset in estate.datasets.items():
                values |= _sampled(vaults[name], dataset)
            # Last: the first fact of a vault needs a data key in every region, and one of them may be away.
            for vault in {vault.name: vault for vault in vaults.values()}.values():
                record_policy(vault, estate, commit_of(defs_dir, os.environ))
        return dg.MaterializeResult(metadata=metadata_of(values))

    return sampling


def _opened(resources: Any, estate: Estate, *, signing: bool) -> Mapping[str, Vault]:
    """Each dataset's own vault, opened once each."""
    opened: dict[str, Vault] = {}
    for dataset in estate.datasets.values():
        if dataset.vault not in opened:
            opened[dataset.vault] = getattr(resources, resource_key(dataset.vault)).open_vault(signing=signing)
    return {name: opened[dataset.vault] for name, dataset in estate.datasets.items()}


def _sampled(vault: Vault, dataset: Dataset) -> dict[str, Value]:
    if not is_due(vault, dataset.name, dataset.sampling):
        return {f"{dataset.name}_objects_read": 0}
    done = sample(vault, dataset.name, dataset.sampling)
    counts: dict[str, Value] = {
        "objects_read": done.objects,
        "objects_listed": done.listed,
        "objects_cold": done.cold,
        "read_bytes": done.size_bytes,
        "errors": len(done.errors),
        "duration_s": done.duration_s,
    }
    return {f"{dataset.name}_{name}": value for name, value in counts.items()}


def _checks(estate: Estate) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(name="vault_kept", specs=_specs(estate), required_resource_keys=_resources(estate))
    def kept(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with shown_as_failure():
            vaults = _opened(context.resources, estate, signing=False)
        waiting: list[Recorded] = []
        for vault in {vault.name: vault for vault in vaults.values()}.values():
            with shown_as_failure():
                waiting += unacknowledged(vault)
        for name, dataset in estate.datasets.items():
            sampled, locked = check_keys(dataset)
            with shown_as_failure():
                covered = coverage(vaults[name], name, dataset.sampling)
                report = check_locks(vaults[name], name)
            yield check_result(sampled, judge_sampled(dataset, covered))
            yield check_result(locked, judge_locks(report))
        yield check_result(POLICY_CHECK, judge_policy(waiting))

    return kept


def _specs(estate: Estate) -> list[dg.AssetCheckSpec]:
    specs = []
    for dataset in estate.datasets.values():
        sampled, locked = check_keys(dataset)
        whole_in = format_duration(dataset.sampling.whole_in)
        specs += [
            dg.AssetCheckSpec(
                sampled.name,
                asset=KEY,
                description=f"Every object of {dataset.name} was read back within {whole_in}, and none was damaged.",
            ),
            dg.AssetCheckSpec(
                locked.name,
                asset=KEY,
                description=f"Every lock of {dataset.name} is as long and strong as its kind needs; the store said so.",
            ),
        ]
    text = "No promise of the policy got weaker without somebody standing for it."
    return [*specs, dg.AssetCheckSpec(POLICY_CHECK.name, asset=KEY, description=text)]


def judge_sampled(dataset: Dataset, found: Coverage) -> Judgement:
    """Red for damage and where nobody reads; green in the first cycle as long as every round of it was read."""
    whole_in = format_duration(dataset.sampling.whole_in)
    values: dict[str, Value] = {
        "rounds": found.rounds,
        "rounds_missed": found.missed,
        "objects_read": found.objects,
        "read_bytes": found.size_bytes,
        "newest_at": found.newest_at,
    }
    if found.errors:
        reason = f"{len(found.errors)} object(s) are damaged: {_some(found.errors)}"
        return Judgement(passed=False, reason=reason, values=values)
    if found.newest_at is None:
        return Judgement(passed=False, reason="nothing was sampled yet: run `dr-assets vault sample`", values=values)
    if found.overdue_since is not None:
        since = f"{found.overdue_since:%Y-%m-%d %H:%M}Z"
        return Judgement(passed=False, reason=f"nobody samples: the next round was due before {since}", values=values)
    if found.missed:
        reason = f"{found.missed} of {found.rounds} rounds were never read, so not all of the vault was"
        return Judgement(passed=False, reason=reason, values=values)
    told = f"everything was read back within {whole_in}" if found.is_whole else f"the first {whole_in} are under way"
    return Judgement(passed=True, reason=told, values=values)


def judge_locks(report: LockReport) -> Judgement:
    """Red for a lock that is missing, short or weak; a warning where a hold's flag lacks and the lock ends soon."""
    values: dict[str, Value] = {
        "objects": report.objects,
        "locked": report.locked,
        "ended_as_planned": report.ended,
        "held": report.held,
        "unheld": report.unheld,
    }
    if report.troubles:
        told = _some([f"{one.key}: {one.detail}" for one in report.troubles])
        reason = f"{len(report.troubles)} lock(s) are not as they should be: {told}"
        return Judgement(passed=False, reason=reason, values=values)
    if report.unheld:
        reason = f"{report.unheld} object(s) under legal hold lack the store's flag: `dr-assets vault hold keep`"
        return Judgement(passed=False, reason=reason, values=values, is_warning=True)
    return Judgement(
        passed=True, reason=f"{report.locked} locks hold, {report.ended} are over as planned", values=values
    )


def judge_policy(waiting: Sequence[Recorded]) -> Judgement:
    """A warning as long as a weakening waits for somebody's name: it may well be right, but not unnoticed."""
    weaker = [f"{change} (commit {one.commit or 'unknown'})" for one in waiting for change in one.weakenings]
    values: dict[str, Value] = {"weakenings": len(weaker)}
    if not weaker:
        return Judgement(passed=True, reason="no weakening waits to be acknowledged", values=values)
    reason = f"{len(weaker)} promise(s) are weaker: {_some(weaker)}; `dr-assets estate acknowledge-policy`"
    return Judgement(passed=False, reason=reason, values=values, is_warning=True)


def _some(told: Sequence[str]) -> str:
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return "; ".join(told[:TOLD]) + more
