"""Restores from full segments alone, by real servers: every target, and both sides of two failovers."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.restore import Restored, restore
from dr_assets.stores.postgres.rollup_run import require_untroubled, roll_up
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.full_segment import FULL
from dr_assets.vault.verify import verify

if TYPE_CHECKING:
    from dr_assets_tests.integration.restore.conftest import History, Lives, Source

pytestmark = [pytest.mark.integration]

SMALL = Limits(size_bytes=1 << 20)


def rolled_up(source: "Source") -> "Source":
    """A copy of the source's vault, rolled up, of whose micros only those are left that no full holds."""
    twin = source.clone()
    require_untroubled(roll_up(twin.vault, twin.dataset.name, limits=SMALL))
    fulls = list(twin.vault.objects(twin.dataset.name, FULL))
    assert len(fulls) > 2
    for obj in list(twin.vault.objects(twin.dataset.name, "wal")):
        beneath = (
            full for full in fulls if (full.key.system_id, full.key.timeline) == (obj.key.system_id, obj.key.timeline)
        )
        if any(full.key.first <= obj.key.first and obj.key.last <= full.key.last for full in beneath):
            del twin.store.rows[str(obj.key)]
    return twin


@pytest.mark.parametrize("kind", ["latest", "time", "name"])
def test_every_target_is_reached_from_full_segments(
    history: "History", recover: Callable[..., Restored], kind: str
) -> None:
    """The same rows as from micro-segments, which are gone; and verify misses none of them."""
    source = rolled_up(history.source)
    wanted = "20" if kind == "time" else kind
    text = next(text for text in history.targets if text.startswith(wanted))
    restored = recover(source, text)
    assert any(obj.key.stream == FULL for obj in restored.plan.pieces)
    with psycopg.connect(restored.dsn()) as session:
        ids = [row[0] for row in session.execute("SELECT id FROM t ORDER BY id").fetchall()]
    assert ids == list(range(1, history.targets[text] + 1))
    if kind == "latest":
        assert verify(source.vault).errors == ()


@pytest.mark.parametrize("number", [0, -1])
def test_both_sides_of_a_failover_are_brought_back_from_full_segments(
    lives: "Lives", engine_dir: Path, number: int
) -> None:
    """A full may hold the switch and what was written beyond it: only what lies on the way is laid."""
    source = rolled_up(lives.source)
    (text, timeline), expected = list(lives.targets.items())[number]
    plan = plan_restore(source.vault, "ledger", Target.parse(text), timeline=timeline)
    assert any(obj.key.stream == FULL for obj in plan.pieces)
    with restore(plan, source.vault, engine_dir / "into") as restored, psycopg.connect(restored.dsn()) as session:
        notes = [row[0] for row in session.execute("SELECT note FROM t ORDER BY xmin::text::bigint")]
    assert " ".join(notes) == expected
