import itertools
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dr_assets.casino.acks import AckLog, acknowledged, read_acks


def _write(folder: Path, run: str, worker: int, ids: list[int], unknown: tuple[int, ...] = ()) -> None:
    with AckLog(folder, run, worker) as log:
        for attempt, transfer_id in enumerate(ids, start=1):
            log.acknowledged(transfer_id, attempt)
        for attempt in unknown:
            log.unknown(attempt)


def test_every_acknowledged_commit_of_every_run_and_worker_comes_back(tmp_path: Path) -> None:
    """What was written is read: ids, the key of the attempt, and a time between before and after."""
    before_ns = time.time_ns()
    _write(tmp_path, "r1", 0, [7, 9])
    _write(tmp_path, "r1", 1, [8])
    _write(tmp_path, "r2", 0, [11], unknown=(5,))
    acks = sorted(acknowledged(tmp_path), key=lambda ack: ack.transfer_id)
    assert [(ack.transfer_id, ack.idempotency_key) for ack in acks] == [
        (7, "r1/000/1"),
        (8, "r1/001/1"),
        (9, "r1/000/2"),
        (11, "r2/000/1"),
    ]
    assert all(before_ns <= ack.at_ns <= time.time_ns() for ack in acks)
    assert abs(acks[0].acknowledged_at - datetime.now(UTC)) < timedelta(minutes=1)
    record = read_acks(tmp_path)
    assert record.runs == ("r1", "r2")
    assert record.unknown["idempotency_key"].to_pylist() == ["r2/000/5"]


def test_a_torn_last_line_is_left_out_and_counted_wherever_it_tears(tmp_path: Path) -> None:
    """A killed workload may leave half a line; half a number must never pass for a whole one."""
    _write(tmp_path, "r", 0, [1000, 2000])
    file = tmp_path / "r.000.acks"
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        file.write_bytes(whole[:length])
        record = read_acks(tmp_path)
        assert record.acks["transfer_id"].to_pylist() == [1000]
        assert record.torn_lines == (length > first)


def test_an_empty_or_absent_folder_has_no_acknowledgements(tmp_path: Path) -> None:
    """No traffic yet is no error."""
    _write(tmp_path, "r", 0, [])
    assert read_acks(tmp_path).acks.num_rows == 0
    assert read_acks(tmp_path / "absent").acks.num_rows == 0


def test_a_run_never_appends_to_another_ones_file(tmp_path: Path) -> None:
    """Two runs with one name would mix their attempts' numbers: refused."""
    _write(tmp_path, "r", 0, [1])
    with pytest.raises(FileExistsError):
        AckLog(tmp_path, "r", 0)


def test_each_line_is_in_the_file_before_the_next_transaction(tmp_path: Path) -> None:
    """Write-through: another process sees an acknowledgement as soon as the call returns, the log still open."""
    with AckLog(tmp_path, "r", 0) as log:
        for attempt in itertools.islice(itertools.count(1), 5):
            log.acknowledged(attempt * 10, attempt)
            assert read_acks(tmp_path).acks.num_rows == attempt
