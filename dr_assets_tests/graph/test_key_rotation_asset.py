"""The asset `vault/key_rotation` and its checks: what is rotated when, and what is red."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from dr_assets.components.vault_key_rotation import (
    KEY,
    judge_age,
    judge_escrow,
    judge_retired,
    judge_wrapped,
    key_rotation_parts,
)
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.keys.life.audit import TAKEN_UP, audit
from dr_assets.vault.keys.life.choice import ESTATE, RETIRED, ROTATION
from dr_assets.vault.keys.life.escrow import export
from dr_assets.vault.keys.life.listing import writing_key
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.provider_set import Providers
from dr_assets_tests.graph.conftest import FilledVault

EVERY = timedelta(days=90)


def run(filled: FilledVault) -> dg.ExecuteInProcessResult:
    """One run of the asset over the vault in memory."""
    parts = key_rotation_parts(load_estate(default_defs_dir()).only("ledger"))
    resources: dict[str, Any] = {resource_key("primary"): filled}
    return dg.materialize(parts.assets, resources=resources)


def test_a_run_rotates_what_is_due_and_nothing_else(filled: FilledVault) -> None:
    """Young keys: no materialization, so that freshness tells the keys' age. After 90 days: one, with what was done."""
    filled.store_wal()
    assert not run(filled).asset_materializations_for_node("vault__key_rotation")
    filled.later(days=91)
    (made,) = run(filled).asset_materializations_for_node("vault__key_rotation")
    assert made.metadata["datasets"].value == "ledger"
    assert len(list(facts(filled.vault, "ledger", ROTATION))) == 1
    assert not run(filled).asset_materializations_for_node("vault__key_rotation")


def test_the_asset_is_fresh_for_the_cadence_and_its_grace() -> None:
    """90 days and an eighth more."""
    (asset,) = key_rotation_parts(load_estate(default_defs_dir()).only("ledger")).assets
    policy = asset.specs_by_key[KEY].freshness_policy
    assert policy is not None
    assert policy == dg.FreshnessPolicy.time_window(fail_window=EVERY * 9 / 8)


def test_old_keys_are_red_after_the_grace(filled: FilledVault) -> None:
    """Green while young, green within the grace, red beyond it."""
    filled.store_wal()
    verdicts = []
    for days in (0, 95, 10):
        filled.later(days=days)
        verdicts.append(judge_age([audit(filled.vault, EVERY)]).passed)
    assert verdicts == [True, True, False]


def test_a_wrapping_that_lacks_is_red(filled: FilledVault) -> None:
    """A provider that was declared later wraps nothing yet."""
    filled.store_wal()
    assert judge_wrapped([audit(filled.vault, EVERY)]).passed
    filled.vault.keys.providers = Providers.of(*filled.vault.keys.providers.every, MemoryKeyProvider(name="second"))
    judged = judge_wrapped([audit(filled.vault, EVERY)])
    assert not judged.passed
    assert "by second" in judged.reason


def test_what_is_written_under_a_retired_key_is_red(filled: FilledVault) -> None:
    """A writer that goes on under a stolen key for longer than it takes to take a new one up."""
    filled.store_wal()
    row = writing_key(filled.vault, "ledger")
    assert row is not None
    record_fact(filled.vault, ESTATE, RETIRED, {"kek_id": row.wrappings[0].kek_id, "keys": {}, "reason": "stolen"})
    filled.store_wal()
    assert judge_retired([audit(filled.vault, EVERY)]).passed
    filled.now += TAKEN_UP + timedelta(minutes=1)
    filled.store_wal()
    judged = judge_retired([audit(filled.vault, EVERY)])
    assert not judged.passed
    assert not judged.is_warning


def test_a_key_that_is_in_no_escrow_is_a_warning(filled: FilledVault) -> None:
    """Yellow until exported, green after it."""
    x25519 = pytest.importorskip("pyrage").x25519
    filled.store_wal()
    judged = judge_escrow([audit(filled.vault, EVERY)])
    assert (judged.passed, judged.is_warning) == (False, True)
    filled.later(seconds=1)
    export(filled.vault, str(x25519.Identity.generate().to_public()))
    assert judge_escrow([audit(filled.vault, EVERY)]).passed


def test_a_rotation_that_was_begun_is_a_warning(filled: FilledVault) -> None:
    """Named, until a run completes it."""
    filled.store_wal()
    seen = replace(audit(filled.vault, EVERY), unfinished=("ledger/ab",))
    judged = judge_age([seen])
    assert (judged.passed, judged.is_warning) == (False, True)
    assert "ledger/ab" in judged.reason
