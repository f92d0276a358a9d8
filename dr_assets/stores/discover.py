"""Topics and buckets that our own credentials can see and no dataset declares, beside databases.

What belongs here: looking and comparing. What stays out: databases (postgres/discover.py), the declarations (estate/),
what to do about a finding.

A topic that a dataset excludes by name or pattern was decided upon and is no finding.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dr_assets.estate.model import BucketDataset, Estate, matches
from dr_assets.stores.postgres.discover import UndeclaredDatabase, undeclared_databases
from dr_assets.vault.settings import setting


@dataclass(frozen=True, slots=True)
class UndeclaredTopic:
    """A topic that no dataset of its cluster covers or excludes. `seen_by` is the dataset whose credentials see it."""

    cluster_id: str
    topic: str
    partitions: int
    seen_by: str


@dataclass(frozen=True, slots=True)
class UndeclaredPlace:
    """A bucket, or a folder of a declared bucket (`prefix`), that no dataset declares."""

    endpoint: str
    bucket: str
    prefix: str
    seen_by: str


@dataclass(frozen=True, slots=True)
class Undeclared:
    """All that is there and not declared."""

    databases: list[UndeclaredDatabase]
    topics: list[UndeclaredTopic]
    places: list[UndeclaredPlace]

    def __len__(self) -> int:
        return len(self.databases) + len(self.topics) + len(self.places)


def undeclared(estate: Estate, env: Mapping[str, str]) -> Undeclared:
    """Everything that the estate's credentials see and nobody declared.

    Raises PolicyError for what is not set, SourceError for a source that is away: what can't be looked at is no finding
    and not in order either.
    """
    return Undeclared(undeclared_databases(estate, env), undeclared_topics(estate, env), undeclared_places(estate, env))


def undeclared_topics(estate: Estate, env: Mapping[str, str]) -> list[UndeclaredTopic]:
    """Each topic of each cluster once; Kafka's own are nobody's to declare. Raises PolicyError, SourceError."""
    if not estate.topics():
        return []
    from dr_assets.stores.kafka.access import connect  # noqa: PLC0415 - Kafka's protocol takes a second to import

    declared: dict[str, tuple[str, ...]] = {}
    seen: dict[tuple[str, str], UndeclaredTopic] = {}
    for dataset in estate.topics().values():
        with connect(dataset, env) as cluster:
            found = cluster.metadata(None)
        declared[found.cluster_id] = (*declared.get(found.cluster_id, ()), *dataset.topics, *dataset.exclude)
        for topic in found.topics.values():
            if not topic.is_internal:
                row = UndeclaredTopic(found.cluster_id, topic.name, len(topic.partitions), dataset.name)
                seen.setdefault((found.cluster_id, topic.name), row)
    return [row for key, row in sorted(seen.items()) if not matches(row.topic, declared[key[0]])]


def undeclared_places(estate: Estate, env: Mapping[str, str]) -> list[UndeclaredPlace]:
    """Buckets beside the declared ones, and folders beside the declared ones in them. Raises PolicyError, SourceError.

    Credentials that may not list buckets see none but their own: least privilege is no error.
    """
    found: dict[tuple[str, str, str], UndeclaredPlace] = {}
    ours = _known(estate, env)
    for dataset in estate.buckets().values():
        endpoint = setting(env, dataset.endpoint_env, f"the endpoint of bucket dataset '{dataset.name}'")
        for bucket, prefix in _seen(dataset, env):
            declared = ours.get((endpoint, bucket))
            if declared is None or (prefix and not any(_covers(one, prefix) for one in declared)):
                row = UndeclaredPlace(endpoint, bucket, prefix, dataset.name)
                found.setdefault((endpoint, bucket, prefix), row)
    return [row for _, row in sorted(found.items())]


def _covers(declared: str, prefix: str) -> bool:
    """Whether a declared prefix holds this folder, or lies within it: then somebody has looked into it."""
    return prefix.startswith(declared) or declared.startswith(prefix)


def _known(estate: Estate, env: Mapping[str, str]) -> dict[tuple[str, str], list[str]]:
    """Declared prefixes by endpoint and bucket; a vault's buckets hold nothing that has to be declared."""
    known: dict[tuple[str, str], list[str]] = {}
    for dataset in estate.buckets().values():
        known.setdefault((env.get(dataset.endpoint_env, ""), dataset.bucket), []).append(dataset.prefix)
    for vault in estate.vaults.values():
        for bucket in {vault.bucket} | ({estate.subjects.bucket} if estate.subjects else set()):
            known.setdefault((env.get(vault.endpoint_env, ""), bucket), []).append("")
    return known


def _seen(dataset: BucketDataset, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Buckets, and the top folders of the declared one."""
    from dr_assets.stores.bucket.source import source_of  # noqa: PLC0415 - only where a bucket is declared
    from dr_assets.vault.storage.s3_errors import CREDENTIALS, StoreAnswer  # noqa: PLC0415 - as above

    place = source_of(dataset, env)
    try:
        with place.answers():
            yield from ((bucket["Name"], "") for bucket in place.client.list_buckets()["Buckets"])
    except StoreAnswer as said:
        if said.code not in CREDENTIALS:
            raise place.refusal(said, "to list buckets") from None
    if dataset.prefix:
        with place.answers():
            pages = place.client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Delimiter="/")
            for page in pages:
                yield from ((place.bucket, folder["Prefix"]) for folder in page.get("CommonPrefixes", []))
