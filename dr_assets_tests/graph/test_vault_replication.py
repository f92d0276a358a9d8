"""The asset `vault/replication` and its checks: what a pass tells, and when the second region is yellow or red."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from dr_assets.components.vault_replication import judge_lag, judge_replicated, replication_parts
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import Estate, Role
from dr_assets.vault.replication import Standing, standing
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets_tests.graph.conftest import FilledVault


@dataclass
class Second:
    """Stands where the replica's resource stands."""

    filled: FilledVault
    store: MemoryStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(lambda: self.filled.now)

    def open_vault(self, *, signing: bool = False, role: Role | None = None) -> Vault:
        """As the resource does."""
        del signing, role
        return throwaway_vault(store=self.store, name="standby", clock=lambda: self.filled.now)


@pytest.fixture
def second(filled: FilledVault) -> Second:
    """An empty second region; the first has some WAL."""
    filled.vault.name = "primary"
    for _ in range(3):
        filled.store_wal()
        filled.later(minutes=2)
    return Second(filled)


def run(estate: Estate, filled: FilledVault, second: Second) -> tuple[Any, dict[str, bool]]:
    """The asset, materialized, and what its checks said."""
    parts = replication_parts(estate)
    resources: dict[str, Any] = {resource_key("primary"): filled, resource_key("standby"): second}
    result = dg.materialize(parts.assets, resources=resources, raise_on_error=False)
    (made,) = result.asset_materializations_for_node("vault__replication")
    return made, {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def newest(filled: FilledVault) -> Standing:
    """As the checks read it."""
    found = standing(filled.vault, "standby")
    assert found is not None
    return found


def test_what_the_stores_did_not_bring_turns_red(estate: Estate, filled: FilledVault, second: Second) -> None:
    """The packaged estate's stores copy by themselves: here they don't, and the asset only says so."""
    filled.later(hours=1)
    made, checks = run(estate, filled, second)
    assert checks == {"replicated_primary_standby": False, "replication_lag_primary_standby": False}
    assert made.metadata["standby_copied"].value == 0
    assert made.metadata["standby_unproven"].value == made.metadata["standby_objects_total"].value > 0
    assert not second.store.rows


def test_what_is_there_is_green_until_nobody_looks(estate: Estate, filled: FilledVault, second: Second) -> None:
    """Green with everything proven; later a warning, then red, when no pass says it again."""
    store = filled.vault.store
    assert isinstance(store, MemoryStore)
    second.store.rows = store.copy().rows
    _, checks = run(estate, filled, second)
    assert checks == {"replicated_primary_standby": True, "replication_lag_primary_standby": True}
    found = newest(filled)
    assert judge_replicated(found, filled.now).passed
    colours = []
    for _ in range(3):
        judged = judge_lag(found, filled.now)
        colours.append((judged.passed, judged.is_warning))
        filled.later(minutes=20)
    assert colours == [(True, False), (False, True), (False, False)]


def test_what_is_on_its_way_is_no_alarm(estate: Estate, filled: FilledVault, second: Second) -> None:
    """An object that was put just now may still be travelling; a quarter of an hour later it should have arrived."""
    store = filled.vault.store
    assert isinstance(store, MemoryStore)
    second.store.rows = store.copy().rows
    filled.store_wal()
    filled.later(minutes=1)
    run(estate, filled, second)
    found = newest(filled)
    assert found.unproven_count == 1
    assert judge_replicated(found, filled.now).passed
    judged = judge_replicated(found, filled.now + timedelta(minutes=16))
    assert not judged.passed
    assert "missing" in judged.reason


def test_a_region_that_is_away_fails_the_run_and_its_checks_go_on(
    estate: Estate, filled: FilledVault, second: Second, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stale green: what was proven before is judged again, and its age tells."""
    store = filled.vault.store
    assert isinstance(store, MemoryStore)
    second.store.rows = store.copy().rows
    run(estate, filled, second)
    filled.later(hours=1)

    def away(*_: object, **__: object) -> Any:
        raise VaultError("vault.unreachable", "the second region does not answer", "start it")

    monkeypatch.setattr(second, "open_vault", away)
    resources: dict[str, Any] = {resource_key("primary"): filled, resource_key("standby"): second}
    result = dg.materialize(replication_parts(estate).assets, resources=resources, raise_on_error=False)
    assert not result.success
    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks == {"replicated_primary_standby": True, "replication_lag_primary_standby": False}


def test_without_a_look_nothing_is_green(filled: FilledVault) -> None:
    """No fact, no promise."""
    assert not judge_replicated(None, filled.now).passed
    assert not judge_lag(None, filled.now).passed
