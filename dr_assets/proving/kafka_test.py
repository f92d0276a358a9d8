"""A restore test of topics: plan, restore into a throwaway broker, compare record by record, put on record.

What belongs here: that order. What stays out: restoring and comparing (stores/kafka), judging whether a proof is recent
enough (components/), planted damage (drills/).
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dr_assets.engines.kafka.find import find_broker
from dr_assets.estate.model import TopicsDataset
from dr_assets.proving.attempt import Attempt, attempted, fresh_workdir
from dr_assets.proving.erasures import record_blanked
from dr_assets.stores.kafka.compare import Comparison, compare
from dr_assets.stores.kafka.erase import TopicEraser
from dr_assets.stores.kafka.export import Export
from dr_assets.stores.kafka.line import Security
from dr_assets.stores.kafka.restore import Restored, restore
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.restore_plan import Options, RestorePlan, plan_restore
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.vault import Vault

TOLD: Final = 3
PATIENCE_S: Final = 180.0  # a broker that has just started, on a host that is busy
Recheck = Callable[[], Comparison]
Inspect = Callable[[Cluster, RestorePlan, Recheck], None]


def run_kafka_restore_test(
    vault: Vault,
    dataset: TopicsDataset,
    *,
    env: Mapping[str, str] | None = None,
    workdir: Path | None = None,
    inspect: Inspect | None = None,
    eraser: TopicEraser | None = None,
) -> Attempt:
    """Restores `dataset` from `vault` alone into a throwaway broker, seals the fact `restore_test`.

    Every record, offset, timestamp, header and group is compared with the export. The broker is Apache Kafka where Java
    and its jars are there, else an emulator, and the record names which. Topics come back as held: nothing is deleted
    by their retention while they are compared. `eraser` takes out what erased people's records say, and that is on
    record too. `inspect` may look at the broker after everything passed and is on record. Raises what stood in the way,
    which is on record as failed.
    """
    env = os.environ if env is None else env
    folder = workdir or fresh_workdir(dataset.name, env)
    folder.mkdir(mode=0o700, parents=True)
    try:
        with attempted(vault, dataset) as attempt, _broker(folder, env, attempt) as cluster:
            with attempt.phase("plan"):
                source = export_source(vault, dataset.name, eraser=eraser)
                plan = plan_restore(source, cluster, Options(held=True), ends=source.ends)
            with attempt.phase("restore"):
                restored = restore(plan, cluster, folder / "restore.state")
            record_blanked(vault, dataset.name, eraser, purpose="restore test")
            with attempt.phase("compare"):
                compared = compare(source, cluster, plan.names, ends=source.ends, maps=restored.maps)
            _note(attempt, source.export, plan, restored, compared)
            attempt.judge(_broken(compared), "restored, and every record, offset and group is as it was")
            if inspect is not None and attempt.ok:
                inspect(
                    cluster, plan, lambda: compare(source, cluster, plan.names, ends=source.ends, maps=restored.maps)
                )
        return attempt
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _broker(folder: Path, env: Mapping[str, str], attempt: Attempt) -> Iterator[Cluster]:
    """A broker of its own, named in the record, gone behind the block."""
    found = find_broker(env=env)
    server = found.server(folder / "broker")
    attempt.details |= {"engine": found.kind, "engine_why": found.why}
    try:
        with attempt.phase("start"):
            server.start()
        with Cluster.connect(server.bootstrap, Security(), patience_s=PATIENCE_S) as cluster:
            yield cluster
    finally:
        server.kill()


def _broken(compared: Comparison) -> list[str]:
    if compared.is_equal:
        return []
    return [f"{compared.count} difference(s) from the export: {'; '.join(map(str, compared.differences[:TOLD]))}"]


def _note(attempt: Attempt, export: Export, plan: RestorePlan, restored: Restored, compared: Comparison) -> None:
    attempt.recovered(export.recovery_point_at)
    attempt.details |= {
        "system_id": export.system_id,
        "cluster_id": export.cluster_id,
        "recovery_point_at": export.recovery_point_at,
        "packs": export.packs,
        "topics": len(plan.topics),
        "partitions": sum(len(topic.partitions) for topic in plan.topics),
        "records": compared.records,
        "offsets": plan.offsets,
        "differences": compared.count,
        "transactions": compared.transactions,
        "group_positions": compared.positions,
        "offsets_identical": int(compared.is_identical),
        "groups": sum(bool(each.positions) for each in restored.groups),
        "size_bytes": restored.size_bytes,
        "restore_mb_s": restored.mb_s,
        "gaps": len(plan.gaps),
        "notes": list(restored.notes),
    }
