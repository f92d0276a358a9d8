"""The comparison that the acceptance test rests on: silent about equal clusters, loud about each kind of difference."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def seen(foreign_topics: Any, comparing: ModuleType) -> Any:
    """What a consumer reads of them."""
    return comparing.consumed(foreign_topics.server, foreign_topics.topics.values())


def test_the_topics_are_as_odd_as_they_should_be(foreign_topics: Any, seen: Any, comparing: ModuleType) -> None:
    """Holes, aborted records, a deleted head, null headers, an empty partition, old times: all of it is there."""
    compacted = seen[foreign_topics.name("compacted"), 0]
    assert len(compacted.uncommitted) < compacted.end
    transactional = seen[foreign_topics.name("transactional"), 0]
    assert 0 < len(transactional.committed) < len(transactional.uncommitted) < transactional.end
    beheaded = [seen[foreign_topics.name("beheaded"), index] for index in range(3)]
    assert [(one.begin, one.end) for one in beheaded] == [(333, 1000), (1000, 1000), (0, 1000)]
    assert (beheaded[0].uncommitted[0].offset, beheaded[1].uncommitted) == (333, [])
    first = comparing.on_disk(foreign_topics.server, foreign_topics.name("beheaded"), 0, 333)[0]
    assert first.base_offset < 333, "the new head is to lie within a batch"
    headers = [one.headers for one in seen[foreign_topics.name("headers"), 0].uncommitted]
    assert (("twice", b"one"), ("twice", b"two"), ("twice", None)) in headers
    assert {(one.key, one.value) for one in seen[foreign_topics.name("tombstones"), 0].uncommitted} >= {
        (None, None),
        (b"", None),
    }
    times = [one.timestamp for one in seen[foreign_topics.name("timespan"), 0].uncommitted]
    assert max(times) - min(times) > 24 * 86_400_000
    assert [seen[foreign_topics.name("sparse"), index].end for index in range(5)] == [0, 0, 300, 0, 0]
    assert {one.timestamp_type for one in seen[foreign_topics.name("appended"), 0].uncommitted} == {2}
    kinds = {
        label: comparing.on_disk(foreign_topics.server, foreign_topics.name(label), 0)[0].attributes & 7
        for label in foreign_topics.topics
        if label not in {"sparse", "nothing", "beheaded"}
    }
    assert {kinds[label] for label in ("gzip", "snappy", "lz4", "zstd")} == {1, 2, 3, 4}


def test_a_cluster_equals_itself(foreign_topics: Any, seen: Any, comparing: ModuleType) -> None:
    """Reading the same topics again finds no difference, by a consumer and on disk."""
    assert (
        comparing.record_differences(seen, comparing.consumed(foreign_topics.server, foreign_topics.topics.values()))
        == []
    )
    batches = comparing.on_disk(foreign_topics.server, foreign_topics.name("transactional"), 0)
    plain = [one._replace(producer=(-1, -1, -1)) if not one.attributes & 0x10 else one for one in batches]
    assert comparing.batch_differences(batches, plain) == []


CHANGES: dict[str, Callable[[Any], Any]] = {
    "offset": lambda one: one._replace(offset=one.offset + 1),
    "time": lambda one: one._replace(timestamp=one.timestamp + 1),
    "kind of time": lambda one: one._replace(timestamp_type=9),
    "key": lambda one: one._replace(key=(one.key or b"") + b"!"),
    "value": lambda one: one._replace(value=None if one.value is not None else b""),
    "headers": lambda one: one._replace(headers=(*one.headers, ("more", None))),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("level", ["uncommitted", "committed"])
def test_one_changed_record_is_a_difference(
    foreign_topics: Any, seen: Any, comparing: ModuleType, what: str, level: str
) -> None:
    """Any field of any one record that differs is named."""
    place = (foreign_topics.name("headers"), 0)
    records = list(getattr(seen[place], level))
    records[7] = CHANGES[what](records[7])
    other = comparing.Partition(seen[place].begin, seen[place].end, seen[place].uncommitted, seen[place].committed)
    setattr(other, level, records)
    assert len(comparing.record_differences(seen, {**seen, place: other})) == 1


def test_missing_and_added_are_differences(foreign_topics: Any, seen: Any, comparing: ModuleType) -> None:
    """A lost or doubled record, another end, a lost partition: each is named."""
    place = (foreign_topics.name("lz4"), 1)
    one = seen[place]
    for records in (one.uncommitted[:-1], [*one.uncommitted, one.uncommitted[-1]]):
        other = comparing.Partition(one.begin, one.end, records, one.committed)
        assert comparing.record_differences(seen, {**seen, place: other})
    shifted = comparing.Partition(one.begin, one.end + 1, one.uncommitted, one.committed)
    assert comparing.record_differences(seen, {**seen, place: shifted})
    assert comparing.record_differences(seen, {key: value for key, value in seen.items() if key != place})


def test_changed_batches_are_differences(foreign_topics: Any, comparing: ModuleType) -> None:
    """A batch whose payload, time or count changed, is missing, overlaps, or keeps a producer id, is named."""
    batches = comparing.on_disk(foreign_topics.server, foreign_topics.name("keyed"), 0)
    for change in (
        {"payload": "other"}, {"base_timestamp": 1}, {"count": 1}, {"attributes": 1}, {"producer": (5, 0, 0)},
        {"base_offset": batches[1].base_offset + 1},
    ):  # fmt: skip
        altered = [batches[0], batches[1]._replace(**change), *batches[2:]]
        assert comparing.batch_differences(batches, altered)
    assert comparing.batch_differences(batches, batches[1:])
