"""An incremental must be of the history of what it rests on: where one is taken, and again where it is restored."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.base_manifest import Archive, BaseManifest, Parent
from dr_assets.stores.postgres.capture_facts import record_rewind
from dr_assets.stores.postgres.incremental import Choice, choose_ground
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets_tests.unit.test_restore_lineage import OLD, SIZE, T0, Ticking, at, captured, put_wal, switched

DATASET = cast("PostgresDataset", SimpleNamespace(name="ledger", snapshot=SimpleNamespace(incrementals_max=24)))
NOTHING = Archive("base.tar", None, None, 0, 0, 0)


@pytest.fixture
def clock() -> Ticking:
    """The only clock."""
    return Ticking()


@pytest.fixture
def vault(clock: Ticking) -> Vault:
    """An empty vault in memory."""
    return throwaway_vault(clock=clock)


def put_backup(
    vault: Vault,
    start: int,
    *,
    timeline: int = 1,
    history: str | None = None,
    on: tuple[BaseManifest, str] | None = None,
) -> tuple[BaseManifest, str]:
    """A base backup [start, start + 40) with its key; an incremental of `on`."""
    parent = None
    if on is not None:
        parent = Parent(on[0].snapshot_id, on[1], on[0].full_snapshot_id, on[0].depth + 1)
    manifest = BaseManifest(
        dataset="ledger", snapshot_id=f"b{timeline}-{start:x}", system_id=OLD, timeline=timeline,
        server_version=170010, start_lsn=start, stop_lsn=start + 40, begin_at=at(start), end_at=at(start + 40),
        segment_bytes=SIZE, data_checksums=True, next_xid=1000, superuser="postgres", dbname="ledger", settings={},
        policy={}, history=history, archives=(NOTHING,), backup_manifest=replace(NOTHING, name="backup_manifest"),
        parts=(), parent=parent,
    )  # fmt: skip
    prepared = vault.prepare(
        dataset="ledger", stream="base", kind="manifest", system_id=OLD, timeline=timeline, first=start,
        last=start + 40, begin_at=T0, end_at=T0, plaintext=manifest.encode(),
    )  # fmt: skip
    receipt = vault.put(prepared.seal(), vault.locks.lock("ledger", "manifest", vault.clock()))
    return manifest, str(receipt.key)


def choice(vault: Vault) -> Choice:
    """What the next incremental would build on."""
    return choose_ground(vault, DATASET, OLD, 170010, data_checksums=True)


def test_what_a_source_had_before_it_was_set_back_is_not_built_on(vault: Vault, clock: Ticking) -> None:
    """Same system, same timeline: only the gap on record tells. Behind it, incrementals are taken again."""
    put_wal(vault, OLD, 1, 0, 4)
    put_backup(vault, 2 * SIZE)
    captured(vault, OLD, 1, 0, 4 * SIZE)
    assert choice(vault).ground is not None
    clock.now = at(20 * SIZE)
    record_rewind(vault, "ledger", OLD, 1, 4 * SIZE, 8 * SIZE, "another history")
    assert "gap" in str(choice(vault).why_full)
    captured(vault, OLD, 1, 8 * SIZE, 8 * SIZE)
    put_wal(vault, OLD, 1, 8 * SIZE, 4)
    put_backup(vault, 9 * SIZE)
    assert choice(vault).ground is None  # begun before the gap was recorded, by the source's clock
    put_backup(vault, 30 * SIZE)
    assert choice(vault).ground is not None


def test_a_backup_between_the_lost_chain_and_the_new_one_is_not_built_on(vault: Vault, clock: Ticking) -> None:
    """It lies behind the old chain's end, and yet nothing stored leads to it."""
    record_rewind(vault, "ledger", OLD, 1, 4 * SIZE, 80 * SIZE, "another history")
    put_backup(vault, 60 * SIZE)
    assert "gap" in str(choice(vault).why_full)
    clock.now += timedelta(seconds=1)
    put_backup(vault, 80 * SIZE)
    assert choice(vault).ground is not None


def test_a_chain_that_begins_behind_the_parent_is_not_built_on(vault: Vault) -> None:
    """Nobody recorded a gap, but the capture began anew."""
    put_backup(vault, 2 * SIZE)
    captured(vault, OLD, 1, 0, 4 * SIZE)
    assert choice(vault).ground is not None
    captured(vault, OLD, 1, 8 * SIZE, 9 * SIZE)
    assert "beginning of this chain" in str(choice(vault).why_full)


def test_layers_that_no_stored_wal_joins_are_passed_over(vault: Vault) -> None:
    """An older full is taken in their place; where there is none the refusal says what is wrong."""
    put_wal(vault, OLD, 1, 0, 4)
    full = put_backup(vault, 2 * SIZE)
    put_wal(vault, OLD, 1, 8 * SIZE, 4)
    put_backup(vault, 9 * SIZE, on=full)
    found = plan_restore(vault, "ledger", Target.parse(f"lsn:0/{3 * SIZE:X}"))
    assert found.base.snapshot_id == full[0].snapshot_id
    with pytest.raises(VaultError) as caught:
        plan_restore(vault, "ledger", Target("latest"))
    assert caught.value.code == "restore.layers_apart"


def test_joined_layers_are_restored_also_over_a_switch(vault: Vault) -> None:
    """A promotion is no break as long as the stored WAL leads over it, and the full ended before it."""
    last = put_wal(vault, OLD, 1, 0, 4)
    full = put_backup(vault, 2 * SIZE)
    put_backup(vault, 3 * SIZE, on=full)
    assert len(plan_restore(vault, "ledger", Target("latest")).layers) == 2
    assert last is not None
    switched(vault, 2, (1, 4 * SIZE))
    put_wal(vault, OLD, 2, 4 * SIZE, 4)
    put_backup(vault, 6 * SIZE, timeline=2, history=f"1\t0/{4 * SIZE:X}\tno recovery\n", on=full)
    assert plan_restore(vault, "ledger", Target("latest")).base.timeline == 2
    assert isinstance(vault.store, MemoryStore)
    gone = next(obj for obj in vault.objects("ledger", "wal") if obj.key.first == 3 * SIZE)
    del vault.store.rows[str(gone.key)]
    with pytest.raises(VaultError) as caught:
        plan_restore(vault, "ledger", Target("latest"))
    assert caught.value.code == "restore.layers_apart"
