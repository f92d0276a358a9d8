import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.stores.kafka.batches import COMMIT, Record, encode, parse_header, records, split, with_producer
from dr_assets.stores.kafka.offset_map import OffsetMap
from dr_assets.stores.kafka.restore_pads import pad, pads
from dr_assets.stores.kafka.restore_steps import Append, Course, End, Fill, Step, steps_of


def _batch(first: int, count: int = 1, *, holes: tuple[int, ...] = (), **options: Any) -> bytes:
    """Records of offsets [first, first + count) but `holes`."""
    found = [Record(at, at, b"k", b"%d" % at) for at in range(first, first + count) if at not in holes]
    return encode(found, **options)


def _marker(offset: int, producer: int, kind: int = COMMIT) -> bytes:
    said = Record(offset, 0, struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 0))
    return encode([said], control=True, transactional=True, producer_id=producer, producer_epoch=0)


def _course(method: Any, slices: list[bytes], begin: int, end: int, start: int = 0, **options: Any) -> Any:
    course = Course(method, begin, end, start=start, **options)
    return list(steps_of(course, slices)), course


def _require_contiguous(steps: list[Step], start: int, end: int) -> None:
    at = start
    for step in steps:
        assert step.target == at
        at += step.count
    assert at == end


def test_whole_batches_go_as_they_are_but_for_an_idempotent_producer() -> None:
    """A batch of nobody's producer keeps every byte behind its offset; another loses its producer."""
    plain, owned = _batch(0, 3), _batch(3, 2, producer_id=77, producer_epoch=1, base_sequence=5)
    steps, course = _course("identical", [plain + owned], 0, 5)
    assert [(step.target, step.count) for step in steps] == [(0, 3), (3, 2)]
    assert steps[0].batch[16:] == plain[16:]
    assert steps[1].batch[16:] == with_producer(owned, -1, -1, -1)[16:]
    assert all(parse_header(step.batch).base_offset == 0 for step in steps)
    assert course.map.is_identical


def test_holes_are_filled_or_closed() -> None:
    """Identical: what is missing between records and batches is filled; mapped: records follow each other."""
    slices = [_batch(10, 6, holes=(11, 12)), _batch(20, 2)]
    steps, course = _course("identical", slices, 8, 25, start=8)
    assert [(type(step), step.target, step.count) for step in steps] == [
        (Fill, 8, 2), (Append, 10, 1), (Fill, 11, 2), (Append, 13, 3), (Fill, 16, 4), (Append, 20, 2), (Fill, 22, 3),
    ]  # fmt: skip
    _require_contiguous(steps, 8, 25)
    steps, course = _course("mapped", slices, 8, 25, start=100)
    assert [(step.target, step.count) for step in steps] == [(100, 4), (104, 2)]
    assert [course.map.record_at(at) for at in (10, 11, 13, 15, 20, 21)] == [100, None, 101, 103, 104, 105]
    assert [course.map.position(at) for at in (0, 10, 11, 16, 21, 22, 99)] == [100, 100, 101, 104, 105, 106, 106]


def test_transactions_end_where_they_ended_and_those_open_are_aborted_behind_everything() -> None:
    """Two producers in one another; a marker of neither is filled; the one without an end gets an abort."""
    options: Any = {"transactional": True, "producer_epoch": 0, "base_sequence": 0}
    slices = [
        _batch(0, 2, producer_id=5, **options), _batch(2, 1, producer_id=6, **options), _marker(3, 5),
        _marker(4, 99, 0), _batch(5, 1, producer_id=5, **options), _marker(6, 6, 0),
    ]  # fmt: skip
    steps, _ = _course("identical", slices, 0, 7)
    assert [(step.producer, step.commit, step.target) for step in steps if isinstance(step, End)] == [
        (5, True, 3), (6, False, 6), (5, False, 7),
    ]  # fmt: skip
    assert [(step.target, step.count) for step in steps if isinstance(step, Fill)] == [(4, 1)]
    _require_contiguous(steps, 0, 8)
    committed, _ = _course("identical", slices, 0, 7, last_stable=7)
    assert committed[-1] == End(7, 5, commit=True), "below the last stable offset it was committed"


