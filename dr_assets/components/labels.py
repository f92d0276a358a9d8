"""How assets, jobs and sensors are named and labelled, in one place so that the whole graph reads alike.

What belongs here: keys, owners, groups, tags, freshness windows. What stays out: what the assets do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import dagster as dg

from dr_assets.estate.cadence import with_grace
from dr_assets.estate.durations import format_duration
from dr_assets.estate.model import Dataset, DatasetKind, Estate
from dr_assets.estate.regimes import UNCONFIRMED

# Dagster's freshness policies refuse shorter windows; below it the `rpo` check alone tells (docs/dagster.md).
FRESHNESS_FLOOR: Final = timedelta(seconds=60)
# Restores take a host's disks and cores: one at a time, so that each measures its own duration.
RESTORE_HOST: Final = "restore_host"
# Of a run that takes a base backup: `full` or `incremental`, as the schedule found due.
SNAPSHOT_KIND_TAG: Final = "dr_assets/snapshot_kind"


# By a dataset's kind, the assets that put something of it into the vault.
STORING: Final[dict[DatasetKind, tuple[str, ...]]] = {
    "postgres": ("snapshot", "wal_chain", "roll_up"),
    "kafka": ("kafka_export",),
    "bucket": ("bucket_copy",),
}


def storing_keys(estate: Estate, *, but: str = "") -> list[dg.AssetKey]:
    """The assets of every dataset that put something into a vault, without those called `but`."""
    return [
        artefact_key(dataset, artefact)
        for dataset in estate.datasets.values()
        for artefact in STORING[dataset.kind]
        if artefact != but
    ]


def artefact_key(dataset: Dataset, artefact: str) -> dg.AssetKey:
    """`<dataset>/<artefact>`."""
    return dg.AssetKey([dataset.name, artefact])


@dataclass(frozen=True)
class Labels:
    """Who owns an asset, the group it is drawn in, and what it can be searched by."""

    owners: Sequence[str]
    group: str
    tags: Mapping[str, str]


def dataset_labels(dataset: Dataset) -> Labels:
    """Owners, group and tags of a dataset's assets."""
    tags = {
        "dr_assets/dataset": dataset.name,
        "dr_assets/tier": dataset.tier.name,
        "dr_assets/rpo": format_duration(dataset.rpo),
        "dr_assets/rto": format_duration(dataset.rto),
    }
    for regime in dataset.retention.regimes:
        tags[f"dr_assets/regime_{regime.name}"] = "confirmed" if regime.confirmed else UNCONFIRMED
    return Labels(dataset.owners, dataset.name, tags)


def estate_labels(estate: Estate) -> Labels:
    """Owners, group and tags of what belongs to no single dataset."""
    return Labels(estate.owners, "estate", {"dr_assets/estate": estate.name})


def rpo_window(dataset: Dataset) -> dg.FreshnessPolicy:
    """The freshness of what carries the recovery point forward: the RPO, or Dagster's floor if that is longer."""
    return dg.FreshnessPolicy.time_window(fail_window=max(dataset.rpo, FRESHNESS_FLOOR))


def cadence_window(interval: timedelta) -> dg.FreshnessPolicy:
    """The freshness of what is done on a cadence, so that a daily snapshot isn't red all day."""
    return dg.FreshnessPolicy.time_window(fail_window=with_grace(interval))
