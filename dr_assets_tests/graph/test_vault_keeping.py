"""`vault/sampling` and its checks: what was read, locks, and promises that got weaker."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dr_assets.components.vault_keeping import (
    POLICY_CHECK,
    check_keys,
    judge_locks,
    judge_policy,
    judge_sampled,
    keeping_parts,
)
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.retention.lock_check import LockReport, Unlocked
from dr_assets.vault.retention.sampling import SAMPLING, Coverage
from dr_assets.vault.storage.memory import MemoryStore

WHOLE = Coverage(30, None, None, 0, is_whole=True, objects=9, size_bytes=9, errors=())


def run(filled: Any, estate: Estate, instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    """The asset and its checks in one run; each check's evaluation by name."""
    parts = keeping_parts(estate, Path())
    done = dg.materialize(
        [*parts.assets, *parts.checks], instance=instance, resources={resource_key("primary"): filled}
    )
    assert done.success
    return {one.check_name: one for one in done.get_asset_check_evaluations()}


def test_a_run_samples_judges_locks_and_records_the_policy(
    filled: Any, estate: Estate, instance: dg.DagsterInstance
) -> None:
    """All green on a fresh vault; the second run in a round reads nothing again; a weaker policy is a warning."""
    for _ in range(3):
        filled.store_wal()
    shown = run(filled, estate, instance)
    sampled, locked = (key.name for key in check_keys(estate.postgres()["ledger"]))
    assert {name: one.passed for name, one in shown.items()} == dict.fromkeys(
        (sampled, locked, POLICY_CHECK.name), True
    )
    first = latest_fact(filled.vault, "ledger", SAMPLING)
    run(filled, estate, instance)
    again = latest_fact(filled.vault, "ledger", SAMPLING)
    assert first is not None
    assert again is not None
    assert first.key == again.key
    weaker = replace(estate, datasets={"ledger": replace(estate.postgres()["ledger"], rto=timedelta(hours=2))})
    told = run(filled, weaker, instance)[POLICY_CHECK.name]
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "ledger.rto_ms: from 900000 to 7200000" in (told.description or "")


def test_a_lock_that_vanished_and_a_damaged_object_are_named(
    filled: Any, estate: Estate, instance: dg.DagsterInstance
) -> None:
    """Within a cycle both checks are red, with the object's name."""
    filled.seal("heartbeat", n=1)
    store = filled.vault.store
    assert isinstance(store, MemoryStore)
    (name,) = [name for name in store.rows if "facts-heartbeat" in name]
    store.rows[name][0].lock = None
    store.rows[name][0].data = b"rubbish"
    filled.later(days=0)
    policy = replace(
        estate.postgres()["ledger"], sampling=replace(estate.postgres()["ledger"].sampling, whole_in=timedelta(days=1))
    )
    shown = run(filled, replace(estate, datasets={"ledger": policy}), instance)
    sampled, locked = (key.name for key in check_keys(policy))
    for check in (sampled, locked):
        assert not shown[check].passed
        assert name in (shown[check].description or "")


@pytest.mark.parametrize(
    ("found", "passed", "told"),
    [
        ({}, True, "everything was read back"),
        ({"is_whole": False}, True, "under way"),
        ({"missed": 2}, False, "2 of 30 rounds"),
        ({"errors": ("flipped a", "b", "c", "d")}, False, "and 1 more"),
        ({"newest_at": None}, False, "nothing was sampled"),
        ({"overdue": True}, False, "nobody samples"),
    ],
)
def test_sampling_is_judged_by_what_the_facts_prove(
    ledger: PostgresDataset,
    filled: Any,
    found: dict[str, Any],
    passed: bool,
    told: str,
) -> None:
    """Damage and silence are red, a first cycle under way is green."""
    found = {"newest_at": filled.now} | found
    if found.pop("overdue", False):
        found["overdue_since"] = filled.now
    judged = judge_sampled(ledger, replace(WHOLE, **found))
    assert judged.passed is passed
    assert told in judged.reason


def test_locks_are_red_and_a_flag_that_lacks_is_a_warning() -> None:
    """The first few are named."""
    good = LockReport(10, 8, 2, 0, 0, ())
    assert judge_locks(good).passed
    bad = judge_locks(replace(good, troubles=tuple(Unlocked(f"k{n}", "has no retention lock") for n in range(5))))
    assert (bad.passed, bad.is_warning, "and 2 more" in bad.reason) == (False, False, True)
    assert judge_locks(replace(good, unheld=1)).is_warning


def test_a_policy_that_nobody_weakened_is_green_and_no_dataset_has_no_asset(estate: Estate) -> None:
    """Nothing to keep, nothing to show."""
    assert judge_policy([]).passed
    assert keeping_parts(replace(estate, datasets={}), Path()).assets == []
