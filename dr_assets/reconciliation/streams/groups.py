"""Consumer groups' places as Arrow: the relation `group_offsets`, from a cluster or from the vault's export.

What belongs here: a row for each group, topic and partition. What stays out: what a group may be behind (checks/).
"""

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from dr_assets.stores.kafka.restore_source import RestoreSource

GROUP_OFFSETS: Final = pa.schema(
    [
        ("group_name", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int64()),
        ("committed", pa.int64()),
        ("begin_offset", pa.int64()),
        ("end_offset", pa.int64()),
    ]
)


def group_table(source: RestoreSource, topics: Iterable[str] = ()) -> pa.Table:
    """What each group had committed of these topics (all, if none is named) beside where the partitions begin and end.

    A place in a topic that is not there has no row: whose topic was deleted is nobody's lag.
    """
    names = set(topics) or set(source.topics)
    rows = [
        (group, topic, partition, commit.offset, part.begin, part.end)
        for group, places in sorted(source.groups.items())
        for (topic, partition), commit in sorted(places.items())
        if topic in names and topic in source.topics
        and (part := source.topics[topic].partitions.get(partition)) is not None
    ]  # fmt: skip
    columns = zip(*rows, strict=True) if rows else ((),) * len(GROUP_OFFSETS)
    arrays = [pa.array(list(column), each.type) for column, each in zip(columns, GROUP_OFFSETS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=GROUP_OFFSETS)
