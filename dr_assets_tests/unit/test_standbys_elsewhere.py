"""Whether the primary is another server than the one that the stream comes from, by Patroni's word."""

import threading
from typing import Any, cast

import pytest

from dr_assets.stores.postgres.standbys import Elsewhere, StandbySlots

OURS, THEIRS = "host=127.0.0.1 port=1", "host=127.0.0.1 port=2"


class Told:
    """Nodes of which Patroni names `told_leader`; two looks are waited for."""

    are_several = True

    def __init__(self, told_leader: str | None) -> None:
        self.told_leader = told_leader
        self.looked = threading.Semaphore(0)

    def members(self) -> list[str]:
        """None to connect to."""
        self.looked.release()
        return []


def seen(leader: str | None, serving: str | None) -> tuple[Elsewhere | None, tuple[str, ...]]:
    """What one look finds, and warns of."""
    nodes = Told(leader)
    slots = StandbySlots(cast("Any", nodes), slot="dr_ledger", system_id="7700", timeline=3, interval_s=0.01)
    slots.start(lambda: 0, lambda: serving)
    for _ in range(2):
        assert nodes.looked.acquire(timeout=180)
    slots.stop()
    assert slots.error is None
    return slots.take_elsewhere(), slots.warnings


def test_a_leader_that_is_another_server_is_gone_to_though_we_cannot_reach_it() -> None:
    """Then ours was cut off. No newer timeline is asked for: Patroni's word may come before the promotion's end."""
    found, warnings = seen(THEIRS, OURS)
    assert found is not None
    assert found.timeline == 3
    assert warnings == (found.why,)
    assert "127.0.0.1:2" in found.why


@pytest.mark.parametrize(("leader", "serving"), [(OURS, OURS), (None, OURS), (THEIRS, None)])
def test_without_another_leader_or_a_stream_nothing_is_left(leader: str | None, serving: str | None) -> None:
    """Ours leads, nobody is named, or the stream is away and looks for the leader by itself."""
    assert seen(leader, serving) == (None, ())
