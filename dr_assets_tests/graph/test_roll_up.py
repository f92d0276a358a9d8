"""The asset `roll_up` and its check: what a run tells, and when a backlog is yellow or red."""

from datetime import timedelta
from typing import Any

import dagster as dg

from dr_assets.components.roll_up import judge_backlogs, roll_up_parts
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.backlog import backlogs
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets_tests.graph.conftest import FilledVault

BEGIN = 0x1000000


def test_a_run_shows_what_was_rolled_up_and_what_waits(filled: FilledVault, ledger: PostgresDataset) -> None:
    """Pieces over more than an hour make a full; the rest is the backlog, with its age and bytes."""
    for _ in range(8):
        filled.store_wal()
        filled.later(minutes=10)
    stopped = Anchor(filled.system_id, filled.timeline, BEGIN, filled.position, None, None, 1, None)
    record_capture(filled.vault, ledger.name, "stopped", stopped)
    resources: dict[str, Any] = {resource_key(ledger.vault): filled}
    parts = roll_up_parts(ledger)
    result = dg.materialize(parts.assets, resources=resources)
    assert result.success
    (made,) = result.asset_materializations_for_node("ledger__roll_up")
    assert (made.metadata["fulls"].value, made.metadata["micros_rolled"].value) == (1, 7)
    assert (made.metadata["backlog_micros"].value, made.metadata["backlog_age_s"].value) == (1, 600.0)


def test_a_backlog_is_green_then_a_warning_then_red(filled: FilledVault, ledger: PostgresDataset) -> None:
    """Minutes are as it should be, hours tell that no roller lives, half of a lock is red."""
    filled.store_wal()

    def verdict() -> tuple[bool, bool]:
        judged = judge_backlogs(backlogs(filled.vault, ledger.name), filled.now)
        return judged.passed, judged.is_warning

    assert verdict() == (True, False)
    filled.later(hours=7)
    assert verdict() == (False, True)
    filled.now += timedelta(days=8)
    assert verdict() == (False, False)
