"""What the Kafka capture's tests are put together from: a dataset, a vault, a capture in a thread, producers."""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Producer

from dr_assets.estate.model import TIERS, Drill, KafkaRestoreTest, Location, Retention, TopicsDataset
from dr_assets.stores.kafka.capture import KafkaCapture, KafkaCaptureOptions, KafkaCaptureReport
from dr_assets.stores.kafka.export import open_export
from dr_assets.stores.kafka.fetching import Want, fetch
from dr_assets.stores.kafka.line import PLAINTEXT, Security
from dr_assets.stores.kafka.pack import OpenedPack, open_pack
from dr_assets.stores.kafka.surveyed import surveyed
from dr_assets.stores.kafka.wire import EARLIEST, LATEST, Cluster
from dr_assets.vault.format.keys import PACKS
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.keys.life.choice import follow_facts
from dr_assets.vault.keys.provider_set import Providers
from dr_assets.vault.keys.ring import KeyRing
from dr_assets.vault.retention import LockRules
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.vault import Vault

__all__ = ["open_export"]

SEED = b"kafka-tests-signing-seed-32bytes"
# Generous: a loaded machine of two cores is slow.
WAIT_S = 180.0


def make_dataset(topics: Sequence[str] = ("*",), *, linger_ms: int = 100, name: str = "events", **changes: Any) -> Any:
    """A declared dataset."""
    fields: dict[str, Any] = {
        "name": name,
        "tier": TIERS["game_events"] if "game_events" in TIERS else next(iter(TIERS.values())),
        "bootstrap_env": "EVENTS_BOOTSTRAP",
        "topics": tuple(topics),
        "rpo": timedelta(minutes=2),
        "rto": timedelta(minutes=30),
        "retention": Retention(lock="governance", days=14, lock_days=14),
        "location": Location("ovh", "gra", "MT"),
        "vault": "primary",
        "replicas": (),
        "restore_test": KafkaRestoreTest("0 3 * * *"),
        "drill": Drill("0 4 1 * *", timedelta(days=35)),
        "owners": ("team:platform",),
        "exception": None,
        "linger": timedelta(milliseconds=linger_ms),
        "source": Path("defs.yaml"),
        "line": 1,
        **changes,
    }
    return TopicsDataset(**fields)


def make_vault(store: ObjectStore, keys_dir: Path, dataset: TopicsDataset) -> Vault:
    """A vault over `store`; the folder's key is made at first use, so that two processes can open the same vault."""
    if not any(keys_dir.glob("kek-*.hex")):
        FileKeyProvider.create(keys_dir)
    signer = Signer.from_seed(SEED)
    parts: dict[str, Any] = {
        "store": store,
        "estate": "casino",
        "trust": Trust.of(signer),
        "signer": signer,
        "locks": LockRules({dataset.name: (dataset.retention, dataset.base_every)}),
        "clock": lambda: datetime.now(UTC),
    }
    return follow_facts(
        Vault(name="primary", keys=KeyRing(providers=Providers.of(FileKeyProvider(keys_dir)), **parts), **parts)
    )


@dataclass
class Place:
    """Everything a child process needs to open the same vault and dataset."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    keys_dir: Path
    topics: tuple[str, ...]
    linger_ms: int = 100
    options: dict[str, Any] = field(default_factory=dict)

    def vault(self, **client: Any) -> Vault:
        """The vault, with the SDK's retries as given."""
        s3 = make_client(self.endpoint, self.access_key, self.secret_key, **client)
        return make_vault(S3Store(s3, self.bucket), self.keys_dir, self.dataset())

    def dataset(self) -> TopicsDataset:
        """The dataset."""
        made: TopicsDataset = make_dataset(self.topics, linger_ms=self.linger_ms)
        return made

    def to_json(self, bootstrap: str, status: Path) -> str:
        """What capture_child.py reads from its standard input."""
        return json.dumps({**vars(self), "keys_dir": str(self.keys_dir), "bootstrap": bootstrap, "status": str(status)})


