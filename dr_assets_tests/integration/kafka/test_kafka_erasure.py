"""On Apache Kafka: whoever was erased comes back from an older export as tombstones, everybody else as they were."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.stores.kafka.compare import compare
from dr_assets.stores.kafka.erase import TopicEraser
from dr_assets.stores.kafka.restore import restore
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.restore_plan import Options, plan_restore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.subjects.erased import ErasureList
from dr_assets.vault.subjects.history import SoftDeletion
from dr_assets.vault.subjects.ids import SubjectIds

IDS = SubjectIds(b"\5" * 32)


@pytest.fixture
def rig(kafka: KafkaServer, kafka_target: KafkaServer, tmp_path: Path, restore_rig: ModuleType) -> Iterator[Any]:
    """Two brokers and a folder."""
    with restore_rig.rig(kafka, kafka_target, tmp_path) as made:
        yield made


def _captured(rig: Any, capture_rig: ModuleType, *topics: str) -> Any:
    (rig.folder / "keys").mkdir()
    dataset = capture_rig.make_dataset(topics)
    vault = capture_rig.make_vault(MemoryStore(), rig.folder / "keys", dataset)
    with capture_rig.CaptureThread(vault, dataset, rig.source.bootstrap) as thread:
        thread.wait_stored()
        thread.wait_surveyed()
    return vault


def test_an_erased_players_events_come_back_without_what_they_said(rig: Any, capture_rig: ModuleType) -> None:
    """Every offset, key and time is there, the person's values and headers are not; transactions and the rest are."""
    plain, txn = rig.make("plain", 2), rig.make("txn")
    producer = rig.producer(**{"compression.type": "zstd"})
    for number in range(600):
        producer.produce(plain, b"bet %d" % number, b"%d" % (number % 7), headers=[("who", b"player")])
    producer.flush()
    rig.transactions(txn)
    vault = _captured(rig, capture_rig, plain, txn)
    now, who = datetime.now(UTC), IDS.of("3")
    listed = ErasureList({who: SoftDeletion(who, now, now, "approved", is_marked=True)})
    eraser = TopicEraser("(?P<subject>[0-9]+)", listed, IDS)
    source = export_source(vault, "events", eraser=eraser)
    names = {plain: f"back-{plain}", txn: f"back-{txn}"}
    with rig.cluster() as cluster:
        plan = plan_restore(source, cluster, Options(mapping=names, wish="identical"), ends=source.ends)
        restored = restore(plan, cluster, rig.folder / "state.json")
        assert eraser.blanked.people == {who}
        assert compare(source, cluster, names, ends=source.ends, maps=restored.maps).is_identical
        whole = export_source(vault, "events")
        assert not compare(whole, cluster, names, ends=source.ends, maps=restored.maps).is_equal
    before, after = rig.read(rig.source, plain), rig.read(rig.target, names[plain])
    assert after == [(*row[:4], None, ()) if row[3] == b"3" else row for row in before]
    assert sum(row[4] is None for row in after) == sum(number % 7 == 3 for number in range(600))
    for committed in (False, True):
        assert rig.read(rig.target, names[txn], committed=committed) == rig.read(rig.source, txn, committed=committed)
