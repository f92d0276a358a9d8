"""`vault/verification`: every vault that is captured into is verified, as deep and as often as the estate declares.

What belongs here: the asset, its job, schedules and checks, and the verdicts. What stays out: verifying (vault/verify),
which a host without Dagster runs by `dr-assets vault verify --record`; the checks `verified` and `locked` that follow a
base backup, which read one dataset; the rounds of `vault/sampling`, which read old objects back in a declared time.

The checks are judged from sealed facts, so that they turn when nobody verifies any more, and whoever verifies counts.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg

from dr_assets.components.evaluations import check_result, metadata_of
from dr_assets.components.failures import each_shown_as_failure
from dr_assets.components.judgements import Judgement, Value
from dr_assets.components.labels import cadence_window, storing_keys
from dr_assets.components.parts import Parts, job_of, schedule_of
from dr_assets.components.vault_checkpoint import logged_vaults
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate import cadence
from dr_assets.estate.durations import format_duration
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate
from dr_assets.estate.verification import VERIFY_LEVELS, VerificationPolicy
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import VerifyReport, verify
from dr_assets.vault.verify.levels import depth_of
from dr_assets.vault.verify.record import Verified, latest_verifications, record_verification, settings_before
from dr_assets.vault.verify.report import OVERLAYS

KEY: Final = dg.AssetKey(["vault", "verification"])
LEVEL_TAG: Final = "dr_assets/verify_level"
LOOK_BACK: Final = timedelta(days=400)  # a full verification once a year is the least that makes sense
SHOWN: Final = 5
CHECKS: Final = {
    "undamaged": "No verification found anything damaged, missing or unlocked since it was last in order.",
    "overlays": "Nobody laid versions, delete markers or names over the vault, or changed its bucket's settings.",
    "covered": "Index, sample and full verifications are as recent as the estate declares.",
}


def verification_parts(estate: Estate) -> Parts:
    """Asset, checks, job and a schedule for each level; nothing where no dataset is declared."""
    vaults = logged_vaults(estate)
    if not vaults:
        return Parts()
    job = job_of("vault_verification", KEY, "Looks at everything in the vault, and records what came of it.")
    schedules = [
        schedule_of(
            f"vault_verify_{level}",
            job,
            estate.verification.cron(level),
            f"The estate's verification.{level}.",
            {LEVEL_TAG: level},
        )
        for level in VERIFY_LEVELS
    ]
    return Parts([_asset(estate, vaults)], [_checks(estate, vaults)], [job], schedules)


def check_key(check: str, vault: str) -> dg.AssetCheckKey:
    """`undamaged_<vault>`, `overlays_<vault>`, `covered_<vault>`."""
    return dg.AssetCheckKey(KEY, f"{check}_{vault}".replace("-", "_"))


def _asset(estate: Estate, vaults: list[str]) -> dg.AssetsDefinition:
    @dg.asset(
        key=KEY,
        deps=storing_keys(estate, but="roll_up"),
        description="Every object, head and lock looked at, daily; every byte re-read, decrypted and compared, weekly.",
        kinds={"s3"},
        freshness_policy=cadence_window(min(estate.verification.every(level) for level in VERIFY_LEVELS)),
        required_resource_keys={resource_key(name) for name in vaults},
        owners=estate.owners,
        group_name="vault",
        tags={"dr_assets/estate": estate.name},
    )
    def verification(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        level = context.run.tags.get(LEVEL_TAG, "index")  # by hand: what is quick, unless the tag says otherwise
        values: dict[str, Value] = {"level": level}
        with each_shown_as_failure() as attempt:
            for name in vaults:
                with attempt():
                    vault = getattr(context.resources, resource_key(name)).open_vault(signing=True)
                    values |= _values(name, verified(vault, level, estate.verification.share, os.environ))
        return dg.MaterializeResult(metadata=metadata_of(values))

    return verification


def verified(vault: Vault, level: str, share: float, env: Mapping[str, str]) -> VerifyReport:
    """Verify and record; a full one that was killed goes on from the file that it left in the work folder.

    That file only saves time, and nobody else's lies under its name: one from before the trust file changed is dropped.
    """
    keep_freed_memory()
    depth = depth_of(level, share, seed=f"{vault.clock():%Y-%m-%d}")
    folder = env.get(WORK_DIR_ENV)
    state = Path(folder) / f"verify-{vault.estate}-{vault.name}-full.state" if folder and depth.reads_all else None
    before = settings_before(vault)
    try:
        report = verify(vault, depth=depth, state=state, settings_before=before)
    except PolicyError as error:
        if state is None or error.code not in {"verify.other_state", "verify.bad_state"}:
            raise
        state.unlink()
        report = verify(vault, depth=depth, state=state, settings_before=before)
    record_verification(vault, report)
    return report


def _values(name: str, report: VerifyReport) -> dict[str, Value]:
    rate = report.plaintext_bytes / report.duration_s / 1e6 if report.duration_s else 0.0
    shown = [f"{finding.kind} {finding.key}" for finding in report.errors[:SHOWN]]
    counts: dict[str, Value] = {
        "objects": report.objects_total,
        "objects_locked": report.objects_locked,
        "read_bytes": report.read_bytes,
        "verify_mb_s": rate,
        "duration_s": report.duration_s,
        "errors": len(report.errors),
        "notices": len(report.notices),
        "overlays": len(report.overlays),
        "first_errors": "; ".join(shown) or None,
    }
    return {f"{name}_{what}": value for what, value in counts.items()}


def _checks(estate: Estate, vaults: list[str]) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(
            check_key(check, name).name, asset=KEY, description=f"{name}: {text}", blocking=check == "undamaged"
        )
        for name in vaults
        for check, text in CHECKS.items()
    ]

    @dg.multi_asset_check(
        name="vault_verified", specs=specs, required_resource_keys={resource_key(name) for name in vaults}
    )
    def judged(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with each_shown_as_failure() as attempt:
            for name in vaults:
                with attempt():
                    vault = getattr(context.resources, resource_key(name)).open_vault()
                    now = vault.clock()
                    found = latest_verifications(vault, now - LOOK_BACK)
                    yield check_result(check_key("undamaged", name), judge_undamaged(found))
                    yield check_result(check_key("overlays", name), judge_overlays(found))
                    yield check_result(check_key("covered", name), judge_covered(found, estate.verification, now))

    return judged


def judge_undamaged(found: Mapping[Any, Verified]) -> Judgement:
    """Red while the newest verification of any level is: what only a full one can find, only a full one takes back."""
    wrong = [each for each in found.values() if not each.ok]
    values: dict[str, Value] = {"errors": sum(sum(each.errors.values()) for each in wrong)}
    if not found:
        return Judgement(passed=False, reason="nothing was verified yet: run `dr-assets vault verify --record`")
    if wrong:
        told = "; ".join(f"{each.level} of {each.at:%Y-%m-%d %H:%M}Z: {_counted(each.errors)}" for each in wrong)
        reason = f"{told}: `dr-assets vault verify` names them; docs/verify.md says what to do"
        return Judgement(passed=False, reason=reason, values=values)
    return Judgement(passed=True, reason="nothing is damaged, missing or unlocked", values=values)


def judge_overlays(found: Mapping[Any, Verified]) -> Judgement:
    """A warning as long as the newest verification saw any: nothing is lost by them, and somebody had the keys."""
    newest = max(found.values(), key=lambda each: each.at, default=None)
    if newest is None:
        return Judgement(passed=True, reason="nothing was verified yet")
    seen = {kind: count for kind, count in (newest.errors | newest.notices).items() if kind in OVERLAYS}
    values: dict[str, Value] = {"overlays": sum(seen.values())}
    if not seen:
        return Judgement(passed=True, reason="nothing lies over the vault or beside it", values=values)
    reason = f"{_counted(seen)}: a reader ignores them, but somebody could put them there; docs/verify.md"
    return Judgement(passed=False, reason=reason, values=values, is_warning=True)


def judge_covered(found: Mapping[Any, Verified], policy: VerificationPolicy, now: datetime) -> Judgement:
    """Red when a level is overdue; a warning while one that was never made can't be overdue yet."""
    overdue, never = [], []
    oldest = min((each.at for each in found.values()), default=None)
    for level in VERIFY_LEVELS:
        allowed = cadence.with_grace(policy.every(level))
        at = found[level].at if level in found else oldest
        if at is None or now - at > allowed:
            overdue.append(f"{level} (due every {format_duration(policy.every(level))})")
        elif level not in found:
            never.append(level)
    values: dict[str, Value] = {f"{level}_at": each.at for level, each in found.items()}
    if overdue:
        return Judgement(passed=False, reason=f"overdue: {', '.join(overdue)}", values=values)
    if never:
        return Judgement(passed=False, reason=f"not made yet: {', '.join(never)}", values=values, is_warning=True)
    return Judgement(passed=True, reason="every level is as recent as declared", values=values)


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