def test_what_is_stored_twice_is_written_once_and_what_overlaps_is_refused() -> None:
    """A capture that began anew at a batch's border repeats it; two logs in one export are no log."""
    steps, _ = _course("identical", [_batch(0, 3), _batch(0, 3), _batch(3, 1)], 0, 4)
    assert [step.target for step in steps] == [0, 3]
    with pytest.raises(VaultError, match="restore_overlap"):
        _course("identical", [_batch(0, 3), _batch(2, 3)], 0, 5)


def test_two_leaders_logs_in_one_export_are_refused() -> None:
    """A batch of an older leader epoch behind one of a newer was never in the log that is restored."""
    slices = [_batch(0, 3, leader_epoch=4), _batch(3, 1, leader_epoch=4), _batch(4, 1, leader_epoch=3)]
    with pytest.raises(VaultError, match="restore_diverged"):
        _course("identical", slices, 0, 5)


def test_the_first_batch_may_begin_before_what_is_wanted() -> None:
    """Identical: it goes whole, and the partition's head is deleted; mapped: its wanted records alone."""
    steps, _ = _course("identical", [_batch(0, 10)], 4, 10, start=0)
    assert [(step.target, step.count) for step in steps] == [(0, 10)]
    steps, course = _course("mapped", [_batch(0, 10)], 4, 10, start=0)
    assert [record.offset for record in records(steps[0].batch)] == [0, 1, 2, 3, 4, 5]
    assert course.map.record_at(4) == 0


@given(data=st.data(), method=st.sampled_from(["identical", "mapped"]))
@settings(max_examples=150, deadline=None)
def test_any_log_comes_back_whole(data: st.DataObject, method: Any) -> None:
    """Whatever the holes, cuts and slices: steps follow each other, and each record is where the map says."""
    seed = data.draw(st.integers(0, 1 << 30))
    rng = random.Random(seed)
    at, batches = rng.randrange(50), []
    begin = at
    for _ in range(rng.randrange(1, 12)):
        at += rng.choice([0, 0, 0, rng.randrange(5)])
        count = rng.randrange(1, 8)
        holes = tuple(offset for offset in range(at + 1, at + count - 1) if rng.random() < 0.3)
        batches.append(_batch(at, count, holes=holes, compression=rng.randrange(5)))
        at += count
    end = rng.randrange(begin, at + 1)
    log = {record.offset: record for batch in batches for record in records(batch) if record.offset < end}
    steps, course = _course(method, batches, begin, end, start=begin if method == "identical" else 7)
    _require_contiguous(steps, course.map.begin, course.target)
    written = {}
    for step in steps:
        if isinstance(step, Append):
            [(header, view)] = split(step.batch)
            assert header.is_dense
            written |= {step.target + record.offset: record for record in records(view)}
    assert len(written) == len(log)
    for offset, record in log.items():
        there = written[course.map.record_at(offset)]
        assert there._replace(offset=offset) == record
        assert method == "mapped" or there.offset is not None
    assert OffsetMap.from_json(course.map.to_json()) == course.map
    if method == "identical":
        assert course.map.is_identical
        assert course.target == end


def test_pads_are_as_many_as_they_say() -> None:
    """Each pad is a batch that a broker takes: one record for every offset, none of which holds anything."""
    for count in (1, 63, 64, 65, 8191, 8192, 20_000):
        [(header, view)] = split(pad(count))
        assert header.is_dense
        assert header.count == count
        assert [record.offset for record in records(view)] == list(range(count))
        assert all(record[2:] == (None, None, ()) for record in records(view))
    assert sum(count for _, count in pads(2_500_000)) == 2_500_000


def test_a_map_that_is_not_ours_is_refused() -> None:
    """Missing fields, other types, runs that go back."""
    for said in ({}, {"begin": 0, "end": 1, "runs": 3}, {"begin": 0, "end": 1, "runs": [[0, 0, 5], [-9, 0, 1]]}):
        with pytest.raises(VaultError, match="map_unreadable"):
            OffsetMap.from_json(said)
