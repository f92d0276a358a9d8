from datetime import UTC, datetime, timedelta

import pytest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.pieces import BACKLOG_PIECE_BYTES, PIECE_BYTES, PIECE_CAP_BYTES, Cutter, Marks
from dr_assets.stores.postgres.protocol import WalData

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _wal(begin: int, size: int, at_s: float = 0.0) -> WalData:
    return WalData(begin, begin + size, T0 + timedelta(seconds=at_s), b"w" * size)


def test_a_piece_is_due_one_linger_after_its_first_byte_however_much_follows() -> None:
    """A trickle of bytes does not push the cut away: the first byte's age alone decides."""
    cutter = Cutter(0x100, linger_s=0.5)
    assert cutter.due_in_s(0.0) is None
    cutter.add(_wal(0x100, 10), now_s=10.0)
    cutter.add(_wal(0x10A, 10), now_s=10.4)
    assert cutter.due_in_s(10.4) == pytest.approx(0.1)
    assert cutter.due_in_s(10.5) == 0.0
    assert cutter.due_in_s(99.0) == 0.0


def test_a_piece_is_due_at_one_mebibyte() -> None:
    """A full piece does not wait for its linger."""
    cutter = Cutter(0, linger_s=0.5)
    cutter.add(_wal(0, PIECE_BYTES - 1), now_s=0.0)
    assert cutter.due_in_s(0.0) == 0.5
    cutter.add(_wal(PIECE_BYTES - 1, 1), now_s=0.0)
    assert cutter.due_in_s(0.0) == 0.0


def test_pieces_follow_each_other_without_overlap() -> None:
    """What is cut holds exactly the bytes since the last cut, with the source's times, and the next begins there."""
    cutter = Cutter(16, linger_s=0.5)
    cutter.add(_wal(16, 4, at_s=1), now_s=0.0)
    cutter.add(_wal(20, 4, at_s=2), now_s=0.0)
    first = cutter.cut()
    assert first is not None
    assert (first.begin, first.end, first.data.whole()) == (16, 24, b"w" * 8)
    assert (first.begin_at, first.end_at) == (T0 + timedelta(seconds=1), T0 + timedelta(seconds=2))
    assert cutter.cut() is None
    cutter.add(_wal(24, 1), now_s=0.0)
    second = cutter.cut()
    assert second is not None
    assert (second.begin, second.end) == (24, 25)


@pytest.mark.parametrize("begin", [15, 17])
def test_a_stream_that_skips_or_repeats_is_refused(begin: int) -> None:
    """A hole or an overlap in what the server sends is an error, never a piece."""
    cutter = Cutter(16, linger_s=0.5)
    with pytest.raises(SourceError, match=r"source\.stream_gap"):
        cutter.add(_wal(begin, 4), now_s=0.0)


def test_a_growing_piece_stays_below_its_cap() -> None:
    """Reading on while the piece isn't full never makes it larger than 8 MiB."""
    cutter, message = Cutter(0, linger_s=0.5), 128 * 1024
    while not cutter.is_full():
        cutter.add(_wal(cutter.position, message), now_s=0.0)
    assert PIECE_CAP_BYTES - PIECE_BYTES < cutter.size_bytes <= PIECE_CAP_BYTES


def test_lag_samples_are_spread_over_the_whole_piece() -> None:
    """However many messages make a piece, the samples kept are few and even: early ones alone would all look slow."""
    cutter = Cutter(0, linger_s=0.5)
    for number in range(5000):
        cutter.add(_wal(number, 1), now_s=float(number))
    piece = cutter.cut()
    assert piece is not None
    times = [arrival.at_s for arrival in piece.arrivals]
    assert 200 < len(times) <= 513
    assert times[-1] > 4900
    assert sum(times) / len(times) == pytest.approx(2500, rel=0.05)


def test_a_heartbeat_counts_once_the_stream_has_passed_it() -> None:
    """The recovery point is the newest heartbeat at or before a position, and it carries on from an earlier run."""
    marks = Marks(T0)
    marks.note(50, T0 + timedelta(seconds=2))
    marks.note(90, T0 + timedelta(seconds=4))
    assert marks.at_position(49) == T0
    assert marks.at_position(50) == T0 + timedelta(seconds=2)
    assert marks.at_position(1000) == T0 + timedelta(seconds=4)


def test_far_behind_a_piece_is_due_when_it_is_large_and_near_the_end_when_it_is_not() -> None:
    """A backlog pays for a put once in seven MiB or fifteen; near its end one MiB is enough, and more is cut."""
    cutter = Cutter(0, 60.0)
    for number in range(2):
        cutter.add(_wal(number * PIECE_BYTES, PIECE_BYTES), 0.0)
    assert cutter.due_in_s(0.0) == 0.0
    cutter.behind_bytes = PIECE_CAP_BYTES
    assert cutter.due_in_s(0.0) == 60.0
    for number in range(2, 7):
        cutter.add(_wal(number * PIECE_BYTES, PIECE_BYTES), 0.0)
    assert cutter.due_in_s(0.0) == 0.0
    assert not cutter.is_full()
    cutter.behind_bytes = BACKLOG_PIECE_BYTES
    for number in range(7, 15):
        assert cutter.due_in_s(0.0) == 60.0
        cutter.add(_wal(number * PIECE_BYTES, PIECE_BYTES), 0.0)
    assert cutter.due_in_s(0.0) == 0.0
    assert not cutter.is_full()
    cutter.behind_bytes = 0
    assert (cutter.due_in_s(0.0), cutter.is_full()) == (0.0, True)
