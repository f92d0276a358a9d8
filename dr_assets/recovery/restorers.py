"""One dataset of an estate's restore, of whatever kind: what it would do, and doing it, by its own store's restore.

What belongs here: bringing plan, target, erasures and the look at the result together. What stays out: the order of
datasets, what becomes of a failure, the record (estate_restore.py).
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow.parquet as pq

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.estate.model import BucketDataset, Dataset, DatasetKind, Estate, Level, PostgresDataset, TopicsDataset
from dr_assets.proving.erasures import Bringing, erasures_for, replayed_body, topic_eraser
from dr_assets.reconciliation.run import reconcile
from dr_assets.reconciliation.streams.gather import gather_cluster
from dr_assets.reconciliation.streams.rules import StreamRules
from dr_assets.recovery.sides import documents_relation, ledger_relations
from dr_assets.stores.bucket.plan import Wanted
from dr_assets.stores.bucket.plan import plan_restore as plan_bucket
from dr_assets.stores.bucket.restore import restore as restore_bucket
from dr_assets.stores.bucket.site import Site, open_site
from dr_assets.stores.bucket.source import Place
from dr_assets.stores.bucket.target import Target as BucketTarget
from dr_assets.stores.bucket.target import Throttle
from dr_assets.stores.kafka.access import connect_target
from dr_assets.stores.kafka.compare import Comparison, compare
from dr_assets.stores.kafka.restore import Restored as RestoredTopics
from dr_assets.stores.kafka.restore import restore as restore_topics
from dr_assets.stores.kafka.restore_export import ExportSource, export_source
from dr_assets.stores.kafka.restore_plan import Cut, Options
from dr_assets.stores.kafka.restore_plan import RestorePlan as TopicsPlan
from dr_assets.stores.kafka.restore_plan import plan_restore as plan_topics
from dr_assets.stores.kafka.restore_state import RestoreState
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.plan import plan_restore as plan_ledger
from dr_assets.stores.postgres.restore import restore as restore_ledger
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.retention.thawing import require_thawed
from dr_assets.vault.subjects.gather import gather
from dr_assets.vault.vault import Vault

PATIENCE_S: Final = 180.0  # brokers that restart are waited for: this is run when things are bad


@dataclass(frozen=True, slots=True)
class Targets:
    """Where to: databases below `into`, topics of each dataset to a cluster's addresses, buckets to places.

    `plaintext`: clusters are spoken to with neither TLS nor SASL, because a person says so.
    """

    into: Path
    topics: Mapping[str, str] = field(default_factory=dict)
    buckets: Mapping[str, Place] = field(default_factory=dict)
    plaintext: bool = False


@dataclass(frozen=True, slots=True)
class Ground:
    """What every dataset's restore takes: the estate, the environment's values, targets, how erasures are come by."""

    estate: Estate
    env: Mapping[str, str]
    targets: Targets
    bringing: Bringing = field(default_factory=Bringing)
    level: Level = "standard"

    def side(self, dataset: str) -> Path:
        """The folder for what is kept beside a restored dataset: states, relations."""
        return self.targets.into / "beside" / dataset


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """What one dataset's restore would do. `expected_s` is what its newest restore test took, None before the first."""

    dataset: str
    kind: DatasetKind
    at: datetime
    into: str
    what: str
    fetch_bytes: int
    expected_s: float | None
    notes: tuple[str, ...] = ()


class Restorer(ABC):
    """One dataset. `plan` touches nothing; `restore` brings it back or raises, and may be called again."""

    kind: ClassVar[DatasetKind]

    def __init__(self, vault: Vault, dataset: Any, at: datetime, ground: Ground) -> None:
        self._vault = vault
        self._dataset = dataset
        self._at = at
        self._ground = ground

    @abstractmethod
    def plan(self) -> DatasetPlan:
        """What it would do. Raises what its store's planning raises."""

    @abstractmethod
    def restore(self) -> dict[str, Any]:
        """Do it; what is measured of it, without any person's data."""

    def look_again(self) -> None:  # noqa: B027 - only topics are changed by others before traffic comes
        """Of a dataset that is whole: lay aside anew what orphans are told by, where others may have changed it."""

    def _planned(self, into: str, what: str, fetch_bytes: int, notes: tuple[str, ...]) -> DatasetPlan:
        tested = latest_fact(self._vault, self._dataset.name, "restore_test")
        took = (
            None if tested is None or tested.body.get("outcome") != "passed" else tested.body.get("recovery_duration_s")
        )
        return DatasetPlan(
            self._dataset.name, self.kind, self._at, into, what, fetch_bytes, _seconds(took), notes,
        )  # fmt: skip


