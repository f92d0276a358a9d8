"""What a keeper makes of a cluster's metadata: when it may say that every topic is known."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from dr_assets.stores.kafka.book import Book
from dr_assets.stores.kafka.keeper import Begun, Keeper, Kept, Looked
from dr_assets.stores.kafka.line import PLAINTEXT, Address
from dr_assets.stores.kafka.wire import Cluster, Metadata, Partition, Place, Topic

DEADLINE_S = 120.0
ID = "ab" * 16


class Said(Cluster):
    """A cluster of which only the metadata is known: no broker with one disk can be made to have no leader."""

    def __init__(self) -> None:
        super().__init__((Address("nowhere", 1),), PLAINTEXT, patience_s=0.0)
        self.leaders: tuple[int, ...] = ()
        self.asked = threading.Semaphore(0)

    def metadata(self, topics: Sequence[str] | None = None) -> Metadata:
        """One topic; a partition for each leader."""
        del topics
        self.asked.release()
        partitions = tuple(Partition(index, leader, 0, (1,), ()) for index, leader in enumerate(self.leaders))
        return Metadata("cluster", 1, {}, {"bets": Topic("bets", ID, is_internal=False, partitions=partitions)})

    def list_offsets(self, places: Sequence[Place], *_: Any, **__: Any) -> dict[Place, int]:  # type: ignore[override]
        """Every log begins at 0."""
        return dict.fromkeys(places, 0)


class Idle:
    """A fetcher that fetches nothing."""

    trouble = error = None
    throttled_s = 0.0

    def start(self) -> None:
        """Nothing to do."""

    stop = join = start


def test_topics_are_known_only_when_each_partition_has_a_leader() -> None:
    """A partition that nobody leads may hold records: until it can be begun no recovery point may pass it by."""
    cluster, told = Said(), list[Kept]()
    missing: Any = None
    keeper = Keeper(
        cluster, missing, "events", Book(), covers=lambda _: True, topics=no_names(), before=set(),
        compacted_every=timedelta(days=7), is_compacted=lambda _: False, fetcher=lambda _: idle(), tell=told.append,
        clock=lambda: datetime.now(UTC),
    )  # fmt: skip
    keeper.start()
    try:
        for leaders in ((), (1, -1)):
            cluster.leaders = leaders
            for _ in range(3):
                keeper.want()
                assert cluster.asked.acquire(timeout=DEADLINE_S)
            assert not any(isinstance(each, Looked) for each in told)
        wait(lambda: "bets" in (keeper.trouble or "") and any(isinstance(each, Begun) for each in told))
        assert [each.row.partition for each in told if isinstance(each, Begun)] == [0]
        cluster.leaders = (1, 1)
        wait(lambda: any(isinstance(each, Looked) for each in told))
        assert keeper.trouble is None
    finally:
        keeper.stop()
    kinds = [type(each) for each in told]
    assert kinds[:3] == [Begun, Begun, Looked]
    assert keeper.error is None


def no_names() -> Mapping[str, str]:
    """Nothing was captured before."""
    return {}


def idle() -> Any:
    """One of them."""
    return Idle()


def wait(holds: Callable[[], bool]) -> None:
    """Until it holds."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
