"""`vault/checkpoint`: the vault's transparency log is brought up to date every other minute, with its checks.

What belongs here: the asset, its job, schedule and checks, and the verdicts. What stays out: sequencing
(vault/log/sequencer.py), which a host without Dagster runs by `dr-assets log sequence --every 1m`.
"""

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import dagster as dg

from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import each_shown_as_failure
from dr_assets.components.judgements import Judgement, Value
from dr_assets.components.labels import cadence_window, storing_keys
from dr_assets.components.parts import Parts, job_of, schedule_of
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import Estate
from dr_assets.vault.log.outside import amiss, collect, newest_witnessed, outsiders_of, waiting_since
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.sequencer import Sequenced, Sequencer
from dr_assets.vault.log.standing import LogStanding, log_standing
from dr_assets.vault.vault import Vault

KEY: Final = dg.AssetKey(["vault", "checkpoint"])
CRON: Final = "*/2 * * * *"
UNLOGGED_WARNS: Final = timedelta(minutes=6)  # two runs were missed
UNLOGGED_FAILS: Final = timedelta(minutes=20)


def checkpoint_parts(estate: Estate) -> Parts:
    """Asset, checks, job and schedule; nothing at all where nothing is declared."""
    vaults = logged_vaults(estate)
    if not vaults:
        return Parts()
    job = job_of(
        "vault_checkpoint", KEY, "Appends what is new in the vault to its transparency log and publishes a checkpoint."
    )
    schedule = schedule_of(
        "vault_checkpoint",
        job,
        CRON,
        "Every other minute. Two sequencers at once, or one on another host, make one history.",
    )
    return Parts([_asset(estate, vaults)], [_checks(estate, vaults)], [job], [schedule])


def logged_vaults(estate: Estate) -> list[str]:
    """The vaults that have a log of their own: those that datasets are captured into. Replicas have a copy of one."""
    return sorted({dataset.vault for dataset in estate.datasets.values()})


def consistent_key(vault: str) -> dg.AssetCheckKey:
    """`consistent_<vault>`."""
    return dg.AssetCheckKey(KEY, f"consistent_{vault}".replace("-", "_"))


def complete_key(vault: str) -> dg.AssetCheckKey:
    """`complete_<vault>`."""
    return dg.AssetCheckKey(KEY, f"complete_{vault}".replace("-", "_"))


