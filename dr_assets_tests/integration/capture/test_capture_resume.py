"""Where a capture goes on, by what lies in the vault alone: no engine is started here."""

from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from dr_assets.stores.postgres.capture_facts import Anchor, Gap, record_capture, record_gap
from dr_assets.stores.postgres.protocol import SystemIdentity
from dr_assets.stores.postgres.resume import find_stored_end, size_bytes
from dr_assets.vault.facts import facts

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HERE = SystemIdentity("7700", 1, 1 << 40)


@pytest.fixture
def put(rig: ModuleType, memory_vault: Any) -> Any:
    """`put(first, last, previous, epoch)`: a piece in the vault `put.vault`; the digest of its header."""
    dataset = rig.make_dataset()
    vault = memory_vault(dataset)

    def make(first: int, last: int, previous: str | None, epoch: int = 1) -> str:
        prepared = vault.prepare(
            dataset="ledger", stream="wal", kind="wal", system_id=HERE.system_id, timeline=HERE.timeline, first=first,
            last=last, begin_at=AT, end_at=AT, plaintext=b"w" * (last - first), previous=previous, writer_epoch=epoch,
        )  # fmt: skip
        vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", vault.clock()))
        return str(prepared.header.digest)

    make.vault = vault  # type: ignore[attr-defined]
    return make


def _anchor(stored: int, header: str | None, epoch: int = 1, begin: int = 0x1000) -> Anchor:
    return Anchor(HERE.system_id, HERE.timeline, begin, stored, header, None, epoch, None)


def test_the_walk_follows_the_links_from_the_newest_fact(put: Any) -> None:
    """Position, header and epoch are those of the last piece that is linked to the anchor."""
    first = put(0x1000, 0x2000, None)
    second = put(0x2000, 0x3000, first)
    record_capture(put.vault, "ledger", "position", _anchor(0x2000, first))
    end = find_stored_end(put.vault, "ledger", HERE)
    assert end is not None
    assert (end.begin, end.end, end.header, end.writer_epoch) == (0x1000, 0x3000, second, 1)


def test_an_orphan_that_happens_to_begin_where_the_chain_ends_is_not_gone_on_from(put: Any) -> None:
    """Positions meet, digests don't: a piece behind a hole of a crashed run stays out once the hole is filled."""
    first = put(0x1000, 0x2000, None)
    lost = "ab" * 32
    put(0x3000, 0x4000, lost, epoch=1)
    filled = put(0x2000, 0x3000, first, epoch=2)
    record_capture(put.vault, "ledger", "started", _anchor(0x2000, first, epoch=2))
    end = find_stored_end(put.vault, "ledger", HERE)
    assert end is not None
    assert (end.end, end.header) == (0x3000, filled)


def test_an_orphan_at_the_anchor_itself_is_not_gone_on_from(put: Any) -> None:
    """The same accident right at the position that the fact names."""
    first = put(0x1000, 0x2000, None)
    put(0x2000, 0x3000, "ab" * 32, epoch=1)
    record_capture(put.vault, "ledger", "started", _anchor(0x2000, first, epoch=2))
    end = find_stored_end(put.vault, "ledger", HERE)
    assert end is not None
    assert (end.end, end.header, end.writer_epoch) == (0x2000, first, 2)


def test_an_accident_further_on_does_not_decide_a_fork_before_it(put: Any) -> None:
    """A dead writer's piece that only seems to lead far must not win over the shorter chain that was acknowledged."""
    first = put(0x1000, 0x2000, None)
    put(0x2000, 0x2800, first, epoch=1)
    put(0x2800, 0x9000, "ab" * 32, epoch=1)
    acknowledged = put(0x2000, 0x3000, first, epoch=2)
    record_capture(put.vault, "ledger", "started", _anchor(0x2000, first, epoch=2))
    end = find_stored_end(put.vault, "ledger", HERE)
    assert end is not None
    assert (end.end, end.header, end.writer_epoch) == (0x3000, acknowledged, 2)


def test_another_stream_since_does_not_hide_the_anchor(put: Any) -> None:
    """After an excursion to another server the old stream's own newest fact counts."""
    first = put(0x1000, 0x2000, None)
    record_capture(put.vault, "ledger", "stopped", _anchor(0x2000, first))
    record_capture(put.vault, "ledger", "started", Anchor("8800", 1, 0, 0, None, None, 1, None))
    end = find_stored_end(put.vault, "ledger", HERE)
    assert end is not None
    assert (end.begin, end.end) == (0x1000, 0x2000)


def test_pieces_without_any_fact_are_still_found(put: Any) -> None:
    """Facts save time; without one the walk begins at the first piece."""
    assert find_stored_end(put.vault, "ledger", HERE) is None
    first = put(0x1000, 0x2000, None)
    put(0x2000, 0x3000, first)
    end = find_stored_end(put.vault, "ledger", HERE)
    assert end is not None
    assert (end.begin, end.end) == (0x1000, 0x3000)


def test_one_gap_is_one_fact_however_often_it_is_met(put: Any) -> None:
    """A supervisor that restarts the capture for ever leaves one locked object, a different gap another."""
    gap = Gap("7700", 1, 0x2000, None, "slot lost")
    for _ in range(3):
        record_gap(put.vault, "ledger", gap)
    record_gap(put.vault, "ledger", Gap("7700", 1, 0x2000, 0x9000, "dropped"))
    assert len(list(facts(put.vault, "ledger", "gap"))) == 2


@pytest.mark.parametrize(
    ("shown", "expected"), [("16MB", 16 << 20), ("1GB", 1 << 30), ("512kB", 512 << 10), ("64B", 64)]
)
def test_a_wal_segment_size_is_read_as_show_prints_it(shown: str, expected: int) -> None:
    """Every unit that SHOW uses."""
    assert size_bytes(shown) == expected
