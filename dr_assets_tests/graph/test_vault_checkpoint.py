"""The asset `vault/checkpoint` and its checks: what a run tells, and when the log is yellow or red."""

from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dr_assets.components.vault_checkpoint import KEY, checkpoint_parts, judge_complete, judge_consistent
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.log_policy import DeclaredWitness, LogPolicy
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.vault.log.cosignature import CosignatureSigner
from dr_assets.vault.log.names import checkpoint_name
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.standing import log_standing
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets_tests.graph.conftest import FilledVault


def materialize(estate: Estate, filled: FilledVault, vault: str) -> dict[str, Any]:
    """The metadata of one run."""
    resources: dict[str, Any] = {resource_key(vault): filled}
    result = dg.materialize([*checkpoint_parts(estate).assets], resources=resources)
    assert result.success
    (made,) = result.asset_materializations_for_node("vault__checkpoint")
    return {name: value.value for name, value in made.metadata.items()}


def test_a_run_logs_what_is_new_and_the_checks_follow(
    filled: FilledVault, estate: Estate, ledger: PostgresDataset
) -> None:
    """Green after a run, yellow when objects wait for two runs, red when nobody logs any more; green after the next."""
    name = ledger.vault
    filled.store_wal()
    told = materialize(estate, filled, name)
    assert (told[f"{name}_leaves"], told[f"{name}_new_objects"], told[f"{name}_state"]) == (3, 3, "sequenced")

    def verdicts() -> list[tuple[bool, bool]]:
        standing = log_standing(filled.vault)
        judged = [judge_consistent(standing), judge_complete(standing)]
        return [(one.passed, one.is_warning) for one in judged]

    assert verdicts() == [(True, False), (True, False)]
    filled.later(minutes=1)
    filled.store_wal()
    filled.later(minutes=7)
    assert verdicts() == [(True, False), (False, True)]
    filled.later(minutes=14)
    assert verdicts() == [(True, False), (False, False)]
    assert materialize(estate, filled, name)[f"{name}_new_leaves"] == 1
    assert verdicts() == [(True, False), (True, False)]
    assert judge_consistent(log_standing(filled.vault)).reason == "4 leaves continue 1 earlier checkpoint(s)"


def test_a_vault_that_is_away_keeps_no_other_from_being_logged_and_judged(
    filled: FilledVault, estate: Estate, ledger: PostgresDataset
) -> None:
    """The run fails, and has done and judged what it could."""
    other = replace(ledger, name="cards", vault="spare")
    two = replace(estate, datasets={**estate.datasets, "cards": other})
    filled.store_wal()
    away = FilledVault(filled.now, away=True)
    resources: dict[str, Any] = {resource_key(ledger.vault): away, resource_key("spare"): filled}
    parts = checkpoint_parts(two)
    assert not dg.materialize(parts.assets, resources=resources, raise_on_error=False).success
    assert LogReader.open(filled.vault) is not None
    (checks,) = parts.checks
    job = dg.Definitions(asset_checks=[checks], resources=resources).resolve_implicit_global_asset_job_def()
    judged = job.execute_in_process(raise_on_error=False).get_asset_check_evaluations()
    assert {each.check_name for each in judged} == {"consistent_spare", "complete_spare"}


def test_a_log_that_was_rewritten_or_damaged_is_red(
    filled: FilledVault, estate: Estate, ledger: PostgresDataset
) -> None:
    """The checks say so; a vault that can't be read is no verdict but a failed run."""
    filled.store_wal()
    materialize(estate, filled, ledger.vault)
    reader = LogReader.open(filled.vault)
    assert reader is not None
    assert isinstance(filled.vault.store, MemoryStore)
    rows = filled.vault.store.rows
    for name in [name for name in rows if "/log/tile/0/" in name]:
        rows[name][0].data = bytes(len(rows[name][0].data or b""))
    standing = log_standing(filled.vault)
    assert "log.damaged" in (standing.trouble or "")
    assert not judge_consistent(standing).passed
    assert not judge_complete(standing).passed
    del rows[checkpoint_name("casino", reader.checkpoint.size)]
    assert not judge_complete(replace(log_standing(filled.vault), now=filled.now.replace(hour=20))).passed


def test_the_estate_has_the_asset_with_its_checks_on_a_schedule(estate: Estate) -> None:
    """One asset for all vaults that are captured into, owned, grouped, with a freshness policy."""
    parts = checkpoint_parts(estate)
    (asset,) = parts.assets
    spec = asset.get_asset_spec(KEY)
    assert (spec.group_name, list(spec.owners)) == ("vault", list(estate.owners))
    assert spec.freshness_policy is not None
    names = {key.name for check in parts.checks for key in check.check_keys}
    assert names == {f"{check}_{vault}" for check in ("consistent", "complete") for vault in ("primary",)}
    assert [schedule.name for schedule in parts.schedules] == ["vault_checkpoint"]


def test_a_witness_that_is_away_fails_no_run_and_turns_its_check_red_in_time(
    filled: FilledVault, estate: Estate, ledger: PostgresDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is published all the same; a quorum that is late by more than the estate allows is red."""
    key = str(CosignatureSigner.of("example.com/w1", Ed25519PrivateKey.generate(), lambda: filled.now).verifier.key)
    watched = replace(estate, log=LogPolicy((DeclaredWitness("w1", "W1", key),), quorum=1))
    monkeypatch.setenv("W1", "http://127.0.0.1:9")
    filled.store_wal()
    told = materialize(watched, filled, ledger.vault)
    assert [value for name, value in told.items() if "w1" in name] == ["away"]
    assert LogReader.open(filled.vault) is not None
    (checks,) = checkpoint_parts(watched).checks
    resources: dict[str, Any] = {resource_key(ledger.vault): filled}

    def witnessed() -> bool:
        result = dg.materialize([*checkpoint_parts(watched).assets, checks], resources=resources)
        verdicts = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
        return verdicts[f"witnessed_{ledger.vault}"]

    assert witnessed()
    filled.later(hours=2)
    assert not witnessed()
