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
    Stored,
    acknowledged_events,
    committed_places,
    consume_some,
    stored_events,
)
from dr_assets.demo.documents_story import FORGOTTEN
from dr_assets.demo.embedded import EmbeddedEstate
from dr_assets.engines.kafka.find import find_broker
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.model import TopicsDataset
from dr_assets.proving.erasures import topic_eraser
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
    """What came back of the topics, held to the casino's own record of what the broker had acknowledged.

    `erased` records are of the player who was forgotten, and say nothing any more.
    """

    broker: str
    acknowledged: int
    lost: int
    records: int
    erased: int
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
    estate: EmbeddedEstate, vault: Vault, dataset: TopicsDataset, folder: Path, committed: dict[Place, int],
    show: Callable[[str], None],
) -> EventsBack:  # fmt: skip
    """Restore into a new broker from the vault alone, and compare it with the record of what was acknowledged."""
    begin_s = time.monotonic()
    server = find_broker(resolve=False).server(folder / "broker", name="game-events-restored")
    with server:
        show("start a broker")
        server.start()
        with Cluster.connect(server.bootstrap, Security()) as cluster:
            eraser = topic_eraser(estate.estate, dataset, vault, estate.env)
            source = export_source(vault, dataset.name, eraser=eraser)
            plan = plan_restore(source, cluster, Options(), ends=source.ends)
            show("restore")
            restored = restore(plan, cluster, folder / "restore.state")
        duration_s = time.monotonic() - begin_s
        show("compare")
        stored = stored_events(server.bootstrap)
        promised = acknowledged_events(estate.ack_dir)
        lost, kept_places = compared(promised, stored, FORGOTTEN)
        return EventsBack(
            broker=server.describe(),
            acknowledged=len(promised),
            lost=lost,
            records=len(stored),
            erased=sum(each.player_id == FORGOTTEN for each in stored),
            offsets_identical=kept_places and restored.is_identical,
            groups_identical=bool(committed) and committed_places(server.bootstrap) == committed,
            recovery_point_at=source.export.recovery_point_at,
            duration_s=duration_s,
        )


def compared(promised: list[Published], stored: list[Stored], forgotten: int) -> tuple[int, bool]:
    """How many acknowledged events are gone, and whether each that is there lies where the broker had said.

    What is gone may only be the end of its partition: a hole before something that came back is a moved offset. Who was
    forgotten has records in their places, which say nothing.
    """
    by_place = {(each.event.topic, each.event.partition, each.event.offset): each for each in stored}
    ends: dict[Place, int] = {}
    for topic, partition, offset in by_place:
        ends[(topic, partition)] = max(ends.get((topic, partition), 0), offset + 1)
    lost = 0
    in_place = bool(promised) and not any(each.says for each in stored if each.player_id == forgotten)
    for each in promised:
        found = by_place.get((each.topic, each.partition, each.offset))
        if found is None:
            is_end = each.offset >= ends.get((each.topic, each.partition), 0)
            lost, in_place = lost + is_end, in_place and is_end
        elif found.player_id != forgotten:
            in_place = in_place and found.event.idempotency_key == each.idempotency_key
    return lost, in_place


def _stored_places(vault: Vault, dataset: TopicsDataset) -> dict[Place, int]:
    group = open_export(vault, dataset.name).groups.get(GROUP, {})
    return {place: found.offset for place, found in group.items()}
