"""A topic that was just made: not every broker has heard of it when the controller has answered."""

from collections.abc import Sequence

from dr_assets.stores.kafka.line import PLAINTEXT
from dr_assets.stores.kafka.restore_topics import topic_id
from dr_assets.stores.kafka.wire import Cluster, Metadata, Partition, Topic, parse_bootstrap

NAME, ID = "bets", "7" * 32


def heard(*leaders: int) -> Metadata:
    """What a broker says that has heard of the topic, and of these leaders; of no topic where there are none."""
    partitions = tuple(Partition(index, leader, 0, (1,), (1,)) for index, leader in enumerate(leaders))
    return Metadata("id", 1, {}, {NAME: Topic(NAME, ID, is_internal=False, partitions=partitions)} if leaders else {})


class Hearing(Cluster):
    """A cluster whose brokers, asked in turn, have heard more or less."""

    def __init__(self, *said: Metadata) -> None:
        super().__init__(parse_bootstrap("127.0.0.1:9092"), PLAINTEXT, patience_s=180.0)
        self.said = [*said]

    def metadata(self, topics: Sequence[str] | None = None) -> Metadata:
        """The next one's answer, remembered for routing."""
        assert topics == [NAME]
        found = self.said.pop(0)
        self._topics = dict(found.topics)
        return found


def test_a_topics_id_is_known_once_a_broker_tells_every_leader() -> None:
    """One that knows nothing of it yet, or not all leaders, is no error: it is asked again."""
    whole = heard(1, 2)
    cluster = Hearing(whole, heard(), whole, heard(1, -1), whole, whole)
    assert topic_id(cluster, NAME) == ID
    assert cluster.said == []
