"""What it costs to let a partition begin where the old one began: pads and DeleteRecords, up to a billion offsets.

What belongs here: that measurement. What stays out: how pads are made (stores/kafka/restore_pads.py).
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.kafka.pieces import Bench
from dr_assets.stores.kafka.restore import restore
from dr_assets.stores.kafka.restore_plan import Options, plan_restore
from dr_assets.stores.kafka.restore_source import Commit, SourceGap, SourcePartition, SourceTopic, Where
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.format.canonical import Json

_OFFSETS: Final = 100_000_000
_BILLION: Final = 1_000_000_000


@dataclass(frozen=True)
class Emptied:
    """The source of a restore: one partition that ends where it begins, far from zero; no record is stored of it."""

    topics: Mapping[str, SourceTopic]
    dataset: str = "events"
    cluster_id: str = "bench"
    as_of: datetime | None = None
    pinned: None = None
    groups: Mapping[str, Mapping[tuple[str, int], Commit]] = field(default_factory=dict)
    gaps: tuple[SourceGap, ...] = ()
    acls: tuple[Mapping[str, Json], ...] = ()
    subjects: tuple[Mapping[str, Json], ...] = ()
    notes: tuple[str, ...] = ()

    def slices(self, wanted: Mapping[Where, tuple[int, int]]) -> Iterator[tuple[str, int, memoryview]]:
        """Nothing."""
        del wanted
        return iter(())


def pads(bench: Bench) -> None:
    """A hundred million offsets padded and deleted, by runs; the cost of a billion is ten times that."""
    wall, broker = [], []
    for number in range(bench.runs):
        name = f"padded-{number}"
        topic = SourceTopic(name, f"{number:032x}", {0: SourcePartition(_OFFSETS, _OFFSETS, records=0)}, 1)
        before_s, begin_s = bench.rig.broker_cpu_s(), time.monotonic()
        with Cluster.connect(bench.rig.broker.bootstrap) as cluster, tempfile.TemporaryDirectory() as folder:
            plan = plan_restore(Emptied({name: topic}), cluster, Options())
            done = restore(plan, cluster, Path(folder) / "state.json")
        wall.append((time.monotonic() - begin_s) * _BILLION / _OFFSETS)
        broker.append((bench.rig.broker_cpu_s() - before_s) * _BILLION / _OFFSETS)
        if not done.is_identical:
            raise SystemExit("the partition does not begin where it should")
    note = f"measured with {_OFFSETS:,} offsets in one partition"
    bench.add("offsets padded in front: a billion", "s", wall, note=note)
    bench.add("offsets padded in front: a billion, the broker's processor time", "s", broker, note=note)