def _asset(estate: Estate, vaults: list[str]) -> dg.AssetsDefinition:
    @dg.asset(
        key=KEY,
        deps=storing_keys(estate, but="roll_up"),
        description="A signed root over everything that lies in the vault: what it vouches for can't vanish unseen.",
        kinds={"s3"},
        freshness_policy=cadence_window(timedelta(minutes=10)),
        required_resource_keys={resource_key(name) for name in vaults},
        owners=estate.owners,
        group_name="vault",
        tags={"dr_assets/estate": estate.name},
    )
    def checkpoint(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        values: dict[str, Value] = {}
        with each_shown_as_failure() as attempt:
            for name in vaults:
                with attempt():
                    vault = getattr(context.resources, resource_key(name)).open_vault(signing=True)
                    values |= _values(name, Sequencer(vault).run())
                    values |= _shown_to_outsiders(estate, name, vault)
        return dg.MaterializeResult(metadata=metadata_of(values))

    return checkpoint


def _shown_to_outsiders(estate: Estate, name: str, vault: Vault) -> dict[str, Value]:
    """Show the newest checkpoint to whom the estate declares; nobody's absence fails the run, a conflict does."""
    outsiders, reader = outsiders_of(estate, os.environ), LogReader.open(vault)
    if reader is None or not (outsiders.witnesses or outsiders.stamps or outsiders.anchor):
        return {}
    heard = collect(outsiders, reader, vault.clock())
    for trouble in amiss(outsiders, heard, None, vault.clock()):
        if trouble.red:
            raise VaultError(
                trouble.code, trouble.detail, "stop all sequencers, keep everything, compare (docs/log.md)"
            )
    return {f"{name}_{one.who}": one.standing for one in heard}


def _values(name: str, done: Sequenced) -> dict[str, Value]:
    head = done.checkpoint
    return {
        f"{name}_leaves": 0 if head is None else head.size,
        f"{name}_root": None if head is None else head.root.hex(),
        f"{name}_new_leaves": done.leaves,
        f"{name}_new_objects": done.names_total,
        f"{name}_passed_over": done.passed_over,
        f"{name}_state": "another sequencer is at work" if done.lost else "resumed" if done.resumed else "sequenced",
    }


def witnessed_key(vault: str) -> dg.AssetCheckKey:
    """`witnessed_<vault>`, where witnesses are declared."""
    return dg.AssetCheckKey(KEY, f"witnessed_{vault}".replace("-", "_"))


def _checks(estate: Estate, vaults: list[str]) -> dg.AssetChecksDefinition:
    specs = []
    has_witnesses = bool(estate.log.witnesses)
    for name in vaults:
        specs += [
            dg.AssetCheckSpec(
                consistent_key(name).name,
                asset=KEY,
                description=f"The newest checkpoint of {name} continues those before it; its files lead to its root.",
                blocking=True,
            ),
            dg.AssetCheckSpec(
                complete_key(name).name,
                asset=KEY,
                description=f"Nothing has been stored in {name} for minutes without being in the log.",
            ),
        ]
        if has_witnesses:
            told = f"A quorum of the declared witnesses has cosigned the log of {name} not long ago."
            specs.append(dg.AssetCheckSpec(witnessed_key(name).name, asset=KEY, description=told))

    @dg.multi_asset_check(
        name="vault_logged", specs=specs, required_resource_keys={resource_key(name) for name in vaults}
    )
    def logged(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with each_shown_as_failure() as attempt:
            for name in vaults:
                with attempt():
                    vault = getattr(context.resources, resource_key(name)).open_vault()
                    standing = log_standing(vault)
                    witnessed = _judge_witnessed(estate, vault) if has_witnesses else None
                    yield check_result(consistent_key(name), judge_consistent(standing))
                    yield check_result(complete_key(name), judge_complete(standing))
                    if witnessed is not None:
                        yield check_result(witnessed_key(name), witnessed)

    return logged


def _judge_witnessed(estate: Estate, vault: Vault) -> Judgement:
    """Red when leaves wait too long for their quorum; a warning when a time stamp or an anchor is late."""
    outsiders, reader = outsiders_of(estate, os.environ), LogReader.open(vault)
    if reader is None:
        return Judgement(passed=True, reason="there is no checkpoint yet")
    witnessed = newest_witnessed(outsiders, reader)
    found = amiss(outsiders, [], waiting_since(reader, witnessed), vault.clock())
    values: dict[str, Value] = {"cosigned_leaves": witnessed.size if witnessed else 0}
    if found:
        reason = "; ".join(f"{one.code}: {one.detail}" for one in found)
        return Judgement(passed=False, reason=reason, values=values, is_warning=not any(one.red for one in found))
    return Judgement(passed=True, reason=f"{values['cosigned_leaves']} leaves are cosigned", values=values)


def judge_consistent(standing: LogStanding) -> Judgement:
    """Red when the log can't be believed, or contradicts a checkpoint that was signed before."""
    if standing.trouble is not None:
        return Judgement(passed=False, reason=standing.trouble)
    if standing.checkpoint is None:
        return Judgement(passed=True, reason="there is no checkpoint yet")
    told = f"{standing.checkpoint.size} leaves continue {standing.compared} earlier checkpoint(s)"
    return Judgement(passed=True, reason=told, values={"leaves": standing.checkpoint.size})


def judge_complete(standing: LogStanding) -> Judgement:
    """Yellow when something waits for longer than two runs, red when for so long that nobody can be at work."""
    if standing.trouble is not None:
        return Judgement(passed=False, reason=standing.trouble)
    looked_at = standing.looked_at
    values: dict[str, Value] = {
        "unlogged": standing.unlogged,
        "checkpoint_age_s": None if looked_at is None else (standing.now - looked_at).total_seconds(),
    }
    if standing.oldest_at is None:
        return Judgement(passed=True, reason="everything that is stored is in the log", values=values)
    waits = standing.now - standing.oldest_at
    values["unlogged_age_s"] = waits.total_seconds()
    told = f"{standing.unlogged} object(s) wait to be logged, the oldest for {waits.total_seconds():.0f} s"
    if waits > UNLOGGED_FAILS:
        return Judgement(passed=False, reason=f"{told}: run `dr-assets log sequence`", values=values)
    if waits > UNLOGGED_WARNS:
        return Judgement(passed=False, reason=told, values=values, is_warning=True)
    return Judgement(passed=True, reason=told, values=values)
