"""A capture that dies, or is refused, at each of its calls to the store: the next one goes on, no hole, no repeat."""

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.capture import KafkaCapture, KafkaCaptureOptions, KafkaCaptureReport
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.stores.sealing import putters
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.store.faulty_store import Call, Fault
from dr_assets_tests.faults.store.sweep import assert_all_held, sweep

# What a capture that was cut short may leave, each named: packs that lead nowhere, a fact after the inventory.
UNFINISHED = {"orphan", "fork", "unvouched", "changed"}
OPTIONS = KafkaCaptureOptions(
    report_every_s=0.0, heartbeat_every_s=3600, position_fact_every_s=3600, survey_every_s=3600, give_up_s=2,
    stop_within_s=10, session_s=6.0,
)  # fmt: skip
RUN_S = 180.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put is tried again at once."""
    monkeypatch.setattr(putters, "_BACKOFF_BEGIN_S", 0.01)


class CaptureCase:
    """A vault in memory and a dataset of its own: each case is another owner's group."""

    def __init__(self, rig: ModuleType, keys: Path, bootstrap: str, topic: str, records: int) -> None:
        self._rig, self._keys, self._bootstrap = rig, keys, bootstrap
        self._topic, self._records = topic, records
        self._dataset = rig.make_dataset([topic], name=f"events-{secrets.token_hex(4)}")
        self.store: ObjectStore = MemoryStore()

    def run(self, store: ObjectStore) -> None:
        """Until everything is stored, as a new process."""
        vault, stop = self._rig.make_vault(store, self._keys, self._dataset), threading.Event()

        def told(report: KafkaCaptureReport) -> None:
            if report.records_stored >= 0 and report.recovery_point_at is not None and report.topics:
                stop.set()

        deadline = threading.Timer(RUN_S, stop.set)
        deadline.start()
        try:
            with Cluster.connect(self._bootstrap) as cluster:
                KafkaCapture(vault, self._dataset, cluster, listener=told, options=OPTIONS).run(stop)
        finally:
            deadline.cancel()

    def check_after_fault(self, fault: Fault) -> None:
        """Whatever it had come to, nothing in the vault is damaged or gone."""
        vault = self._rig.make_vault(self.store, self._keys, self._dataset)
        try:
            report = verify(vault)
        except VaultError as error:
            assert error.code in {"vault.wrong_key", "vault.no_key"}, error  # noqa: PT017 - no key was made yet
            return
        assert {each.kind for each in report.findings} <= UNFINISHED, (fault, report.findings)

    def check_complete(self) -> None:
        """Every offset once."""
        vault = self._rig.make_vault(self.store, self._keys, self._dataset)
        export = self._rig.open_export(vault, self._dataset.name)
        part = export.topic(self._topic).partitions[0]
        assert (part.begin, part.next, part.count) == (0, self._records, self._records)
        with Cluster.connect(self._bootstrap) as cluster:
            whole = b"".join(export.batches(export.topic(self._topic).topic_id, 0, 0, self._records))
            assert whole == self._rig.source_bytes(cluster, self._topic)

    def close(self) -> None:
        """Nothing to give back."""


def _is_swept(call: Call, fault: Fault) -> bool:
    """Every way to die at a write, and an answer that came late; of reads the first of each kind."""
    if call.method == "put":
        return fault in {"killed_before", "killed_after", "busy", "lost_answer"}
    return fault == "killed_before" and call.number == 1


def test_a_fault_at_every_store_call_leaves_no_hole_and_no_repeat(
    capture_rig: ModuleType, kafka: KafkaServer, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Killed before and after each write, and at each kind of read; the next run completes it, each batch once."""
    name = topic(name="faults")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    records = 0
    for _ in range(3):
        records += capture_rig.produce(kafka.bootstrap, name, capture_rig.random_values(20))
        time.sleep(0.01)
    capture_rig.make_vault(MemoryStore(), keys, capture_rig.make_dataset([name]))  # its key, before threads need it
    done = sweep(lambda: CaptureCase(capture_rig, keys, kafka.bootstrap, name, records), threads=3, only=_is_swept)
    assert_all_held(done)


def test_a_store_that_is_away_for_a_while_loses_nothing(
    capture_rig: ModuleType, kafka: KafkaServer, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Every put refused for a time, while records come in: they are stored once it is back, memory being bounded."""
    name = topic(name="away")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    dataset = capture_rig.make_dataset([name])
    store = _AwayStore()
    vault = capture_rig.make_vault(store, keys, dataset)
    with capture_rig.CaptureThread(vault, dataset, kafka.bootstrap, in_flight_cap_bytes=256 << 10) as capture:
        capture.wait_stored()
        store.away.set()
        for _ in range(20):
            capture_rig.produce(kafka.bootstrap, name, capture_rig.random_values(200))
        report = capture.wait(lambda report: report.trouble is not None, "no trouble is told")
        assert report.in_flight_bytes <= (256 << 10) + (8 << 20)
        store.away.clear()
        report = capture.wait_stored()
        assert report.upload_errors > 0
    with Cluster.connect(kafka.bootstrap) as cluster:
        topic_id = cluster.metadata([name]).topics[name].topic_id
        assert capture_rig.stored_bytes(vault, (topic_id, 0, 0)) == capture_rig.source_bytes(cluster, name)
    assert [each for each in verify(vault).findings if each.severity == "error"] == []


class _AwayStore(MemoryStore):
    """Refuses every put while it is away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = threading.Event()

    def put(self, *arguments: object, **named: object) -> object:  # type: ignore[override]
        if self.away.is_set():
            raise VaultError("vault.unreachable", "the store is away", "wait")
        return super().put(*arguments, **named)  # type: ignore[arg-type]