class LedgerRestorer(Restorer):
    """A database: restored, checked, reconciled and left stopped, in a folder of its name."""

    kind = "postgres"

    @property
    def _into(self) -> Path:
        return self._ground.targets.into / str(self._dataset.name)

    def plan(self) -> DatasetPlan:
        """As the database's own planning."""
        plan = plan_ledger(self._vault, self._dataset.name, Target("time", at=self._at))
        require_thawed(plan.cold, self._dataset.cold.thaw if self._dataset.cold else "Standard")
        what = f"base backup {plan.base.snapshot_id}, {plan.wal_bytes / 1e6:.1f} MB of WAL"
        return self._planned(str(self._into), what, plan.fetch_bytes, plan.notes)

    def restore(self) -> dict[str, Any]:
        """Restored, reconciled by its contract; what orphans are told by is laid aside while the server runs."""
        dataset, ground = self._dataset, self._ground
        erasures = erasures_for(ground.estate, dataset, self._vault, ground.env, ground.bringing)
        plan = plan_ledger(self._vault, dataset.name, Target("time", at=self._at))
        with restore_ledger(
            plan, self._vault, self._into, level=ground.level, keep_cluster=True, erasures=erasures, env=ground.env
        ) as restored:
            books = reconcile(restored.reader_dsn(), dataset.restore_test.contract)
            beside = ground.side(dataset.name)
            beside.mkdir(mode=0o700, parents=True, exist_ok=True)
            ledger_relations(restored.reader_dsn(), dataset.restore_test.contract, beside)
        return {
            "data_dir": str(self._into / "data"),
            "replayed_lsn": format_lsn(restored.replayed_lsn),
            "timeline": restored.timeline,
            "last_commit_at": restored.last_commit_at,
            "recovered_at": restored.recovered_at,
            "size_bytes": restored.size_bytes,
            "reconciliation": {"ok": books.ok, "breaks_total": books.breaks_total, "contract": books.contract},
            "erased": 0 if restored.erased is None else restored.erased.found,
            "erasures_replayed": replayed_body(restored, purpose="estate restore"),
            "notes": list(restored.notes),
        }


class TopicsRestorer(Restorer):
    """Topics: restored into a cluster with the offsets they had, and compared record by record."""

    kind = "kafka"

    @property
    def _state(self) -> Path:
        return self._ground.side(self._dataset.name) / "restore.json"

    def plan(self) -> DatasetPlan:
        """As the topics' own planning; reads the target's metadata."""
        with self._cluster() as cluster:
            plan = self._plan(self._source(), cluster)
        what = f"{len(plan.topics)} topics, {plan.offsets} offsets"
        notes = (*plan.notes, *(f"lost before it was captured: {gap.topic}/{gap.partition}" for gap in plan.gaps))
        return self._planned(self._into, what, plan.size_bytes, notes)

    def restore(self) -> dict[str, Any]:
        """Restored, compared; a difference keeps the topics as they are for loading, and is raised."""
        self._state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found: list[Comparison] = []
        with self._cluster() as cluster:
            source = self._source()
            plan = self._plan(source, cluster)

            def check(done: RestoredTopics) -> None:
                found.append(_compared(source, cluster, plan, done))

            restored = restore_topics(plan, cluster, self._state, check=check)
            self._lay_aside(cluster, sorted(plan.names.values()))
        eraser = source.eraser
        return {
            "cluster": self._into,
            "topics": len(plan.topics),
            "offsets": plan.offsets,
            "size_bytes": restored.size_bytes,
            "offsets_identical": int(restored.is_identical),
            "records": found[0].records,
            "group_positions": found[0].positions,
            "erased_records": 0 if eraser is None else eraser.blanked.records,
            "notes": list(restored.notes),
        }

    def look_again(self) -> None:
        """The outbox may have been replayed since."""
        with self._cluster() as cluster:
            self._lay_aside(cluster, sorted(self._source().topics))

    def _lay_aside(self, cluster: Cluster, topics: list[str]) -> None:
        folder = self._state.parent
        gathered = gather_cluster(cluster, folder, self._rules(), topics=topics)
        for relation in ("partitions", "group_offsets"):
            pq.write_table(getattr(gathered, relation), folder / f"{relation}.parquet")

    def _rules(self) -> StreamRules:
        """Where the databases that publish into these topics say that a record's idempotency key is."""
        said = [one.reconcile for one in self._ground.estate.postgres().values() if one.reconcile is not None]
        headers = [one.idempotency_header for one in said if one.topics == self._dataset.name]
        return StreamRules(header=headers[0]) if headers and headers[0] else StreamRules()

    @property
    def _into(self) -> str:
        return self._ground.targets.topics[self._dataset.name]

    def _cluster(self) -> Cluster:
        targets, env = self._ground.targets, self._ground.env
        return connect_target(self._dataset, self._into, env, plaintext=targets.plaintext, patience_s=PATIENCE_S)

    def _source(self) -> ExportSource:
        ground = self._ground
        eraser = topic_eraser(ground.estate, self._dataset, self._vault, ground.env, ground.bringing)
        begun = RestoreState.load(self._state)
        pinned = begun.pinned if begun else None
        return export_source(self._vault, self._dataset.name, Cut(at=self._at), eraser=eraser, pinned=pinned)

    def _plan(self, source: ExportSource, cluster: Cluster) -> TopicsPlan:
        begun = RestoreState.load(self._state)
        ends, ours = (begun.ends, begun.behind) if begun else (source.ends, None)
        return plan_topics(source, cluster, Options(), ends=ends, ours=ours)


