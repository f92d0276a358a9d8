"""`vault/key_rotation`: new data keys every 90 days (as declared), and the checks that all keys are as they should be.

What belongs here: the asset, its jobs, schedules and checks, and the verdicts. What stays out: rotating and looking
(vault/keys/life), which a host without Dagster does by `dr-assets keys rotate --due`.

The job runs every day and materializes only what it rotated: so the asset's freshness is that of the keys.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import dagster as dg

from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judgements import Judgement, Value
from dr_assets.components.labels import cadence_window
from dr_assets.components.parts import Parts, job_of, schedule_of
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.cadence import with_grace
from dr_assets.estate.durations import format_duration
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import Estate
from dr_assets.vault.keys.life.audit import KeyAudit, audit
from dr_assets.vault.keys.life.rotation import Rotation, rotate_due

KEY: Final = dg.AssetKey(["vault", "key_rotation"])
ROTATE_CRON: Final = "40 2 * * *"
CHECK_CRON: Final = "10 3 * * *"
SHOWN: Final = 3


def key_rotation_parts(estate: Estate) -> Parts:
    """Asset, checks, jobs and schedules."""
    vaults = sorted({dataset.vault for dataset in estate.datasets.values()})
    rotation = job_of(
        "vault_key_rotation",
        dg.AssetSelection.assets(KEY).without_checks(),
        "Gives every dataset whose data key is due a new one, and completes what was begun.",
    )
    looking = job_of(
        "vault_key_checks",
        dg.AssetSelection.checks_for_assets(KEY),
        "Looks whether every data key is wrapped by all, in all regions, young, and under no stolen key.",
    )
    schedules = [
        schedule_of("vault_key_rotation", rotation, ROTATE_CRON, "Rotates what is due; most days nothing is."),
        schedule_of("vault_key_checks", looking, CHECK_CRON, "Looks at all keys once a day."),
    ]
    return Parts([_asset(estate, vaults)], [_checks(estate, vaults)], [rotation, looking], schedules)


def wrapped_key() -> dg.AssetCheckKey:
    """The check `wrapped`."""
    return dg.AssetCheckKey(KEY, "wrapped")


def age_key() -> dg.AssetCheckKey:
    """The check `key_age`."""
    return dg.AssetCheckKey(KEY, "key_age")


def retired_key() -> dg.AssetCheckKey:
    """The check `retired_unused`."""
    return dg.AssetCheckKey(KEY, "retired_unused")


def escrow_key() -> dg.AssetCheckKey:
    """The check `escrowed`."""
    return dg.AssetCheckKey(KEY, "escrowed")


def _asset(estate: Estate, vaults: Sequence[str]) -> dg.AssetsDefinition:
    @dg.asset(
        key=KEY,
        description="New data keys for writing, by the declared cadence; what is locked is never re-encrypted.",
        kinds={"s3"},
        output_required=False,
        freshness_policy=cadence_window(estate.rotate_every),
        required_resource_keys={resource_key(name) for name in vaults},
        owners=estate.owners,
        group_name="vault",
        tags={"dr_assets/estate": estate.name},
    )
    def key_rotation(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        done: list[Rotation] = []
        failed: DrError | None = None
        with shown_as_failure():
            for name in vaults:
                try:
                    vault = getattr(context.resources, resource_key(name)).open_vault(signing=True)
                    done += rotate_due(vault, estate.rotate_every)
                except DrError as error:  # one vault that is away keeps no other's keys from being rotated
                    failed = failed or error
            if failed is not None:
                raise failed
        if done:
            yield dg.MaterializeResult(metadata=metadata_of(_values(done)))

    return key_rotation


def _checks(estate: Estate, vaults: Sequence[str]) -> dg.AssetChecksDefinition:
    described = {
        wrapped_key(): "Every data key has a wrapping by every provider of its dataset, in every region.",
        age_key(): f"No data key writes for longer than {format_duration(estate.rotate_every)} and a grace.",
        retired_key(): "Nothing is written under a retired key-encryption key.",
        escrow_key(): "Every data key that writes is in an escrow: the loss of all providers would not be the end.",
    }
    specs = [dg.AssetCheckSpec(key.name, asset=KEY, description=text) for key, text in described.items()]

    @dg.multi_asset_check(
        name="vault_keys", specs=specs, required_resource_keys={resource_key(name) for name in vaults}
    )
    def keys(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with shown_as_failure():
            seen = [
                audit(getattr(context.resources, resource_key(name)).open_vault(), estate.rotate_every)
                for name in vaults
            ]
        yield check_result(wrapped_key(), judge_wrapped(seen))
        yield check_result(age_key(), judge_age(seen))
        yield check_result(retired_key(), judge_retired(seen))
        yield check_result(escrow_key(), judge_escrow(seen))

    return keys


def judge_wrapped(seen: Sequence[KeyAudit]) -> Judgement:
    """Red for a wrapping that lacks: the vault is as closed as its providers, and as lost as the last of them."""
    lacking = [name for one in seen for name in (*one.unwrapped, *one.elsewhere)]
    values: dict[str, Value] = {"keys_lacking": len(lacking)}
    if not lacking:
        return Judgement(passed=True, reason="every data key is wrapped by all, in all regions", values=values)
    reason = f"{len(lacking)} wrapping(s) lack: {_few(lacking)}; `dr-assets keys rotate` adds them"
    return Judgement(passed=False, reason=reason, values=values)


def judge_age(seen: Sequence[KeyAudit]) -> Judgement:
    """Red past the cadence and its grace; yellow while a rotation that was begun waits to be completed."""
    ages = [age for one in seen for age in one.ages]
    oldest = max(ages, key=lambda age: age.age, default=None)
    if oldest is None:
        return Judgement(passed=True, reason="nothing was ever written, so there is no key")
    values: dict[str, Value] = {"oldest_key_age_s": oldest.age.total_seconds(), "datasets": len(ages)}
    told = f"the oldest writing key is {oldest.age.days} days old ({oldest.dataset}/{oldest.key_id})"
    if oldest.age > with_grace(oldest.every):
        return Judgement(passed=False, reason=f"{told}: run `dr-assets keys rotate --due`", values=values)
    begun = [name for one in seen for name in one.unfinished]
    if begun:
        reason = f"a rotation was begun and not finished: {_few(begun)}; `dr-assets keys rotate` completes it"
        return Judgement(passed=False, reason=reason, values=values, is_warning=True)
    return Judgement(passed=True, reason=told, values=values)


def judge_retired(seen: Sequence[KeyAudit]) -> Judgement:
    """Red for anything that was sealed under a key that a thief may have, after it was known."""
    late = [name for one in seen for name in one.late]
    values: dict[str, Value] = {"written_late": len(late)}
    if not late:
        return Judgement(passed=True, reason="nothing is written under a retired key", values=values)
    reason = f"{len(late)} object(s) were sealed under a retired key: {_few(late)}; restart that writer"
    return Judgement(passed=False, reason=reason, values=values)


def judge_escrow(seen: Sequence[KeyAudit]) -> Judgement:
    """Yellow while a writing key is in no export: no promise is broken until every provider is lost."""
    lacking = [name for one in seen for name in one.unescrowed]
    values: dict[str, Value] = {"unescrowed": len(lacking)}
    if not lacking:
        return Judgement(passed=True, reason="every writing key is in the newest export", values=values)
    reason = f"{len(lacking)} writing key(s) are in no escrow: {_few(lacking)}; run `dr-assets keys export`"
    return Judgement(passed=False, reason=reason, values=values, is_warning=True)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


def _values(done: Sequence[Rotation]) -> dict[str, Value]:
    return {
        "rotated": len(done),
        "datasets": ", ".join(one.dataset for one in done),
        "wrapped_anew": sum(len(one.wrapped_anew) for one in done),
        "troubles": _few([trouble for one in done for trouble in one.troubles]),
    }
