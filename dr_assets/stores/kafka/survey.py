"""What continues a cluster beside its records, kept as versions over time: topics, groups' offsets, ACLs, schemas.

What belongs here: asking every few seconds, and sealing what changed. What stays out: asking itself (admin.py,
registry.py), reading it back (surveyed.py).

Each kind is a stream of facts. Groups change all the time, so most of their facts hold only what changed since the one
before; every now and then one holds everything.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.estate.model import TopicsDataset
from dr_assets.stores.kafka.admin import TopicConfigs, acls, group_names, group_offsets, topic_configs
from dr_assets.stores.kafka.owner import group_of
from dr_assets.stores.kafka.registry import Registry
from dr_assets.stores.kafka.wire import Cluster, Topic
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.vault import Vault

TOPICS: Final = "kafka_topics"
GROUPS: Final = "kafka_groups"
ACLS: Final = "kafka_acls"
SUBJECTS: Final = "kafka_subjects"
FULL_EVERY: Final = 64
_SLOW_EVERY_S: Final = 30.0


@dataclass(slots=True)
class _Sealed:
    """What was sealed last of each kind, so that only what changed is sealed again."""

    topics: Json = None
    groups: dict[str, Json] = field(default_factory=dict)
    groups_facts: int = 0
    acls: Json = None
    subjects: Json = None


class Survey:
    """Looks until it is stopped. What it can't see is told as trouble; the records are captured all the same."""

    def __init__(
        self, cluster: Cluster, vault: Vault, dataset: TopicsDataset, *, topics: Callable[[], Mapping[str, Topic]],
        registry: Registry | None, every_s: float,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._vault = vault
        self._dataset = dataset
        self._topics = topics
        self._registry = registry
        self._every_s = every_s
        self._own_group = group_of(vault.estate, dataset.name)
        self._sealed = _Sealed()
        self._configs: dict[str, TopicConfigs] = {}
        self._slow_due_s = 0.0
        self._stop = threading.Event()
        self._troubles: dict[str, str] = {}
        self.error: BaseException | None = None
        self.rounds = 0
        self._thread = threading.Thread(target=self._run, name=f"survey-{dataset.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def is_compacted(self, topic: str) -> bool:
        """Whether compaction takes records of this topic away, as far as it was looked at."""
        configs = self._configs.get(topic)
        return configs is not None and configs.is_compacted

    @property
    def trouble(self) -> str | None:
        """What could not be looked at or sealed, if anything."""
        return "; ".join(self._troubles.values()) or None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is not captured and perhaps should be: topics declared by name that the cluster does not show us."""
        if not self.rounds:
            return ()
        there = self._topics()
        return tuple(
            f"topic {name} is declared, and is not there or not shown to this user (Describe)"
            for name in self._dataset.topics
            if "*" not in name and name not in there and self._dataset.covers(name)
        )

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every_s if self.rounds else min(1.0, self._every_s)):
                self.look()
        except BaseException as error:  # noqa: BLE001 - a thread's bug must end the capture, so it crosses over
            self.error = error

    def look(self) -> None:
        """One round: groups each time, the rest less often, or when the topics are others than before."""
        now_s = time.monotonic()
        topics = dict(self._topics())
        if now_s >= self._slow_due_s or topics.keys() != self._configs.keys():
            self._slow_due_s = now_s + _SLOW_EVERY_S
            self._try("topics", lambda: self._look_at_topics(topics))
            self._try("access rules", self._look_at_acls)
            if self._registry is not None:
                self._try("schema registry", self._look_at_subjects)
        self._try("groups", self._look_at_groups)
        self.rounds += 1

    def _try(self, what: str, look: Callable[[], None]) -> None:
        try:
            look()
        except (SourceError, VaultError) as error:
            self._troubles[what] = f"{what}: {error.code}: {error.found}"
        else:
            self._troubles.pop(what, None)

    def _look_at_topics(self, topics: Mapping[str, Topic]) -> None:
        if not topics:
            return
        configs = topic_configs(self._cluster, topics)
        body: dict[str, Json] = {
            name: {
                "topic_id": topic.topic_id,
                "partitions": len(topic.partitions),
                "replication_factor": topic.replication_factor,
                "configs": dict(configs[name].own),
                "cleanup_policy": configs[name].policy,
            }
            for name, topic in topics.items()
            if name in configs
        }
        self._configs = configs
        if body != self._sealed.topics:
            self._record(TOPICS, {"topics": body})
            self._sealed.topics = body

    def _look_at_acls(self) -> None:
        rules = acls(self._cluster)
        body: Json = None if rules is None else [asdict(rule) for rule in rules]
        if body is not None and body != self._sealed.acls:
            self._record(ACLS, {"acls": body})
            self._sealed.acls = body

    def _look_at_subjects(self) -> None:
        assert self._registry is not None  # noqa: S101 - for the type checker
        subjects: list[Json] = list(self._registry.subjects())
        compatibility = self._registry.compatibility()
        body: Json = {"subjects": subjects, "compatibility": compatibility}
        if body != self._sealed.subjects:
            self._record(SUBJECTS, {"subjects": subjects, "compatibility": compatibility})
            self._sealed.subjects = body

    def _look_at_groups(self) -> None:
        names = [
            name for name in group_names(self._cluster)
            if self._dataset.covers_group(name) and name != self._own_group
        ]  # fmt: skip
        found = {name: self._offsets(offsets) for name, offsets in group_offsets(self._cluster, names).items()}
        groups = {name: offsets for name, offsets in found.items() if offsets}
        known = self._sealed.groups
        is_full = self._sealed.groups_facts % FULL_EVERY == 0
        changed = {name: offsets for name, offsets in groups.items() if known.get(name) != offsets}
        removed: list[Json] = [*sorted(known.keys() - groups.keys())]
        if not changed and not removed and not (self._sealed.groups_facts == 0 and groups):
            return
        if is_full:
            self._record(GROUPS, {"full": True, "groups": dict(groups), "removed": []})
        else:
            self._record(GROUPS, {"full": False, "groups": dict(changed), "removed": removed})
        self._sealed.groups = dict(groups)
        self._sealed.groups_facts += 1

    def _offsets(self, offsets: Mapping[tuple[str, int], object]) -> dict[str, Json]:
        """By topic and partition: offset, metadata, leader epoch. Of topics that are captured."""
        body: dict[str, dict[str, Json]] = {}
        for (topic, partition), committed in sorted(offsets.items()):
            if self._dataset.covers(topic):
                body.setdefault(topic, {})[str(partition)] = list(asdict(committed).values())  # type: ignore[call-overload]
        return dict(body)

    def _record(self, kind: str, body: Mapping[str, Json]) -> None:
        record_fact(self._vault, self._dataset.name, kind, body)