def _compared(source: ExportSource, cluster: Cluster, plan: TopicsPlan, done: RestoredTopics) -> Comparison:
    ends = {(topic.source.name, each.partition): each.end for topic in plan.topics for each in topic.partitions}
    found = compare(source, cluster, plan.names, ends=ends, maps=done.maps)
    if not found.is_equal:
        raise SourceError(
            "estate.topics_differ",
            f"{found.count} difference(s) from the vault: {'; '.join(map(str, found.differences[:3]))}",
            "nothing of the topics is deleted or compacted yet: see docs/kafka.md, then run the restore again",
        )
    return found


class BucketRestorer(Restorer):
    """A bucket's documents, into an empty bucket; the erased left out."""

    kind = "bucket"

    def plan(self) -> DatasetPlan:
        """As the bucket's own planning; looks whether the target is empty."""
        place, own = self._place, self._ground.side(self._dataset.name)
        with tempfile.TemporaryDirectory(prefix="plan-") as elsewhere:
            # What is chosen lies on disk: beside the others once a restore is begun, nowhere for a plan alone.
            site = self._site(own if own.is_dir() else Path(elsewhere))
            plan = plan_bucket(site, self._wanted, self._erasures(), target=self._told_by)
            with plan.picked:
                begun = plan.picked.meta("begun") == plan.identity
                tally = plan.picked_tally
        BucketTarget(place, Throttle(None)).require_ready("", all_versions=False, overwrite=begun)
        what = f"{tally.versions} documents, {tally.size_bytes / 1e6:.1f} MB"
        return self._planned(place.bucket, what, plan.fetch_bytes, plan.notes)

    def restore(self) -> dict[str, Any]:
        """Restored and counted by a listing of the target; what orphans are told by is laid aside."""
        place, beside = self._place, self._ground.side(self._dataset.name)
        beside.mkdir(mode=0o700, parents=True, exist_ok=True)
        site = self._site(beside)
        plan = plan_bucket(site, self._wanted, self._erasures(), target=self._told_by)
        with plan.picked:
            done = restore_bucket(plan, site, place, erasures_now=self._erasures)
        documents_relation(place, self._dataset, beside)
        return {
            "bucket": place.bucket,
            "run": str(plan.run.key),
            "documents": done.restored.versions,
            "size_bytes": done.restored.size_bytes,
            "erased_versions": done.erased.versions,
            "left_out": done.left_out,
            "resumed": int(plan.is_resumed),
            "notes": list(plan.notes),
        }

    @property
    def _place(self) -> Place:
        return self._ground.targets.buckets[self._dataset.name]

    @property
    def _told_by(self) -> str:
        return f"{self._place.endpoint}/{self._place.bucket}"

    @property
    def _wanted(self) -> Wanted:
        return Wanted(to=self._at)

    def _site(self, folder: Path) -> Site:
        ground = self._ground
        return open_site(ground.estate, self._dataset, self._vault, ground.env, folder, signing=False)

    def _erasures(self) -> Any:
        ground, way = self._ground, self._ground.bringing
        return gather(
            ground.estate, self._vault, ground.env, is_copy=way.is_copy, saved=way.saved, accept_copy=way.accept_copy
        )


def restorer_of(vault: Vault, dataset: Dataset, at: datetime, ground: Ground) -> Restorer:
    """The dataset's. Raises PolicyError `estate.no_target` where nobody said where to."""
    match dataset:
        case PostgresDataset():
            return LedgerRestorer(vault, dataset, at, ground)
        case TopicsDataset():
            _require_target(dataset, ground.targets.topics, "--topics-into HOST:PORT")
            return TopicsRestorer(vault, dataset, at, ground)
        case BucketDataset():
            _require_target(dataset, ground.targets.buckets, "--bucket-into BUCKET")
            return BucketRestorer(vault, dataset, at, ground)
        case _:
            raise TypeError(dataset.kind)


def _require_target(dataset: Dataset, targets: Mapping[str, object], option: str) -> None:
    if dataset.name not in targets:
        raise PolicyError(
            "estate.no_target",
            f"nobody said where {dataset.name} is to be restored to",
            f"add {option} ({dataset.name}=… where there are several), or leave it out with --only",
        )


def _seconds(value: object) -> float | None:
    """A duration as facts hold it: text, so that no reader makes another number of it."""
    try:
        return None if value is None else float(str(value))
    except ValueError:
        return None
