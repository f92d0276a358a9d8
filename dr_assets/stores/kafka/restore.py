"""Restoring topics from an export into a cluster: the phases, in order, with their times.

What belongs here: that order, the threads, what is handed out and left behind. What stays out: each phase's own work:
restore_plan.py, restore_topics.py, restore_write.py, groups.py.

Topics are made for loading, their records written, groups' positions committed behind them, and the topics' real
configuration comes last: until then no record can be deleted or compacted. A restore that was killed is gone on with
by running it again with the same state file: what the target holds is not written twice.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.kafka.groups import GroupPlan, commit_positions, translated
from dr_assets.stores.kafka.lanes import Lanes, settled_ends
from dr_assets.stores.kafka.offset_map import OffsetMap, maps_to_json
from dr_assets.stores.kafka.produce import Write
from dr_assets.stores.kafka.produce_txn import init_producer
from dr_assets.stores.kafka.restore_plan import RestorePlan
from dr_assets.stores.kafka.restore_source import Where
from dr_assets.stores.kafka.restore_state import RestoreState
from dr_assets.stores.kafka.restore_topics import make_for_loading, set_for_loading, set_real_configs, topic_id
from dr_assets.stores.kafka.restore_write import Goal, PartitionWriter
from dr_assets.stores.kafka.wire import Cluster, Place
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.vault.format.canonical import Json

_THREADS: Final = 6
# Slices that wait for one thread: each is at most a pack's part of one partition.
_WAITING: Final = 2
_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """How far a phase is, in bytes of the export; `total_bytes` is None where nobody can tell."""

    phase: str
    done_bytes: int
    total_bytes: int | None


@dataclass(slots=True)
class Restored:
    """What a restore has left in the target. `maps` by topic and partition of the target."""

    plan: RestorePlan
    maps: dict[Place, OffsetMap]
    groups: tuple[GroupPlan, ...]
    size_bytes: int
    phases_s: dict[str, float]
    notes: list[str] = field(default_factory=list)

    @property
    def is_identical(self) -> bool:
        """Whether every record has the offset that it had."""
        return all(found.is_identical for found in self.maps.values())

    @property
    def duration_s(self) -> float:
        """All phases together."""
        return sum(self.phases_s.values())

    @property
    def mb_s(self) -> float:
        """Bytes of batches that were written, over the phase that wrote them, in units of 10^6 bytes."""
        return self.size_bytes / max(self.phases_s.get("records", 0.0), 1e-9) / 1e6

    def to_json(self) -> dict[str, Json]:
        """The evidence of this restore, its offset maps included; holds no record."""
        return {
            "plan": self.plan.to_json(),
            "identical": self.is_identical,
            "maps": maps_to_json((topic, index, found) for (topic, index), found in sorted(self.maps.items())),
            "groups": [
                {
                    "group": each.group,
                    "positions": [[*place, commit.offset] for place, commit in sorted(each.positions.items())],
                    "left_out": [list(place) for place in each.left_out],
                }
                for each in self.groups
            ],
            "size_bytes": self.size_bytes,
            "phases_ms": {phase: round(took_s * 1000) for phase, took_s in self.phases_s.items()},
            "notes": list(self.notes),
        }


class Throttle:
    """So many bytes a second, over all threads; None: as many as go."""

    def __init__(self, bytes_s: float | None) -> None:
        self._bytes_s = bytes_s
        self._mutex = threading.Lock()
        self._free_at_s = 0.0

    def wait(self, size_bytes: int) -> None:
        """Return when `size_bytes` may be written."""
        if not self._bytes_s:
            return
        with self._mutex:
            now_s = time.monotonic()
            begin_s = max(now_s, self._free_at_s)
            self._free_at_s = begin_s + size_bytes / self._bytes_s
        if begin_s > now_s:
            time.sleep(begin_s - now_s)


def restore(
    plan: RestorePlan,
    cluster: Cluster,
    state: Path,
    *,
    throttle_bytes_s: float | None = None,
    progress: Callable[[RestoreProgress], None] | None = None,
    check: Callable[[Restored], None] | None = None,
) -> Restored:
    """Carry out `plan`. `state` is a file that this restore can be gone on with; it stays behind, finished.

    `check` looks at the result while the target still deletes and compacts nothing; when it raises, that stays so.
    Raises PolicyError (`kafka.restore_state`, `kafka.restore_recreated`, `kafka.group_in_use`), SourceError for what
    the target refuses or loses, VaultError for what is missing or damaged in the export. After any of them, or a kill,
    the same call goes on.
    """
    keep_freed_memory()
    begun = RestoreState.load(state)
    if begun is None:
        begun = RestoreState.of(state, plan)
        begun.save()
    begun.require_same(plan)
    return _Restore(plan, cluster, begun, Throttle(throttle_bytes_s), progress).run(check)


class _Restore:
    """One restore under way."""

    def __init__(
        self,
        plan: RestorePlan,
        cluster: Cluster,
        state: RestoreState,
        throttle: Throttle,
        progress: Callable[[RestoreProgress], None] | None,
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._state = state
        self._throttle = throttle
        self._progress = progress
        self._phases_s: dict[str, float] = {}
        self._is_gone_on_with = state.phase != "begun"

    def run(self, check: Callable[[Restored], None] | None) -> Restored:
        """Every phase, one line each."""
        with self._phase("topics"):
            ids = self._make_topics()
        with self._phase("records"):
            maps, size_bytes = self._write_records(ids)
        with self._phase("groups"):
            groups = self._commit_groups(maps)
        notes = [*self._plan.notes, *_left_out(groups)]
        restored = Restored(self._plan, maps, groups, size_bytes, self._phases_s, notes)
        if check is not None:
            with self._phase("check"):
                check(restored)
        with self._phase("configs"):
            restored.notes += self._set_configs()
        self._state.advance("finished")
        return restored

    def _make_topics(self) -> dict[str, str]:
        ids: dict[str, str] = {}
        for topic in self._plan.topics:
            if topic.exists:
                set_for_loading(self._cluster, topic.target)
                ids[topic.target] = topic_id(self._cluster, topic.target)
            else:
                count = len(topic.source.partitions)
                ids[topic.target] = make_for_loading(
                    self._cluster, topic.target, count, topic.replication, topic.source.configs
                )
        self._state.require_ids(ids)
        self._state.ids = ids
        self._state.advance("records")
        return ids

    def _write_records(self, ids: Mapping[str, str]) -> tuple[dict[Place, OffsetMap], int]:
        goals = dict(self._plan.goals(ids))
        if self._is_gone_on_with:
            settled_ends(self._cluster, [goal.place for goal in goals.values()])
        crew = _Crew(self._cluster, goals, self._throttle, self._tell)
        done_bytes = crew.run(self._plan.source.slices(self._plan.wanted))
        return crew.maps, done_bytes

    def _commit_groups(self, maps: Mapping[Place, OffsetMap]) -> tuple[GroupPlan, ...]:
        wanted = self._plan.options.groups
        plans = tuple(
            translated(group, commits, self._plan.names, maps)
            for group, commits in sorted(self._plan.source.groups.items())
            if wanted is None or group in wanted
        )
        missing = sorted(set(wanted or ()) - set(self._plan.source.groups))
        if missing:
            raise PolicyError(
                "kafka.restore_unknown_group",
                f"the export holds no group {', '.join(missing)}",
                f"it holds {', '.join(sorted(self._plan.source.groups)) or 'none'}",
            )
        for each in plans:
            if each.positions:
                commit_positions(self._cluster, each.group, each.positions)
        return plans

    def _set_configs(self) -> list[str]:
        notes = []
        for topic in self._plan.topics:
            configs = dict(topic.source.configs)
            if int(configs.get("min.insync.replicas", 0)) > topic.replication:
                # Nobody could write to it otherwise.
                configs["min.insync.replicas"] = str(topic.replication)
                notes.append(f"topic {topic.target}: min.insync.replicas is {topic.replication}, as many as there are")
            unknown = set_real_configs(self._cluster, topic.target, configs, held=self._plan.options.held)
            notes += [f"topic {topic.target}: the target does not know the setting {name}" for name in unknown]
        return notes

    def _tell(self, done_bytes: int) -> None:
        if self._progress is not None:
            self._progress(RestoreProgress("records", done_bytes, self._plan.size_bytes or None))

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begin_s = time.monotonic()
        if self._progress is not None:
            self._progress(RestoreProgress(name, 0, None))
        yield
        self._phases_s[name] = time.monotonic() - begin_s


class _Crew:
    """Threads that write, each its own partitions, while one reads the export once for all."""

    def __init__(
        self, cluster: Cluster, goals: Mapping[Where, Goal], throttle: Throttle, tell: Callable[[int], None]
    ) -> None:
        self._cluster = cluster
        self._goals = goals
        self._throttle = throttle
        self._tell = tell
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._mutex = threading.Lock()
        self._done_bytes = 0
        self.maps: dict[Place, OffsetMap] = {}

    def run(self, slices: Iterator[tuple[str, int, memoryview]]) -> int:
        """Write everything; the bytes that were read. Raises what the first thread that failed has raised."""
        count = max(1, min(_THREADS, len(self._goals)))
        order = {where: index % count for index, where in enumerate(sorted(self._goals))}
        queues: list[Queue[tuple[Where, memoryview] | None]] = [Queue(_WAITING) for _ in range(count)]
        threads = [
            threading.Thread(
                target=self._work,
                args=(queues[index], [where for where in order if order[where] == index]),
                name=f"restore-{index}",
                daemon=True,
            )
            for index in range(count)
        ]
        for thread in threads:
            thread.start()
        read_bytes = 0
        try:
            for where_id, partition, data in slices:
                where = (where_id, partition)
                read_bytes += len(data)
                if not self._put(queues[order[where]], (where, data)):
                    break
            for queue in queues:
                self._put(queue, None)
        except BaseException:
            self._stop.set()
            raise
        finally:
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]
        return read_bytes

    def _put(self, queue: "Queue[tuple[Where, memoryview] | None]", item: tuple[Where, memoryview] | None) -> bool:
        while not self._stop.is_set():
            try:
                queue.put(item, timeout=_POLL_S)
            except Full:
                continue
            return True
        return False

    def _work(self, queue: "Queue[tuple[Where, memoryview] | None]", own: list[Where]) -> None:
        lanes = Lanes(self._cluster, self._written)
        try:
            filler, _epoch = init_producer(self._cluster, None)
            writers = {where: PartitionWriter(self._goals[where], self._cluster, lanes, filler) for where in own}
            while not self._stop.is_set():
                try:
                    item = queue.get(timeout=_POLL_S)
                except Empty:
                    continue
                if item is None:
                    self._finish(writers)
                    return
                where, data = item
                self._throttle.wait(len(data))
                writers[where].feed(data)
        except BaseException as error:  # noqa: BLE001 - it is raised by `run`, in the caller's thread
            self._errors.append(error)
            self._stop.set()
        finally:
            lanes.close()

    def _finish(self, writers: Mapping[Where, PartitionWriter]) -> None:
        for where, writer in writers.items():
            writer.finish()
            with self._mutex:
                self.maps[self._goals[where].place] = writer.map

    def _written(self, write: Write) -> None:
        with self._mutex:
            self._done_bytes += write.size_bytes
            done_bytes = self._done_bytes
        self._tell(done_bytes)


def _left_out(groups: tuple[GroupPlan, ...]) -> list[str]:
    return [
        f"group {each.group}: positions of {len(each.left_out)} partitions that are not restored were left out"
        for each in groups
        if each.left_out
    ]
