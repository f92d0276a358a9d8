"""Topics that are there once they are made, and gone once they are deleted.

What belongs here: both by another client than ours. What stays out: what is in them.
"""

from collections.abc import Collection

from confluent_kafka.admin import AdminClient, NewTopic

from dr_assets.engines.waiting import wait_until

ANSWER_S = 180.0


def make_topic(admin: AdminClient, wanted: NewTopic) -> None:
    """Make a topic, and return once the broker tells a leader of each partition.

    The controller answers before: whoever asks at that moment is told that there is no such topic.
    """
    admin.create_topics([wanted])[wanted.topic].result(ANSWER_S)
    wait_until(lambda: _is_led(admin, wanted), timeout_s=ANSWER_S, what=f"leaders of {wanted.topic}", every_s=0.05)


def delete_topics(admin: AdminClient, names: Collection[str]) -> None:
    """Delete topics, and return once the broker tells of none: who makes one of that name next finds it new."""
    for future in admin.delete_topics([*names]).values() if names else ():
        future.result(ANSWER_S)
    wait_until(
        lambda: admin.list_topics(timeout=ANSWER_S).topics.keys().isdisjoint(names),
        timeout_s=ANSWER_S, what="topics that are gone", every_s=0.05,
    )  # fmt: skip


def _is_led(admin: AdminClient, wanted: NewTopic) -> bool:
    found = admin.list_topics(wanted.topic, timeout=ANSWER_S).topics[wanted.topic]
    leaders = [each.leader for each in found.partitions.values()]
    return found.error is None and len(leaders) == wanted.num_partitions and min(leaders) >= 0