class CaptureThread:
    """A capture that runs beside the test; leaving the context stops it and raises what it raised."""

    def __init__(
        self, vault: Vault, dataset: TopicsDataset, bootstrap: str, *, security: Security = PLAINTEXT,
        registry: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.vault, self.dataset = vault, dataset
        self.reports: list[KafkaCaptureReport] = []
        self.stop_event = threading.Event()
        self.error: BaseException | None = None
        options = {"report_every_s": 0.05, "heartbeat_every_s": 0.5, "survey_every_s": 0.3, **options}
        self.cluster = Cluster.connect(bootstrap, security, patience_s=WAIT_S)
        self.capture = KafkaCapture(
            vault, dataset, self.cluster, registry=registry, listener=self.reports.append,
            options=KafkaCaptureOptions(**options),
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.capture.run(self.stop_event)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error

    @property
    def report(self) -> KafkaCaptureReport | None:
        """The newest report."""
        return self.reports[-1] if self.reports else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        if self.error is not None and kind is None:
            raise self.error

    def stop(self) -> None:
        """Ask it to end and wait for that."""
        self.stop_event.set()
        self._thread.join(WAIT_S)
        self.cluster.close()
        assert not self._thread.is_alive(), "the capture does not end"

    def wait(self, condition: Callable[[KafkaCaptureReport], bool], what: str) -> KafkaCaptureReport:
        """The first report from now on that fulfils the condition."""
        deadline_s, seen = time.monotonic() + WAIT_S, len(self.reports)
        while time.monotonic() < deadline_s:
            if self.error is not None:
                raise self.error
            for report in self.reports[seen:]:
                if condition(report):
                    return report
            time.sleep(0.02)
        raise AssertionError(f"{what}: {self.report}")

    def wait_stored(self) -> KafkaCaptureReport:
        """Everything that is in the topics now is stored."""
        now = datetime.now(UTC)
        return self.wait(
            lambda report: report.recovery_point_at is not None and report.recovery_point_at >= now, "never up to date"
        )

    def wait_surveyed(self, *groups: str) -> None:
        """The dataset's topics are on record, and that these groups have committed: both may come behind records."""
        self.wait(lambda _: self._is_surveyed(groups), f"no survey of {self.dataset.topics} and {groups}")

    def _is_surveyed(self, groups: Sequence[str]) -> bool:
        seen = surveyed(self.vault, self.dataset.name)
        topics = {topic.name for topic in seen.topics.values()}
        return set(self.dataset.topics) <= topics and set(groups) <= seen.groups.keys()


def produce(bootstrap: str, topic: str, values: Iterable[bytes | None], **config: Any) -> int:
    """Produce with acks=all, `partition` by option; returns how many were acknowledged."""
    partition = config.pop("partition", 0)
    key, timestamp = config.pop("key", None), config.pop("timestamp", 0)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5, **config})
    failed: list[object] = []
    count = 0
    for count, value in enumerate(values, start=1):  # noqa: B007 - counted
        producer.produce(
            topic, value=value, key=key, partition=partition, timestamp=timestamp,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )  # fmt: skip
        producer.poll(0)
    assert producer.flush(WAIT_S) == 0
    assert not failed, failed[:3]
    return count


def random_values(count: int, size_bytes: int = 300) -> list[bytes]:
    """Values that compress to about a half."""
    return [secrets.token_bytes(size_bytes // 2) + b"x" * (size_bytes - size_bytes // 2) for _ in range(count)]


def source_bytes(cluster: Cluster, topic: str, partition: int = 0) -> bytes:
    """All batches of a partition as the broker holds them."""
    found = cluster.metadata([topic]).topics[topic]
    offset = cluster.list_offsets([(topic, partition)], EARLIEST)[(topic, partition)]
    end = cluster.list_offsets([(topic, partition)], LATEST)[(topic, partition)]
    line = cluster.own_line(found.partitions[partition].leader)
    whole = bytearray()
    try:
        while offset < end:
            from dr_assets.stores.kafka.batches import split  # noqa: PLC0415 - only here

            [got] = fetch(
                line, [Want(topic, found.topic_id, partition, offset, max_bytes=1 << 20)], max_wait_ms=500,
                min_bytes=1, max_bytes=1 << 20,
            )  # fmt: skip
            for header, batch in split(got.records):
                if header.next_offset > offset:
                    whole += batch
                    offset = header.next_offset
    finally:
        line.close()
    return bytes(whole)


def packs(vault: Vault, dataset: str = "events") -> list[OpenedPack]:
    """Every pack that is there, opened, in the order of names."""
    return [open_pack(vault, obj) for obj in vault.objects(dataset, PACKS)]


def stored_bytes(vault: Vault, stream: tuple[str, int, int], dataset: str = "events") -> bytes:
    """All batches of a stream that are stored, as they were captured."""
    return b"".join(
        bytes(pack.batches(each)) for pack in packs(vault, dataset) for each in pack.index.slices
        if each.stream == stream
    )  # fmt: skip


def digest(data: bytes) -> str:
    """To compare long bytes by."""
    return hashlib.sha256(data).hexdigest()


def slices_of(vault: Vault, topic_id: str, partition: int = 0, dataset: str = "events") -> list[Any]:
    """The slices of a partition in the order of packs."""
    return [
        each for pack in packs(vault, dataset) for each in pack.index.slices
        if (each.topic_id, each.partition) == (topic_id, partition)
    ]  # fmt: skip


def config(bootstrap: str, **more: Any) -> Mapping[str, Any]:
    """A client's."""
    return {"bootstrap.servers": bootstrap, **more}
