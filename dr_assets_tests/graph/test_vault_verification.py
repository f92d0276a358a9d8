"""The asset `vault/verification` and its checks: what a run tells, and when they are yellow or red."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dr_assets.components.protected_estate import ProtectedEstate
from dr_assets.components.vault_resource import resource_key
from dr_assets.components.vault_verification import (
    KEY,
    LEVEL_TAG,
    judge_covered,
    judge_overlays,
    judge_undamaged,
    verification_parts,
    verified,
)
from dr_assets.estate.declarations import default_defs_dir
from dr_assets.estate.model import Estate, PostgresDataset
from dr_assets.proving.attempt import WORK_DIR_ENV
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify.journal import _encoded
from dr_assets.vault.verify.record import latest_verifications
from dr_assets_tests.graph.conftest import FilledVault


def materialize(estate: Estate, filled: FilledVault, vault: str, level: str) -> dict[str, Any]:
    """The metadata of one run."""
    resources: dict[str, Any] = {resource_key(vault): filled}
    result = dg.materialize([*verification_parts(estate).assets], resources=resources, tags={LEVEL_TAG: level})
    assert result.success
    (made,) = result.asset_materializations_for_node("vault__verification")
    return {name: value.value for name, value in made.metadata.items()}


def verdicts(estate: Estate, filled: FilledVault) -> list[str]:
    """Undamaged, overlays, covered: green, yellow or red."""
    found = latest_verifications(filled.vault, filled.now - timedelta(days=400))
    judged = [judge_undamaged(found), judge_overlays(found), judge_covered(found, estate.verification, filled.now)]
    return ["green" if one.passed else "yellow" if one.is_warning else "red" for one in judged]


def test_levels_are_verified_recorded_and_fall_due(
    filled: FilledVault, estate: Estate, ledger: PostgresDataset
) -> None:
    """Red before the first, yellow until each level was made, green then; red again when nobody verifies."""
    filled.store_wal()
    assert verdicts(estate, filled) == ["red", "green", "red"]
    told = materialize(estate, filled, ledger.vault, "index")
    assert (told["level"], told["primary_errors"], told["primary_objects"]) == ("index", 0, 3)
    assert verdicts(estate, filled) == ["green", "green", "yellow"]
    for level in ("sample", "full"):
        filled.later(minutes=1)
        materialize(estate, filled, ledger.vault, level)
    assert verdicts(estate, filled) == ["green", "green", "green"]
    filled.later(days=2)
    assert verdicts(estate, filled) == ["green", "green", "red"]


def test_a_state_of_before_the_trust_file_changed_stops_no_verification(filled: FilledVault, tmp_path: Path) -> None:
    """It would save time, and can't: the run begins anew instead of failing week after week."""
    filled.store_wal()
    state = tmp_path / f"verify-{filled.vault.estate}-{filled.vault.name}-full.state"
    for left_behind in (b"torn", _encoded({"begin": "of another day"})):
        state.write_bytes(left_behind)
        assert verified(filled.vault, "full", 0.05, {WORK_DIR_ENV: str(tmp_path)}).ok
        assert not state.exists()


def test_damage_is_red_until_the_same_level_finds_none(
    filled: FilledVault, estate: Estate, ledger: PostgresDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A byte that only a full verification reads is not taken back by an index; overlays are a warning of their own."""
    monkeypatch.setenv("DR_ASSETS_WORK_DIR", str(tmp_path))
    filled.store_wal()
    store = filled.vault.store
    assert isinstance(store, MemoryStore)
    row = next(rows[0] for name, rows in store.rows.items() if "/wal/" in name)
    assert row.data is not None
    whole, row.data = row.data, row.data[:-1] + b"x"
    assert materialize(estate, filled, ledger.vault, "full")["primary_errors"] == 1
    assert verdicts(estate, filled)[:2] == ["red", "green"]
    filled.later(minutes=1)
    store.add("casino/junk", b"x")
    materialize(estate, filled, ledger.vault, "index")
    assert verdicts(estate, filled)[:2] == ["red", "yellow"]
    row.data = whole
    filled.later(minutes=1)
    materialize(estate, filled, ledger.vault, "full")
    assert verdicts(estate, filled)[:2] == ["green", "yellow"]
    assert list(tmp_path.iterdir()) == [], "no state is left of a verification that reached its end"


def test_the_estate_has_the_asset_with_a_schedule_for_each_level(estate: Estate) -> None:
    """One asset, owned, grouped, with a freshness policy; the checks judge by facts; the component takes it up."""
    parts = verification_parts(estate)
    (asset,) = parts.assets
    spec = asset.get_asset_spec(KEY)
    assert (spec.group_name, list(spec.owners)) == ("vault", list(estate.owners))
    assert spec.freshness_policy is not None
    names = {key.name for check in parts.checks for key in check.check_keys}
    assert names == {"undamaged_primary", "overlays_primary", "covered_primary"}
    assert {each.name: each.cron_schedule for each in parts.schedules} == {
        "vault_verify_index": "40 4 * * *", "vault_verify_sample": "40 16 * * *", "vault_verify_full": "40 5 * * 0",
    }  # fmt: skip
    built = ProtectedEstate(estate, default_defs_dir()).build_defs(None)  # type: ignore[arg-type]  # it isn't read
    assert KEY in {key for each in built.assets or () if isinstance(each, dg.AssetsDefinition) for key in each.keys}
