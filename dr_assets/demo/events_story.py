"""The demo's chapter on topics: a consumer's place, and a cluster that comes back with the offsets it had.

What belongs here: the order of events, and comparing what came back with what the casino itself was promised. What
stays out: restoring (stores/kafka), the casino's clients (casino/events.py).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from dr_assets.casino.events import (
    GROUP,
    Place,
    Published,
    acknowledged_events,
    committed_places,
    consume_some,
    stored_events,
)
from dr_assets.engines.kafka.find import find_broker
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.model import TopicsDataset
from dr_assets.stores.kafka.export import open_export
from dr_assets.stores.kafka.line import Security
from dr_assets.stores.kafka.restore import restore
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.restore_plan import Options, plan_restore
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.vault import Vault

_READ_FIRST: Final = 200  # events, before the group's place is looked for in the vault
_KNOWN_S: Final = 120.0


@dataclass(frozen=True)
class EventsBack:
    """What came back of the topics, held to the casino's own record of what the broker had acknowledged."""

    broker: str
    acknowledged: int
    lost: int
    records: int
    offsets_identical: bool
    groups_identical: bool
    recovery_point_at: datetime | None
    duration_s: float


def commit_place(bootstrap: str, vault: Vault, dataset: TopicsDataset) -> dict[Place, int]:
    """Let the bonus engine read and commit, and wait until the vault knows its place; that place."""
    committed = consume_some(bootstrap, at_least=_READ_FIRST)
    wait_until(
        lambda: _stored_places(vault, dataset) == committed, timeout_s=_KNOWN_S, what="the group's place in the vault"
    )
    return committed


def bring_events_back(
    vault: Vault, dataset: TopicsDataset, folder: Path, ack_dir: Path, committed: dict[Place, int],
    show: Callable[[str], None],
) -> EventsBack:  # fmt: skip
    """Restore into a new broker from the vault alone, and compare it with the record of what was acknowledged."""
    begin_s = time.monotonic()
    server = find_broker(resolve=False).server(folder / "broker", name="game-events-restored")
    with server:
        show("start a broker")
        server.start()
        with Cluster.connect(server.bootstrap, Security()) as cluster:
            source = export_source(vault, dataset.name)
            plan = plan_restore(source, cluster, Options(), ends=source.ends)
            show("restore")
            restored = restore(plan, cluster, folder / "restore.state")
        duration_s = time.monotonic() - begin_s
        show("compare")
        stored = stored_events(server.bootstrap)
        promised = acknowledged_events(ack_dir)
        lost, kept_places = compared(promised, stored)
        return EventsBack(
            broker=server.describe(),
            acknowledged=len(promised),
            lost=lost,
            records=len(stored),
            offsets_identical=kept_places and restored.is_identical,
            groups_identical=bool(committed) and committed_places(server.bootstrap) == committed,
            recovery_point_at=source.export.recovery_point_at,
            duration_s=duration_s,
        )


def compared(promised: list[Published], stored: list[Published]) -> tuple[int, bool]:
    """How many acknowledged events are gone, and whether each that is there lies where the broker had said.

    What is gone may only be the end of its partition: a hole before something that came back is a moved offset.
    """
    by_place = {(each.topic, each.partition, each.offset): each.idempotency_key for each in stored}
    ends: dict[Place, int] = {}
    for each in stored:
        place = (each.topic, each.partition)
        ends[place] = max(ends.get(place, 0), each.offset + 1)
    lost, in_place = 0, bool(promised)
    for each in promised:
        found = by_place.get((each.topic, each.partition, each.offset))
        if found is None and each.offset >= ends.get((each.topic, each.partition), 0):
            lost += 1
        elif found != each.idempotency_key:
            in_place = False
    return lost, in_place


def _stored_places(vault: Vault, dataset: TopicsDataset) -> dict[Place, int]:
    group = open_export(vault, dataset.name).groups.get(GROUP, {})
    return {place: found.offset for place, found in group.items()}
