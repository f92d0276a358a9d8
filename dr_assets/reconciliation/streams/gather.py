"""All that topics tell a reconciliation, gathered once: records in a Parquet file, the small relations beside it.

What belongs here: the order of reading, and the two sources by name. What stays out: what each relation holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from dr_assets.reconciliation.streams.groups import group_table
from dr_assets.reconciliation.streams.records import Ranges, Seen, partition_table, record_reader, whole_ranges
from dr_assets.reconciliation.streams.rules import StreamRules
from dr_assets.stores.kafka.admin import group_names, group_offsets
from dr_assets.stores.kafka.restore_export import export_source
from dr_assets.stores.kafka.restore_plan import Cut
from dr_assets.stores.kafka.restore_read import LiveSource, live_source
from dr_assets.stores.kafka.restore_source import Commit, RestoreSource
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.vault import Vault

RECORDS_FILE: Final = "records.parquet"


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a source held. `spared` are records of aborted or unfinished transactions: no consumer of ours sees them."""

    records: Path
    partitions: pa.Table
    group_offsets: pa.Table
    count: int
    spared: int

    @property
    def externals(self) -> dict[str, Path | pa.Table]:
        """The relations, as `reconcile` takes them."""
        return {"records": self.records, "partitions": self.partitions, "group_offsets": self.group_offsets}


def gather(
    source: RestoreSource,
    folder: Path,
    rules: StreamRules | None = None,
    *,
    topics: Sequence[str] = (),
    ranges: Ranges | None = None,
    ends: Mapping[tuple[str, int], int] | None = None,
    complete_from_us: Mapping[tuple[str, int], int] | None = None,
) -> Gathered:
    """Read `topics` (all, if none is named) of a source into `folder`; `ranges` or `ends` narrow it.

    `complete_from_us`: of ranges that begin at the place of a moment. `group_offsets` are of all partitions there are,
    whatever is read of them. Raises SourceError and VaultError.
    """
    rules, seen = rules or StreamRules(), Seen()
    wanted = whole_ranges(source, tuple(topics), ends) if ranges is None else dict(ranges)
    path = folder / RECORDS_FILE
    reader = record_reader(source, wanted, rules, seen)
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
    return Gathered(
        path, partition_table(wanted, seen, complete_from_us), group_table(source, topics), seen.count, seen.spared
    )


def cluster_source(cluster: Cluster, topics: Sequence[str] = (), groups: Sequence[str] | None = None) -> LiveSource:
    """Topics of a cluster as they are now, and what groups (all, if none is named) have committed.

    Without `topics` all that are not the cluster's own. Raises SourceError.
    """
    found = cluster.metadata(tuple(topics) or None).topics
    names = [name for name, topic in sorted(found.items()) if topics or not topic.is_internal]
    told = group_offsets(cluster, group_names(cluster) if groups is None else groups)
    commits = {
        group: {place: Commit(each.offset, each.metadata) for place, each in places.items()}
        for group, places in told.items()
    }
    return live_source(cluster, names, commits, counted=False)


def gather_cluster(
    cluster: Cluster, folder: Path, rules: StreamRules | None = None, *, topics: Sequence[str] = ()
) -> Gathered:
    """What a running or restored cluster holds, from the first offset to the last. Raises SourceError."""
    return gather(cluster_source(cluster, topics), folder, rules)


def gather_vault(
    vault: Vault,
    dataset: str,
    folder: Path,
    rules: StreamRules | None = None,
    *,
    cut: Cut | None = None,
    topics: Sequence[str] = (),
) -> Gathered:
    """What a vault holds of captured topics as of a time, of offsets, or the newest. Raises VaultError, SourceError."""
    source = export_source(vault, dataset, cut)
    return gather(source, folder, rules, topics=topics, ends=source.ends)
