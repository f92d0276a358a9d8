"""PITR over switches of timeline, on real servers: whatever the vault holds of either side can be brought back."""

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.history import parse_history
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import Restored, restore
from dr_assets.stores.postgres.target import Target

if TYPE_CHECKING:
    from conftest import Lives

pytestmark = pytest.mark.integration

LAST_KNOWN = 3


def notes_of(restored: Restored) -> str:
    """What is there, in the order of writing."""
    with psycopg.connect(restored.dsn()) as session:
        return " ".join(row[0] for row in session.execute("SELECT note FROM t ORDER BY xmin::text::bigint"))


@pytest.mark.parametrize("number", range(9))
def test_either_side_of_a_switch_is_brought_back(lives: "Lives", engine_dir: Path, number: int) -> None:
    """Times, positions, transactions and ends; the new timeline's number was never given, and its history is true."""
    (text, timeline), expected = list(lives.targets.items())[number]
    plan = plan_restore(lives.source.vault, "ledger", Target.parse(text), timeline=timeline)
    with restore(plan, lives.source.vault, engine_dir / "into") as restored:
        assert notes_of(restored) == expected
        assert restored.timeline == LAST_KNOWN + 1
        history = (restored.data_dir / "pg_wal" / f"{restored.timeline:08X}.history").read_text()
        switches = parse_history(restored.timeline, history).switches
    assert switches[-1][1] >= (switches[-2][1] if len(switches) > 1 else 0)
    assert switches[-1][0] in {1, 2, LAST_KNOWN}


def test_a_hole_at_a_switch_is_refused_on_both_its_sides(lives: "Lives") -> None:
    """Without the old timeline's last piece before the switch nothing behind it can be reached, and that is said."""
    source, switch = lives.source.clone(), lives.switches[0]
    for key in list(source.store.rows):
        name = key.rpartition("/")[2]
        if (
            "/wal/" in key
            and "/00000001/" in key
            and int(name.split("-")[0], 16) < switch <= int(name.split("-")[1], 16)
        ):
            del source.store.rows[key]
    with pytest.raises(VaultError) as caught:
        plan_restore(source.vault, "ledger", Target.parse("latest"))
    assert caught.value.code == "restore.hole"
    assert format_lsn(switch) in caught.value.found
