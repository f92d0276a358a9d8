"""Negative controls of topics: damage planted into a throwaway broker that had passed, which comparing must catch.

What belongs here: planting one kind after the other. What stays out: comparing (stores/kafka/compare.py).
"""

from collections.abc import Iterator
from typing import Final

from dr_assets.drills.planted import Controls, plant_each
from dr_assets.proving.kafka_test import Recheck
from dr_assets.stores.kafka.batches import Record, encode
from dr_assets.stores.kafka.groups import commit_positions, read_positions
from dr_assets.stores.kafka.produce import Lane, Write, delete_records
from dr_assets.stores.kafka.restore_plan import PartitionPlan, RestorePlan, TopicPlan
from dr_assets.stores.kafka.restore_source import Commit
from dr_assets.stores.kafka.wire import EARLIEST, LATEST, Cluster

PLANTED_MS: Final = 1_700_000_000_000


def plant_in_topics(cluster: Cluster, plan: RestorePlan, recheck: Recheck) -> Controls:
    """A record too many, one too few, a group that was moved. The broker is ruined afterwards."""
    plants = {
        "a group that was moved": lambda: _move_group(cluster, plan),
        "a record too many": lambda: _append(cluster, plan),
        "a record that is gone": lambda: _delete_first(cluster, plan),
    }
    return plant_each(plants, lambda: recheck().count)


def _filled(plan: RestorePlan) -> Iterator[tuple[TopicPlan, PartitionPlan]]:
    return ((topic, each) for topic in plan.topics for each in topic.partitions if each.end > each.begin)


def _append(cluster: Cluster, plan: RestorePlan) -> bool:
    for topic, each in _filled(plan):
        place = (topic.target, each.partition)
        end = cluster.list_offsets([place], LATEST)[place]
        there = cluster.metadata([topic.target]).topics[topic.target]
        lane = Lane(cluster.own_line(cluster.leader_of(*place)))
        try:
            batch = encode([Record(0, PLANTED_MS, b"planted", b"planted by a drill", ())], base_offset=0)
            lane.send(Write(place, there.topic_id, end, 1, batch))
            lane.take()
        finally:
            lane.close()
        return True
    return False


def _delete_first(cluster: Cluster, plan: RestorePlan) -> bool:
    for topic, each in _filled(plan):
        place = (topic.target, each.partition)
        begin = cluster.list_offsets([place], EARLIEST)[place]
        delete_records(cluster, {place: begin + 1})
        return True
    return False


def _move_group(cluster: Cluster, plan: RestorePlan) -> bool:
    places = [(topic.target, each.partition) for topic, each in _filled(plan)]
    for group in plan.source.groups:
        for place, commit in read_positions(cluster, group, places).items():
            moved = commit.offset - 1 if commit.offset else commit.offset + 1
            commit_positions(cluster, group, {place: Commit(moved, commit.metadata)})
            return True
    return False
