"""Batches that can't be produced as they are: made anew, record by record, nothing of a record changed.

What belongs here: why a batch must be made anew, and doing it. What stays out: where it goes (restore_steps.py).

Three kinds: what compaction left holes in (a broker wants one record for every offset), what the broker stamped itself
(LogAppendTime is refused from a producer: the stamp becomes each record's own time), and what a cut goes through.
A broker's mark of when tombstones may go (the delete horizon) is its own bookkeeping and is not carried along.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from dr_assets.stores.kafka.batches import BatchHeader, Record, encode, records

# A hole ends a batch where holes are kept; few records a batch would multiply requests, so nothing else does.
_LEVEL: Final = 3


def must_be_made_anew(header: BatchHeader, begin: int, end: int) -> bool:
    """Whether this data batch can't go as it is. `begin` and `end` are the offsets that are wanted."""
    return (
        not header.is_dense
        or header.is_log_append_time
        or header.has_delete_horizon
        or header.next_offset > end
        or header.base_offset < begin
    )


def wanted_records(batch: memoryview, begin: int, end: int) -> list[Record]:
    """The batch's records with offsets in [begin, end)."""
    return [record for record in records(batch) if begin <= record.offset < end]


def dense_runs(found: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Records without a hole between them, run by run."""
    begin = 0
    for at in range(1, len(found) + 1):
        if at == len(found) or found[at].offset != found[at - 1].offset + 1:
            yield found[begin:at]
            begin = at


def made_anew(header: BatchHeader, found: Sequence[Record]) -> bytes:
    """One batch of these records at base offset 0, without holes, compressed as it was, of nobody's producer."""
    return encode(
        found,
        compression=header.compression,
        level=_LEVEL if header.compression else None,
        base_offset=0,
        transactional=header.is_transactional,
    )
