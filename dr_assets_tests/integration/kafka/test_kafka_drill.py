"""Topics' restore test and drill, on real brokers: what they prove, and what they catch."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dr_assets.drills.restored_drill import drill_topics
from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.groups import commit_positions
from dr_assets.stores.kafka.line import PLAINTEXT
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.storage.memory import MemoryStore


def test_a_drill_recovers_every_record_and_catches_what_is_planted(
    kafka: KafkaServer, topic: Callable[..., str], capture_rig: ModuleType, tmp_path: Path
) -> None:
    """Restored into a throwaway broker that the record names, compared, on record; what is planted is noticed.

    Planted are a record too many, one too few and a group that was moved; no folder of the broker's is left behind.
    """
    name = topic(2)
    dataset = capture_rig.make_dataset((name,))
    (tmp_path / "keys").mkdir()
    vault = capture_rig.make_vault(MemoryStore(), tmp_path / "keys", dataset)
    capture_rig.produce(kafka.bootstrap, name, capture_rig.random_values(200))
    with Cluster.connect(kafka.bootstrap, PLAINTEXT, patience_s=180.0) as cluster:
        commit_positions(cluster, f"group-{name}", {(name, 0): Commit(3, "m")})
    with capture_rig.CaptureThread(vault, dataset, kafka.bootstrap) as thread:
        thread.wait_stored()
        thread.wait_surveyed(f"group-{name}")
    attempt = drill_topics(vault, dataset, env={"DR_ASSETS_WORK_DIR": str(tmp_path)})
    assert (attempt.outcome, attempt.reason) == (
        "passed", "restored, and every record, offset and group is as it was",
    )  # fmt: skip
    tested, drilled = latest_fact(vault, dataset.name, "restore_test"), latest_fact(vault, dataset.name, "drill")
    assert tested is not None
    assert drilled is not None
    assert (tested.body["records"], tested.body["differences"], tested.body["engine"]) == (200, 0, "apache")
    assert tested.body["group_positions"] == 1
    assert (drilled.body["controls_planted"], drilled.body["controls_missed"]) == (3, [])
    assert not list(tmp_path.glob("dr_assets-restore-test-*"))


def test_a_vault_without_packs_is_on_record_as_failed(
    capture_rig: ModuleType, kafka: KafkaServer, tmp_path: Path
) -> None:
    """What can't be restored is no silence: the attempt was due, failed, and says why."""
    del kafka
    dataset = capture_rig.make_dataset()
    (tmp_path / "keys").mkdir()
    vault = capture_rig.make_vault(MemoryStore(), tmp_path / "keys", dataset)
    with pytest.raises(VaultError) as refused:
        drill_topics(vault, dataset, env={"DR_ASSETS_WORK_DIR": str(tmp_path)})
    assert refused.value.code == "kafka.nothing_stored"
    for kind in ("restore_test", "drill"):
        fact = latest_fact(vault, dataset.name, kind)
        assert fact is not None
        assert (fact.body["outcome"], str(fact.body["reason"])[:20]) == ("failed", "kafka.nothing_stored")
