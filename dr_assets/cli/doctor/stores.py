"""Probes of topics and buckets: is the source there, how old is what is stored, what waits for a person.

What belongs here: those of the two kinds. What stays out: databases (source.py, backups.py), vaults (vaults.py).
"""

from collections.abc import Callable, Iterator
from typing import Final

from dr_assets.cli.doctor.line import Line
from dr_assets.cli.doctor.patient import Patient
from dr_assets.estate.cadence import longest_interval, with_grace
from dr_assets.estate.model import BucketDataset, TopicsDataset
from dr_assets.stores.bucket.position import recovery_point
from dr_assets.stores.kafka.position import stored_recovery_point
from dr_assets.stores.objective import StoredPoint, age_text, age_trouble
from dr_assets.vault.facts import latest_fact

SHOWN: Final = 3


def cluster(patient: Patient) -> Iterator[Line]:
    """The brokers answer, and hold topics that the dataset covers."""
    from dr_assets.stores.kafka.access import connect  # noqa: PLC0415 - Kafka's protocol takes a second to import

    dataset = _topics(patient)
    with connect(dataset, patient.env, patience_s=10.0) as opened:
        found = opened.metadata(None)
    covered = [topic for topic in found.topics.values() if dataset.covers(topic.name)]
    leaderless = [topic.name for topic in covered if any(part.leader < 0 for part in topic.partitions)]
    said = f"{len(found.brokers)} broker(s) of cluster {found.cluster_id}, {len(covered)} topics to capture"
    if leaderless:
        hint = "nothing can be read of them until their brokers are back"
        yield Line("cluster", "bad", f"{said}; no leader for {', '.join(leaderless[:SHOWN])}", hint)
    elif not covered:
        yield Line(
            "cluster", "warn", said, "is `topics` of the declaration as it should be? `dr-assets estate discover`"
        )
    else:
        yield Line("cluster", "ok", said)


def bucket(patient: Patient) -> Iterator[Line]:
    """The bucket answers, and keeps versions."""
    from dr_assets.stores.bucket.source import source_of  # noqa: PLC0415 - only where a bucket is declared

    place = source_of(_bucket(patient), patient.env)
    at = place.now()
    if place.is_versioned():
        yield Line("bucket", "ok", f"answers, {at:%H:%M:%S} UTC by its clock; keeps versions")
    else:
        hint = "switch versioning on: what is overwritten between two comparisons is lost"
        yield Line("bucket", "warn", "answers, and keeps no versions", hint)


def stored_point(patient: Patient) -> Iterator[Line]:
    """The age of what is stored against the RPO."""
    vault, dataset = patient.vault(), patient.dataset
    is_topics = isinstance(dataset, TopicsDataset)
    point: StoredPoint | None = (
        stored_recovery_point(vault, dataset)
        if isinstance(dataset, TopicsDataset)
        else recovery_point(vault, dataset.name)
    )
    trouble = age_trouble(dataset, point, vault.clock())
    if trouble is None and point is not None and point.at is not None:
        yield Line("recovery point", "ok", age_text(vault.clock(), point.at))
    else:
        start = f"`dr-assets capture {dataset.name}`" if is_topics else f"`dr-assets bucket copy {dataset.name}`"
        yield Line("recovery point", "bad", trouble or "unknown", f"is {start} at work? docs/operations.md, `rpo`")


def unsettled(patient: Patient) -> Iterator[Line]:
    """Gaps, and topics that were made again."""
    from dr_assets.cli.status_stores import open_of  # noqa: PLC0415 - shared with `status`

    found = open_of(patient.vault(), _topics(patient))
    if found:
        hint = "`dr-assets kafka status` lists them, `dr-assets kafka settle` when that is dealt with"
        yield Line("gaps", "bad", f"{len(found)}: {'; '.join(found[:SHOWN])}", hint)
    else:
        yield Line("gaps", "ok", "nothing waits to be settled")


def complete(patient: Patient) -> Iterator[Line]:
    """The newest comparison read everything that it listed."""
    newest = recovery_point(patient.vault(), patient.dataset.name)
    if newest is not None and newest.fact.body.get("is_complete") is True:
        yield Line("complete", "ok", f"the comparison of {newest.fact.at:%Y-%m-%d %H:%M} UTC found everything stored")
    elif newest is not None:
        hint = f"`dr-assets bucket copy {patient.dataset.name}` says what it can't read"
        yield Line("complete", "bad", "the newest comparison could not read everything", hint)


def proof(patient: Patient) -> Iterator[Line]:
    """The newest restore test passed, and is recent enough."""
    vault, dataset = patient.vault(), patient.dataset
    fact, run = latest_fact(vault, dataset.name, "restore_test"), f"run Dagster's job {dataset.name}_restore_test"
    window = with_grace(longest_interval(dataset.restore_test.cron))
    if fact is None:
        yield Line("restore test", "warn", "there is none on record: nothing counts until it was restored", run)
    elif fact.body.get("outcome") != "passed":
        yield Line("restore test", "bad", f"{fact.body.get('outcome')}: {fact.body.get('reason')}", run)
    elif vault.clock() - fact.at > window:
        yield Line("restore test", "bad", f"the newest is of {fact.at:%Y-%m-%d %H:%M} UTC, overdue", run)
    else:
        yield Line("restore test", "ok", f"passed {fact.at:%Y-%m-%d %H:%M} UTC")


def _topics(patient: Patient) -> TopicsDataset:
    if not isinstance(patient.dataset, TopicsDataset):
        raise TypeError(patient.dataset.kind)
    return patient.dataset


def _bucket(patient: Patient) -> BucketDataset:
    if not isinstance(patient.dataset, BucketDataset):
        raise TypeError(patient.dataset.kind)
    return patient.dataset


Look = Callable[[Patient], Iterator[Line]]
SOURCES: Final[dict[str, dict[str, Look]]] = {"kafka": {"cluster": cluster}, "bucket": {"bucket": bucket}}
STORED: Final[dict[str, dict[str, Look]]] = {
    "kafka": {"recovery point": stored_point, "gaps": unsettled, "proofs": proof},
    "bucket": {"recovery point": stored_point, "complete": complete, "proofs": proof},
}
