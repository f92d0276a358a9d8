"""Where every stream stands by what was handed to packs, and since when all is there: the loop's own book-keeping.

What belongs here: rows, the recovery point. What stays out: what is being fetched (book.py), threads.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from dr_assets.stores.kafka.fetcher import Brought
from dr_assets.stores.kafka.keeper import Begun, Ended, Looked
from dr_assets.stores.kafka.pack import Part
from dr_assets.vault.format.pack import Row, Stream


@dataclass(slots=True)
class Ledger:
    """For one thread. `changed`: a stream began or ended since the last table, so the next pack needs one."""

    rows: dict[Stream, Row]
    topics: dict[str, str]
    changed: bool = True
    gaps: int = 0
    _reached: dict[Stream, datetime] = field(default_factory=dict)
    _looked_at: datetime | None = None

    def begin(self, begun: Begun) -> None:
        """A stream was begun."""
        self.topics[begun.row.topic_id] = begun.topic
        self.rows[begun.row.stream] = begun.row
        self.changed = True

    def end(self, ended: Ended) -> None:
        """A stream's topic is gone."""
        self._drop(ended.stream)

    def look(self, looked: Looked) -> None:
        """Every topic that was made before is known."""
        self._looked_at = looked.at

    def add(self, part: Part) -> bool:
        """Batches go into the next pack; False where their stream ended meanwhile, so that they don't."""
        row = self.rows.get(part.stream)
        if row is None:
            return False
        self.gaps += part.broken is not None
        self.rows[part.stream] = replace(
            row, next=part.next, leader_epoch=part.leader_epoch, high_watermark=part.high_watermark,
            last_stable=part.last_stable, log_start=part.log_start,
            complete=row.complete or part.next >= part.high_watermark,
        )  # fmt: skip
        return True

    def reach(self, brought: Brought) -> list[Stream]:
        """Streams that are fetched to their ends; returns the older generations that are replaced by that."""
        replaced: list[Stream] = []
        for stream in brought.reached:
            row = self.rows.get(stream)
            if row is None:
                continue
            self._reached[stream] = brought.asked_at
            if not row.complete:
                self.rows[stream] = replace(row, complete=True)
            if row.generation:
                replaced += [
                    other for other in self.rows if other[:2] == stream[:2] and other[2] < row.generation
                ]  # fmt: skip
        for stream in replaced:
            self._drop(stream)
        return replaced

    def recovery_point(self) -> datetime | None:
        """Every record that was acknowledged before is in a pack, or in what is gathered for the next one.

        None where nothing is captured: a pattern that fits no topic, or a user who is shown none, is no standing.
        """
        if self._looked_at is None or not self.rows:
            return None
        newest: dict[tuple[str, int], datetime] = {}
        for stream in self.rows:
            at = self._reached.get(stream)
            if at is not None:
                newest[stream[:2]] = max(newest.get(stream[:2], at), at)
        if {stream[:2] for stream in self.rows} - newest.keys():
            return None
        return min([self._looked_at, *newest.values()])

    @property
    def topics_count(self) -> int:
        """How many topics are captured."""
        return len({stream[0] for stream in self.rows})

    @property
    def partitions_count(self) -> int:
        """How many partitions."""
        return len({stream[:2] for stream in self.rows})

    def table(self) -> tuple[Row, ...]:
        """All rows, in the order of their streams."""
        return tuple(self.rows[stream] for stream in sorted(self.rows))

    def _drop(self, stream: Stream) -> None:
        self.rows.pop(stream, None)
        self._reached.pop(stream, None)
        self.changed = True
