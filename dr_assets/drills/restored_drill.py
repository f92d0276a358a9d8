"""The drill of topics or of a bucket: recover it to now, measure it, test the test.

What belongs here: the scenario, its verdict, the sealed fact `drill`. What stays out: the restore (proving/), what is
planted (kafka_controls.py, bucket_controls.py).
"""

from collections.abc import Callable, Mapping

from dr_assets.drills.bucket_controls import plant_in_bucket
from dr_assets.drills.kafka_controls import plant_in_topics
from dr_assets.drills.planted import Controls
from dr_assets.drills.record import objectives_missed, record_drill, record_end
from dr_assets.estate.errors import DrError
from dr_assets.estate.model import BucketDataset, Dataset, Estate, TopicsDataset
from dr_assets.proving.attempt import Attempt
from dr_assets.proving.bucket_test import run_bucket_restore_test
from dr_assets.proving.kafka_test import run_kafka_restore_test
from dr_assets.stores.kafka.erase import TopicEraser
from dr_assets.vault.vault import Vault


def drill_topics(
    vault: Vault,
    dataset: TopicsDataset,
    *,
    env: Mapping[str, str] | None = None,
    eraser: TopicEraser | None = None,
) -> Attempt:
    """Recovers the topics from the vault alone and seals the fact `drill`, also when it fails; raises as a restore."""
    ruined: list[Controls] = []
    return _drilled(
        vault,
        dataset,
        ruined,
        "cluster lost; topics and groups restored to latest",
        lambda: run_kafka_restore_test(
            vault, dataset, env=env, inspect=lambda *sandbox: ruined.append(plant_in_topics(*sandbox)), eraser=eraser
        ),
    )


def drill_bucket(
    vault: Vault, estate: Estate, dataset: BucketDataset, *, env: Mapping[str, str] | None = None
) -> Attempt:
    """Recovers the bucket from the vault alone and seals the fact `drill`, also when it fails; raises as a restore."""
    ruined: list[Controls] = []
    return _drilled(
        vault,
        dataset,
        ruined,
        "bucket lost; every document restored to latest, erasures applied",
        lambda: run_bucket_restore_test(
            vault, estate, dataset, env=env, inspect=lambda *sandbox: ruined.append(plant_in_bucket(*sandbox))
        ),
    )


def _drilled(
    vault: Vault, dataset: Dataset, ruined: list[Controls], scenario: str, prove: Callable[[], Attempt]
) -> Attempt:
    begin_at = vault.clock()
    try:
        latest = prove()
    except DrError as error:
        record_end(vault, dataset, "failed", f"{error.code}: {error.found}", begin_at, error)
        raise
    except BaseException as ended:  # a drill that a signal ends is on record, too
        record_end(vault, dataset, "aborted", f"ended by {type(ended).__name__}", begin_at, ended)
        raise
    controls = ruined[0] if ruined else Controls(0, 0, ())
    broken = [] if latest.ok else [f"restore: {latest.reason}"]
    broken += objectives_missed(dataset, latest, controls)
    verdict = ("failed", "; ".join(broken)) if broken else ("passed", "every objective was met")
    more = {"scenario": scenario, "phases_s": latest.phases_s}
    record_drill(vault, dataset, verdict, begin_at, latest, controls, more)
    return latest
