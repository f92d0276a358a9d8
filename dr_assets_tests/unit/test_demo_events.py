from dr_assets.casino.events import Published, Stored
from dr_assets.demo.events_story import compared


def event(offset: int, key: str = "", topic: str = "ledger.bet", partition: int = 0) -> Published:
    """An event at a place, with a key of its own unless given."""
    return Published(topic, partition, offset, key or f"{topic}/{partition}/{offset}")


def stored(*events: Published, player_id: int = 7, says: bool = True) -> list[Stored]:
    """As a cluster holds them."""
    return [Stored(each, player_id, says) for each in events]


FORGOTTEN = 42
PROMISED = [event(offset) for offset in range(10)] + [event(offset, topic="ledger.win") for offset in range(4)]


def test_everything_in_its_place_is_identical() -> None:
    """Nothing is lost, nothing moved; what else the cluster holds doesn't matter."""
    assert compared(PROMISED, stored(*PROMISED, event(10)), FORGOTTEN) == (0, True)


def test_the_last_of_a_partition_may_be_lost_and_are_counted() -> None:
    """Also all of a partition."""
    assert compared(PROMISED, stored(*PROMISED[:7]), FORGOTTEN) == (7, True)


def test_a_hole_before_something_that_came_back_is_no_loss_but_a_moved_offset() -> None:
    """What is gone from the middle is never called the last seconds'."""
    assert compared(PROMISED, stored(*(each for each in PROMISED if each.offset != 2)), FORGOTTEN) == (0, False)


def test_another_event_at_a_promised_offset_is_found() -> None:
    """Shifted by one, or replaced."""
    moved = [event(each.offset + 1, each.idempotency_key, each.topic) for each in PROMISED]
    assert not compared(PROMISED, stored(*moved), FORGOTTEN)[1]
    assert not compared(PROMISED, stored(*PROMISED[1:], event(0, "another")), FORGOTTEN)[1]


def test_no_promise_is_no_proof() -> None:
    """Without a single acknowledged event nothing is identical."""
    assert compared([], stored(*PROMISED), FORGOTTEN) == (0, False)


def test_who_was_forgotten_says_nothing_in_their_places() -> None:
    """Their records count as in place without a word; one that still speaks does not."""
    others, theirs = stored(*PROMISED[1:]), event(0, "gone")
    assert compared(PROMISED, [*others, *stored(theirs, player_id=FORGOTTEN, says=False)], FORGOTTEN) == (0, True)
    assert not compared(PROMISED, [*others, *stored(PROMISED[0], player_id=FORGOTTEN)], FORGOTTEN)[1]
