"""Everything one thread writes to a cluster: a lane to each leader, and how it goes on after one fell.

What belongs here: choosing the lane, keeping few writes under way, and finding out after a lost connection or a moved
leader what of them was done. What stays out: a single request (produce.py), what to write (restore_write.py).

What was under way when a connection fell was done up to where the partition ends now: never written twice, never left
out. That end is asked for until it stands still, since a broker may still work off what it had read from the socket.
"""

import time
from collections.abc import Callable
from typing import Final

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.batches import CRC_FROM
from dr_assets.stores.kafka.produce import Lane, Write, displaced
from dr_assets.stores.kafka.refusals import BrokerError
from dr_assets.stores.kafka.restore_read import batch_at
from dr_assets.stores.kafka.wire import LATEST, Cluster, Place

_AWAY: Final = frozenset({"kafka.unreachable", "kafka.timeout"})
_PATIENCE_S: Final = 180.0
# A busy broker may take its time for what it has read off a connection that fell.
_SETTLE_S: Final = 0.5
_SETTLE_TIMES: Final = 4
_PAUSE_S: Final = 0.5


class Lanes:
    """One thread's lanes. `written` is told of every write that is acknowledged, in each partition's order."""

    def __init__(self, cluster: Cluster, written: Callable[[Write], None]) -> None:
        self._cluster = cluster
        self._written = written
        self._lanes: dict[int, Lane] = {}

    def send(self, write: Write) -> None:
        """Write it behind what was sent to its partition before. Raises SourceError when that cannot be done."""
        try:
            lane = self._lane(write.place)
            while lane.is_full:
                self._written(lane.take())
            lane.send(write)
        except SourceError as error:
            self._recover(error, write)

    def drain(self) -> None:
        """Wait until everything that was sent is acknowledged."""
        try:
            for lane in list(self._lanes.values()):
                while lane.under_way:
                    self._written(lane.take())
        except SourceError as error:
            self._recover(error, None)

    def close(self) -> None:
        """End every connection; what is under way may be done or not."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    def _lane(self, place: Place) -> Lane:
        node = self._cluster.leader_of(*place)
        if node < 0:
            self._cluster.metadata([place[0]])
            node = self._cluster.leader_of(*place)
        lane = self._lanes.get(node)
        if lane is None:
            lane = self._lanes[node] = Lane(self._cluster.own_line(node))
        return lane

    def _recover(self, error: SourceError, unsent: Write | None) -> None:
        """Go on after `error`: everything under way is looked after, and what was not done is sent again."""
        deadline_s = time.monotonic() + _PATIENCE_S
        if isinstance(error, BrokerError) and error.is_transient:
            self._quiesce()
        open_ = self._taken_down(unsent)
        while True:
            if not _passes(error) or time.monotonic() > deadline_s:
                raise error
            time.sleep(_PAUSE_S)
            try:
                open_ = self._left_of(open_)
                while open_:
                    lane = self._lane(open_[0].place)
                    lane.send(open_[0])
                    self._written(lane.take())
                    open_.pop(0)
            except SourceError as again:
                error = again
                self._taken_down(None)
            else:
                return

    def _quiesce(self) -> None:
        """What was sent behind a refused write may yet be worked off: its answers say where it came to lie."""
        for lane in self._lanes.values():
            try:
                for write in lane.quiesce():
                    self._written(write)
            except SourceError as error:
                if error.code not in _AWAY:
                    raise

    def _taken_down(self, unsent: Write | None) -> list[Write]:
        """Everything that may not have been written, by partition in order; all lanes are closed."""
        found = [write for lane in self._lanes.values() for write in lane.under_way]
        if unsent is not None and not any(write is unsent for write in found):
            found.append(unsent)
        self.close()
        return found

    def _left_of(self, open_: list[Write]) -> list[Write]:
        """What of `open_` the cluster does not hold; what it does is told."""
        places = list(dict.fromkeys(write.place for write in open_))
        if not places:
            return []
        self._cluster.metadata(sorted({topic for topic, _ in places}))
        ends = settled_ends(self._cluster, places)
        left: list[Write] = []
        for write in open_:
            rest = _rest(write, ends[write.place])
            if rest is not None:
                left.append(rest)
            elif write.batch is not None and not holds(self._cluster, write):
                raise displaced(write.place, write.target, ends[write.place])
            else:
                self._written(write)
        for place in places:
            first = next((write for write in left if write.place == place), None)
            if first is not None and first.target != ends[place]:
                raise displaced(place, first.target, ends[place])
        return left


def settled_ends(cluster: Cluster, places: list[Place]) -> dict[Place, int]:
    """Where partitions end once that stands still: what a fallen connection had brought may still be worked off."""
    deadline_s = time.monotonic() + _PATIENCE_S
    before, still = cluster.list_offsets(places, LATEST), 0
    while True:
        time.sleep(_SETTLE_S)
        now = cluster.list_offsets(places, LATEST)
        still = still + 1 if now == before else 0
        if still == _SETTLE_TIMES:
            return now
        if time.monotonic() > deadline_s:
            [place, *_] = [place for place in places if now[place] != before[place]]
            raise displaced(place, before[place], now[place])
        before = now


def holds(cluster: Cluster, write: Write) -> bool:
    """Whether the batch that lies where this one belongs is this one; only its offset and leader are the broker's."""
    found = batch_at(cluster, write.place, write.topic_id, write.target)
    return found is not None and write.batch is not None and found[CRC_FROM:] == write.batch[CRC_FROM:]


def _passes(error: SourceError) -> bool:
    return error.code in _AWAY or (isinstance(error, BrokerError) and error.is_transient)


def _rest(write: Write, end: int) -> Write | None:
    """What is left of a write when its partition ends at `end`; filled offsets may be half done, a batch never is."""
    if write.end <= end:
        return None
    if write.target >= end or write.batch is not None:
        return write
    return Write(write.place, write.topic_id, end, write.end - end, None, write.transactional_id, write.producer_id)
